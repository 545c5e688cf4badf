//! The containers of a sandbox as pause knows them.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use podnet_kernel::process::{Child, Ended};

use super::{
    first::Streams,
    log::{LogWriter, Stream},
    protocol::ContainerState,
    spec::{ContainerSpec, Exit, RunFiles},
    start, wire,
};

/// A container's newest run.
pub(super) struct Container {
    dir: PathBuf,
    spec: ContainerSpec,
    state: ContainerState,
    live: Option<Live>,
}

struct Live {
    child: Child,
    outputs: Vec<(Stream, OwnedFd)>,
    log: LogWriter,
    _stdin: Option<OwnedFd>,
}

impl Container {
    /// Starts the run that the runtime described. A run that cannot start has ended with code 128, as in container engines.
    pub(super) fn start(dir: &Path, name: &str, attempt: u32) -> io::Result<Self> {
        let files = RunFiles::new(dir, name, attempt);
        let spec: ContainerSpec = serde_json::from_slice(&fs::read(&files.spec)?)?;
        let log = LogWriter::open(&spec.log)?;
        let root = dir.join("root");
        fs::create_dir_all(&root)?;
        let started_ms = now_ms();
        let mut state = ContainerState { name: name.to_owned(), attempt, pid: 0, started_ms, exit: None };
        let live = match start::container(&spec, &root) {
            Ok(started) => {
                state.pid = started.child.pid;
                Some(Live { child: started.child, outputs: started.outputs, log, _stdin: started.stdin })
            }
            Err(error) => {
                let exit = Exit {
                    code: 128,
                    signal: None,
                    start_error: Some(error.to_string()),
                    started_ms,
                    finished_ms: now_ms(),
                };
                wire::write_atomically(&files.exit, &serde_json::to_vec(&exit)?)?;
                state.exit = Some(exit);
                None
            }
        };
        Ok(Self { dir: dir.to_owned(), spec, state, live })
    }

    pub(super) fn state(&self) -> &ContainerState {
        &self.state
    }

    pub(super) fn running(&self) -> bool {
        self.live.is_some()
    }

    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        self.live.as_ref().map_or(Ok(()), |live| live.child.signal(signal))
    }

    pub(super) fn exec(&self, command: &[String], tty: bool, streams: Streams) -> Result<Child, start::StartError> {
        start::exec(&self.spec, self.state.pid, command, tty, streams)
    }

    /// What to wait for: the process's end first, then its streams.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.live.iter().flat_map(|live| {
            std::iter::once(live.child.descriptor()).chain(live.outputs.iter().map(|(_, stream)| stream.as_fd()))
        })
    }

    /// Takes what the ready ones of [`Self::descriptors`] have; true where the container ended.
    pub(super) fn take(&mut self, ready: &[usize]) -> bool {
        let Some(live) = &mut self.live else { return false };
        let mut ended = Vec::new();
        for index in ready.iter().filter(|index| **index > 0) {
            if !read_some(live, index - 1) {
                ended.push(index - 1);
            }
        }
        for index in ended.into_iter().rev() {
            live.outputs.remove(index);
        }
        if !ready.contains(&0) {
            return false;
        }
        let ended = match live.child.try_wait() {
            Ok(None) => return false,
            Ok(Some(ended)) => ended,
            // It cannot be asked any more: gone, and nobody knows how.
            Err(_) => Ended::Killed(9),
        };
        self.finish(ended);
        true
    }

    fn finish(&mut self, ended: Ended) {
        let Some(mut live) = self.live.take() else { return };
        // With process 1 the kernel killed all others of the pid namespace, so what is in the pipes is all there will be.
        for index in 0..live.outputs.len() {
            while pending(&live.outputs[index].1) && read_some(&mut live, index) {}
            let stream = live.outputs[index].0;
            complain(live.log.finish(stream, &now()));
        }
        let signal = match ended {
            Ended::Killed(signal) => Some(signal),
            Ended::Exited(_) => None,
        };
        let exit = Exit {
            code: ended.code(),
            signal,
            start_error: None,
            started_ms: self.state.started_ms,
            finished_ms: now_ms(),
        };
        let files = RunFiles::new(&self.dir, &self.state.name, self.state.attempt);
        complain(
            serde_json::to_vec(&exit).map_err(Into::into).and_then(|text| wire::write_atomically(&files.exit, &text)),
        );
        self.state.exit = Some(exit);
    }
}

/// A full disk must not end the sandbox: what cannot be written is said once more in pause's own log, and lost.
fn complain(written: io::Result<()>) {
    if let Err(error) = written {
        eprintln!("cannot write a container's log or exit code: {error}");
    }
}

/// Reads once from a stream into the log; false at its end.
fn read_some(live: &mut Live, index: usize) -> bool {
    let mut buffer = [0; 16 << 10];
    let (stream, descriptor) = &live.outputs[index];
    match rustix::io::read(descriptor, &mut buffer) {
        // A terminal whose last user is gone answers EIO.
        Ok(0) | Err(rustix::io::Errno::IO) => {
            complain(live.log.finish(*stream, &now()));
            false
        }
        Ok(count) => {
            complain(live.log.feed(*stream, &buffer[..count], &now()));
            true
        }
        Err(error) => matches!(error, rustix::io::Errno::INTR | rustix::io::Errno::AGAIN),
    }
}

fn pending(descriptor: &OwnedFd) -> bool {
    let mut polled = [rustix::event::PollFd::new(descriptor, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(1))
        && polled[0].revents().contains(rustix::event::PollFlags::IN)
}

fn now() -> String {
    chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

pub(super) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
