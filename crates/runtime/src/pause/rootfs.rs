//! A container's file system, made by the container's first process in its own mount namespace before it becomes the container.
//!
//! Every mount but the devices themselves is `nodev`: cgroup v2 guards devices with eBPF only, so a device node that a container
//! makes must not work wherever it puts it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags},
};

use super::spec::{ContainerSpec, Mount, PODNET_IN_CONTAINER, RootFs};

mod devices;
mod etc;
mod inside;

pub(super) use inside::inside;

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
    kernel_file_systems(spec, root)?;
    devices::mount(spec, root)?;
    let podnet = Mount {
        source: spec.podnet_binary.clone(),
        sub_path: None,
        destination: PODNET_IN_CONTAINER.into(),
        read_only: true,
        trusted: false,
    };
    bind(root, &podnet)?;
    let (outside, destination) = &spec.termination_log;
    let message = Mount {
        source: outside.clone(),
        sub_path: None,
        destination: destination.into(),
        read_only: false,
        trusted: false,
    };
    bind(root, &message)?;
    // Parents before children, so that a volume inside another volume is not hidden by it.
    let mut mounts: Vec<&Mount> = spec.mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.destination.components().count());
    for mount in mounts {
        bind(root, mount)?;
    }
    if spec.read_only_root {
        remount(root, MountFlags::RDONLY | MountFlags::NODEV)?;
    }
    pivot(root)
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
const HIDDEN: [&str; 6] = ["kcore", "keys", "latency_stats", "timer_list", "sched_debug", "scsi"];
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

fn kernel_file_systems(spec: &ContainerSpec, root: &Path) -> Result {
    let guard = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let proc = inside(root, Path::new("proc"), true)?;
    mount_new("proc", "proc", &proc, guard, "")?;
    let sys = inside(root, Path::new("sys"), true)?;
    let sys_flags = if spec.privileged { guard } else { guard | MountFlags::RDONLY };
    mount_new("sysfs", "sysfs", &sys, sys_flags, "")?;
    if spec.privileged {
        return Ok(());
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

fn bind(root: &Path, mount: &Mount) -> Result {
    let source = match &mount.sub_path {
        None => mount.source.clone(),
        Some(sub_path) => sub_path_of(mount, sub_path)?,
    };
    let found =
        fs::metadata(&source).map_err(during(|| format!("looking at the volume's {}", mount.source.display())))?;
    let target = inside(root, &mount.destination, found.is_dir())?;
    let what = || format!("mounting {} at {}", mount.source.display(), mount.destination.display());
    rustix::mount::mount_bind_recursive(&source, &target).map_err(during(what))?;
    let mut flags = if mount.trusted { MountFlags::empty() } else { MountFlags::NODEV };
    if mount.read_only {
        flags |= MountFlags::RDONLY;
    }
    if flags.is_empty() { Ok(()) } else { remount(&target, flags) }
}

/// A descriptor's path of a file below a volume: links inside the volume, which another container may write, cannot lead out of it.
fn sub_path_of(mount: &Mount, sub_path: &Path) -> Result<PathBuf> {
    let what = || format!("opening {} in the volume {}", sub_path.display(), mount.source.display());
    let volume = File::open(&mount.source).map_err(during(what))?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let open = || rustix::fs::openat2(&volume, sub_path, flags, Mode::empty(), resolve);
    let opened = match open() {
        Err(rustix::io::Errno::NOENT) => {
            // Kubernetes makes a missing sub-path a directory.
            inside(&mount.source, sub_path, true)?;
            open()
        }
        opened => opened,
    }
    .map_err(during(what))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&opened)));
    // Stays open until this process becomes the container's: it is marked close-on-exec.
    std::mem::forget(opened);
    Ok(path)
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
