//! One connection: TLS, the client's identity, HTTP/1.1 or HTTP/2.

use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use podnet_client::certificate::{CertificateError, holder};
use podnet_client::shares::Share;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::without_delay;
use crate::auth::Identity;

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long an HTTP/1.1 connection may rest. Longer than clients keep theirs (90 s in Go and in hyper), so that no request meets a
/// connection that is just being closed.
const REST: Duration = Duration::from_secs(120);

/// How often an HTTP/2 client is asked whether it lives, as Go's server and kubectl do it.
const PING: Duration = Duration::from_secs(30);

/// How long it may take to answer; its watches end then.
const PONG: Duration = Duration::from_secs(20);

/// Streams of one HTTP/2 connection. Each watch of a Go client is one, and they share a connection.
const STREAMS: u32 = 1000;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// TLS failed.
    #[error("TLS handshake")]
    Handshake(#[source] std::io::Error),
    /// TLS took too long.
    #[error("TLS handshake took more than {HANDSHAKE:?}")]
    Slow,
    /// The certificate says nothing.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// HTTP failed.
    #[error("serving HTTP: {0}")]
    Http(Box<dyn std::error::Error + Send + Sync>),
}

/// Serves a connection until the client is done or the server stops.
pub(super) async fn serve(
    stream: TcpStream,
    admission: Share<IpAddr>,
    acceptor: TlsAcceptor,
    router: Router,
    stopping: CancellationToken,
) -> Result<(), ConnectionError> {
    without_delay(&stream);
    let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    let stream = shaken.map_err(|_| ConnectionError::Slow)?.map_err(ConnectionError::Handshake)?;
    let identity = identity(&stream)?;
    // Whoever has a certificate is known and counts no more.
    let _admission = identity.is_none().then_some(admission);
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
        router.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(REST);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
    builder.http2().keep_alive_interval(PING).keep_alive_timeout(PONG);
    let service = TowerToHyperService::new(service);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result.map_err(ConnectionError::Http),
        () = stopping.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(ConnectionError::Http)
}

/// Who the client is, when it has a certificate. TLS has verified it.
fn identity(stream: &TlsStream<TcpStream>) -> Result<Option<Identity>, CertificateError> {
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    certificate.map(|der| holder(der).map(|(user, groups)| Identity::authenticated(user, groups))).transpose()
}
