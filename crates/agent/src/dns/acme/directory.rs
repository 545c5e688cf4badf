//! HTTP to an authority: over TLS, with answers bounded in time and size.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Bytes,
    header::{HeaderMap, HeaderValue, RETRY_AFTER},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns},
    },
    rt::TokioExecutor,
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use podnet_dns::{
    Secure,
    chain::{AcmeOptions, TlsFiles},
    name::Name,
};
use serde::de::IgnoredAny;
use tokio::{task::spawn_blocking, time::timeout};

use crate::dns::{connections, hostnames};

/// How long one request may take, connection and answer included.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer: a chain of certificates has some ten thousand bytes.
const LARGEST: usize = 1 << 20;
/// The longest time after which an authority is asked again because it says so: an order does not live longer.
const LATEST: u64 = 86_400;

/// A client for the authority that the options name.
#[derive(Clone)]
pub(super) struct Http(Client<HttpsConnector<HttpConnector<Hosts>>, BodyWrapper<Bytes>>);

impl Http {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// When the file with authorities cannot be read, or the URL is none.
    pub(super) async fn new(options: &AcmeOptions) -> io::Result<Self> {
        options.directory.parse::<Uri>().map_err(io::Error::other)?;
        let files = TlsFiles { authorities: options.authorities.clone(), ..TlsFiles::default() };
        let tls = spawn_blocking(move || connections::client(&Secure { files, name: None }));
        let tls = tls.await.map_err(io::Error::other)??;
        let mut tcp = HttpConnector::new_with_resolver(Hosts(options.resolver));
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(PATIENCE));
        let connector = HttpsConnectorBuilder::new().with_tls_config((*tls).clone()).https_only().enable_http1();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector.wrap_connector(tcp))))
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let is_directory = request.method() == Method::GET;
        let answered = self.0.request(request);
        let whole = async move {
            let answered = answered.await.map_err(|error| Error::Other(Box::new(error)))?;
            let (mut parts, body) = answered.into_parts();
            let body = Limited::new(body, LARGEST).collect().await.map_err(Error::Other)?.to_bytes();
            bound_pause(&mut parts.headers);
            if let Some(fault) = fault(is_directory, parts.status, &body) {
                return Err(Error::Other(fault.into()));
            }
            Ok(BytesResponse { parts, body: Box::new(body) })
        };
        async move {
            match timeout(PATIENCE, whole).await {
                Ok(answered) => answered,
                Err(_) => Err(Error::Other(Box::new(io::Error::from(io::ErrorKind::TimedOut)))),
            }
        }
        .boxed()
    }
}

/// What the library cannot make anything of in an answer, or takes for something else.
fn fault(is_directory: bool, status: StatusCode, body: &[u8]) -> Option<String> {
    let is_error = status.is_client_error() || status.is_server_error();
    // An authority tells problems in JSON (RFC 8555 §6.7); what stands before one answers as it likes. And a directory is read whatever its
    // status.
    if is_error && (is_directory || serde_json::from_slice::<IgnoredAny>(body).is_err()) {
        return Some(format!("HTTP status {status}"));
    }
    (is_directory && !has_nonces(body)).then(|| "the directory names no URL for nonces".to_owned())
}

/// Whether a directory has a URL for nonces (RFC 8555 §7.1.1). The library takes for granted that it can be asked.
fn has_nonces(directory: &[u8]) -> bool {
    let directory: Option<serde_json::Value> = serde_json::from_slice(directory).ok();
    let url = directory.as_ref().and_then(|directory| directory["newNonce"].as_str());
    url.is_some_and(|url| url.parse::<Uri>().is_ok())
}

/// Makes a pause no longer than [`LATEST`]: the library adds to the time what it is told.
fn bound_pause(headers: &mut HeaderMap) {
    let told = headers.get(RETRY_AFTER).and_then(|told| told.to_str().ok());
    if told.and_then(|told| told.trim().parse::<u64>().ok()).is_some_and(|seconds| seconds > LATEST) {
        headers.insert(RETRY_AFTER, HeaderValue::from(LATEST));
    }
}

/// Tells the addresses of the authority: as this name server does, or as the system does.
#[derive(Clone, Debug)]
struct Hosts(Option<SocketAddr>);

impl tower::Service<dns::Name> for Hosts {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, host: dns::Name) -> Self::Future {
        let server = self.0;
        async move {
            let Some(server) = server else {
                let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
                return Ok(found.into_iter());
            };
            let name = Name::parse(host.as_str()).map_err(io::Error::other)?;
            let found =
                spawn_blocking(move || hostnames::resolve(&[server], &name)).await.map_err(io::Error::other)??;
            let found: Vec<SocketAddr> = found.into_iter().map(|addr| SocketAddr::new(addr, 0)).collect();
            Ok(found.into_iter())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_says_nothing_but_its_status_is_told_by_that() {
        let told = |is_directory, status: StatusCode, body: &str| fault(is_directory, status, body.as_bytes());
        let directory = r#"{"newNonce": "https://a.example/nonce"}"#;
        let problem = r#"{"type": "urn:ietf:params:acme:error:rateLimited"}"#;
        assert_eq!(told(true, StatusCode::OK, directory), None);
        assert_eq!(told(false, StatusCode::OK, "-----BEGIN CERTIFICATE-----"), None);
        assert_eq!(told(false, StatusCode::TOO_MANY_REQUESTS, problem), None, "the library tells it");
        let unavailable = Some("HTTP status 503 Service Unavailable".to_owned());
        for (is_directory, body) in [(false, "<html>"), (false, ""), (true, directory), (true, r#"{"newNonce": ""}"#)] {
            assert_eq!(told(is_directory, StatusCode::SERVICE_UNAVAILABLE, body), unavailable, "{body}");
        }
        let nowhere = Some("the directory names no URL for nonces".to_owned());
        assert_eq!(told(true, StatusCode::OK, r#"{"newNonce": ""}"#), nowhere);
    }

    #[test]
    fn what_the_library_takes_for_granted_of_an_authority_is_looked_at() {
        assert!(has_nonces(br#"{"newNonce": "https://a.example/nonce"}"#));
        for directory in [r#"{"newNonce": "https://a b/"}"#, r#"{"newNonce": ""}"#, r#"{"newNonce": 1}"#, "{}", "<"] {
            assert!(!has_nonces(directory.as_bytes()), "{directory}");
        }
        let bounded = |told: &'static str| {
            let mut headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(told))]);
            bound_pause(&mut headers);
            headers[RETRY_AFTER].to_str().unwrap().to_owned()
        };
        assert_eq!(bounded("18446744073709551615"), "86400");
        assert_eq!(bounded("5"), "5");
        assert_eq!(bounded("Fri, 31 Dec 1999 23:59:59 GMT"), "Fri, 31 Dec 1999 23:59:59 GMT");
    }
}
