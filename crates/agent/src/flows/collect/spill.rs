//! What waits on disk for its collector: files of JSON lines in the order of their numbers, read from the first and written to the last.
//!
//! A file goes when all in it has come, or when there are too many bytes. An agent that begins anew sends what is there from the start of its first
//! file: what had come already comes again, with the same ids. `missing` tells what went unsent, until that has come as well.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use podnet_flow::{Numbered, export};

use super::missing::Missing;
use crate::flows::private;

/// Into how many files the room is parted at least: with the oldest so much goes.
const PARTS: u64 = 16;
/// The most bytes of a file: what of the first one had come comes again from the next agent.
const AGAIN: u64 = 1 << 20;
const SUFFIX: &str = ".jsonl";
const MISSING: &str = "missing";
/// Who talks to whom is nobody's business on this node but the agent's.
const DIRECTORY_MODE: u32 = 0o700;

#[derive(Debug)]
pub(super) struct Spill {
    directory: PathBuf,
    /// How many bytes all files may have together.
    room: u64,
    /// So many bytes make a file whole.
    whole: u64,
    /// No file that was there as it was opened had this number or a higher one.
    free: u64,
    files: VecDeque<Part>,
    /// The last file, as long as more is added to it.
    writer: Option<File>,
    /// How far the first file is read, and how far with what was read last.
    read: u64,
    ahead: Option<Ahead>,
    missing: Option<Missing>,
    /// Lines that went unsent as they cannot be read: they are missing, but nothing beside them told yet when they were.
    unread: u64,
}

/// What became of items that were added.
#[derive(Debug)]
pub(super) struct Added {
    /// So many of the first of them wait here now.
    pub(super) written: usize,
    /// How many items went for them.
    pub(super) gone: u64,
    /// Whether anything went wrong.
    pub(super) done: io::Result<()>,
}

#[derive(Debug)]
struct Part {
    number: u64,
    bytes: u64,
    /// Lines that were not sent yet.
    lines: u64,
}

#[derive(Debug)]
struct Ahead {
    to: u64,
    lines: u64,
    /// How many of the lines are no items.
    lost: u64,
    /// The last item, as if it were missing.
    beside: Option<Missing>,
}

