//! A file of lines that grows: of whole lines alone, whoever wrote there before, and whatever becomes of a write.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use podnet_flow::Item;

/// No record is longer: a pod's names and labels are.
const LONGEST: u64 = 1 << 20;
/// How a record begins, with an id or without one.
const RECORDS: [&[u8]; 2] = [br#"{"type":""#, br#"{"record":""#];

/// The file, open at its end.
#[derive(Debug)]
pub struct Lines {
    file: File,
    /// Of the last write there is a part at its end that could not be taken out.
    is_torn: bool,
}

/// Not all lines could be written.
#[derive(Debug)]
pub struct Short {
    /// So many bytes are in the file: the first lines, each as a whole.
    pub written: usize,
    /// Why no more.
    pub error: io::Error,
}

impl Lines {
    /// Goes on behind what is there, or begins. Of a record at the end that a killed process began, what is there is taken out: whether that was
    /// so, which means that it is lost. Any other last line is ended.
    ///
    /// # Errors
    /// Where it cannot be added to, or what is there not be read.
    pub fn open(path: &Path) -> io::Result<(Self, bool)> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let about = file.metadata()?;
        let mut is_cut = false;
        if about.is_file() && about.len() > 0 {
            let last = last_line(path, about.len())?;
            is_cut = is_part_of_a_record(&last);
            if is_cut {
                file.set_len(about.len() - last.len() as u64)?;
            } else if !last.is_empty() {
                file.write_all(b"\n")?;
            }
        }
        Ok((Self { file, is_torn: false }, is_cut))
    }

    /// How many bytes there are; none is known of what is no file.
    ///
    /// # Errors
    /// What the system refused.
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether there is nothing.
    ///
    /// # Errors
    /// What the system refused.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Adds lines, each with its end.
    ///
    /// # Errors
    /// Where not all of them found room; of the first that did not, there is nothing.
    pub fn add(&mut self, lines: &[u8]) -> Result<(), Short> {
        if self.is_torn {
            self.file.write_all(b"\n").map_err(|error| Short { written: 0, error })?;
            self.is_torn = false;
        }
        let (written, error) = self.write(lines);
        let Some(error) = error else { return Ok(()) };
        let done = lines.get(..written).unwrap_or_default();
        let whole = done.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.is_torn = whole < written && !self.take_out((written - whole) as u64);
        Err(Short { written: whole, error })
    }

    /// How many bytes it took, and why no more.
    fn write(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }

    /// Takes the bytes that were written last out again, unless others wrote behind them. Whether that was done.
    fn take_out(&mut self, bytes: u64) -> bool {
        let (end, own) = (self.file.metadata().map(|about| about.len()), self.file.stream_position());
        match (end, own) {
            (Ok(end), Ok(own)) if end == own => self.file.set_len(end.saturating_sub(bytes)).is_ok(),
            _ => false,
        }
    }
}

/// What is behind the last end of a line of a file of so many bytes, as far as it may be one record.
fn last_line(path: &Path, length: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let from = length.saturating_sub(LONGEST);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(length - from).read_to_end(&mut end)?;
    let begins = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    Ok(end.split_off(begins))
}

/// Whether it begins as a record, and is none.
fn is_part_of_a_record(line: &[u8]) -> bool {
    let begins_as = |record: &[u8]| {
        let begins = line.len().min(record.len());
        line.get(..begins) == record.get(..begins)
    };
    !line.is_empty() && RECORDS.into_iter().any(begins_as) && serde_json::from_slice::<Item>(line).is_err()
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, process::Command};

    use super::*;

    const GAP: &str = r#"{"type":"gap","start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:00:00Z","node":"node1","at":"kernel","packets":1,"bytes":0,"flows":0}"#;

    #[test]
    fn what_a_killed_process_left_of_a_record_is_taken_out_and_no_record_is_glued_to_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flows.jsonl");
        for (found, is_cut, expected) in [
            (String::new(), false, String::new()),
            (format!("{GAP}\n"), false, format!("{GAP}\n")),
            // It was written as a whole, but for its end.
            (format!("{GAP}\n{GAP}"), false, format!("{GAP}\n{GAP}\n")),
            (format!("{GAP}\n{}", &GAP[..50]), true, format!("{GAP}\n")),
            (format!("{GAP}\n{}", &GAP[..3]), true, format!("{GAP}\n")),
            (GAP[..50].to_owned(), true, String::new()),
            (format!("{GAP}\n{}", r#"{"record":"node1/1/2","type":"g"#), true, format!("{GAP}\n")),
            // That is somebody else's.
            ("a note".to_owned(), false, "a note\n".to_owned()),
            ("[1, 2]\n{\"a\": 1".to_owned(), false, "[1, 2]\n{\"a\": 1\n".to_owned()),
        ] {
            fs::write(&path, &found).unwrap();
            let (mut lines, cut) = Lines::open(&path).unwrap();
            assert_eq!((cut, lines.len().unwrap()), (is_cut, expected.len() as u64), "{found:?}");
            lines.add(b"more\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{expected}more\n"), "{found:?}");
        }
    }

    /// A file system of 16 KiB, which goes with the value.
    pub(crate) struct Small(pub(crate) tempfile::TempDir);

    impl Small {
        pub(crate) fn new() -> Self {
            let on = tempfile::tempdir().unwrap();
            let mounted =
                Command::new("mount").args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"]).arg(on.path()).status().unwrap();
            assert!(mounted.success(), "this test needs to mount");
            Self(on)
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).output();
        }
    }

    #[test]
    fn a_line_that_finds_no_room_leaves_nothing_behind_and_the_next_follows_the_last_whole_one() {
        let small = Small::new();
        let (path, other) = (small.0.path().join("flows.jsonl"), small.0.path().join("other"));
        // A page of four is another's.
        fs::write(&other, [7; 4096]).unwrap();
        let (mut lines, _) = Lines::open(&path).unwrap();
        let line = format!("{}\n", "x".repeat(999));
        let Short { written, error } = lines.add(line.repeat(20).as_bytes()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        assert!((1000..20_000).contains(&written) && written % 1000 == 0, "{written}");
        assert_eq!(lines.len().unwrap(), written as u64);
        fs::remove_file(&other).unwrap();
        lines.add(b"y\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}y\n", line.repeat(written / 1000)));
    }
}
