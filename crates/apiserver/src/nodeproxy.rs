//! Exec, attach and logs are answered by the pod's node: requests go on to its streaming server, and what is upgraded there is
//! tunnelled byte for byte, whatever protocol it speaks (WebSocket, SPDY).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::api::{Api, Place};
use crate::auth::MASTERS;
use crate::errors::ApiError;
use crate::http::query::Query;
use crate::pki::{Pki, PkiError};

mod destination;

use destination::Destination;

/// Port of every node's streaming server (kubelet's).
pub const NODE_PORT: u16 = 10250;

/// How long a node may take to answer a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nodes cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum NodeProxyError {
    /// Our own client certificate cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A certificate or key of ours is not readable.
    #[error("reading the certificate for talking to nodes")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// TLS cannot be set up with them.
    #[error("setting up TLS for talking to nodes")]
    Tls(#[source] rustls::Error),
}

/// Connects to nodes as `system:masters`, and only believes those whose certificate is of this cluster.
pub struct NodeProxy {
    connector: TlsConnector,
}

impl std::fmt::Debug for NodeProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeProxy").finish_non_exhaustive()
    }
}

impl NodeProxy {
    /// A proxy with a certificate made now.
    pub fn new(pki: &Pki) -> Result<Self, NodeProxyError> {
        let own = pki.issue_client("podnet-apiserver", &[MASTERS])?;
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).map_err(NodeProxyError::Pem)?;
        roots.add(authority).map_err(NodeProxyError::Tls)?;
        let certificate = CertificateDer::from_pem_slice(own.cert_pem.as_bytes()).map_err(NodeProxyError::Pem)?;
        let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).map_err(NodeProxyError::Pem)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(NodeProxyError::Tls)?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .map_err(NodeProxyError::Tls)?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn dial(&self, destination: &Destination) -> Result<TlsStream<TcpStream>, ApiError> {
        let Destination { node, address, .. } = destination;
        let failed = |error: &dyn std::fmt::Display| {
            ApiError::internal(format!("error dialing backend: node {node} at {address}:{NODE_PORT}: {error}"))
        };
        let dialing = async {
            let stream = TcpStream::connect((*address, NODE_PORT)).await?;
            stream.set_nodelay(true)?;
            self.connector.connect(ServerName::from(*address), stream).await
        };
        match tokio::time::timeout(DIAL_TIMEOUT, dialing).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&"no answer within 10 seconds")),
        }
    }
}

/// Passes a request for a pod's `log`, `exec` or `attach` on to its node.
pub(crate) async fn forward(
    api: &Api,
    at: &Place<'_>,
    subresource: &str,
    query: &Query,
    mut request: Request<Body>,
) -> Result<Response, ApiError> {
    let destination = Destination::find(api, at, subresource, query.text("container"))?;
    let stream = api.nodes().dial(&destination).await?;
    let client_upgrade = hyper::upgrade::on(&mut request);
    let outgoing = outgoing(&destination, request)?;
    let broken = |error: hyper::Error| ApiError::internal(format!("talking to node {}: {error}", destination.node));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let stopping = api.stopping().clone();
    tokio::spawn(until(stopping.clone(), async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "connection to a node ended");
        }
    }));
    let mut answer = sender.send_request(outgoing).await.map_err(broken)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let node_upgrade = hyper::upgrade::on(&mut answer);
        tokio::spawn(until(stopping, tunnel(client_upgrade, node_upgrade)));
    }
    Ok(answer.map(Body::new))
}

/// The request as the node gets it: same method, query and headers, another path and no credentials.
fn outgoing(destination: &Destination, request: Request<Body>) -> Result<Request<Body>, ApiError> {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{}{query}", destination.path);
    let (parts, body) = request.into_parts();
    let unusable =
        |error: &dyn std::fmt::Display| ApiError::bad_request(format!("this request cannot be passed on: {error}"));
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() = path.parse::<Uri>().map_err(|error| unusable(&error))?;
    *outgoing.headers_mut() = parts.headers;
    let headers = outgoing.headers_mut();
    headers.remove(header::AUTHORIZATION);
    let host = format!("{}:{NODE_PORT}", destination.address);
    headers.insert(header::HOST, HeaderValue::from_str(&host).map_err(|error| unusable(&error))?);
    Ok(outgoing)
}

/// Carries bytes both ways until both sides are done.
async fn tunnel(client: hyper::upgrade::OnUpgrade, node: hyper::upgrade::OnUpgrade) {
    match tokio::try_join!(client, node) {
        Ok((client, node)) => {
            let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
            if let Err(error) = copy_bidirectional(&mut client, &mut node).await {
                debug!(%error, "tunnel ended");
            }
        }
        Err(error) => debug!(%error, "upgrade to a tunnel failed"),
    }
}

async fn until(stopping: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stopping.cancelled() => {}
        () = work => {}
    }
}
