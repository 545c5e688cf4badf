//! What waits on disk for its collector: files of JSON lines in the order of their numbers, read from the first and written to the last.
//!
//! A file goes when all in it has come, or when there are too many bytes. An agent that begins anew sends what is there from the start of its first
//! file: what had come already comes again, with the same ids. `missing` tells what went unsent, until that has come as well.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use podnet_flow::{Numbered, export};

use super::missing::Missing;

/// Into how many files the room is parted: with the oldest so much goes.
const PARTS: u64 = 16;
const SUFFIX: &str = ".jsonl";
const MISSING: &str = "missing";

#[derive(Debug)]
pub(super) struct Spill {
    directory: PathBuf,
    /// How many bytes all files may have together.
    room: u64,
    files: VecDeque<Part>,
    /// The last file, as long as more is added to it.
    writer: Option<File>,
    /// How far the first file is read, and how far with what was read last.
    read: u64,
    ahead: Option<Ahead>,
    missing: Option<Missing>,
}

#[derive(Debug)]
struct Part {
    number: u64,
    bytes: u64,
    /// Lines that were not sent yet.
    lines: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ahead {
    to: u64,
    lines: u64,
}

impl Spill {
    /// What is there; the directory is made where it is missing.
    pub(super) fn open(directory: &Path, room: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|name| name.parse().ok());
            files.extend(number.map(|number| Part { number, bytes: 0, lines: 0 }));
        }
        files.sort_by_key(|part| part.number);
        let mut spill = Self {
            directory: directory.to_path_buf(),
            room,
            files: files.into(),
            writer: None,
            read: 0,
            ahead: None,
            missing: None,
        };
        for at in 0..spill.files.len() {
            let text = fs::read(spill.path(spill.files[at].number))?;
            spill.files[at].bytes = text.len() as u64;
            spill.files[at].lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        spill.missing = fs::read(directory.join(MISSING)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Ok(spill)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number}{SUFFIX}"))
    }

