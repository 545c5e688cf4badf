//! Who has and had which address, on disk: an agent that begins anew has to name flows that began before, also those of pods that went
//! while it was away.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use podnet_flow::names::Tenancy;
use tracing::warn;

use crate::flows::private;

/// Between two times that it is written, where something changed.
const PAUSE: Duration = Duration::from_secs(10);

/// The file.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    written: Instant,
    is_failing: bool,
}

impl Kept {
    /// What an earlier agent wrote there; nothing where there is no such file, or it says nothing that is understood.
    pub(super) fn open(path: &Path) -> (Self, Vec<Tenancy>) {
        let kept = Self { path: path.to_owned(), written: Instant::now(), is_failing: false };
        let known = match fs::read(path) {
            Ok(content) => serde_json::from_slice(&content).unwrap_or_else(|error| {
                warn!(path = %path.display(), %error, "flows of pods that are gone have no names: the file is not understood");
                Vec::new()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(path = %path.display(), %error, "flows of pods that are gone have no names: the file cannot be read");
                }
                Vec::new()
            }
        };
        (kept, known)
    }

    /// Whether it is time to write.
    pub(super) fn is_due(&self) -> bool {
        self.written.elapsed() >= PAUSE
    }

    /// Whether it was written. Of failures in a row the first is told.
    pub(super) fn write(&mut self, tenancies: &[Tenancy]) -> bool {
        self.written = Instant::now();
        let written = serde_json::to_vec(tenancies).map_err(io::Error::from);
        let written = written.and_then(|content| private::replace(&self.path, &content));
        let is_written = written.is_ok();
        match written {
            Ok(()) => self.is_failing = false,
            Err(error) if !std::mem::replace(&mut self.is_failing, true) => {
                let (path, error) = (self.path.display(), &error as &dyn Error);
                warn!(%path, error, "it is not kept who had which address; flows of pods that go while the agent is away will have no names");
            }
            Err(_) => {}
        }
        is_written
    }
}
