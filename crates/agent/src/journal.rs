//! An append-only file of lines: the address journal, durable before anybody acts on it, and what need only outlive the agent.
//!
//! Appending and waiting for durability are two calls, so that the order of lines is decided under the caller's lock while many
//! callers share one `fdatasync`: the first to wait syncs for everybody who appended before it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// The file is rewritten when it is this many times as long as what it still has to say …
const WASTE: u64 = 4;
/// … and at least this long, in bytes: a shorter one is read in no time.
const WORTH_IT: u64 = 256 * 1024;

/// Why a journal could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the journal {path}")]
pub struct JournalError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A place in the journal; everything up to it is durable once [`Journal::sync`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "what was appended is durable only after sync"]
pub struct Position(u64);

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    file: std::sync::Arc<File>,
    /// Bytes of whole lines in the file.
    length: u64,
    /// Bytes appended since the journal was opened; unlike `length` it never goes back.
    appended: u64,
    synced: u64,
    syncing: bool,
    /// After a failed `fdatasync` the kernel may have dropped the pages: nothing that this file says later can be trusted.
    broken: bool,
}

impl Journal {
    /// Opens the journal, made where it is missing, and returns the lines that it holds. A torn last line (a crash in the middle of
    /// a write) is cut off.
    ///
    /// # Errors
    ///
    /// When the file cannot be made, read or cut.
    pub fn open(path: &Path) -> Result<(Self, Vec<String>), JournalError> {
        let failed = |action| move |source| JournalError { action, path: path.to_path_buf(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed("make the directory of"))?;
        }
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(failed("open"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read"))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(failed("cut the torn end of"))?;
        }
        let lines = String::from_utf8_lossy(&bytes[..whole]).lines().map(str::to_owned).collect();
        let state =
            State { file: file.into(), length: whole as u64, appended: 0, synced: 0, syncing: false, broken: false };
        Ok((Self { path: path.to_path_buf(), state: Mutex::new(state), changed: Condvar::new() }, lines))
    }

    /// Appends lines, all or none. Call it under the lock that orders them.
    ///
    /// # Errors
    ///
    /// When the file cannot take them (a full disk); it is then as before.
    pub fn append(&self, lines: impl IntoIterator<Item = String>) -> Result<Position, JournalError> {
        let mut text = String::new();
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        let mut state = self.lock();
        if state.broken {
            return Err(self.failed("append to", io::Error::other("an earlier sync failed; restart the agent")));
        }
        if let Err(source) = (&*state.file).write_all(text.as_bytes()) {
            // Half a line would be taken for a crash's torn end, and what follows it would be lost with it.
            let _ = state.file.set_len(state.length);
            return Err(self.failed("append to", source));
        }
        state.length += text.len() as u64;
        state.appended += text.len() as u64;
        Ok(Position(state.appended))
    }

    /// Waits until everything up to `position` is durable.
    ///
    /// # Errors
    ///
    /// When the kernel cannot write the file out; the journal takes nothing more then.
    pub fn sync(&self, position: Position) -> Result<(), JournalError> {
        let mut state = self.lock();
        loop {
            if state.synced >= position.0 {
                return Ok(());
            }
            if state.broken {
                return Err(self.failed("sync", io::Error::other("an earlier sync failed; restart the agent")));
            }
            if state.syncing {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.syncing = true;
            let (file, target) = (state.file.clone(), state.appended);
            drop(state);
            let result = file.sync_data();
            state = self.lock();
            state.syncing = false;
            match result {
                Ok(()) => state.synced = state.synced.max(target),
                Err(_) => state.broken = true,
            }
            self.changed.notify_all();
            if let Err(source) = result {
                return Err(self.failed("sync", source));
            }
        }
    }

    /// Rewrites the file to `lines`, what it still has to say, if that is worth it. Call it under the lock that orders appends.
    ///
    /// # Errors
    ///
    /// When the new file cannot be written; the old one stays in use.
    pub fn compact(&self, lines: impl FnOnce() -> Vec<String>) -> Result<(), JournalError> {
        if self.lock().length < WORTH_IT {
            return Ok(());
        }
        let mut text = lines().join("\n");
        text.push('\n');
        let mut state = self.lock();
        if (text.len() as u64) * WASTE > state.length {
            return Ok(());
        }
        let (file, durable) = replace(&self.path, text.as_bytes()).map_err(|source| self.failed("rewrite", source))?;
        // The old file has no name any more, whatever becomes of the directory's sync.
        state.file = file.into();
        state.length = text.len() as u64;
        state.synced = state.appended;
        state.broken |= durable.is_err();
        self.changed.notify_all();
        durable.map_err(|source| self.failed("sync the directory of", source))
    }

    /// Whether it takes nothing more, so that only a restart helps.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.lock().broken
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if it did, the counters would still be consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> JournalError {
        JournalError { action, path: self.path.clone(), source }
    }
}

/// Puts a file with this content in the place of another. Once it is there, only the directory's sync can fail, and is told apart.
fn replace(path: &Path, content: &[u8]) -> io::Result<(File, io::Result<()>)> {
    let new = path.with_extension("new");
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?.write_all(content)?;
    let file = OpenOptions::new().read(true).append(true).open(&new)?;
    file.sync_all()?;
    let directory = File::open(path.parent().unwrap_or(Path::new(".")))?;
    fs::rename(&new, path)?;
    let durable = directory.sync_all();
    Ok((file, durable))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_was_synced_is_read_back_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/journal");
        let (journal, read) = Journal::open(&path).unwrap();
        assert!(read.is_empty());
        let first = journal.append(lines(&["a", "b"])).unwrap();
        let second = journal.append(lines(&["c"])).unwrap();
        journal.sync(second).unwrap();
        journal.sync(first).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, ["a", "b", "c"]);
    }

    #[test]
    fn a_torn_last_line_is_cut_off_and_the_next_append_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        fs::write(&path, "whole\nto").unwrap();
        let (journal, read) = Journal::open(&path).unwrap();
        assert_eq!(read, ["whole"]);
        let position = journal.append(lines(&["next"])).unwrap();
        journal.sync(position).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\nnext\n");
    }

    #[test]
    fn many_writers_share_syncs_and_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let journal = Arc::new(Journal::open(&path).unwrap().0);
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let journal = journal.clone();
                std::thread::spawn(move || {
                    for line in 0..50 {
                        let position = journal.append([format!("{writer} {line}")]).unwrap();
                        journal.sync(position).unwrap();
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!(Journal::open(&path).unwrap().1.len(), 16 * 50);
    }

    #[test]
    fn compaction_keeps_just_what_is_still_to_say_and_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (journal, _) = Journal::open(&path).unwrap();
        let position = journal.append((0..40_000).map(|line| format!("line {line}"))).unwrap();
        journal.sync(position).unwrap();
        journal.compact(|| lines(&["all"])).unwrap();
        let position = journal.append(lines(&["more"])).unwrap();
        journal.sync(position).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, ["all", "more"]);
    }

    #[test]
    fn a_full_disk_is_an_error_and_leaves_the_journal_as_it_was() {
        // /dev/full answers every write with "no space left on device" (full(4)).
        let state = State {
            file: OpenOptions::new().append(true).open("/dev/full").unwrap().into(),
            length: 0,
            appended: 0,
            synced: 0,
            syncing: false,
            broken: false,
        };
        let journal = Journal { path: "/dev/full".into(), state: Mutex::new(state), changed: Condvar::new() };
        let error = journal.append(lines(&["a"])).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::StorageFull);
        assert_eq!(journal.lock().length, 0);
    }
}
