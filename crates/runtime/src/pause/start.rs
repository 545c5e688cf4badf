//! Starts processes: pipes, copy, and the wait for word of how it went.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use podnet_kernel::process::{Child, Forked, PidNamespace, fork};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{
    first::{self, Streams},
    log::Stream,
    spec::ContainerSpec,
    wire,
};

/// Set-up is a few dozen mounts; one that takes longer hangs on a dead file server and may not take the other containers' logs with it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("cannot {action}: {source}")]
    Kernel { action: String, source: io::Error },
    #[error("{0}")]
    First(String),
    #[error("{error}: {}", std::error::Error::source(error).map(ToString::to_string).unwrap_or_default())]
    Fork { error: podnet_kernel::process::ForkError },
}

fn failed<E: Into<io::Error>>(action: &str) -> impl FnOnce(E) -> StartError {
    let action = action.to_owned();
    move |source| StartError::Kernel { action, source: source.into() }
}

/// A container's first process and our ends of its streams.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) outputs: Vec<(Stream, OwnedFd)>,
    /// Kept so that its stdin stays open, where it has one.
    pub(super) stdin: Option<OwnedFd>,
}

/// Starts a container; `root` is an empty directory that only serves as a mount point.
pub(super) fn container(spec: &ContainerSpec, root: &Path) -> Result<Started, StartError> {
    fs::create_dir_all(&spec.cgroup).map_err(failed(&format!("make the cgroup {}", spec.cgroup.display())))?;
    for (file, value) in &spec.limits {
        // Controllers that this hierarchy does not have limit nothing: version 1 may hold them.
        let path = spec.cgroup.join(file);
        if path.exists() {
            fs::write(&path, value).map_err(failed(&format!("write {value} to {}", path.display())))?;
        }
    }
    let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket pair"))?;
    let (mut outputs, mut stdin, mut streams) = (Vec::new(), None, None);
    if !spec.tty {
        let (out, out_end) = pipe()?;
        let (err, err_end) = pipe()?;
        let input = if spec.stdin {
            let (end, input) = pipe()?;
            stdin = Some(input);
            end
        } else {
            File::open("/dev/null").map_err(failed("open /dev/null"))?.into()
        };
        outputs = vec![(Stream::Stdout, out), (Stream::Stderr, err)];
        streams = Some(Streams { stdin: input, stdout: out_end, stderr: err_end });
    }
    match fork(PidNamespace::New).map_err(|error| StartError::Fork { error })? {
        Forked::Child => first::become_container(spec, root, streams, &theirs),
        Forked::Parent(child) => {
            drop((streams, theirs));
            if let Some(master) = outcome(&ours, &child)? {
                outputs = vec![(Stream::Stdout, master)];
            }
            Ok(Started { child, outputs, stdin })
        }
    }
}

/// Starts one more process in the container whose first process is `pid`.
pub(super) fn exec(
    spec: &ContainerSpec,
    pid: i32,
    command: &[String],
    tty: bool,
    streams: Streams,
) -> Result<Child, StartError> {
    let namespace = File::open(format!("/proc/{pid}/ns/pid")).map_err(failed("open the container's pid namespace"))?;
    let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket pair"))?;
    match fork(PidNamespace::Of(namespace.as_fd())).map_err(|error| StartError::Fork { error })? {
        Forked::Child => first::become_exec(spec, pid, command, tty, &streams, &theirs),
        Forked::Parent(child) => {
            drop((streams, theirs));
            outcome(&ours, &child)?;
            Ok(child)
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), StartError> {
    pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))
}

/// Waits until the copy became the program: its end of the socket closes without a word. A terminal may come before.
fn outcome(ours: &UnixStream, child: &Child) -> Result<Option<OwnedFd>, StartError> {
    ours.set_read_timeout(Some(PATIENCE)).map_err(failed("set a deadline"))?;
    let (mut words, mut terminals, mut buffer) = (Vec::new(), Vec::new(), [0; 1024]);
    let error = loop {
        match wire::receive(ours, &mut buffer, &mut terminals) {
            Ok(0) if words.is_empty() => return Ok(terminals.pop()),
            Ok(0) => break StartError::First(String::from_utf8_lossy(&words).into_owned()),
            Ok(count) => words.extend(buffer[..count].iter().filter(|byte| **byte != 0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break failed("hear from the new process")(error),
        }
    };
    // It may hang in a mount; killed, it ends as soon as the kernel lets it and is reaped with the others then.
    let _ = child.signal(9);
    let _ = child.try_wait();
    Err(error)
}
