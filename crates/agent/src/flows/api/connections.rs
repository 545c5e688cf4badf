//! Connections: the port at the node's address and at pods' gateway, who is let in there, and for how long they may ask nothing.

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::http::{Request, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use podnet_client::{
    events::{About, Complaints},
    shares::Shares,
};
use podnet_dns::{
    Scheme,
    chain::{ClientAuth, TlsFiles, TlsOptions},
};
use podnet_kernel::{
    netlink::RtSocket,
    pod_interface::{AGENT_V6, GATEWAY_V4},
    resolver,
};
use podnet_model::errors::chain;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::{Answers, ClientAuthority, FlowApi, SILENCE, Server, asker::Asker, authority, ends};
use crate::{
    dns::{activity::Activity, identity::Identity},
    flows::RecordError,
};

/// Connections at once at one address, those that have not said who they are among them: one of each other node's agent, which asks all the time, and as
/// many as all others may have.
const CONNECTIONS: usize = ends::AGENTS + 128;
/// Of these from one address.
const OF_ONE: usize = 16;
/// For a handshake, for a request's head, and for the next request after an answer is read.
pub(super) const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });
/// Between two looks at the addresses, and before what failed is tried again.
const LOOK: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(10) };

/// Answers at `address`, and at pods' gateway at the same port, on tasks of their own. What is in the way is told, once, and tried again.
pub(crate) fn serve(config: FlowApi, address: SocketAddr, answers: Answers, complaints: Complaints) {
    tokio::spawn(async move {
        let node = answers.node.clone();
        let tell = |error: &RecordError| {
            warn!(error = error as &dyn Error, "nobody can read flows here; it is tried again");
            complaints.tell(About::node(&node), "FlowsNotRead", format!("{}; it is tried again", chain(error)));
        };
        if let ClientAuthority::Cluster(path) = &config.client_ca {
            authority::first(&answers.client, path, |source| tell(&RecordError::Api { address, source })).await;
            tokio::spawn(authority::follow(answers.client.clone(), path.clone()));
        }
        let (identity, listener) = opened(&config, address, tell).await;
        info!(%address, "flows are read here");
        let server = Server::new(answers);
        tokio::spawn(accept(listener, identity.clone(), server.clone()));
        // IPv6 may be off.
        tokio::join!(
            accept_at_gateway(GATEWAY_V4.into(), config.port, identity.clone(), server.clone()),
            accept_at_gateway(AGENT_V6.into(), config.port, identity, server),
        );
    });
}

/// The certificate and the port, once there are both.
pub(super) async fn opened(
    config: &FlowApi,
    address: SocketAddr,
    tell: impl Fn(&RecordError),
) -> (Arc<Identity>, TcpListener) {
    let mut told = false;
    loop {
        match open(config, address).await {
            Ok(opened) => return opened,
            Err(source) if !std::mem::replace(&mut told, true) => tell(&RecordError::Api { address, source }),
            Err(_) => {}
        }
        sleep(LOOK).await;
    }
}

async fn open(config: &FlowApi, address: SocketAddr) -> io::Result<(Arc<Identity>, TcpListener)> {
    let text = |path: &Path| Some(path.display().to_string());
    let files = TlsFiles {
        certificate: text(&config.certificate),
        key: text(&config.key),
        authorities: text(config.client_ca.path()),
    };
    let options = TlsOptions { files, acme: None, client_auth: ClientAuth::VerifyIfGiven, keylog: None };
    Ok((Identity::read(&options, Scheme::Https)?, TcpListener::bind(address).await?))
}

/// A pod knows its gateway, and not its node's address: there its node's agent answers it, or, where the pod has IPv6 alone, behind it.
async fn accept_at_gateway(gateway: IpAddr, port: u16, identity: Arc<Identity>, server: Arc<Server>) {
    let mut tasks = JoinSet::new();
    let mut told = false;
    loop {
        let held = tokio::task::block_in_place(|| {
            RtSocket::open().and_then(|mut socket| resolver::hold(&mut socket, &[gateway])).map_err(io::Error::other)
        });
        let listening = async {
            held?;
            if tasks.is_empty() {
                let listener = TcpListener::bind((gateway, port)).await?;
                tasks.spawn(accept(listener, identity.clone(), server.clone()));
            }
            Ok::<_, io::Error>(())
        };
        match listening.await {
            Ok(()) => told = false,
            Err(error) if gateway.is_ipv6() => {
                if !std::mem::replace(&mut told, true) {
                    info!(%error, %gateway, port, "pods with IPv6 alone do not reach the flows at their node; it is tried again");
                }
            }
            Err(error) if !std::mem::replace(&mut told, true) => {
                warn!(%error, %gateway, port, "pods do not reach the flows at their gateway, only at the node's address; it is tried again");
            }
            Err(_) => {}
        }
        sleep(LOOK).await;
    }
}

pub(super) async fn accept(listener: TcpListener, identity: Arc<Identity>, server: Arc<Server>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let shares = Shares::new(OF_ONE);
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                // Who has its share is closed at once.
                let Some(share) = shares.take(from.ip().to_canonical()) else { continue };
                let (identity, server) = (Arc::clone(&identity), Arc::clone(&server));
                tokio::spawn(async move {
                    connection(stream, &identity, server).await;
                    drop((place, share));
                });
            }
            Err(error) => {
                warn!(%error, "a reader of flows cannot be let in");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, identity: &Arc<Identity>, server: Arc<Server>) {
    let acceptor = TlsAcceptor::from(identity.config().await);
    let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let by_certificate = certificate.map(|certificate| Asker::of_certificate(certificate));
    let (activity, stranger) = (Arc::new(Activity::default()), Arc::new(Notify::new()));
    let (busy, nobody) = (Arc::clone(&activity), Arc::clone(&stranger));
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, asker) = (Arc::clone(&server), by_certificate.clone());
        let (busy, nobody) = (busy.begin(), Arc::clone(&nobody));
        async move {
            let response = server.answer(request, asker, busy).await;
            if response.status() == StatusCode::UNAUTHORIZED {
                nobody.notify_one();
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(4).max_header_list_size(16 << 10);
    builder.http2().keep_alive_interval(SILENCE).keep_alive_timeout(PATIENCE);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // Whoever asks nothing, not even in which version, has no place for good; whoever is nobody has to begin anew.
    while activity.idle() < PATIENCE {
        tokio::select! {
            // Whoever went away needs no answer.
            _ = connection.as_mut() => return,
            () = stranger.notified() => break,
            () = sleep(PATIENCE / 4) => {}
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(PATIENCE, connection).await;
}
