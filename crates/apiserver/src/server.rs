//! The API behind TLS: listeners, connections, start and stop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use podnet_client::shares::Shares;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::api::{Api, StartError, first_service_address};
use crate::config::Config;
use crate::controllers::{self, ControllersConfig};
use crate::pki::{Issued, Pki, PkiError};

mod connection;

/// How long connections may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(3);

/// Anybody who reaches the port can open connections and say nothing, so each address may have this many at most that have not shown a
/// certificate: those of its pods, who have tokens, and those that are still shaking hands.
const UNKNOWN_OF_ONE: usize = 256;

/// Pause after a failed accept: the usual reason, too many open files, does not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The API itself does not start.
    #[error("starting the API")]
    Start(#[source] Box<StartError>),
    /// Keys or certificates are missing or wrong.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A task that was to read keys died.
    #[error("reading keys")]
    Task(#[from] tokio::task::JoinError),
    /// A certificate or key of ours is not readable.
    #[error("reading the serving certificate")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// TLS cannot be set up with them.
    #[error("setting up TLS")]
    Tls(#[source] rustls::Error),
    /// Clients' certificates cannot be verified.
    #[error("setting up the verification of clients")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// An address is not ours or in use.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
}

/// Serves the API until `shutdown` is done; then ends watches, lets requests finish, and closes the store.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    let server = Server::start(&config).await?;
    let controllers = server.controllers();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let controllers = tokio::spawn(controllers::run(server.api.in_process_client(), controllers, async {
        let _ = stopped.await;
    }));
    server.run(shutdown).await;
    drop(stop);
    // They are stopped wherever they are; the next start goes on from what is stored.
    let _ = controllers.await;
    Ok(())
}

/// An API with its listeners open.
#[derive(Debug)]
pub struct Server {
    api: Api,
    listeners: Vec<TcpListener>,
    acceptor: Acceptor,
    ca_pem: String,
}

/// TLS for each connection.
#[derive(Clone)]
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl Server {
    fn controllers(&self) -> ControllersConfig {
        ControllersConfig::new(&*self.ca_pem)
    }

    /// Starts the API and opens its listeners. Requests are answered by [`Server::run`].
    pub async fn start(config: &Config) -> Result<Self, ServeError> {
        let dir = config.pki_dir.clone();
        let pki = tokio::task::spawn_blocking(move || Pki::load_or_create(&dir)).await??;
        let acceptor = acceptor(&pki, &serving_certificate(&pki, config)?)?;
        let api = Api::start(config, &pki, CancellationToken::new()).await;
        let api = api.map_err(|error| ServeError::Start(Box::new(error)))?;
        let mut listeners = Vec::with_capacity(config.listen.len());
        for address in &config.listen {
            let listener = TcpListener::bind(address).await;
            listeners.push(listener.map_err(|source| ServeError::Listen { address: *address, source })?);
        }
        Ok(Self { api, listeners, acceptor, ca_pem: pki.ca_pem().to_owned() })
    }

    /// The API that is served.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The addresses that are listened on, with the ports that the system chose where the configuration says 0.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Answers requests until `shutdown` is done.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let stopping = self.api.stopping().clone();
        let connections = TaskTracker::new();
        let mut accepting = JoinSet::new();
        let peers = Shares::new(UNKNOWN_OF_ONE);
        for listener in self.listeners {
            let (api, acceptor) = (self.api.clone(), self.acceptor.clone());
            accepting.spawn(accept(listener, api, acceptor, peers.clone(), connections.clone(), stopping.clone()));
        }
        info!("API is served");
        shutdown.await;
        stopping.cancel();
        accepting.shutdown().await;
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            warn!(connections = connections.len(), "connections did not end in time");
        }
    }
}

async fn accept(
    listener: TcpListener,
    api: Api,
    Acceptor(acceptor): Acceptor,
    peers: Arc<Shares<IpAddr>>,
    connections: TaskTracker,
    stopping: CancellationToken,
) {
    let router = api.router();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(admission) = peers.take(peer.ip()) else {
                    tracing::debug!(%peer, "too many connections without a certificate: refused");
                    continue;
                };
                let work = connection::serve(stream, admission, acceptor.clone(), router.clone(), stopping.clone());
                connections.spawn(async move {
                    if let Err(error) = work.await {
                        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "connection ended");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A certificate for every name and address that clients use.
fn serving_certificate(pki: &Pki, config: &Config) -> Result<Issued, PkiError> {
    let domain = &config.cluster_domain;
    let mut names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).to_vec();
    names.push(format!("kubernetes.default.svc.{domain}"));
    let mut addresses = vec![
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(first_service_address(config.service_cidr)),
        config.advertise.ip(),
    ];
    addresses.extend(config.listen.iter().map(SocketAddr::ip).filter(|address| !address.is_unspecified()));
    for name in &config.server_names {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name.clone()),
        }
    }
    names.sort();
    names.dedup();
    addresses.sort();
    addresses.dedup();
    pki.issue_server(&names, &addresses)
}

/// TLS that asks clients for a certificate and accepts those without one, who then need a token.
fn acceptor(pki: &Pki, issued: &Issued) -> Result<Acceptor, ServeError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes())?).map_err(ServeError::Tls)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(ServeError::Verifier)?;
    let certificate = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ServeError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .map_err(ServeError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
}

/// Latency matters more than packets.
fn without_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY");
    }
}
