//! Processes that stand still for a while, and go on whatever becomes of who stopped them.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;

/// For all threads to stand still: one in the kernel goes on until it leaves it.
const PATIENCE: Duration = Duration::from_secs(1);

/// A process that stands still until the value goes, or this program, however it ends.
pub(super) struct Stopped {
    process: Pid,
    /// Lets the process go on once nobody has its input open any more.
    guard: Child,
}

impl Stopped {
    /// Returns when all of its threads stand still.
    pub(super) fn stop(process: Pid) -> Result<Self> {
        let script = format!("cat >/dev/null; kill -CONT {}", process.as_raw_pid());
        let mut guard = Command::new("sh");
        // In a group of its own: who interrupts this program at a terminal would end both.
        guard.args(["-c", &script]).stdin(Stdio::piped()).process_group(0);
        let stopped = Self { process, guard: guard.spawn()? };
        kill_process(process, Signal::STOP)?;
        let deadline = Instant::now() + PATIENCE;
        while !stands_still(process)? {
            if Instant::now() > deadline {
                return Err(format!("process {} does not stop within {PATIENCE:?}", process.as_raw_pid()).into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // One that is gone needs nothing.
        let _ = kill_process(self.process, Signal::CONT);
        // It closes the guard's input.
        let _ = self.guard.wait();
    }
}

/// Whether all threads of a process do.
fn stands_still(process: Pid) -> io::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{}/task", process.as_raw_pid()))? {
        // One that has ended meanwhile tells nothing.
        if fs::read_to_string(thread?.path().join("stat")).is_ok_and(|stat| !is_stopped(&stat)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// By a thread's `stat` (proc(5)): behind the name in parentheses is its state.
fn is_stopped(stat: &str) -> bool {
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_stands_still_until_it_is_let_go_or_who_stopped_it_is_gone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Pid::from_child(&child);
        let stopped = Stopped::stop(process).unwrap();
        assert!(stands_still(process).unwrap());
        drop(stopped);
        assert!(!stands_still(process).unwrap());
        let mut stopped = Stopped::stop(process).unwrap();
        // As the kernel does for a program that was killed.
        drop(stopped.guard.stdin.take());
        stopped.guard.wait().unwrap();
        assert!(!stands_still(process).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_threads_state_is_behind_its_name_whatever_that_is() {
        assert!(is_stopped("7 (podnet) T 1 7 7 0"));
        assert!(!is_stopped("7 (a) T b) S 1 7 7 0"));
    }
}
