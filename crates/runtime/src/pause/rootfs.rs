//! A container's file system, made by the container's first process in its own mount namespace before it becomes the container.
//!
//! Every mount but the devices themselves is `nodev`: cgroup v2 guards devices with eBPF only, so a device node that a container
//! makes must not work wherever it puts it.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::spec::{ContainerSpec, Mount, PODNET_IN_CONTAINER, RootFs};

mod devices;
mod etc;
mod inside;

use inside::{beneath, inside, path_of};

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {source}")]
pub(super) struct RootFsError {
    action: String,
    source: io::Error,
}

/// Attaches what was tried to an error.
pub(super) fn during<E: Into<io::Error>>(action: impl FnOnce() -> String) -> impl FnOnce(E) -> RootFsError {
    move |source| RootFsError { action: action(), source: source.into() }
}

type Result<T = ()> = std::result::Result<T, RootFsError>;

/// Builds the file system at `root` (an empty directory) and makes it the calling process's root. The process has a mount namespace
/// and a pid namespace of its own.
pub(super) fn enter(spec: &ContainerSpec, root: &Path) -> Result {
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(during(|| "making mounts private".into()))?;
    match &spec.rootfs {
        RootFs::Host => host_root(root)?,
        RootFs::Layers { layers, scratch } => overlay_root(root, layers, scratch)?,
    }
    let opened = open_root(root)?;
    let place = opened.as_fd();
    kernel_file_systems(spec, place)?;
    devices::mount(spec, place)?;
    let podnet = Mount {
        source: spec.podnet_binary.clone(),
        sub_path: None,
        destination: PODNET_IN_CONTAINER.into(),
        read_only: true,
        trusted: false,
    };
    bind(place, &podnet)?;
    let (outside, destination) = &spec.termination_log;
    let message = Mount {
        source: outside.clone(),
        sub_path: None,
        destination: destination.into(),
        read_only: false,
        trusted: false,
    };
    bind(place, &message)?;
    // Parents before children, so that a volume inside another volume is not hidden by it.
    let mut mounts: Vec<&Mount> = spec.mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.destination.components().count());
    for mount in mounts {
        bind(place, mount)?;
    }
    if spec.read_only_root {
        remount(root, MountFlags::RDONLY | MountFlags::NODEV)?;
    }
    drop(opened);
    pivot(root)
}

fn open_root(root: &Path) -> Result<File> {
    File::open(root).map_err(during(|| format!("opening {}", root.display())))
}

fn pivot(root: &Path) -> Result {
    std::env::set_current_dir(root).map_err(during(|| format!("entering {}", root.display())))?;
    // With both the same, the old root lies on top of the new one and is the one that is then detached (pivot_root(2), NOTES).
    rustix::process::pivot_root(".", ".").map_err(during(|| format!("making {} the root", root.display())))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(during(|| "detaching the node's root".into()))?;
    std::env::set_current_dir("/").map_err(during(|| "entering /".into()))
}

/// A memory file system with the host's `/usr`, read-only, and an `/etc` without anything that is the host's own business.
fn host_root(root: &Path) -> Result {
    mount_new("tmpfs", "tmpfs", root, MountFlags::NODEV, "mode=755,size=64m")?;
    for (name, mode) in
        [("tmp", 0o1777), ("var", 0o755), ("var/tmp", 0o1777), ("run", 0o755), ("root", 0o700), ("home", 0o755)]
    {
        directory(&root.join(name), mode)?;
    }
    for name in ["var/log", "var/cache", "var/lib", "mnt", "srv", "opt"] {
        directory(&root.join(name), 0o755)?;
    }
    std::os::unix::fs::symlink("/run", root.join("var/run")).map_err(during(|| "linking /var/run".into()))?;
    for name in ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let (host, inner) = (Path::new("/").join(name), root.join(name));
        let Ok(found) = fs::symlink_metadata(&host) else { continue };
        if found.is_symlink() {
            let target = fs::read_link(&host).map_err(during(|| format!("reading the link {}", host.display())))?;
            std::os::unix::fs::symlink(target, &inner).map_err(during(|| format!("linking {}", inner.display())))?;
        } else if found.is_dir() {
            directory(&inner, 0o755)?;
            bind_host(&host, &inner)?;
        }
    }
    etc::fill(root)
}

/// Binds something of the host as it is, without devices, set-user-id programs or a way to write.
fn bind_host(host: &Path, inner: &Path) -> Result {
    rustix::mount::mount_bind(host, inner).map_err(during(|| format!("binding {}", host.display())))?;
    remount(inner, MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID)
}

