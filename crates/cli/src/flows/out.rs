//! Where flows are printed: the output, or a file that others may have written to before.

use std::{
    io::{self, Stdout, Write},
    path::Path,
};

use podnet_agent::flows::Lines;
use podnet_flow::{
    Item,
    jsonl::Writer,
    output::{Form, heading, line},
};

use crate::report::{Doing, Failure};

pub(super) struct Out {
    form: Form,
    to: To,
    name: String,
    lines: Writer,
}

enum To {
    Output(Stdout),
    File(Lines),
}

impl Out {
    /// Prints to a file, behind what is in it, or else to the output.
    pub(super) fn open(file: Option<&Path>, form: Form) -> Result<Self, Failure> {
        let (to, name, is_begun) = match file {
            None => (To::Output(io::stdout()), "the output".to_owned(), false),
            Some(path) => {
                let name = path.display().to_string();
                let (lines, is_cut) = Lines::open(path).doing(|| format!("cannot add to {name}"))?;
                if is_cut {
                    eprintln!(
                        "podnet: who wrote to {name} before was killed while it wrote a record; that one is missing"
                    );
                }
                let is_begun = lines.is_empty().is_ok_and(|is_empty| !is_empty);
                (To::File(lines), name, is_begun)
            }
        };
        let mut out = Self { form, to, name, lines: Writer::default() };
        if let Some(heading) = heading(form).filter(|_| !is_begun) {
            out.put(format!("{heading}\n").as_bytes())?;
        }
        Ok(out)
    }

    pub(super) fn write(&mut self, items: &[Item]) -> Result<(), Failure> {
        let mut text = Vec::new();
        for item in items {
            if self.form == Form::JsonLines {
                self.lines.add(&mut text, None, item);
            } else {
                text.extend_from_slice(line(self.form, item).as_bytes());
                text.push(b'\n');
            }
        }
        if text.is_empty() { Ok(()) } else { self.put(&text) }
    }

    /// Lines, each with its end.
    fn put(&mut self, text: &[u8]) -> Result<(), Failure> {
        let written = match &mut self.to {
            To::Output(output) => output.write_all(text).and_then(|()| output.flush()),
            To::File(file) => file.add(text).map_err(|short| short.error),
        };
        match written {
            // Who reads this has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            written => written.doing(|| format!("cannot write to {}", self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(path: &Path, form: Form, item: &Item) {
        let Ok(mut out) = Out::open(Some(path), form) else { panic!("it cannot be opened") };
        assert!(out.write(std::slice::from_ref(item)).is_ok());
    }

    #[test]
    fn records_go_behind_the_whole_ones_that_are_there_also_where_who_wrote_was_killed() {
        let gap = r#"{"type":"gap","start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:00:00Z","node":"node1","at":"kernel","packets":1,"bytes":0,"flows":0}"#;
        let item: Item = serde_json::from_str(gap).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flows.jsonl");
        print(&path, Form::JsonLines, &item);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{gap}\n"));
        std::fs::write(&path, format!("{gap}\n{}", &gap[..70])).unwrap();
        print(&path, Form::JsonLines, &item);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{gap}\n{gap}\n"));
        // The names of values stand there once.
        let values = directory.path().join("flows.csv");
        (0..2).for_each(|_| print(&values, Form::Csv, &item));
        let text = std::fs::read_to_string(&values).unwrap();
        assert_eq!((text.matches("id,report").count(), text.lines().count()), (1, 3), "{text}");
    }
}
