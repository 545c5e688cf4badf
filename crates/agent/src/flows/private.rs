//! Files that say who talks to whom, which is nobody's business on this node but the agent's.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// What such a file has.
pub(super) const MODE: u32 = 0o600;

/// To make one.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(MODE);
    options
}

/// Puts a file with this content in the place of another; nobody reads half of it. It is not waited for the disk: it need not outlive the
/// machine.
///
/// # Errors
/// Where it cannot be written; the other one is there as before.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    options().write(true).create(true).truncate(true).open(&new)?.write_all(content)?;
    fs::rename(&new, path)
}
