//! Connections: TLS, who the peer is, HTTP/1.1, and the answer to each request.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    StreamError, logs,
    negotiate::Protocol,
    route::{self, BadRequest, ExecQuery, Route},
    status,
};
use crate::access::{AccessError, ContainerAccess, ContainerRef, ExecRequest};

/// What responses carry.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Whose certificates are served.
const ADMINISTRATORS: &str = "system:masters";
/// How many connections there may be at once; more wait in the kernel's accept queue.
const MAX_CONNECTIONS: usize = 1024;
/// How long a peer may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be without a request.
const IDLE: Duration = Duration::from_secs(60);
/// How long sessions get to end when the server does.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long to wait when the process has no descriptors left to accept with.
const EXHAUSTED: Duration = Duration::from_millis(50);

pub(super) async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    access: Arc<dyn ContainerAccess>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StreamError> {
    let server = Server {
        access,
        acceptor: TlsAcceptor::from(tls),
        sessions: TaskTracker::new(),
        stop: CancellationToken::new(),
    };
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        broken = server.accept(listener) => broken,
    };
    server.stop.cancel();
    server.sessions.close();
    if timeout(FAREWELL * 2, server.sessions.wait()).await.is_err() {
        warn!(sessions = server.sessions.len(), "streaming sessions did not end in time");
    }
    outcome
}

#[derive(Clone)]
struct Server {
    access: Arc<dyn ContainerAccess>,
    acceptor: TlsAcceptor,
    sessions: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    async fn accept(&self, listener: TcpListener) -> Result<(), StreamError> {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(slot) = slots.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let server = self.clone();
                    self.sessions.spawn(async move {
                        server.connection(stream, peer).await;
                        drop(slot);
                    });
                }
                Err(source) if source.kind() == io::ErrorKind::InvalidInput => {
                    let address =
                        listener.local_addr().map_or_else(|_| "a closed socket".to_owned(), |a| a.to_string());
                    return Err(StreamError::Accept { address, source });
                }
                Err(error) => {
                    warn!(%error, "a streaming connection was not accepted");
                    sleep(EXHAUSTED).await;
                }
            }
        }
        Ok(())
    }

    async fn connection(self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "cannot turn Nagle's algorithm off");
        }
        let stop = self.stop.clone();
        let stream = match timeout(HANDSHAKE, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => return debug!(%peer, "TLS handshake took too long"),
        };
        let trusted = is_administrator(&stream);
        let service = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.respond(request, trusted).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            debug!(%peer, %error, "streaming connection broke");
        }
    }

    async fn respond(&self, request: Request<Incoming>, trusted: bool) -> Response<Body> {
        if !trusted {
            let message = format!("only certificates of the organisation {ADMINISTRATORS} are served here");
            return status::refused(StatusCode::FORBIDDEN, &message);
        }
        let uri = request.uri();
        let route = match route::parse(uri.path(), uri.query().unwrap_or_default(), Utc::now()) {
            Ok(route) => route,
            Err(error @ BadRequest::Path(_)) => return status::refused(StatusCode::NOT_FOUND, &error.to_string()),
            Err(error) => return status::refused(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        match route {
            Route::Health => Response::new(status::text("ok")),
            Route::Exec(target, query) => self.exec(request, target, query).await,
            Route::Attach => {
                let message =
                    "attach is not served: a container's own stdin is not kept; use exec, or logs -f for its output";
                status::refused(StatusCode::NOT_IMPLEMENTED, message)
            }
            Route::Logs { .. } if request.method() != Method::GET => {
                status::refused(StatusCode::METHOD_NOT_ALLOWED, "logs are read with GET")
            }
            Route::Logs { target, previous, options } => match self.access.log(target, previous).await {
                Ok(file) => Response::new(logs::body(file, options, self.stop.clone())),
                Err(error) => status::unreachable(&error),
            },
        }
    }

    /// The process is started before protocols are switched, so that a pod or container that is not there is a plain HTTP error. A
    /// command that cannot be run is told through the session, as clients expect it.
    async fn exec(&self, mut request: Request<Incoming>, target: ContainerRef, query: ExecQuery) -> Response<Body> {
        let protocol = match Protocol::negotiate(request.method(), request.headers()) {
            Ok(protocol) => protocol,
            Err(refusal) => return *refusal,
        };
        let wanted = ExecRequest { command: query.command.clone(), tty: query.tty, stdin: query.stdin };
        let session = match self.access.exec(target, wanted).await {
            Ok(session) => Ok(session),
            Err(error @ AccessError::Start { .. }) => {
                Err(status::failed(&format!("error executing command in container: {error}")))
            }
            Err(error) => return status::unreachable(&error),
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let response = protocol.switching();
        let stop = self.stop.clone();
        self.sessions.spawn(async move {
            match upgrade.await {
                Ok(socket) => protocol.serve(socket, session, &query, stop).await,
                Err(error) => debug!(%error, "the client left before protocols were switched"),
            }
        });
        response
    }
}

/// Whether the peer's certificate, which TLS has verified, names the administrators' organisation.
fn is_administrator(stream: &TlsStream<TcpStream>) -> bool {
    let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) else { return false };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    certificate.subject().iter_organization().any(|organisation| organisation.as_str() == Ok(ADMINISTRATORS))
}
