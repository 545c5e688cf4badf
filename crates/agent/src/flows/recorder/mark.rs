//! A file that is there while flows are recorded: who finds it knows that an agent did not end by itself, and until when that one told all. Of one that
//! did end by itself another file says when.

use std::{
    error::Error,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use k8s_openapi::jiff::Timestamp;
use tracing::warn;

use crate::flows::private;

#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    file: File,
}

impl Mark {
    /// Makes it, and says until when all was told: first if one of an earlier agent was there, which stays as old until what that one lost is told; then
    /// if that one took its mark away. It is said in the log where there can be none.
    pub(super) fn make(path: &Path) -> (Option<Self>, Option<Timestamp>, Option<Timestamp>) {
        let found = modified(path);
        let end = at_end(path);
        let ended = modified(&end);
        // One that stays is as old as it is, and the next end takes its place.
        let _ = fs::remove_file(end);
        let made = private::options().write(true).create(true).truncate(false).open(path);
        let made = made.map(|file| Self { path: path.to_owned(), file });
        let mark = match made.and_then(|mark| if found.is_some() { Ok(mark) } else { mark.touched() }) {
            Ok(mark) => Some(mark),
            Err(error) => {
                let (path, error) = (path.display(), &error as &dyn Error);
                warn!(%path, error, "nobody will know of it should this agent be killed while it records flows");
                None
            }
        };
        (mark, found, ended)
    }

    fn touched(self) -> io::Result<Self> {
        self.file.set_modified(SystemTime::now())?;
        Ok(self)
    }

    /// All that was counted up to now was told.
    pub(super) fn touch(&self) {
        // The time before says less, and is right.
        let _ = self.file.set_modified(SystemTime::now());
    }

    /// All was told, and nothing is recorded any more.
    pub(super) fn take_away(self) {
        self.touch();
        // Where it stays, the next agent tells of a gap that there is not.
        let _ = fs::rename(&self.path, at_end(&self.path));
    }
}

/// Where it is put once all was told.
fn at_end(path: &Path) -> PathBuf {
    path.with_extension("ended")
}

fn modified(path: &Path) -> Option<Timestamp> {
    let time = fs::metadata(path).and_then(|about| about.modified()).ok()?;
    Timestamp::try_from(time).ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;

    #[test]
    fn an_agent_that_ended_by_itself_left_no_mark_and_says_once_when_that_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flow-recording");
        let (mark, found, ended) = Mark::make(&path);
        assert_eq!((found, ended), (None, None));
        let mark = mark.unwrap();
        mark.file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        mark.take_away();
        assert!(!path.exists());
        let (_, found, ended) = Mark::make(&path);
        let age = Timestamp::now().duration_since(ended.unwrap()).abs();
        assert!(found.is_none() && age < SignedDuration::from_mins(1), "{found:?} {ended:?}");
        // This one did not end by itself.
        let (_, found, ended) = Mark::make(&path);
        assert!(found.is_some() && ended.is_none(), "{found:?} {ended:?}");
    }
}
