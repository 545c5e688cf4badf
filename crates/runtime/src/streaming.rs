//! The node's streaming server: what the API server asks of a node for `kubectl exec` and `kubectl logs`.
//!
//! A request names a container (`route`), its process or log file comes from [`ContainerAccess`], and what is left is copying:
//! `exec` moves bytes between a process and four bounded wires, `websocket` and `spdy` move them between the wires and a client,
//! `logs` turns a log file into a body. Every buffer is bounded, so a slow client slows the process down and nothing else.
//!
//! Only the cluster's administrators (`O=system:masters`, which the API server is one of) are served: whoever reaches this port
//! directly has been through no authorisation of the API server.

mod exec;
mod logs;
mod negotiate;
mod route;
mod server;
mod spdy;
mod status;
#[cfg(test)]
mod tests;
mod websocket;

use std::{future::Future, io, sync::Arc};

use tokio::net::TcpListener;

use crate::access::ContainerAccess;

/// Answers `/exec`, `/attach`, `/containerLogs` and `/healthz` on `listener` until `shutdown` resolves, then ends the sessions that
/// are open and returns.
///
/// `tls` has to demand client certificates; a peer whose certificate does not say `O=system:masters` gets 403 for everything.
///
/// # Errors
/// [`StreamError::Accept`] when the listener itself is broken; what is wrong with one connection is logged and ends that one.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    access: Arc<dyn ContainerAccess>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StreamError> {
    server::serve(listener, tls, access, shutdown).await
}

/// Why the streaming server ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The listening socket no longer accepts.
    #[error("cannot accept streaming connections on {address}")]
    Accept {
        /// Where it listened.
        address: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}
