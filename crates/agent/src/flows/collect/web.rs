//! Collectors that are sent to over HTTP.

use std::{io, time::Duration};

use axum::http::{HeaderValue, Request, StatusCode, Uri, header};
use data_encoding::BASE64;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use super::{SendError, credentials, target::Web, tls::tls};

/// For a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection is kept without use.
const IDLE: Duration = Duration::from_secs(30);
/// The most bytes of an answer: some hundred for each item of a batch.
const LARGEST: usize = 4 << 20;
/// How much of an answer that is none is told.
const TOLD: usize = 200;

type Connections = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A server, and the connection to it.
pub(super) struct Server {
    web: Web,
    /// None before the first time, and after a failure: files may be others then.
    connections: Option<Connections>,
}

impl Server {
    pub(super) const fn new(web: Web) -> Self {
        Self { web, connections: None }
    }

    pub(super) const fn web(&self) -> &Web {
        &self.web
    }

    /// Asks for something: the answer's status and its body.
    pub(super) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), SendError> {
        let connections = match self.connections.take() {
            Some(connections) => connections,
            None => connect(&self.web)?,
        };
        let response = connections.request(request).await;
        let response = response.map_err(|error| SendError::Away(podnet_model::errors::chain(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        let body = body.map_err(|error| SendError::Away(format!("its answer cannot be read: {error}")))?.to_bytes();
        self.connections = Some(connections);
        Ok((status, body))
    }
}

/// Posts bodies of one kind to a server.
pub(super) struct Post {
    server: Server,
    content: &'static str,
}

impl Post {
    pub(super) const fn new(web: Web, content: &'static str) -> Self {
        Self { server: Server::new(web), content }
    }

    /// Posts a body; the answer's body where it is accepted.
    pub(super) async fn post(&mut self, body: Vec<u8>) -> Result<Bytes, SendError> {
        let web = self.server.web();
        let mut request = Request::post(&web.url).header(header::CONTENT_TYPE, self.content);
        if let Some(path) = &web.credentials {
            request = request.header(header::AUTHORIZATION, authorization(path)?);
        }
        let request = request.body(Full::from(body)).map_err(|error| SendError::Away(error.to_string()))?;
        let (status, body) = self.server.ask(request).await?;
        if status.is_success() {
            return Ok(body);
        }
        let told = refusal(&self.server.web().url, status, &body);
        Err(match status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                SendError::Unfit(told)
            }
            _ => SendError::Away(told),
        })
    }
}

/// What a server says that does not take something.
pub(super) fn refusal(url: &Uri, status: StatusCode, body: &[u8]) -> String {
    format!("{url} answers {status}: {}", beginning(body))
}

/// That an answer is not what it has to be.
pub(super) fn no_answer(body: &[u8], error: &serde_json::Error) -> SendError {
    SendError::Away(format!("it answers what cannot be read ({error}): {}", beginning(body)))
}

fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(TOLD).collect()
}

/// What a file of credentials comes to: a header's value as it is (`Bearer …`, `ApiKey …`), or user and password with a colon between them.
fn authorization(path: &str) -> Result<HeaderValue, SendError> {
    let text = credentials::read(path)?;
    let value = if text.contains(' ') { text } else { format!("Basic {}", BASE64.encode(text.as_bytes())) };
    let mut value = HeaderValue::try_from(value).map_err(|_| {
        SendError::Away(format!("{path}: neither user:password nor a line as Bearer TOKEN or ApiKey KEY"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn connect(web: &Web) -> io::Result<Connections> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    let is_secure = web.url.scheme_str() == Some("https");
    let config = if is_secure { tls(web.authorities.as_deref())? } else { unused() };
    let connector = HttpsConnectorBuilder::new().with_tls_config((*config).clone()).https_or_http().enable_http1();
    let mut client = Client::builder(TokioExecutor::new());
    client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(1);
    Ok(client.build(connector.wrap_connector(tcp)))
}

/// Believes nobody: where no TLS is spoken no authorities are needed.
fn unused() -> std::sync::Arc<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
    // The provider has all versions that are safe.
    let config = config.with_protocol_versions(&[&rustls::version::TLS13]).expect("ring has TLS 1.3");
    config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth().into()
}
