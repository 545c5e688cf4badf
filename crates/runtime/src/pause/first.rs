//! What the copy of pause does between `fork` and `exec`: it becomes a container's first process, or one more process in a running
//! container.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    os::unix::{net::UnixStream, process::CommandExt},
    path::Path,
    process::Command,
};

use podnet_kernel::process::{CapabilitySet, UnshareFlags, exit_now, unshare};
use rustix::{
    pty::OpenptFlags,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{rootfs, spec::ContainerSpec, user, wire};

/// Why the process did not become what it should.
#[derive(Debug, thiserror::Error)]
enum FirstError {
    #[error("cannot {action}: {source}")]
    Kernel { action: String, source: io::Error },
    #[error(transparent)]
    RootFs(#[from] rootfs::RootFsError),
    #[error(transparent)]
    User(#[from] user::UserError),
    #[error("{error}: {}", std::error::Error::source(error).map(ToString::to_string).unwrap_or_default())]
    Identity { error: podnet_kernel::process::IdentityError },
    #[error("exec {program:?}: executable file not found in $PATH")]
    NotFound { program: String },
}

fn failed<E: Into<io::Error>>(action: &str) -> impl FnOnce(E) -> FirstError {
    let action = action.to_owned();
    move |source| FirstError::Kernel { action, source: source.into() }
}

/// The three standard streams of the process to be.
pub(super) struct Streams {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Becomes the container. On failure the reason goes over `report`, which otherwise just closes; with a terminal, its other end goes
/// there first.
pub(super) fn become_container(spec: &ContainerSpec, root: &Path, streams: Option<Streams>, report: &UnixStream) -> ! {
    let Err(error) = try_become_container(spec, root, streams, report);
    tell(report, &error);
}

fn try_become_container(
    spec: &ContainerSpec,
    root: &Path,
    streams: Option<Streams>,
    report: &UnixStream,
) -> Result<std::convert::Infallible, FirstError> {
    rustix::process::setsid().map_err(failed("make a session"))?;
    enter_cgroup(&spec.cgroup)?;
    unshare(UnshareFlags::NEWNS).map_err(failed("make a mount namespace"))?;
    rootfs::enter(spec, root)?;
    let streams = match streams {
        Some(streams) => streams,
        None => open_terminal(report)?,
    };
    let mode = 0o1777;
    let _ = fs::set_permissions("/dev/shm", std::os::unix::fs::PermissionsExt::from_mode(mode));
    run(spec, &spec.args, &streams, spec.tty)
}

/// Becomes one more process of a container; the caller made the copy in the container's pid namespace.
pub(super) fn become_exec(
    spec: &ContainerSpec,
    pid: i32,
    command: &[String],
    tty: bool,
    streams: &Streams,
    report: &UnixStream,
) -> ! {
    let Err(error) = try_become_exec(spec, pid, command, tty, streams);
    tell(report, &error);
}

fn try_become_exec(
    spec: &ContainerSpec,
    pid: i32,
    command: &[String],
    tty: bool,
    streams: &Streams,
) -> Result<std::convert::Infallible, FirstError> {
    rustix::process::setsid().map_err(failed("make a session"))?;
    enter_cgroup(&spec.cgroup)?;
    // Network, IPC and UTS namespaces are pause's own already.
    let mounts = File::open(format!("/proc/{pid}/ns/mnt")).map_err(failed("open the container's mount namespace"))?;
    move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(failed("join the mount namespace"))?;
    run(spec, command, streams, tty)
}

fn run(
    spec: &ContainerSpec,
    args: &[String],
    streams: &Streams,
    tty: bool,
) -> Result<std::convert::Infallible, FirstError> {
    rustix::stdio::dup2_stdin(&streams.stdin).map_err(failed("set stdin"))?;
    rustix::stdio::dup2_stdout(&streams.stdout).map_err(failed("set stdout"))?;
    rustix::stdio::dup2_stderr(&streams.stderr).map_err(failed("set stderr"))?;
    if tty {
        rustix::process::ioctl_tiocsctty(&streams.stdin).map_err(failed("make the terminal the session's own"))?;
    }
    let who = user::resolve(&spec.user)?;
    fs::create_dir_all(&spec.working_dir)
        .map_err(failed(&format!("make the working directory {}", spec.working_dir)))?;
    std::env::set_current_dir(&spec.working_dir)
        .map_err(failed(&format!("enter the working directory {}", spec.working_dir)))?;
    // A path such as /proc/self/fd/7 may lead to a directory that is not below the container's root.
    let reached = rustix::process::getcwd(Vec::new()).map_err(failed("tell the working directory"))?;
    if !reached.as_bytes().starts_with(b"/") {
        let source = io::Error::other("it is outside of the container");
        return Err(failed(&format!("enter the working directory {}", spec.working_dir))(source));
    }
    let capabilities =
        if spec.privileged { CapabilitySet::all() } else { CapabilitySet::from_bits_retain(spec.capabilities) };
    if !tty {
        // Programs reopen /dev/stdout and /dev/stderr; the pipe belongs to whoever made it until it is given away.
        for stream in [&streams.stdout, &streams.stderr] {
            let _ = rustix::fs::fchown(
                stream,
                Some(rustix::fs::Uid::from_raw(who.uid)),
                Some(rustix::fs::Gid::from_raw(who.gid)),
            );
        }
    }
    let home = who.home.clone();
    who.identity(capabilities, spec.no_new_privileges).assume().map_err(|error| FirstError::Identity { error })?;
    let Some((program, rest)) = args.split_first() else {
        return Err(FirstError::NotFound { program: String::new() });
    };
    let mut command = Command::new(program);
    command.args(rest).env_clear().env("HOME", home);
    if tty {
        command.env("TERM", "xterm");
    }
    let error = command.envs(spec.env.iter().map(|(key, value)| (key, value))).exec();
    Err(match error.kind() {
        io::ErrorKind::NotFound => FirstError::NotFound { program: program.clone() },
        _ => FirstError::Kernel { action: format!("exec {program:?}"), source: error },
    })
}

fn enter_cgroup(cgroup: &Path) -> Result<(), FirstError> {
    fs::write(cgroup.join("cgroup.procs"), "0").map_err(failed(&format!("enter the cgroup {}", cgroup.display())))
}

/// A terminal of the container's own `/dev/pts`, so that its name means something inside.
fn open_terminal(report: &UnixStream) -> Result<Streams, FirstError> {
    let master = File::options().read(true).write(true).open("/dev/pts/ptmx").map_err(failed("open a terminal"))?;
    rustix::pty::unlockpt(&master).map_err(failed("unlock the terminal"))?;
    let open =
        || rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
    let streams = Streams {
        stdin: open().map_err(failed("open the terminal"))?,
        stdout: open().map_err(failed("open the terminal"))?,
        stderr: open().map_err(failed("open the terminal"))?,
    };
    wire::send(report, b"\0", &[master.as_fd()]).map_err(failed("hand the terminal over"))?;
    Ok(streams)
}

fn tell(mut report: &UnixStream, error: &FirstError) -> ! {
    let _ = report.write_all(error.to_string().as_bytes());
    exit_now(match error {
        FirstError::NotFound { .. } => 127,
        _ => 126,
    })
}
