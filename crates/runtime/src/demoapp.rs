//! demoapp: an HTTP server that says which pod answered which client, and what probes, canaries and load tests need besides.
//!
//! | path | answer |
//! |---|---|
//! | `/` and every unknown path | one line: release, client, server's name and address (JSON with `Accept: application/json`) |
//! | `/hostname`, `/clientip`, `/user-agent` | that word alone |
//! | `/headers` | the request's headers |
//! | `/echo` | the request's body, or the value of `?msg=` |
//! | `/bytes/N` | N zero bytes, up to 1 GiB |
//! | `/livez`, `/readyz`, `/healthz` | `OK`; after a POST of `livez=FAIL` (`readyz=FAIL`) status 506 (507), until one of `…=OK` |

mod answer;
mod arguments;
mod serve;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// What a demoapp is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DemoappOptions {
    /// Where it listens. Empty: it listens nowhere and only waits to be told to end, as a pause container does.
    pub listen: Vec<Listen>,
    /// What it calls itself; the host's name where there is none.
    pub pod_name: Option<String>,
    /// What it calls its address; where there is none, the address that the client connected to.
    pub pod_ip: Option<IpAddr>,
    /// Its release, as the answer shows it.
    pub release: Option<String>,
    /// The whole answer at `/`, instead of its own.
    pub text: Option<String>,
}

/// A place to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// All addresses of both families, or of IPv4 where there is no IPv6.
    Port(u16),
    /// One address.
    Address(SocketAddr),
}

/// Why a demoapp did not start or ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoappError {
    /// An argument is not understood.
    #[error("argument {argument:?}: {reason}")]
    Argument {
        /// The argument.
        argument: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A port cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address and port.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host's name cannot be read.
    #[error("cannot read the host's name from {}", path.display())]
    Hostname {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// SIGTERM and SIGINT cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// Serves until SIGTERM or SIGINT, then finishes the requests that are under way and returns. A runtime with one thread will do.
///
/// # Errors
/// When a port cannot be listened on, or the host's name is needed and cannot be read.
pub async fn run(options: DemoappOptions) -> Result<(), DemoappError> {
    let stop = serve::signals().map_err(DemoappError::Signals)?;
    serve::run(options, stop).await
}
