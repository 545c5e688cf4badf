//! Network namespaces (`network_namespaces(7)`), named by bind mounts as `ip netns` names them.

mod names;

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::{link, netlink::RtSocket};

/// The calling thread's own network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, held by a descriptor: it lives at least as long as this value. Clones share the descriptor.
#[derive(Clone, Debug)]
pub struct NetNs {
    descriptor: Arc<OwnedFd>,
}

impl NetNs {
    /// Makes a namespace, names it `path`, and brings its loopback up.
    ///
    /// The directory is made where it is missing, and is made a shared mount as `ip netns` does, so that the name is seen, and can be
    /// removed, from every mount namespace.
    ///
    /// # Errors
    /// [`NetNsError::Exists`] where the name is taken; otherwise what the kernel refused. Nothing is left behind then.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, NetNsError> {
        let path = path.as_ref();
        names::reserve(path)?;
        let made = on_thread("make a network namespace", || {
            // SAFETY: only CLONE_FILES can invalidate what other threads hold; a new network namespace for this thread cannot.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|source| failed("make network namespace", path, source))?;
            names::bind(Path::new(OWN), path)?;
            let namespace = Self::current()?;
            let up = RtSocket::open().and_then(|mut socket| link::set_up(&mut socket, "lo"));
            up.map_err(|source| NetNsError::Loopback { path: path.to_path_buf(), source: Box::new(source) })?;
            Ok(namespace)
        })
        .and_then(|made| made);
        made.inspect_err(|_| {
            // The cause is what the caller needs to know; that the name may stay is its consequence.
            let _ = Self::remove(path);
        })
    }

    /// Opens a namespace by its name (or by `/proc/<pid>/ns/net`).
    ///
    /// # Errors
    /// Where the file cannot be opened; [`NetNsError::is_missing`] where there is none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetNsError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| failed("open network namespace", path, source))?;
        Ok(Self::from_fd(OwnedFd::from(file)))
    }

    /// A namespace whose descriptor came from elsewhere.
    #[must_use]
    pub fn from_fd(descriptor: OwnedFd) -> Self {
        Self { descriptor: Arc::new(descriptor) }
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// Where `/proc` is not there.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open(OWN)
    }

    /// The namespace that a process is in.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn of_process(pid: u32) -> Result<Self, NetNsError> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// Takes the name away: the namespace ends when nothing else holds it. Done also where there is no such name, or where a crash
    /// left a file that nothing is mounted on.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn remove(path: impl AsRef<Path>) -> Result<(), NetNsError> {
        names::release(path.as_ref())
    }

    /// Whether the descriptor is of a network namespace at all, and not of a file or another kind of namespace.
    #[must_use]
    pub fn is_network(&self) -> bool {
        // `_IO(0xb7, 0x3)`, `linux/nsfs.h`.
        const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&*self.descriptor);
        // SAFETY: the descriptor is open as long as `self`; the request takes no argument and writes no memory.
        let kind = unsafe { libc::ioctl(descriptor, NS_GET_NSTYPE) };
        kind == libc::CLONE_NEWNET
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it. A thread that `work` starts is inside as well.
    ///
    /// # Errors
    /// Where the namespace cannot be entered or the thread cannot be started. A panic of `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        on_thread("enter a network namespace", || self.enter_current_thread().map(|()| work())).and_then(|done| done)
    }

    /// Runs `work` in a new namespace without a name, on a thread of its own. Nothing of it stays.
    ///
    /// # Errors
    /// Where no namespace can be made. A panic of `work` goes on in the caller.
    pub fn with_scratch<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        on_thread("try something in a new network namespace", || {
            // SAFETY: as in [`NetNs::create`].
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|source| failed("make a network namespace from", Path::new(OWN), source))?;
            Ok(work())
        })
        .and_then(|done| done)
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// Where this is not a network namespace or the process lacks `CAP_SYS_ADMIN`.
    pub fn enter_current_thread(&self) -> Result<(), NetNsError> {
        move_into_link_name_space(self.descriptor.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|source| NetNsError::Enter { source })
    }

    /// The namespace's identity on this machine: its inode number in nsfs.
    ///
    /// # Errors
    /// Where the descriptor cannot be looked at.
    pub fn inode(&self) -> Result<u64, NetNsError> {
        rustix::fs::fstat(&*self.descriptor).map(|stat| stat.st_ino).map_err(|source| NetNsError::Inode { source })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Why a namespace could not be made, opened, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// The name is taken.
    #[error("cannot make network namespace {}: the name is taken", path.display())]
    Exists {
        /// The name.
        path: PathBuf,
    },
    /// The kernel or the file system refused.
    #[error("cannot {action} {}", path.display())]
    Failed {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The new namespace's loopback does not come up.
    #[error("cannot bring up lo in network namespace {}", path.display())]
    Loopback {
        /// The namespace.
        path: PathBuf,
        /// Why.
        source: Box<crate::netlink::NetlinkError>,
    },
    /// `setns(2)` failed.
    #[error("cannot enter the network namespace")]
    Enter {
        /// Why.
        source: rustix::io::Errno,
    },
    /// `fstat(2)` failed.
    #[error("cannot tell which network namespace it is")]
    Inode {
        /// Why.
        source: rustix::io::Errno,
    },
    /// No thread could be started.
    #[error("cannot start a thread to {purpose}")]
    Thread {
        /// What for.
        purpose: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl NetNsError {
    /// There is no such namespace.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Failed { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn failed(action: &'static str, path: &Path, source: impl Into<io::Error>) -> NetNsError {
    NetNsError::Failed { action, path: path.to_path_buf(), source: source.into() }
}

/// Namespaces belong to threads: what changes its own must not be a thread that others use.
fn on_thread<T: Send>(purpose: &'static str, work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into());
        let running = thread.spawn_scoped(scope, work).map_err(|source| NetNsError::Thread { purpose, source })?;
        Ok(running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests;
