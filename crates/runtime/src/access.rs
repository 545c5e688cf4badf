//! What the streaming server asks of the pod lifecycle: the seam between `streaming` and `containers`.

use std::path::PathBuf;

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};

/// Finds containers and starts processes in them.
pub trait ContainerAccess: Send + Sync + 'static {
    /// Starts a process in a running container.
    fn exec(&self, target: ContainerRef, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, AccessError>>;

    /// The log file of a container's current or, with `previous`, last finished run. Lines are in the CRI format:
    /// `RFC3339NANO stdout|stderr F|P text`. A running container's file may still grow.
    fn log(&self, target: ContainerRef, previous: bool) -> BoxFuture<'_, Result<LogFile, AccessError>>;
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name; none means the pod's first.
    pub container: Option<String>,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments, at least one.
    pub command: Vec<String>,
    /// Give it a terminal; stdout and stderr are then one stream.
    pub tty: bool,
    /// Connect its stdin; otherwise it reads end of file.
    pub stdin: bool,
}

/// A running process's streams. Dropping the session kills the process.
pub struct ExecSession {
    /// Present where stdin was asked for; shutting it down is end of file.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard output; with a terminal, everything.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Standard error; none with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Terminal sizes (columns, rows); none without a terminal.
    pub resize: Option<mpsc::Sender<(u16, u16)>>,
    /// The exit code (128 + signal where it was killed), sent once, after which the streams end.
    pub exit: oneshot::Receiver<i32>,
}

/// Where a container's log is.
pub struct LogFile {
    /// The file.
    pub path: PathBuf,
    /// Turns true when the container has ended: what is in the file then is all.
    pub ended: tokio::sync::watch::Receiver<bool>,
}

/// Why a container cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// No such pod on this node.
    #[error("pod {namespace}/{pod} is not on this node")]
    NoPod {
        /// Namespace asked for.
        namespace: String,
        /// Pod asked for.
        pod: String,
    },
    /// The pod has no such container.
    #[error("container {container} is not in pod {namespace}/{pod}; it has: {known}")]
    NoContainer {
        /// Namespace asked for.
        namespace: String,
        /// Pod asked for.
        pod: String,
        /// Container asked for.
        container: String,
        /// The containers that there are.
        known: String,
    },
    /// It is there and not running.
    #[error("container {container} of pod {namespace}/{pod} is not running: {state}")]
    NotRunning {
        /// Namespace asked for.
        namespace: String,
        /// Pod asked for.
        pod: String,
        /// Container asked for.
        container: String,
        /// Its state in a word or two.
        state: String,
    },
    /// The process could not be started.
    #[error("cannot run {command:?}: {reason}")]
    Start {
        /// Program and arguments.
        command: Vec<String>,
        /// What the kernel or the file system said.
        reason: String,
    },
}
