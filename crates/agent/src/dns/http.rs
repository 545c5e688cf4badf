//! Health, readiness and metrics over HTTP, where and as CoreDNS serves them.
//!
//! `encrypted`: ports that show a certificate; `itself`: `health` asks itself; `process`: what the process uses.

mod encrypted;
pub(super) mod itself;
mod process;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{StatusCode, header},
    routing::get,
};
use encrypted::Encrypting;
pub(super) use encrypted::Shown;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Shared;
use crate::proxy::{guests::Guests, ports::bounded};

/// What an HTTP port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// `/health`: the process lives.
    Health,
    /// `/ready`: names can be answered.
    Ready,
    /// `/metrics`.
    Metrics,
}

impl Role {
    pub(super) const fn purpose(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Ready => "readiness",
            Self::Metrics => "metrics",
        }
    }
}

/// Serves a port until `token` is cancelled: so many connections at once, each for a while. Pods may reach it.
pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    (role, address): (Role, SocketAddr),
    shown: Shown,
    token: CancellationToken,
) {
    let router = match role {
        Role::Health => Router::new().route("/health", get(|| async { "OK" })),
        Role::Ready => Router::new().route("/ready", get(move || std::future::ready(ready(&shared)))),
        Role::Metrics => Router::new().route("/metrics", get(move || metrics(Arc::clone(&shared)))),
    };
    let listener = Encrypting::new(bounded(Held(listener), address, Guests::default()), shown);
    let served = axum::serve(listener, router).with_graceful_shutdown(token.cancelled_owned()).await;
    if let Err(error) = served {
        error!(%error, purpose = role.purpose(), "a port closed");
    }
}

/// A socket that others hold as well.
struct Held(Arc<TcpListener>);

impl axum::serve::Listener for Held {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                // Out of descriptors: those that close meanwhile make room.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn ready(shared: &Shared) -> (StatusCode, String) {
    match shared.waits_for() {
        waits if waits.is_empty() => (StatusCode::OK, "OK".to_owned()),
        waits => (StatusCode::SERVICE_UNAVAILABLE, waits.join(",")),
    }
}

async fn metrics(shared: Arc<Shared>) -> ([(header::HeaderName, &'static str); 1], String) {
    let server = shared.server();
    let mut text = server.metrics().render(&server.gauges());
    // A process may have many files open, and they are counted one by one.
    text += &tokio::task::spawn_blocking(process::metrics).await.unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