fn overlay_root(root: &Path, layers: &[PathBuf], scratch: &Path) -> Result {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for dir in [&upper, &work] {
        fs::create_dir_all(dir).map_err(during(|| format!("making {}", dir.display())))?;
    }
    // overlayfs lists the highest first.
    let lower: Vec<String> = layers.iter().rev().map(|layer| layer.display().to_string()).collect();
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), upper.display(), work.display());
    mount_new("overlay", "overlay", root, MountFlags::NODEV, &options)
}

/// Files of the kernel that would tell about, or change, more than the container (as container engines hide them).
const HIDDEN: [&str; 8] = ["acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "sched_debug", "scsi"];
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

fn kernel_file_systems(spec: &ContainerSpec, root: BorrowedFd<'_>) -> Result {
    let guard = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let proc = mount_inside(root, "proc", "proc", guard, "")?;
    let sys_flags = if spec.privileged { guard } else { guard | MountFlags::RDONLY };
    let sys = mount_inside(root, "sys", "sysfs", sys_flags, "")?;
    if spec.privileged {
        return Ok(());
    }
    let (proc, firmware) = (path_of(&proc), path_of(&sys).join("firmware"));
    if firmware.exists() {
        mount_new("tmpfs", "tmpfs", &firmware, guard | MountFlags::RDONLY, "size=0")?;
    }
    for name in HIDDEN {
        let path = proc.join(name);
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_dir() {
            mount_new("tmpfs", "tmpfs", &path, guard | MountFlags::RDONLY, "size=0")?;
        } else {
            rustix::mount::mount_bind("/dev/null", &path).map_err(during(|| format!("hiding /proc/{name}")))?;
        }
    }
    for name in READ_ONLY {
        let path = proc.join(name);
        if path.exists() {
            rustix::mount::mount_bind(&path, &path).map_err(during(|| format!("guarding /proc/{name}")))?;
            remount(&path, guard | MountFlags::RDONLY)?;
        }
    }
    Ok(())
}

fn bind(root: BorrowedFd<'_>, mount: &Mount) -> Result {
    let what = || format!("mounting {} at {}", mount.source.display(), mount.destination.display());
    // Kept open no longer than for this: a descriptor of the host's directories must not be there when the container's program starts.
    let (source, _opened) = match &mount.sub_path {
        None => (mount.source.clone(), None),
        Some(sub_path) => {
            let volume = File::open(&mount.source).map_err(during(what))?;
            let opened = beneath(volume.as_fd(), sub_path)?;
            (path_of(&opened), Some(opened))
        }
    };
    let found =
        fs::metadata(&source).map_err(during(|| format!("looking at the volume's {}", mount.source.display())))?;
    let place = inside(root, &mount.destination, found.is_dir())?;
    rustix::mount::mount_bind_recursive(&source, path_of(&place)).map_err(during(what))?;
    let mut flags = if mount.trusted { MountFlags::empty() } else { MountFlags::NODEV };
    if mount.read_only {
        flags |= MountFlags::RDONLY;
    }
    if flags.is_empty() {
        return Ok(());
    }
    let mounted = inside(root, &mount.destination, found.is_dir())?;
    let reached = rustix::fs::fstat(&mounted).map_err(during(what))?;
    if (reached.st_dev, reached.st_ino) != (found.dev(), found.ino()) {
        let source = io::Error::other("somebody moved the mount's place meanwhile");
        return Err(RootFsError { action: what(), source });
    }
    remount(&path_of(&mounted), flags)
}

/// Mounts a new file system on a directory of the root; answers its own root.
fn mount_inside(root: BorrowedFd<'_>, name: &str, kind: &str, flags: MountFlags, options: &str) -> Result<OwnedFd> {
    let place = inside(root, Path::new(name), true)?;
    mount_new(kind, kind, &path_of(&place), flags, options)?;
    inside(root, Path::new(name), true)
}

fn mount_new(kind: &str, source: &str, target: &Path, flags: MountFlags, options: &str) -> Result {
    let options = std::ffi::CString::new(options).map_err(|_| RootFsError {
        action: format!("mounting {kind}: {options:?}"),
        source: io::ErrorKind::InvalidInput.into(),
    })?;
    rustix::mount::mount(source, target, kind, flags, Some(options.as_c_str()))
        .map_err(during(|| format!("mounting {kind} at {}", target.display())))
}

fn remount(target: &Path, flags: MountFlags) -> Result {
    rustix::mount::mount_remount(target, MountFlags::BIND | flags, "")
        .map_err(during(|| format!("restricting the mount at {}", target.display())))
}

fn directory(path: &Path, mode: u32) -> Result {
    let what = || format!("making the directory {}", path.display());
    fs::create_dir(path).map_err(during(what))?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).map_err(during(what))
}
