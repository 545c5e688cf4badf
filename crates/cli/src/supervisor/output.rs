//! The processes' output: one log each, readable by root alone, of bounded size.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::log;
use crate::{
    layout,
    report::{Doing, Failure},
};

/// Logs lie in memory (`/run` is a tmpfs): one process takes at most about twice this many bytes, the log and the one before it.
pub(super) const LONGEST: u64 = 10 << 20;

/// Opens a process's log for appending, which is what allows it to be cut under the process's hands.
pub(super) fn open(name: &str) -> Result<File, Failure> {
    open_in(&layout::logs(), &layout::log(name))
}

/// What is there may be an earlier version's, which was less careful.
fn open_in(directory: &Path, path: &Path) -> Result<File, Failure> {
    let what = || format!("cannot write the log {}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(directory).doing(what)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700)).doing(what)?;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).doing(what)?;
    file.set_permissions(Permissions::from_mode(0o600)).doing(what)?;
    Ok(file)
}

/// Moves the content of logs longer than `longest` bytes to `<process>.log.1`. Lines that are written between the copy and the cut
/// are lost.
pub(super) fn cut_long(directory: &Path, longest: u64) {
    for path in long(directory, longest) {
        let before = path.with_extension("log.1");
        if let Err(error) = fs::copy(&path, &before) {
            log(&format!("cannot copy {} to {}: {error}", path.display(), before.display()));
        }
        // Without its copy too: a log that grows on would take everything else with it.
        if let Err(error) = OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0)) {
            log(&format!("cannot cut {}: {error}", path.display()));
        }
    }
}

fn long(directory: &Path, longest: u64) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let logs = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    logs.filter(|entry| entry.metadata().is_ok_and(|found| found.len() > longest)).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn logs_are_readable_by_their_owner_alone_also_those_that_were_not() {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("log");
        DirBuilder::new().mode(0o755).create(&logs).unwrap();
        let path = logs.join("supervisor.log");
        OpenOptions::new().create(true).append(true).mode(0o644).open(&path).unwrap();
        open_in(&logs, &path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&logs), mode(&path)), (0o700, 0o600));
    }

    #[test]
    fn a_long_log_is_cut_and_what_was_in_it_is_kept_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("apiserver.log");
        let mut process = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        write!(process, "much too long").unwrap();
        cut_long(directory.path(), 20);
        assert_eq!(fs::read_to_string(&path).unwrap(), "much too long");
        cut_long(directory.path(), 5);
        write!(process, "next").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "next");
        assert_eq!(fs::read_to_string(path.with_extension("log.1")).unwrap(), "much too long");
    }
}
