//! The files that namespaces are mounted on.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount},
};

use super::{NetNsError, failed};

/// Makes the file that the namespace will be mounted on, and its directory.
pub(super) fn reserve(path: &Path) -> Result<(), NetNsError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(|source| failed("make directory", directory, source))?;
    share(directory)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o444).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(NetNsError::Exists { path: path.to_path_buf() })
        }
        Err(source) => Err(failed("make file", path, source)),
    }
}

/// Makes the directory a shared mount. Where it is no mount point yet it is first mounted on itself; the lock keeps two processes
/// (`ip netns` takes the same one) from doing so twice.
fn share(directory: &Path) -> Result<(), NetNsError> {
    let action = "make a shared mount of";
    let lock = File::open(directory).map_err(|source| failed("open directory", directory, source))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|source| failed("lock directory", directory, source))?;
    let shared = || mount_change(directory, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
    match shared() {
        Ok(()) => Ok(()),
        Err(Errno::INVAL) => mount_bind_recursive(directory, directory)
            .and_then(|()| shared())
            .map_err(|source| failed(action, directory, source)),
        Err(source) => Err(failed(action, directory, source)),
    }
}

/// Mounts a namespace on its name.
pub(super) fn bind(namespace: &Path, name: &Path) -> Result<(), NetNsError> {
    mount_bind(namespace, name).map_err(|source| failed("mount network namespace on", name, source))
}

/// Takes the mounts and the file away.
pub(super) fn release(path: &Path) -> Result<(), NetNsError> {
    loop {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // A name that was mounted on twice is to be found by the next round.
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(source) => return Err(failed("unmount", path, source)),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove file", path, error)),
        _ => Ok(()),
    }
}

/// Whether a namespace is mounted on the name.
#[cfg(test)]
pub(super) fn is_mounted(path: &Path) -> bool {
    /// `linux/magic.h`.
    const NSFS_MAGIC: u32 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|found| u32::try_from(found.f_type) == Ok(NSFS_MAGIC))
}
