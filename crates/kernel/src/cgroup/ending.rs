//! How a group of processes ends.

use std::{
    fs, io,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};

use super::{Cgroup, CgroupError, is_gone};

/// Between two looks at whether killed processes are gone.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) fn kill(group: &Cgroup) -> Result<(), CgroupError> {
    match group.write("cgroup.kill", "1") {
        Ok(()) => Ok(()),
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => kill_each(group),
        Err(source) => Err(group.failed("kill the processes of", source)),
    }
}

/// Without `cgroup.kill` (an older kernel, or no group at all): signals whom it finds. A process that is started meanwhile escapes this
/// round; [`remove_tree`] begins the next.
fn kill_each(group: &Cgroup) -> Result<(), CgroupError> {
    for pid in group.all_pids()? {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
        match kill_process(pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(group.failed("kill a process of", errno.into())),
        }
    }
    Ok(())
}

pub(super) fn remove_tree(group: &Cgroup, patience: Duration) -> Result<(), CgroupError> {
    let deadline = Instant::now() + patience;
    loop {
        if !group.exists() {
            return Ok(());
        }
        kill(group)?;
        if remove_empty(group)? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let pids = group.all_pids()?;
            return Err(CgroupError::StillPopulated { path: group.path.clone(), patience, pids });
        }
        sleep(PAUSE);
    }
}

/// Removes what has no processes, innermost first; tells whether that was all.
fn remove_empty(group: &Cgroup) -> Result<bool, CgroupError> {
    let mut all = true;
    for child in group.children()? {
        all &= remove_empty(&child)?;
    }
    if !all {
        return Ok(false);
    }
    match fs::remove_dir(&group.path) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => Ok(false),
        Err(source) => Err(group.failed("remove", source)),
    }
}
