//! The log file: where to begin, what was added, and what to do when another file has taken its name.

use std::{
    fs::{File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
};

use super::entry::{Entry, HEAD};

/// How much one look reads at most.
const BLOCK: usize = 64 * 1024;
/// A line of the file longer than this is dropped: the runtime cuts lines at 16 KiB.
const MAX_LINE: usize = 1024 * 1024;

/// Reads a log file's lines from where `tail` says, across rotations.
pub(super) struct LogTail {
    path: PathBuf,
    tail: Option<u64>,
    open: Option<Open>,
}

struct Open {
    file: File,
    position: u64,
    /// A line whose end has not been written yet.
    begun: Vec<u8>,
}

impl LogTail {
    /// Nothing is opened yet: a container that is about to start may have no log.
    pub(super) fn new(path: PathBuf, tail: Option<u64>) -> LogTail {
        LogTail { path, tail, open: None }
    }

    /// Hands on the lines that have come since, up to [`BLOCK`] bytes of them. Answers whether there was anything to read.
    pub(super) fn read(&mut self, mut line: impl FnMut(&[u8])) -> io::Result<bool> {
        let open = match &mut self.open {
            Some(open) => open,
            None => match open(&self.path, self.tail.take())? {
                Some(opened) => self.open.insert(opened),
                None => return Ok(false),
            },
        };
        if open.read(&mut line)? {
            return Ok(true);
        }
        // At its end. If another file has taken the name, what was written to this one until then is read before it is left.
        let Some(current) = metadata(&self.path)? else { return Ok(false) };
        if open.is(&current)? {
            return open.follow_truncation(&current);
        }
        if open.read(&mut line)? {
            return Ok(true);
        }
        self.open = self::open(&self.path, None)?;
        Ok(self.open.is_some())
    }
}

impl Open {
    fn read(&mut self, line: &mut impl FnMut(&[u8])) -> io::Result<bool> {
        let mut block = vec![0; BLOCK];
        let length = self.file.read(&mut block)?;
        self.position += length as u64;
        let mut rest = &block[..length];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if self.begun.is_empty() {
                line(&rest[..end]);
            } else {
                self.begun.extend_from_slice(&rest[..end]);
                line(&self.begun);
                self.begun.clear();
            }
            rest = &rest[end + 1..];
        }
        if self.begun.len() + rest.len() <= MAX_LINE {
            self.begun.extend_from_slice(rest);
        }
        Ok(length > 0)
    }

    fn is(&self, other: &Metadata) -> io::Result<bool> {
        let own = self.file.metadata()?;
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    /// A file that has become shorter was emptied and written anew. Answers whether it was.
    fn follow_truncation(&mut self, current: &Metadata) -> io::Result<bool> {
        if current.len() >= self.position {
            return Ok(false);
        }
        self.position = self.file.seek(SeekFrom::Start(0))?;
        self.begun.clear();
        Ok(true)
    }
}

fn open(path: &PathBuf, tail: Option<u64>) -> io::Result<Option<Open>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let position = match tail {
        Some(lines) => tail_begin(&file, lines)?,
        None => 0,
    };
    file.seek(SeekFrom::Start(position))?;
    Ok(Some(Open { file, position, begun: Vec::new() }))
}

fn metadata(path: &PathBuf) -> io::Result<Option<Metadata>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the last `lines` lines begin. Lines are counted by their final pieces, so a long one counts once.
fn tail_begin(file: &File, lines: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut search = Backwards { file, block: Vec::new(), block_begin: length, end: length };
    let mut following = length;
    let mut seen = 0;
    loop {
        let begin = search.line_begin()?;
        if begin < following && is_final(file, begin, following)? {
            if seen == lines {
                return Ok(following);
            }
            seen += 1;
        }
        following = begin;
        if begin == 0 {
            return Ok(0);
        }
    }
}

