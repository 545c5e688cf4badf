//! The process `podnet pause`: one for each pod. It holds the sandbox's namespaces, is the parent of the containers, writes their logs
//! and exit codes, and outlives the runtime, which finds it again by its socket.
//!
//! One thread, no async, because it forks: see [`podnet_kernel::process`]. It decides nothing: what to run stands in files that the
//! runtime wrote ([`spec`]), when to run it is said on the socket ([`protocol`]).

use std::{
    fs, io,
    os::fd::AsFd,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
};

use rustix::{
    event::{PollFd, PollFlags},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags},
    process::DumpableBehavior,
    thread::{LinkNameSpaceType, UnshareFlags},
};

pub(crate) mod log;
pub(crate) mod protocol;
pub(crate) mod spec;
pub(crate) mod wire;

mod connection;
mod containers;
mod first;
mod rootfs;
mod serve;
mod start;
mod user;

use spec::SandboxSpec;

/// Pause could not hold the sandbox.
#[derive(Debug, thiserror::Error)]
#[error("sandbox {}: cannot {action}", dir.display())]
pub struct PauseError {
    dir: PathBuf,
    action: String,
    #[source]
    source: io::Error,
}

/// Holds the sandbox that `dir/sandbox.json` describes, until it is killed.
///
/// # Errors
/// Where the sandbox's namespaces or socket cannot be made, or waiting fails.
pub fn pause(dir: &Path) -> Result<(), PauseError> {
    let failed = |action: &str| {
        let (dir, action) = (dir.to_owned(), action.to_owned());
        move |source: io::Error| PauseError { dir, action, source }
    };
    let text = fs::read(dir.join("sandbox.json")).map_err(failed("read sandbox.json"))?;
    let spec: SandboxSpec =
        serde_json::from_slice(&text).map_err(|error| failed("understand sandbox.json")(error.into()))?;
    // Copies of this process live for a moment among a container's own: the container may not look into them, nor at this executable
    // through them (prctl(2), PR_SET_DUMPABLE; the program that a copy becomes is dumpable again).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| failed("close itself to the containers")(error.into()))?;
    // First of all, so that killing the pod's cgroup reaches this process from here on.
    fs::write(spec.cgroup.join("cgroup.procs"), "0").map_err(failed("enter the pod's cgroup"))?;
    enter_namespaces(&spec).map_err(failed("enter the sandbox's namespaces"))?;
    let listener = listen(dir).map_err(failed("listen on the socket"))?;
    announce().map_err(failed("say that the sandbox is ready"))?;
    serve::serve(dir, &listener).map_err(failed("serve the socket"))
}

fn listen(dir: &Path) -> io::Result<UnixListener> {
    // A socket's path has 108 bytes at most (unix(7)); a relative one always fits.
    std::env::set_current_dir(dir)?;
    let _ = fs::remove_file(protocol::SOCKET);
    // Bound under another name, so that the socket is never there without being listened on.
    let temporary = "pause.sock.new";
    let _ = fs::remove_file(temporary);
    let listener = UnixListener::bind(temporary)?;
    fs::set_permissions(temporary, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    fs::rename(temporary, protocol::SOCKET)?;
    Ok(listener)
}

/// Tells the runtime that waits, and lets go of the pipe to it.
fn announce() -> io::Result<()> {
    use io::Write;
    io::stdout().write_all(b"ready\n")?;
    io::stdout().flush()?;
    let null = fs::File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

fn enter_namespaces(spec: &SandboxSpec) -> io::Result<()> {
    if let Some(path) = &spec.netns {
        let netns = fs::File::open(path)?;
        podnet_kernel::process::join(netns.as_fd(), LinkNameSpaceType::Network)?;
    }
    let mut own = UnshareFlags::NEWNS | UnshareFlags::NEWIPC;
    if spec.hostname.is_some() {
        own |= UnshareFlags::NEWUTS;
    }
    podnet_kernel::process::unshare(own)?;
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)?;
    release_namespaces()?;
    if let Some(name) = &spec.hostname {
        rustix::system::sethostname(name.as_bytes())?;
    }
    for (path, size) in &spec.memory_volumes {
        let options = size.map_or_else(|| "mode=777".to_owned(), |size| format!("mode=777,size={size}"));
        let options = std::ffi::CString::new(options)?;
        rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, options.as_c_str())?;
    }
    if spec.netns.is_some() {
        // As on any node of today: unprivileged pods ping and serve port 80 in a network namespace that is theirs.
        let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
        let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    }
    for (name, value) in &spec.sysctls {
        fs::write(Path::new("/proc/sys").join(name.replace('.', "/")), value)?;
    }
    Ok(())
}

/// Lets go of other pods' namespaces: a mount of them that was copied here would keep them when they are removed.
fn release_namespaces() -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<&str> =
        mounts.lines().filter(|line| line.contains(" - nsfs ")).filter_map(|line| line.split(' ').nth(4)).collect();
    points.reverse();
    for point in points {
        let _ = rustix::mount::unmount(point, UnmountFlags::DETACH);
    }
    Ok(())
}

/// Waits until one of the descriptors can be read or has ended; answers which.
fn wait_readable(descriptors: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<Vec<usize>> {
    let mut polled: Vec<PollFd<'_>> =
        descriptors.iter().map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN)).collect();
    loop {
        match rustix::event::poll(&mut polled, None) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(polled.iter().enumerate().filter(|(_, polled)| !polled.revents().is_empty()).map(|(index, _)| index).collect())
}
