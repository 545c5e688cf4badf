//! `podnet logs`.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    time::Duration,
};

use crate::{
    arguments::LogsOptions,
    cluster::Cluster,
    layout,
    report::{Doing, Failure, require_root},
};

pub(crate) fn run(options: &LogsOptions) -> Result<(), Failure> {
    require_root("logs")?;
    Cluster::require()?;
    let known = processes()?;
    let Some(wanted) = &options.process else {
        println!("Logs: {}", known.join(", "));
        println!("Show one with: podnet logs {}", known.first().map_or("apiserver", String::as_str));
        return Ok(());
    };
    let chosen: Vec<&String> = known.iter().filter(|name| matches(name, wanted)).collect();
    if chosen.is_empty() {
        return Err(
            Failure::new(format!("there is no log of {wanted:?}")).remedy(format!("there are: {}", known.join(", ")))
        );
    }
    let mut logs = Vec::new();
    for name in &chosen {
        let prefix = if chosen.len() > 1 { format!("{name} | ") } else { String::new() };
        logs.push(Log::open(name, prefix)?);
    }
    finish(print_all(&mut logs, options))
}

/// The last lines of a process's log, for the message of a failure; none where there is no log.
pub(crate) fn last_lines(process: &str, count: usize) -> Vec<String> {
    let mut text = Vec::new();
    let printed = Log::open(process, String::new()).map(|mut log| log.print_tail(&mut text, count));
    match printed {
        Ok(Ok(())) => String::from_utf8_lossy(&text).lines().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// A closed pipe (`podnet logs … | head`) is the reader's way to say enough.
fn finish(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.doing(|| "cannot show the log".into()),
    }
}

fn print_all(logs: &mut [Log], options: &LogsOptions) -> io::Result<()> {
    let mut output = io::stdout().lock();
    for log in &mut *logs {
        log.print_tail(&mut output, options.tail)?;
    }
    if !options.follow {
        return Ok(());
    }
    loop {
        let mut any = false;
        for log in &mut *logs {
            any |= log.print_new(&mut output)?;
        }
        output.flush()?;
        if !any {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// `node1` means its runtime and its agent, `agent` every node's agent.
fn matches(name: &str, wanted: &str) -> bool {
    name == wanted || name.strip_prefix(wanted) == Some("-agent") || (wanted == "agent" && name.ends_with("-agent"))
}

fn processes() -> Result<Vec<String>, Failure> {
    let directory = layout::logs();
    let entries = fs::read_dir(&directory).doing(|| format!("cannot list {}", directory.display()))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".log").map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

struct Log {
    prefix: String,
    reader: BufReader<File>,
    /// A line whose end was not written yet.
    partial: String,
}

impl Log {
    fn open(name: &str, prefix: String) -> Result<Self, Failure> {
        let path = layout::log(name);
        let file = File::open(&path).doing(|| format!("cannot read {}", path.display()))?;
        Ok(Self { prefix, reader: BufReader::new(file), partial: String::new() })
    }

    fn next_line(&mut self) -> io::Result<Option<String>> {
        self.reader.read_line(&mut self.partial)?;
        Ok(self.partial.ends_with('\n').then(|| std::mem::take(&mut self.partial)))
    }

    fn print_tail(&mut self, output: &mut impl Write, count: usize) -> io::Result<()> {
        let mut last = VecDeque::new();
        while let Some(line) = self.next_line()? {
            last.push_back(line);
            if last.len() > count {
                last.pop_front();
            }
        }
        last.iter().try_for_each(|line| write!(output, "{}{line}", self.prefix))
    }

    fn print_new(&mut self, output: &mut impl Write) -> io::Result<bool> {
        let mut any = false;
        // The supervisor cuts a log that grew too long.
        if self.reader.get_ref().metadata()?.len() < self.reader.stream_position()? {
            self.reader.seek(SeekFrom::Start(0))?;
            self.partial.clear();
        }
        while let Some(line) = self.next_line()? {
            write!(output, "{}{line}", self.prefix)?;
            any = true;
        }
        Ok(any)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::BufReader};

    use super::{Log, matches};

    #[test]
    fn a_log_that_was_cut_is_followed_from_its_new_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        fs::write(&path, "one\ntwo\n").unwrap();
        let reader = BufReader::new(fs::File::open(&path).unwrap());
        let mut log = Log { prefix: String::new(), reader, partial: String::new() };
        let mut shown = Vec::new();
        assert!(log.print_new(&mut shown).unwrap() && !log.print_new(&mut shown).unwrap());
        fs::write(&path, "3\n").unwrap();
        assert!(log.print_new(&mut shown).unwrap());
        assert_eq!(String::from_utf8(shown).unwrap(), "one\ntwo\n3\n");
    }

    #[test]
    fn a_node_means_its_runtime_and_its_agent_but_not_its_namesakes() {
        assert!(matches("node1", "node1") && matches("node1-agent", "node1"));
        assert!(!matches("node10", "node1") && !matches("node10-agent", "node1"));
        assert!(matches("node10-agent", "agent") && !matches("node10", "agent"));
    }
}
