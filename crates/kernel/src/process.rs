//! Processes: a `fork` that is sound, into a pid namespace of choice, and the namespace and identity calls that a container's
//! first process makes between `fork` and `exec`.
//!
//! A copy of a multi-threaded process may call async-signal-safe functions only (POSIX, `fork`): locks that other threads held
//! stay locked. [`fork`] therefore refuses in a process with more than one thread; in the copy everything is allowed.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions},
    thread::LinkNameSpaceType,
};

pub use rustix::thread::{CapabilitySet, UnshareFlags};

mod identity;
#[cfg(test)]
mod tests;

pub use identity::{Identity, IdentityError, capability_named, default_capabilities};

/// Which pid namespace the copy becomes a member of.
#[derive(Clone, Copy, Debug)]
pub enum PidNamespace<'a> {
    /// The caller's own.
    Same,
    /// A new one, in which the copy is process 1: when it ends, the kernel kills every other member (pid_namespaces(7)).
    New,
    /// An existing one below the caller's, from `/proc/<pid>/ns/pid`.
    Of(BorrowedFd<'a>),
}

/// In which of the two processes [`fork`] returned.
#[derive(Debug)]
pub enum Forked {
    /// The copy. It has to end in `exec` or [`exit_now`].
    Child,
    /// The caller.
    Parent(Child),
}

/// A child of this process.
#[derive(Debug)]
pub struct Child {
    /// Its id in the caller's pid namespace.
    pub pid: i32,
    pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Exited(i32),
    /// A signal killed it.
    Killed(i32),
}

impl Ended {
    /// The code that shells and Kubernetes show: 128 + signal for a killed process.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal,
        }
    }
}

/// A process could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// See the module's text.
    #[error("cannot fork: this process has {threads} threads, which a copy would lose in the middle of their work")]
    Threads {
        /// How many there are.
        threads: usize,
    },
    /// The kernel refused.
    #[error("cannot fork: {action}")]
    Kernel {
        /// The step that failed.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Copies this single-threaded process into a pid namespace.
///
/// # Errors
/// Where the process has other threads, or the kernel refuses the namespace or the process.
pub fn fork(namespace: PidNamespace<'_>) -> Result<Forked, ForkError> {
    let failed = |action| move |source: io::Error| ForkError::Kernel { action, source };
    let threads = std::fs::read_dir("/proc/self/task").map_err(failed("counting threads in /proc/self/task"))?.count();
    if threads != 1 {
        return Err(ForkError::Threads { threads });
    }
    let own = File::open("/proc/self/ns/pid").map_err(failed("opening /proc/self/ns/pid"))?;
    match namespace {
        PidNamespace::Same => {}
        PidNamespace::New => unshare(UnshareFlags::NEWPID).map_err(failed("making a pid namespace"))?,
        PidNamespace::Of(of) => join(of, LinkNameSpaceType::ProcessID).map_err(failed("joining the pid namespace"))?,
    }
    // SAFETY: there is no other thread (checked above, and none can start between the check and here, because only threads of
    // this process start threads in it), so the copy finds no lock held and every invariant intact.
    let pid = unsafe { libc::fork() };
    let error = io::Error::last_os_error();
    if pid == 0 {
        return Ok(Forked::Child);
    }
    if !matches!(namespace, PidNamespace::Same) {
        // Only children are affected: a process never changes its own pid namespace (setns(2)).
        join(own.as_fd(), LinkNameSpaceType::ProcessID).map_err(failed("returning to the own pid namespace"))?;
    }
    let Some(id) = Pid::from_raw(pid).filter(|_| pid > 0) else {
        return Err(ForkError::Kernel { action: "copying the process", source: error });
    };
    // Nobody but this process can reap the child, so the id still means it.
    let pidfd = rustix::process::pidfd_open(id, PidfdFlags::empty())
        .map_err(|source| ForkError::Kernel { action: "opening the child's descriptor", source: source.into() })?;
    Ok(Forked::Parent(Child { pid, pidfd }))
}

impl Child {
    /// Becomes readable when the process has ended.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal; to a process that has ended already it does nothing.
    ///
    /// # Errors
    /// Where the signal is not one.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// How it ended, once; none while it runs.
    ///
    /// # Errors
    /// Where it was reaped already.
    pub fn try_wait(&self) -> io::Result<Option<Ended>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let Some(status) = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options)? else {
            return Ok(None);
        };
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Ended::Exited(code)),
            (None, Some(signal)) => Some(Ended::Killed(signal)),
            (None, None) => None,
        })
    }
}

/// Ends this process without running what was registered for its exit, as the copy that [`fork`] made has to.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

/// Keeps every descriptor above standard error from the programs that this process will execute, also those that it was given by
/// its own parent: a lock or a pipe of a caller must not live as long as a daemon does.
///
/// # Errors
/// What close_range(2) says; `CLOSE_RANGE_CLOEXEC` needs Linux 5.11.
pub fn keep_descriptors() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: the flag only marks descriptors; none is closed, whoever owns it.
    let result = unsafe { libc::close_range(FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the calling thread namespaces of its own.
///
/// # Errors
/// What unshare(2) says; `InvalidInput` for `FILES`, which would take descriptors away from other threads.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: FILES, the one flag with a precondition, is refused above.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Moves the calling thread into one namespace.
///
/// # Errors
/// What setns(2) says.
pub fn join(namespace: BorrowedFd<'_>, kind: LinkNameSpaceType) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(namespace, Some(kind)).map_err(io::Error::from)
}
