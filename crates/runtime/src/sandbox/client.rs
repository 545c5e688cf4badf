//! The runtime's end of a sandbox's socket.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    sync::{oneshot, watch},
};

use super::{SandboxState, state_of};
use crate::pause::{
    protocol::{Reply, Request, SOCKET},
    wire,
};

/// Pause answers at once, except while it sets a container up (see its own patience).
const PATIENCE: Duration = Duration::from_secs(15);

/// Speaks with the pause of one sandbox.
#[derive(Clone, Debug)]
pub(crate) struct PauseClient {
    dir: PathBuf,
}

/// Pause could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("cannot reach pause in {}: {source}", dir.display())]
    Unreachable { dir: PathBuf, source: io::Error },
    #[error("{reason}")]
    Refused { reason: String },
}

/// The standard streams of a process to be, as descriptors to hand over.
pub(crate) struct ExecStreams<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
}

/// A process that runs as long as this is kept.
#[derive(Debug)]
pub(crate) struct Execution {
    stream: BufReader<UnixStream>,
}

impl PauseClient {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Asks one thing.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        let talk = async {
            let mut stream = BufReader::new(self.connect().await?);
            stream.get_mut().write_all(&line(request)).await?;
            read(&mut stream).await
        };
        self.answered(tokio::time::timeout(PATIENCE, talk).await)
    }

    /// Follows the state of the sandbox's containers until pause is gone.
    pub(crate) async fn watch(&self) -> Result<watch::Receiver<SandboxState>, ClientError> {
        let talk = async {
            let mut stream = BufReader::new(self.connect().await?);
            stream.get_mut().write_all(&line(&Request::Watch)).await?;
            let first = read(&mut stream).await?;
            Ok((stream, first))
        };
        let (mut stream, first) = match tokio::time::timeout(PATIENCE, talk).await {
            Ok(talked) => talked.map_err(|source| self.unreachable(source))?,
            Err(_) => return Err(self.unreachable(io::ErrorKind::TimedOut.into())),
        };
        let (sender, state) = watch::channel(SandboxState::Alive(state_of(first).unwrap_or_default()));
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    said = read(&mut stream) => match said {
                        Ok(reply) => {
                            if let Some(containers) = state_of(reply) {
                                sender.send_replace(SandboxState::Alive(containers));
                            }
                        }
                        Err(_) => break,
                    },
                    () = sender.closed() => return,
                }
            }
            sender.send_replace(SandboxState::Dead);
        });
        Ok(state)
    }

    /// Starts one more process in a running container.
    pub(crate) async fn exec(
        &self,
        container: &str,
        command: Vec<String>,
        tty: bool,
        streams: ExecStreams<'_>,
    ) -> Result<Execution, ClientError> {
        let request = Request::Exec { container: container.to_owned(), command, tty };
        let talk = async {
            let stream = self.connect().await?;
            stream.writable().await?;
            wire::send(&stream, &line(&request), &[streams.stdin, streams.stdout, streams.stderr])?;
            let mut stream = BufReader::new(stream);
            let reply = read(&mut stream).await?;
            Ok((stream, reply))
        };
        let (stream, reply) = match tokio::time::timeout(PATIENCE, talk).await {
            Ok(talked) => talked.map_err(|source| self.unreachable(source))?,
            Err(_) => return Err(self.unreachable(io::ErrorKind::TimedOut.into())),
        };
        self.answered(Ok(Ok(reply)))?;
        Ok(Execution { stream })
    }

    async fn connect(&self) -> io::Result<UnixStream> {
        // Through the directory's descriptor, because a socket's path has 108 bytes at most (unix(7)).
        let dir = File::open(&self.dir)?;
        UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd())).await
    }

    fn answered(&self, talked: Result<io::Result<Reply>, tokio::time::error::Elapsed>) -> Result<Reply, ClientError> {
        match talked {
            Ok(Ok(Reply::Failed { reason })) => Err(ClientError::Refused { reason }),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(source)) => Err(self.unreachable(source)),
            Err(_) => Err(self.unreachable(io::ErrorKind::TimedOut.into())),
        }
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        ClientError::Unreachable { dir: self.dir.clone(), source }
    }
}

impl Execution {
    /// Waits for the process's end. Dropped before, the process is killed.
    pub(crate) async fn ended(mut self) -> Option<i32> {
        loop {
            match read(&mut self.stream).await {
                Ok(Reply::Exited { code }) => return Some(code),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Sends the exit code, or kills the process when nobody wants it any more.
    pub(crate) async fn report(self, mut exit: oneshot::Sender<i32>) {
        let code = tokio::select! {
            code = self.ended() => code,
            () = exit.closed() => return,
        };
        // Pause gone means that the container was killed.
        let _ = exit.send(code.unwrap_or(137));
    }
}

fn line(request: &Request) -> Vec<u8> {
    let mut line = serde_json::to_vec(request).unwrap_or_default();
    line.push(b'\n');
    line
}

async fn read(stream: &mut BufReader<UnixStream>) -> io::Result<Reply> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}
