//! Places where a test lets the agent be killed, as by `kill -9`: between any two steps of ADD and DEL. A build without debug
//! assertions has none.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The file whose text names the place, in the agent's state directory.
const FILE: &str = "fault";

static PLACE: OnceLock<PathBuf> = OnceLock::new();

/// Heeds the file in this directory from now on.
pub(crate) fn heed(state_dir: &Path) {
    if cfg!(debug_assertions) {
        let _ = PLACE.set(state_dir.join(FILE));
    }
}

/// Ends the agent where the file names this place. The file goes first, so that the next agent lives.
pub(crate) fn point(name: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Some(file) = PLACE.get() else { return };
    if fs::read_to_string(file).is_ok_and(|wanted| wanted.trim() == name) && fs::remove_file(file).is_ok() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