impl Spill {
    /// What is there; the directory is made where it is missing, and nobody else may read it from then on.
    pub(super) fn open(directory: &Path, room: u64) -> io::Result<Self> {
        if let Some(parent) = directory.parent() {
            fs::create_dir_all(parent)?;
        }
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE))?;
        let mut files: Vec<Part> = Vec::new();
        let mut free: u64 = 0;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|name| name.parse().ok());
            free = number.map_or(free, |number: u64| free.max(number.saturating_add(1)));
            // Somebody else's directory, or whatever it is, holds up nothing.
            if !entry.file_type()?.is_file() {
                continue;
            }
            fs::set_permissions(entry.path(), Permissions::from_mode(private::MODE))?;
            files.extend(number.map(|number| Part { number, bytes: 0, lines: 0 }));
        }
        files.sort_by_key(|part| part.number);
        let mut spill = Self {
            directory: directory.to_path_buf(),
            room,
            whole: (room / PARTS).min(AGAIN),
            free,
            files: VecDeque::new(),
            writer: None,
            read: 0,
            ahead: None,
            missing: None,
            unread: 0,
        };
        for mut part in files {
            let path = spill.path(part.number);
            let text = fs::read(&path)?;
            if text.is_empty() {
                fs::remove_file(path)?;
                continue;
            }
            part.bytes = text.len() as u64;
            part.lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
            spill.files.push_back(part);
        }
        spill.missing = fs::read(directory.join(MISSING)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Ok(spill)
    }

    /// From now on files are as large as the room has them, for whoever wants much at once.
    pub(super) const fn in_large_files(&mut self) {
        self.whole = self.room / PARTS;
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number}{SUFFIX}"))
    }

    /// Whether nothing waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// How many items wait here.
    pub(super) fn len(&self) -> u64 {
        self.files.iter().map(|part| part.lines).sum()
    }

    /// Whether there is a file that nothing is added to any more.
    pub(super) fn has_whole_part(&self) -> bool {
        self.files.len() > 1
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|part| part.bytes).sum()
    }

    /// Adds items behind all others, until one cannot be written. Where there are too many bytes then, the oldest go.
    pub(super) fn add(&mut self, items: &[Numbered]) -> Added {
        self.append(items, u64::MAX)
    }

    /// Adds items behind all others, as many of them as there is room for, until one cannot be written.
    pub(super) fn fill(&mut self, items: &[Numbered]) -> Added {
        self.append(items, self.room)
    }

    /// Until there would be more than so many bytes.
    fn append(&mut self, items: &[Numbered], most: u64) -> Added {
        let (mut written, mut done, mut bytes) = (0, Ok(()), self.bytes());
        for item in items {
            let mut line = export::json(item).into_bytes();
            line.push(b'\n');
            bytes += line.len() as u64;
            if bytes > most {
                break;
            }
            done = self.write(&line);
            if done.is_err() {
                break;
            }
            written += 1;
        }
        let (gone, shrunk) = self.shrink();
        Added { written, gone, done: done.and(shrunk) }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let written = self.file()?.write_all(line);
        let Some(part) = self.files.back_mut() else { return written };
        if written.is_ok() {
            part.bytes += line.len() as u64;
            part.lines += 1;
        } else if self.writer.as_ref().is_none_or(|file| file.set_len(part.bytes).is_err()) {
            // Half a line would be read as one.
            self.writer = None;
        }
        written
    }

    /// The file that is written to; another one where the last is full.
    fn file(&mut self) -> io::Result<&mut File> {
        let is_full = self.files.back().is_none_or(|part| part.bytes >= self.whole);
        if self.writer.is_none() || is_full {
            let number = self.files.back().map_or(self.free, |part| self.free.max(part.number.saturating_add(1)));
            self.writer = None;
            let file = private::options().create_new(true).append(true).open(self.path(number))?;
            self.files.push_back(Part { number, bytes: 0, lines: 0 });
            return Ok(self.writer.insert(file));
        }
        self.writer.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Lets the oldest files go where there are too many bytes; not the one that is written to, nor what is being sent. How many items went.
    fn shrink(&mut self) -> (u64, io::Result<()>) {
        let (mut gone, mut done) = (0, Ok(()));
        while self.bytes() > self.room {
            let at = usize::from(self.ahead.is_some());
            if self.files.len() <= at + 1 {
                break;
            }
            match self.let_go(at) {
                Ok(lines) => gone += lines,
                Err(error) => {
                    done = Err(error);
                    break;
                }
            }
        }
        if gone > 0 {
            done = done.and(self.note());
        }
        (gone, done)
    }

    /// Removes a file; what was in it is missing from then on. It stays known for as long as it is there.
    fn let_go(&mut self, at: usize) -> io::Result<u64> {
        let Some(Part { number, lines, .. }) = self.files.get(at) else { return Ok(0) };
        let (number, lines) = (*number, *lines);
        let found = self.lines(number, if at == 0 { self.read } else { 0 }, usize::MAX);
        match fs::remove_file(self.path(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.files.remove(at);
        if at == 0 {
            self.read = 0;
        }
        let Ok((items, ahead)) = found else {
            self.unread += lines;
            return Ok(lines);
        };
        for item in &items {
            Missing::add(&mut self.missing, Missing::of(item));
        }
        self.lose(ahead.lost, ahead.beside);
        Ok(ahead.lines)
    }

    /// What is missing is known also to the next agent.
    pub(super) fn note(&self) -> io::Result<()> {
        let path = self.directory.join(MISSING);
        match &self.missing {
            None if path.exists() => fs::remove_file(path),
            None => Ok(()),
            Some(missing) => private::replace(&path, &serde_json::to_vec(missing)?),
        }
    }

    /// Lines that cannot be read any more are missing as well: when they were is told by what was beside them.
    fn lose(&mut self, lost: u64, beside: Option<Missing>) {
        self.unread += lost;
        if self.unread > 0
            && let Some(beside) = beside
        {
            Missing::add(&mut self.missing, beside.counting(std::mem::take(&mut self.unread)));
        }
    }

    /// Whole lines of a file from a place on, with that many items at most. What is no item is passed over.
    fn lines(&self, number: u64, from: u64, most: usize) -> io::Result<(Vec<Numbered>, Ahead)> {
        let mut file = File::open(self.path(number))?;
        file.seek(SeekFrom::Start(from))?;
        let mut reader = BufReader::new(file);
        let mut ahead = Ahead { to: from, lines: 0, lost: 0, beside: None };
        let (mut items, mut line): (Vec<Numbered>, Vec<u8>) = (Vec::new(), Vec::new());
        while items.len() < most {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                break;
            }
            ahead.to += length as u64;
            ahead.lines += 1;
            match serde_json::from_slice(&line) {
                Ok(item) => items.push(item),
                Err(_) => ahead.lost += 1,
            }
        }
        ahead.beside = items.last().map(Missing::of);
        Ok((items, ahead))
    }

    /// The oldest items, that many at most, of one file; they stay until they are [sent](Self::sent). None where nothing waits.
    pub(super) fn next(&mut self, most: usize) -> io::Result<Vec<Numbered>> {
        while let Some(number) = self.files.front().map(|part| part.number) {
            let (items, ahead) = match self.lines(number, self.read, most) {
                // Somebody removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.unread += self.files.pop_front().map_or(0, |part| part.lines);
                    (self.read, self.writer) = (0, None);
                    continue;
                }
                read => read?,
            };
            if !items.is_empty() {
                self.ahead = Some(ahead);
                return Ok(items);
            }
            self.unread += ahead.lost;
            self.remove_first()?;
        }
        Ok(Vec::new())
    }

    /// What was told last as [next](Self::next) has come.
    pub(super) fn sent(&mut self) -> io::Result<()> {
        let Some(ahead) = self.ahead.take() else { return Ok(()) };
        self.read = ahead.to;
        self.lose(ahead.lost, ahead.beside);
        let Some(part) = self.files.front_mut() else { return Ok(()) };
        part.lines = part.lines.saturating_sub(ahead.lines);
        if part.bytes <= ahead.to { self.remove_first() } else { Ok(()) }
    }

    /// What was told last as next has not come.
    pub(super) fn unsent(&mut self) {
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
}

#[cfg(test)]
mod tests;