    /// Whether nothing waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// How many items wait here.
    pub(super) fn len(&self) -> u64 {
        self.files.iter().map(|part| part.lines).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|part| part.bytes).sum()
    }

    /// Adds items behind all others. How many items went for it.
    pub(super) fn add(&mut self, items: &[Numbered]) -> io::Result<u64> {
        for item in items {
            let mut line = export::json(item).into_bytes();
            line.push(b'\n');
            let file = self.file()?;
            let written = file.write_all(&line);
            let Some(part) = self.files.back_mut() else { continue };
            match written {
                Ok(()) => {
                    part.bytes += line.len() as u64;
                    part.lines += 1;
                }
                Err(error) => {
                    // Half a line would be read as one.
                    if let Some(file) = &self.writer {
                        let _ = file.set_len(part.bytes);
                    }
                    self.writer = None;
                    return Err(error);
                }
            }
        }
        self.shrink()
    }

    /// The file that is written to; another one where the last is full.
    fn file(&mut self) -> io::Result<&mut File> {
        let is_full = self.files.back().is_none_or(|part| part.bytes >= self.room / PARTS);
        if self.writer.is_none() || is_full {
            let number = self.files.back().map_or(0, |part| part.number + 1);
            self.writer = None;
            let file = File::create_new(self.path(number))?;
            self.files.push_back(Part { number, bytes: 0, lines: 0 });
            return Ok(self.writer.insert(file));
        }
        self.writer.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Lets the oldest files go where there are too many bytes; not the one that is written to, nor what is being sent.
    fn shrink(&mut self) -> io::Result<u64> {
        let mut gone = 0;
        while self.bytes() > self.room {
            let at = usize::from(self.ahead.is_some());
            if self.files.len() <= at + 1 {
                break;
            }
            let from = if at == 0 { std::mem::take(&mut self.read) } else { 0 };
            let Some(part) = self.files.remove(at) else { break };
            let (lost, lines) = self.lines(part.number, from, usize::MAX)?;
            for item in &lost {
                Missing::add(&mut self.missing, Missing::of(item));
            }
            self.note()?;
            fs::remove_file(self.path(part.number))?;
            gone += lines.lines;
        }
        Ok(gone)
    }

    /// What is missing is known also to the next agent.
    fn note(&self) -> io::Result<()> {
        let path = self.directory.join(MISSING);
        match &self.missing {
            None if path.exists() => fs::remove_file(path),
            None => Ok(()),
            Some(missing) => {
                let made = self.directory.join("missing.new");
                fs::write(&made, serde_json::to_vec(missing)?)?;
                fs::rename(made, path)
            }
        }
    }

    /// Whole lines of a file from a place on, that many at most. What is no item is passed over.
    fn lines(&self, number: u64, from: u64, most: usize) -> io::Result<(Vec<Numbered>, Ahead)> {
        let mut file = File::open(self.path(number))?;
        file.seek(SeekFrom::Start(from))?;
        let mut reader = BufReader::new(file);
        let (mut items, mut ahead, mut line) = (Vec::new(), Ahead { to: from, lines: 0 }, Vec::new());
        while items.len() < most {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                break;
            }
            ahead = Ahead { to: ahead.to + length as u64, lines: ahead.lines + 1 };
            items.extend(serde_json::from_slice::<Numbered>(&line));
        }
        Ok((items, ahead))
    }

    /// The oldest items, that many at most, of one file; they stay until they are [sent](Self::sent). None where nothing waits.
    pub(super) fn next(&mut self, most: usize) -> io::Result<Vec<Numbered>> {
        while let Some(number) = self.files.front().map(|part| part.number) {
            let (items, ahead) = match self.lines(number, self.read, most) {
                // Somebody removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.files.pop_front();
                    (self.read, self.writer) = (0, None);
                    continue;
                }
                read => read?,
            };
            if !items.is_empty() {
                self.ahead = Some(ahead);
                return Ok(items);
            }
            self.remove_first()?;
        }
        Ok(Vec::new())
    }

    /// What was told last as [next](Self::next) has come.
    pub(super) fn sent(&mut self) -> io::Result<()> {
        let Some(ahead) = self.ahead.take() else { return Ok(()) };
        self.read = ahead.to;
        let Some(part) = self.files.front_mut() else { return Ok(()) };
        part.lines = part.lines.saturating_sub(ahead.lines);
        if part.bytes <= ahead.to { self.remove_first() } else { Ok(()) }
    }

    /// What was told last as next has not come.
    pub(super) const fn unsent(&mut self) {
        self.ahead = None;
    }

    fn remove_first(&mut self) -> io::Result<()> {
        self.read = 0;
        let Some(part) = self.files.pop_front() else { return Ok(()) };
        if self.files.is_empty() {
            self.writer = None;
        }
        fs::remove_file(self.path(part.number))
    }

    /// Whether something went unsent.
    pub(super) const fn is_missing_some(&self) -> bool {
        self.missing.is_some()
    }

    /// What went unsent. Whoever has it has to tell it, and, where that fails, to give it back.
    pub(super) const fn take_missing(&mut self) -> Option<Missing> {
        self.missing.take()
    }

    pub(super) fn missing(&mut self, missing: Missing) {
        Missing::add(&mut self.missing, missing);
    }

    /// What was taken as missing has come.
    pub(super) fn missing_is_told(&self) -> io::Result<()> {
        self.note()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::collect::tests::{flow, sequences};

    fn drain(spill: &mut Spill, most: usize) -> Vec<u64> {
        let mut found = Vec::new();
        loop {
            let items = spill.next(most).unwrap();
            if items.is_empty() {
                return found;
            }
            found.extend(sequences(&items));
            spill.sent().unwrap();
        }
    }

    #[test]
    fn what_waits_comes_out_as_it_came_also_for_the_next_agent_and_nothing_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let items: Vec<Numbered> = (0..100).map(flow).collect();
        let mut spill = Spill::open(directory.path(), 1 << 20).unwrap();
        assert_eq!(spill.add(&items[..60]).unwrap(), 0);
        assert_eq!(sequences(&spill.next(10).unwrap()), (0..10).collect::<Vec<_>>());
        spill.unsent();
        assert_eq!(sequences(&spill.next(5).unwrap()), (0..5).collect::<Vec<_>>());
        spill.sent().unwrap();
        assert_eq!(spill.len(), 55);
        drop(spill);
        let mut next = Spill::open(directory.path(), 1 << 20).unwrap();
        next.add(&items[60..]).unwrap();
        assert_eq!(drain(&mut next, 7), (0..100).collect::<Vec<_>>(), "what had come comes again");
        assert!(next.is_empty() && next.bytes() == 0);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        next.add(&items[..1]).unwrap();
        assert_eq!(drain(&mut next, 7), [0]);
    }

    #[test]
    fn where_there_are_too_many_bytes_the_oldest_go_and_the_next_agent_knows_how_many() {
        let directory = tempfile::tempdir().unwrap();
        let room = 64 << 10;
        let mut spill = Spill::open(directory.path(), room).unwrap();
        let mut gone = 0;
        for number in 0..1000 {
            gone += spill.add(&[flow(number)]).unwrap();
            assert!(spill.bytes() <= room);
        }
        assert!(gone > 500, "{gone}");
        drop(spill);
        let mut next = Spill::open(directory.path(), room).unwrap();
        let missing = next.take_missing().unwrap();
        assert_eq!((missing.records(), missing.told().record.sequence), (gone, gone - 1));
        next.missing_is_told().unwrap();
        assert_eq!(drain(&mut next, 100), (gone..1000).collect::<Vec<_>>());
        assert!(Spill::open(directory.path(), room).unwrap().take_missing().is_none());
    }

    #[test]
    fn what_is_being_sent_stays_and_half_a_line_is_no_item() {
        let directory = tempfile::tempdir().unwrap();
        let mut spill = Spill::open(directory.path(), 64 << 10).unwrap();
        spill.add(&[flow(0), flow(1)]).unwrap();
        assert_eq!(sequences(&spill.next(1).unwrap()), [0]);
        let items: Vec<Numbered> = (2..1000).map(flow).collect();
        spill.add(&items).unwrap();
        spill.sent().unwrap();
        assert_eq!(sequences(&spill.next(1).unwrap()), [1]);
        drop(spill);
        fs::remove_dir_all(directory.path()).unwrap();
        fs::create_dir(directory.path()).unwrap();
        let half = export::json(&flow(8));
        fs::write(directory.path().join("4.jsonl"), format!("{}\nno item\n{}", export::json(&flow(7)), &half[..30]))
            .unwrap();
        let mut spill = Spill::open(directory.path(), 64 << 10).unwrap();
        spill.add(&[flow(9)]).unwrap();
        assert_eq!(drain(&mut spill, 10), [7, 9]);
    }
}
