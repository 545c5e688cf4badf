//! Cluster DNS as a process: sockets, the cluster's changes and the Corefile around the server core of `podnet_dns`.
//!
//! - `listeners`: UDP and TCP ports, opened and closed as the Corefile says
//! - `upstream`: exchanges with upstreams
//! - `keeper`: the one task that owns the cluster's state and replaces the server when the Corefile changes
//! - `corefile`: reading the Corefile and what it names
//! - `http`: health, readiness and metrics

mod corefile;
mod http;
mod keeper;
mod listeners;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod upstream;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use podnet_client::connect::ConnectError;
use podnet_dns::{Config, CorefileError, Server};
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::dns::{keeper::Keeper, listeners::Listeners};

/// How long answers that clients wait for may take after the stop, at most.
const DRAIN: Duration = Duration::from_secs(2);

/// What the DNS process is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsOptions {
    /// The Corefile.
    pub corefile: PathBuf,
    /// Access to the API server; none means the pod's service account. Used only when the Corefile has `kubernetes`.
    pub kubeconfig: Option<PathBuf>,
    /// The address to answer on; none means all. The ports are the Corefile's.
    pub listen: Option<IpAddr>,
    /// What a Corefile means by `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

/// Why cluster DNS cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The Corefile cannot be read.
    #[error("cannot read the Corefile {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The Corefile cannot be loaded.
    #[error("cannot load the Corefile: {0}")]
    Corefile(CorefileError),
    /// There is no client for the API server.
    #[error("cannot set up access to the API server")]
    Connect(#[from] ConnectError),
    /// A port cannot be opened.
    #[error("cannot listen on {address} for {purpose}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Runs cluster DNS until `shutdown` is done, and then for the lameduck time of the Corefile's `health` on.
///
/// # Errors
///
/// When the Corefile cannot be loaded, a port cannot be opened, or there is no access to an API server that the Corefile needs. An
/// API server that is away is waited for.
pub async fn run(options: DnsOptions, shutdown: impl Future<Output = ()>) -> Result<(), DnsError> {
    let (config, sources) = corefile::load(&options).await?;
    let process = config.process.clone();
    let (keeper, shared) = Keeper::new(options.clone(), config.clone(), sources).await?;
    let mut listeners = Listeners::new(Arc::clone(&shared), options.listen);
    listeners.adopt(&config).await?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    info!(corefile = %options.corefile.display(), ports = ?config.ports(), "cluster DNS serves");
    shared.probe_loops();
    let checks = tokio::spawn(upstream::check(Arc::clone(&shared)));
    let keeper = tokio::spawn(keeper.keep(listeners));
    shutdown.await;
    shared.ready_no_more.store(true, Ordering::Release);
    let lameduck = shared.lameduck(process.health.map_or(Duration::ZERO, |(_, lameduck)| lameduck));
    if !lameduck.is_zero() {
        info!(seconds = lameduck.as_secs_f32(), "asked to stop; answering on until nobody asks any more");
        tokio::time::sleep(lameduck).await;
    }
    keeper.abort();
    checks.abort();
    // The keeper owns the listeners: with it they are told to end; what clients wait for is still answered.
    let _ = keeper.await;
    shared.ports.close();
    shared.exchanges.close();
    let ended = async { tokio::join!(shared.ports.wait(), shared.exchanges.wait()) };
    if tokio::time::timeout(DRAIN, ended).await.is_err() {
        info!("some upstreams did not answer before the end");
    }
    info!("cluster DNS stopped");
    Ok(())
}

/// Loads a Corefile without serving it; `name` is what errors call it. The text of what cannot be loaded names place and reason.
///
/// # Errors
///
/// With the report.
pub fn check(text: &str, name: &str) -> Result<(), CorefileError> {
    Config::load(name, text, &corefile::environment(&|path| std::fs::read_to_string(path))).map(|_| ())
}

/// The way back to a client.
#[derive(Debug)]
pub(crate) enum Client {
    Udp { socket: Arc<tokio::net::UdpSocket>, to: SocketAddr, since: std::time::Instant },
    Tcp { replies: tokio::sync::mpsc::Sender<Vec<u8>>, since: std::time::Instant },
}

/// What all tasks of the process share.
pub(crate) struct Shared {
    server: RwLock<Arc<Server<Client>>>,
    /// Tasks that hold a port open.
    ports: TaskTracker,
    /// Exchanges with upstreams that have not ended.
    exchanges: TaskTracker,
    ready_no_more: AtomicBool,
    lameduck: RwLock<Option<Duration>>,
}

impl Shared {
    fn new(server: Arc<Server<Client>>) -> Self {
        Self {
            server: RwLock::new(server),
            ports: TaskTracker::new(),
            exchanges: TaskTracker::new(),
            ready_no_more: AtomicBool::new(false),
            lameduck: RwLock::new(None),
        }
    }

    /// The server as it is now. What began with an earlier one ends with it.
    fn server(&self) -> Arc<Server<Client>> {
        Arc::clone(&self.server.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, server: Arc<Server<Client>>, lameduck: Duration) {
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = server;
        *self.lameduck.write().unwrap_or_else(PoisonError::into_inner) = Some(lameduck);
    }

    fn lameduck(&self, first: Duration) -> Duration {
        self.lameduck.read().unwrap_or_else(PoisonError::into_inner).unwrap_or(first)
    }

    fn ready(&self) -> bool {
        !self.ready_no_more.load(Ordering::Acquire) && self.server().synced()
    }

    fn probe_loops(&self) {
        let server = self.server();
        for exchange in server.loop_probes() {
            upstream::start(self, Arc::clone(&server), exchange);
        }
    }
}
