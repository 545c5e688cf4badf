//! Who may change the cluster. The locks are `flock(2)`'s, which the kernel releases however their holder ends.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{
    layout,
    report::{Doing, Failure},
};

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// `status` and `up` hold the supervisor's lock for a moment to see whether it is free; a new supervisor outwaits them.
const MOMENT: Duration = Duration::from_secs(1);

/// The right to change the cluster, which `up` and `down` hold one at a time.
pub(crate) struct Turn(File);

impl Turn {
    /// Waits for an `up` or `down` that is at work.
    pub(crate) fn take() -> Result<Self, Failure> {
        let path = Path::new(layout::TURN_LOCK);
        let what = || format!("cannot take the lock {}", path.display());
        loop {
            let file = open_or_create(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    eprintln!("podnet: another podnet up or down is running; waiting for it");
                    file.lock().doing(what)?;
                }
                Err(TryLockError::Error(error)) => return Err(Failure::because(what(), error)),
            }
            // A `down` may have removed the file meanwhile; whoever comes now locks another one.
            if is_at(&file, path) {
                return Ok(Self(file));
            }
        }
    }

    /// Gives the turn away and takes the file along.
    pub(crate) fn leave_no_trace(self) -> Result<(), Failure> {
        fs::remove_file(layout::TURN_LOCK).doing(|| format!("cannot remove {}", layout::TURN_LOCK))?;
        drop(self.0);
        Ok(())
    }
}

/// Makes the supervisor's lock file: where there is none, a supervisor does not start.
pub(crate) fn make_supervisor_lock() -> Result<(), Failure> {
    open_or_create(&layout::supervisor_lock()).map(drop)
}

/// Takes the lock for a supervisor's life. It is refused where another one lives, and where `down` was faster.
pub(crate) fn become_supervisor() -> Result<File, Failure> {
    let path = layout::supervisor_lock();
    let what = || format!("cannot take the lock {}", path.display());
    let mut file = OpenOptions::new().read(true).write(true).open(&path).doing(what)?;
    let deadline = Instant::now() + MOMENT;
    while let Err(error) = file.try_lock() {
        match error {
            TryLockError::WouldBlock if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
            TryLockError::WouldBlock => return Err(Failure::new("another supervisor is running")),
            TryLockError::Error(error) => return Err(Failure::because(what(), error)),
        }
    }
    if !is_at(&file, &path) {
        return Err(Failure::new("the cluster was removed while its supervisor started"));
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).doing(what)?;
    Ok(file)
}

/// Whether a supervisor lives.
pub(crate) fn supervisor_lives() -> bool {
    File::open(layout::supervisor_lock()).is_ok_and(|file| is_held(&file))
}

/// The process id of the supervisor, where one lives.
pub(crate) fn supervisor_pid() -> Option<u32> {
    let mut file = File::open(layout::supervisor_lock()).ok()?;
    if is_held(&file) { written_pid(&mut file) } else { None }
}

/// Kills the supervisor, wherever in its start it is, and keeps another one from starting for as long as the answer lives.
pub(crate) fn end_supervisor(patience: Duration) -> Result<Option<File>, Failure> {
    let Ok(mut file) = File::open(layout::supervisor_lock()) else { return Ok(None) };
    let deadline = Instant::now() + patience;
    while let Err(error) = file.try_lock() {
        if let TryLockError::Error(error) = error {
            return Err(Failure::because("cannot take the supervisor's lock", error));
        }
        let pid = written_pid(&mut file);
        if Instant::now() >= deadline {
            let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            return Err(Failure::new(format!("the supervisor{pid} does not end")));
        }
        if let Some(pid) = pid {
            kill_podnet(pid);
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(Some(file))
}

/// The number may belong to somebody else by now: the process is held by a descriptor while it is looked at.
fn kill_podnet(pid: u32) {
    let Some(pid) = pid.try_into().ok().and_then(Pid::from_raw) else { return };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let found = name(&pid.as_raw_nonzero().to_string());
    if found.is_some() && (found.as_deref() == Some("podnet\n") || found == name("self")) {
        // It may have ended by itself; the lock tells.
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
}

fn open_or_create(path: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    file.doing(|| format!("cannot make the lock {}", path.display()))
}

fn is_held(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// None as long as the holder has not written it.
fn written_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_string(&mut text).ok()?;
    text.strip_suffix('\n')?.parse().ok()
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => identity(held) == identity(named),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_seen_as_held_until_its_holder_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let holder = open_or_create(&path).unwrap();
        let looker = File::open(&path).unwrap();
        assert!(!is_held(&looker));
        looker.unlock().unwrap();
        holder.lock().unwrap();
        assert!(is_held(&looker));
        drop(holder);
        assert!(!is_held(&looker));
    }

    #[test]
    fn a_removed_lock_file_is_not_the_one_that_others_see() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = open_or_create(&path).unwrap();
        assert!(is_at(&first, &path));
        fs::remove_file(&path).unwrap();
        let second = open_or_create(&path).unwrap();
        assert!(!is_at(&first, &path) && is_at(&second, &path));
    }

    #[test]
    fn a_half_written_process_id_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = open_or_create(&directory.path().join("lock")).unwrap();
        write!(file, "12").unwrap();
        assert_eq!(written_pid(&mut file), None);
        writeln!(file, "3").unwrap();
        assert_eq!(written_pid(&mut file), Some(123));
    }
}
