//! `/dev`: the devices that every program expects, and a terminal file system of the container's own.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::mount::MountFlags;

use super::{Result, directory, during, inside, mount_inside, mount_new, path_of};
use crate::pause::spec::ContainerSpec;

const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
/// The tun device makes tunnels possible for a privileged container, as all host devices do on a real node.
const PRIVILEGED: [&str; 2] = ["net/tun", "fuse"];

pub(super) fn mount(spec: &ContainerSpec, root: BorrowedFd<'_>) -> Result {
    let guard = MountFlags::NOSUID | MountFlags::NOEXEC;
    let opened = mount_inside(root, "dev", "tmpfs", guard | MountFlags::NODEV, "mode=755,size=64k")?;
    let dev = path_of(&opened);
    let extra = PRIVILEGED.iter().filter(|_| spec.privileged);
    for name in DEVICES.iter().chain(extra) {
        let host = Path::new("/dev").join(name);
        if host.exists() {
            let inner = inside(opened.as_fd(), Path::new(name), false)?;
            rustix::mount::mount_bind(&host, path_of(&inner)).map_err(during(|| format!("binding /dev/{name}")))?;
        }
    }
    directory(&dev.join("pts"), 0o755)?;
    mount_new("devpts", "devpts", &dev.join("pts"), guard, "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    directory(&dev.join("shm"), 0o1777)?;
    mount_new("tmpfs", "shm", &dev.join("shm"), guard | MountFlags::NODEV, "mode=1777,size=64m")?;
    directory(&dev.join("mqueue"), 0o755)?;
    // Not every kernel has POSIX message queues, and few programs want them.
    let _ = mount_new("mqueue", "mqueue", &dev.join("mqueue"), guard | MountFlags::NODEV, "");
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(target, dev.join(name)).map_err(during(|| format!("linking /dev/{name}")))?;
    }
    Ok(())
}