/// Whether the line at `begin` is a line's only or last piece.
fn is_final(file: &File, begin: u64, end: u64) -> io::Result<bool> {
    let length = usize::try_from(end - begin).unwrap_or(HEAD).min(HEAD);
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head[..length], begin)?;
    Ok(Entry::parse(&head[..length]).is_some_and(|entry| !entry.partial))
}

/// Finds line beginnings from a file's end to its start.
struct Backwards<'a> {
    file: &'a File,
    block: Vec<u8>,
    block_begin: u64,
    /// The line that is looked for ends here, newline included.
    end: u64,
}

impl Backwards<'_> {
    fn line_begin(&mut self) -> io::Result<u64> {
        // The newline at the line's own end is not its beginning.
        let mut before = self.end.saturating_sub(1);
        loop {
            let known =
                usize::try_from(before.saturating_sub(self.block_begin)).unwrap_or_default().min(self.block.len());
            if let Some(newline) = self.block[..known].iter().rposition(|byte| *byte == b'\n') {
                self.end = self.block_begin + newline as u64 + 1;
                return Ok(self.end);
            }
            if self.block_begin == 0 {
                self.end = 0;
                return Ok(0);
            }
            before = before.min(self.block_begin);
            let begin = self.block_begin.saturating_sub(BLOCK as u64);
            self.block = vec![0; usize::try_from(self.block_begin - begin).unwrap_or(BLOCK)];
            self.file.read_exact_at(&mut self.block, begin)?;
            self.block_begin = begin;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(tail: &mut LogTail) -> Vec<String> {
        let mut lines = Vec::new();
        while tail
            .read(|line| lines.push(String::from_utf8_lossy(line).rsplit(' ').next().unwrap().to_owned()))
            .unwrap()
        {}
        lines
    }

    fn write(file: &mut File, numbers: std::ops::Range<u32>) {
        for number in numbers {
            writeln!(file, "2026-01-01T00:00:00.000000001Z stdout F line-{number}").unwrap();
        }
    }

    #[test]
    fn the_last_lines_are_found_in_files_of_any_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut file = File::create(&path).unwrap();
        write(&mut file, 0..5000);
        for (tail, expected) in [(0, 0), (1, 1), (3, 3), (4000, 4000), (5000, 5000), (9999, 5000)] {
            let lines = lines(&mut LogTail::new(path.clone(), Some(tail)));
            assert_eq!(lines.len(), expected, "tail {tail}");
            assert!(lines.last().is_none_or(|line| line == "line-4999"));
        }
    }

    #[test]
    fn a_line_in_pieces_counts_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, "T stdout F a\nT stdout P b\nT stdout P c\nT stdout F d\nT stdout F e\n").unwrap();
        assert_eq!(lines(&mut LogTail::new(path, Some(2))), ["b", "c", "d", "e"]);
    }

    #[test]
    fn a_line_is_handed_on_when_its_newline_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut tail = LogTail::new(path.clone(), None);
        assert!(lines(&mut tail).is_empty(), "no file yet");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"T stdout F be").unwrap();
        assert!(lines(&mut tail).is_empty());
        file.write_all(b"gun\n").unwrap();
        assert_eq!(lines(&mut tail), ["begun"]);
    }

    #[test]
    fn rotation_and_truncation_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut file = File::create(&path).unwrap();
        write(&mut file, 0..2);
        let mut tail = LogTail::new(path.clone(), None);
        assert_eq!(lines(&mut tail), ["line-0", "line-1"]);
        std::fs::rename(&path, directory.path().join("0.log.1")).unwrap();
        write(&mut file, 2..3);
        let mut file = File::create(&path).unwrap();
        write(&mut file, 3..5);
        assert_eq!(lines(&mut tail), ["line-2", "line-3", "line-4"]);
        let mut file = File::create(&path).unwrap();
        assert!(lines(&mut tail).is_empty());
        write(&mut file, 5..6);
        assert_eq!(lines(&mut tail), ["line-5"]);
    }
}
