//! A file that is there while flows are recorded: who finds it knows that an agent did not end by itself, and until when that one told all.

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
    /// Makes it, and says until when all was told, if one of an earlier agent was there, which stays as old until what that one lost is told. It is
    /// said in the log where there can be none.
    pub(super) fn make(path: &Path) -> (Option<Self>, Option<Timestamp>) {
        let found = fs::metadata(path).and_then(|about| about.modified()).ok();
        let found = found.and_then(|time| Timestamp::try_from(time).ok());
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
        (mark, found)
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
        // Where it stays, the next agent tells of a gap that there is not.
        let _ = fs::remove_file(self.path);
    }
}
