//! Cluster DNS as a process: sockets, the cluster's changes and the Corefile around the server core of `podnet_dns`.
//!
//! - `listeners`: UDP and TCP ports, opened and closed as the Corefile says
//! - `door`: who is let in at a port, and for how long; `identity` and `pem`: the certificate that is shown there; `acme`: those that
//!   are issued and renewed
//! - `udp`, `tcp`, `web`: messages in datagrams, over connections, and in requests of HTTP; `protobuf`: how gRPC packs them
//! - `unread`: how many bytes wait for clients to read them
//! - `outside`: what the server core asks of its surroundings: exchanges with upstreams, time, chance
//! - `connections`: connections to upstreams, kept and shared, over TCP and TLS
//! - `handover`: sockets that go from a process to the one that takes its place
//! - `etcd`: the store of records that `etcd` names
//! - `local`: the resolver of one node, in its agent; `clients`: whose search paths it knows; `neighbours`: whom it answers
//! - `imports`: what the cluster imports of its cluster set
//! - `keeper`: the one task that owns the cluster's state and replaces the server when the Corefile changes
//! - `corefile`: reading the Corefile and what it names; `hostnames`: the addresses of upstreams that it names; `retry`: when one is
//!   tried again for which they were not known
//! - `signals`: those that have the Corefile read again, or do nothing
//! - `signing`: zone files that are signed
//! - `http`: health, readiness and metrics
//! - [`panics`]: what becomes of a panic

mod acme;
pub(crate) mod activity;
mod clients;
mod connections;
mod corefile;
mod door;
mod etcd;
mod handover;
mod hostnames;
mod http;
pub(crate) mod identity;
mod imports;
mod keeper;
mod listeners;
mod local;
mod neighbours;
mod outside;
pub mod panics;
pub(crate) mod pem;
mod protobuf;
mod retry;
mod signals;
mod signing;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod unread;
mod web;

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
use podnet_dns::{Checked, Config, CorefileError, Scheme, Server, chain::TlsOptions, server::Later};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

pub use clients::Clients;
pub(crate) use local::Told;
pub use local::{Local, LocalOptions, Seat};
pub use signals::reloads;

use crate::dns::{
    handover::{Offer, Sockets},
    identity::Identity,
    keeper::Keeper,
    listeners::Listeners,
    neighbours::Neighbours,
};

