//! Container logs in the CRI format: `RFC3339NANO stdout|stderr F|P text`, one file with a cap and one predecessor.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A file never grows beyond this; with its predecessor a container's log takes twice as much at most. What kubelet's
/// `containerLogMaxSize` defaults to.
const MAX_BYTES: u64 = 10 << 20;
/// Longer lines are cut into parts tagged `P`, so that a stream without line ends needs no memory (CRI implementations agree on it).
const MAX_LINE: usize = 16 << 10;

/// Which stream a text came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The log of one run.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
    partial: [Vec<u8>; 2],
}

impl LogWriter {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::with_cap(path, MAX_BYTES)
    }

    fn with_cap(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, max_bytes, partial: [Vec::new(), Vec::new()] })
    }

    /// Takes what a stream gave; whole lines are written at once.
    pub(crate) fn feed(&mut self, stream: Stream, bytes: &[u8], now: &str) -> io::Result<()> {
        let mut out = Vec::with_capacity(bytes.len() + 128);
        let pending = &mut self.partial[stream as usize];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            pending.extend_from_slice(text);
            while pending.len() > MAX_LINE {
                let rest = pending.split_off(MAX_LINE);
                entry(&mut out, now, stream, b'P', pending);
                *pending = rest;
            }
            if whole {
                entry(&mut out, now, stream, b'F', pending);
                pending.clear();
            }
        }
        self.write(&out)
    }

    /// The stream ended: what has no line end is written as it is.
    pub(crate) fn finish(&mut self, stream: Stream, now: &str) -> io::Result<()> {
        let pending = std::mem::take(&mut self.partial[stream as usize]);
        if pending.is_empty() {
            return Ok(());
        }
        let mut out = Vec::new();
        entry(&mut out, now, stream, b'P', &pending);
        self.write(&out)
    }

    fn write(&mut self, out: &[u8]) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        if self.bytes > 0 && self.bytes + out.len() as u64 > self.max_bytes {
            std::fs::rename(&self.path, rotated(&self.path))?;
            self.file = append(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(out)?;
        self.bytes += out.len() as u64;
        Ok(())
    }
}

/// Where the predecessor of a log file is.
pub(crate) fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn entry(out: &mut Vec<u8>, now: &str, stream: Stream, tag: u8, text: &[u8]) {
    out.extend_from_slice(now.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(&[b' ', tag, b' ']);
    out.extend_from_slice(text);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00.000000000Z";

    #[test]
    fn whole_lines_are_tagged_full_and_a_last_line_without_end_partial() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogWriter::open(&path).unwrap();
        log.feed(Stream::Stdout, b"one\ntw", NOW).unwrap();
        log.feed(Stream::Stderr, b"oops\n", NOW).unwrap();
        log.feed(Stream::Stdout, b"o\nend", NOW).unwrap();
        log.finish(Stream::Stdout, NOW).unwrap();
        let expected = format!("{NOW} stdout F one\n{NOW} stderr F oops\n{NOW} stdout F two\n{NOW} stdout P end\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_long_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogWriter::open(&path).unwrap();
        log.feed(Stream::Stdout, &vec![b'x'; MAX_LINE + 5], NOW).unwrap();
        log.feed(Stream::Stdout, b"\n", NOW).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let tags: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(2)).collect();
        assert_eq!(tags, ["P", "F"]);
    }

    #[test]
    fn a_log_never_takes_more_than_twice_its_cap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogWriter::with_cap(&path, 1000).unwrap();
        for _ in 0..100 {
            log.feed(Stream::Stdout, b"a line of some length\n", NOW).unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= 1000);
        assert!(std::fs::metadata(rotated(&path)).unwrap().len() <= 1000);
    }
}
