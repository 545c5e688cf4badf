//! What is said on a sandbox's socket: one JSON value on each line, in both directions.

use serde::{Deserialize, Serialize};

use super::spec::Exit;

/// The socket's name in the sandbox's directory.
pub(crate) const SOCKET: &str = "pause.sock";

/// Asked of pause.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Answer with the state of all containers, now and after each change.
    Watch,
    /// Start the run that `containers/<container>/<attempt>.json` describes.
    Start { container: String, attempt: u32 },
    /// Signal a container's first process.
    Signal { container: String, signal: i32 },
    /// Start one more process in a running container. Its three standard streams come attached to the first byte. The process is
    /// killed when the connection ends.
    Exec { container: String, command: Vec<String>, tty: bool },
}

/// Answers of pause.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Done,
    Failed { reason: String },
    State { containers: Vec<ContainerState> },
    Exited { code: i32 },
}

/// The newest run of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerState {
    pub(crate) name: String,
    pub(crate) attempt: u32,
    /// In the host's pid namespace; 0 where it never ran.
    pub(crate) pid: i32,
    pub(crate) started_ms: i64,
    /// None while it runs.
    pub(crate) exit: Option<Exit>,
}