/// How long answers that clients wait for may take after the stop, at most.
const DRAIN: Duration = Duration::from_secs(2);
/// The same where another process serves already: as long as an upstream may take, and nobody waits for this one to end.
const DRAIN_FOLLOWED: Duration = Duration::from_secs(6);
/// How long a process that is to follow another one waits for the cluster's state.
const CATCH_UP: Duration = Duration::from_secs(30);

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
    /// The unix socket at which a process takes over the sockets of the one that serves; none: nothing is handed over.
    pub handover: Option<PathBuf>,
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
    /// An upstream cannot be asked over TLS with what the Corefile names.
    #[error("the Corefile's forward cannot use TLS: {0}")]
    Tls(String),
    /// There is no certificate to serve a port with.
    #[error("cannot serve {port} with the certificate that the Corefile names")]
    Certificate {
        /// The port.
        port: podnet_dns::Port,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no certificate to serve metrics with.
    #[error("cannot serve metrics at {address} with the certificate that the Corefile names")]
    MetricsCertificate {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Several API servers are named.
    #[error("the Corefile's kubernetes plugins name different API servers, or limits for them; podnet dns watches one")]
    SeveralApis,
    /// Another process serves, and this one does not know what that one knows.
    #[error(
        "the cluster's state is not known after {seconds} s; the process that serves goes on: try again when the API server answers"
    )]
    NotSynced {
        /// How long it took.
        seconds: u64,
    },
    /// The nodes' resolver does not know what a plugin needs.
    #[error(
        "plugin {plugin:?} is cluster DNS's: the nodes' resolver does not watch the cluster and fetches no zones; have it forward to \
             __PILLAR__CLUSTER__DNS__"
    )]
    NotOnNodes {
        /// The plugin.
        plugin: &'static str,
    },
    /// There is no place for the next process to ask at.
    #[error("cannot hand over sockets at {path}")]
    Handover {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
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

/// Runs cluster DNS until `shutdown` is done, and then for the lameduck time of the Corefile's `health` on; or until another process
/// has taken over its sockets. When `reload` tells so, the Corefile and all that it names are read again and zone files signed, be the
/// plugin `reload` there or not; what is told several times meanwhile is done once.
///
/// # Errors
///
/// When the Corefile cannot be loaded, a port cannot be opened, or there is no access to an API server that the Corefile needs. An
/// API server that is away is waited for, unless another process serves meanwhile.
pub async fn run(options: DnsOptions, reload: Arc<Notify>, shutdown: impl Future<Output = ()>) -> Result<(), DnsError> {
    // Each connection is a descriptor, and each question that an upstream is asked over UDP has a socket of its own.
    if let Err(error) = podnet_kernel::descriptors::raise_limit() {
        tracing::warn!(%error, "cluster DNS may have no more open files than it began with");
    }
    let (config, sources) = corefile::load(&options).await?;
    let process = config.process.clone();
    let (mut keeper, shared) = Keeper::new(options.clone(), config.clone(), sources).await?;
    let mut listeners = Listeners::new(Arc::clone(&shared), options.listen);
    let followed = match &options.handover {
        Some(path) => handover::ask(path).await,
        None => None,
    };
    let before = match followed {
        Some((before, sockets)) => {
            keeper.catch_up(CATCH_UP).await?;
            listeners.inherit(sockets);
            Some(before)
        }
        None => None,
    };
    listeners.adopt(&config).await?;
    // Whoever asks from now on asks here: the process before ends once it is told.
    let offer = |path: &PathBuf| Offer::new(path).map_err(|source| DnsError::Handover { path: path.clone(), source });
    let offer = options.handover.as_ref().map(offer).transpose()?;
    if let Some(before) = before {
        before.taken();
        shared.sockets.have_alone();
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let ports: Vec<String> = config.listeners().iter().map(|listener| listener.port.to_string()).collect();
    info!(corefile = %options.corefile.display(), ports = ports.join(" "), "cluster DNS serves");
    shared.server().start(None, || ());
    shared.server().probe_loops();
    let checks = tokio::spawn(outside::check(Arc::clone(&shared)));
    let keeper = tokio::spawn(keeper.keep(listeners, reload));
    let offered = taken(offer, &shared);
    tokio::pin!(offered);
    let mut followed = tokio::select! {
        () = shutdown => false,
        () = &mut offered => true,
    };
    if !followed {
        shared.ready_no_more.store(true, Ordering::Release);
        let lameduck = shared.lameduck(process.lameduck());
        if !lameduck.is_zero() {
            info!(seconds = lameduck.as_secs_f32(), "asked to stop; answering on until nobody asks any more");
            followed = tokio::time::timeout(lameduck, &mut offered).await.is_ok();
        }
    }
    if followed {
        info!("another process serves now");
    }
    keeper.abort();
    checks.abort();
    // The keeper owns the listeners: with it they are told to end; what clients wait for is still answered.
    let _ = keeper.await;
    if !shared.end(if followed { DRAIN_FOLLOWED } else { DRAIN }).await {
        info!("some upstreams did not answer before the end");
    }
    info!("cluster DNS stopped");
    Ok(())
}

/// Is done when another process has taken over the sockets.
async fn taken(offer: Option<Offer>, shared: &Shared) {
    match offer {
        Some(offer) => offer.taken(&shared.sockets).await,
        None => std::future::pending().await,
    }
}

/// Reads a Corefile without serving it, and tells all that is wrong with it and what has no effect; `name` is what errors call it.
#[must_use]
pub fn check(text: &str, name: &str) -> Checked {
    Config::check(name, text, &corefile::environment(&|path| std::fs::read_to_string(path)))
}

/// What keeps a Corefile from being served that can be read: certificates and keys that cannot be used, and API servers that differ.
/// No port is opened, and nobody is asked.
#[must_use]
pub fn obstacles(config: &Config) -> Vec<DnsError> {
    let certificates = config.listeners().into_iter().filter_map(|listener| {
        let port = listener.port;
        let tls = listener.tls.filter(|_| port.scheme != Scheme::Dns)?;
        let read = Identity::read(&TlsOptions { keylog: None, ..tls }, port.scheme);
        read.err().map(|source| DnsError::Certificate { port, source })
    });
    let metrics = config.process.metrics.iter().filter_map(|options| {
        let failed = |source| DnsError::MetricsCertificate { address: options.listen, source };
        Identity::of_web(options.tls.as_ref()?, None).err().map(failed)
    });
    let upstreams = podnet_dns::forward::secured(config);
    let upstreams = upstreams.filter_map(|secure| connections::check(&secure).err().map(DnsError::Tls));
    certificates.chain(metrics).chain(upstreams).chain(keeper::api(config).err()).collect()
}

/// What all tasks of the process share.
pub(crate) struct Shared {
    server: RwLock<Arc<Server>>,
    /// Tasks that hold a port open.
    ports: TaskTracker,
    /// Questions that are being asked elsewhere.
    finishing: TaskTracker,
    /// The sockets of all ports.
    sockets: Sockets,
    /// Ends connections that still have something to do.
    cut: CancellationToken,
    ready_no_more: AtomicBool,
    lameduck: RwLock<Option<Duration>>,
    /// Who is answered.
    neighbours: Neighbours,
}

impl Shared {
    fn new(server: Arc<Server>) -> Self {
        Self {
            server: RwLock::new(server),
            ports: TaskTracker::new(),
            finishing: TaskTracker::new(),
            sockets: Sockets::default(),
            cut: CancellationToken::new(),
            ready_no_more: AtomicBool::new(false),
            lameduck: RwLock::new(None),
            neighbours: Neighbours::default(),
        }
    }

    /// The server as it is now. What began with an earlier one ends with it.
    fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for the end of all that was asked, and cuts what takes longer than `within`; false: something was cut.
    async fn end(&self, within: Duration) -> bool {
        self.ports.close();
        self.finishing.close();
        // What was received last may become something to finish.
        let ended = async {
            self.ports.wait().await;
            self.finishing.wait().await;
        };
        let ended = tokio::time::timeout(within, ended).await.is_ok();
        self.cut.cancel();
        ended
    }

    fn replace(&self, server: Arc<Server>, lameduck: Duration) {
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = server;
        *self.lameduck.write().unwrap_or_else(PoisonError::into_inner) = Some(lameduck);
    }

    fn lameduck(&self, first: Duration) -> Duration {
        self.lameduck.read().unwrap_or_else(PoisonError::into_inner).unwrap_or(first)
    }

    /// What has to be ready before questions should come; nothing: they may.
    fn waits_for(&self) -> Vec<&'static str> {
        if self.ready_no_more.load(Ordering::Acquire) { vec!["the end"] } else { self.server().waits_for() }
    }

    /// Has a question answered that takes time: `respond` gets the response. How many there are at once is bounded by the server.
    fn finish<F: Future<Output = ()> + Send>(
        &self,
        server: Arc<Server>,
        later: Box<Later>,
        respond: impl FnOnce(Vec<u8>) -> F + Send + 'static,
    ) {
        self.finishing.spawn(async move {
            if let Some(response) = server.finish(later).await {
                respond(response).await;
            }
        });
    }
}
