//! etcd as a store of records (`etcd`), asked through the JSON gateway of its version 3 API, which etcd has at the same port since 3.4.

mod wire;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderValue, Request, StatusCode, header};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use podnet_dns::{
    Secure,
    chain::EtcdOptions,
    etcd::{Entry, Keys, Store},
};
use serde_json::Value;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::connections;

/// How long one server may take: those who ask have some left for the next one.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// How long all of them may take together; clients ask again after 5 s.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a connection without a question is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Connections without a question that are kept to one server.
const KEPT: usize = 16;
/// The most keys for one question: no message has room for more records.
const MOST: usize = 4096;
/// The most bytes of an answer: keys and values of a usual length, that many.
const LARGEST: usize = 4 << 20;
/// Leases that are looked up for one question; records with others are kept as short as is allowed.
const LEASES: usize = 64;
/// Leases that are looked up at once.
const LEASES_AT_ONCE: usize = 8;

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The servers of one etcd. How much they are asked at once is bounded by who asks.
pub(super) struct Etcd(Arc<Gateway>);

struct Gateway {
    /// None where the files for TLS could not be read.
    http: Option<Http>,
    endpoints: Vec<String>,
    /// The one that answered last.
    turn: AtomicUsize,
    credentials: Option<(String, String)>,
    /// What the credentials were exchanged for.
    token: Mutex<Option<HeaderValue>>,
    away: AtomicBool,
}

impl Etcd {
    /// What the options name. Nothing is asked yet.
    pub(super) fn new(options: &EtcdOptions) -> Self {
        let http = http(options).inspect_err(
            |error| warn!(%error, "the files for TLS towards etcd cannot be read; its names are not answered"),
        );
        Self(Arc::new(Gateway {
            http: http.ok(),
            endpoints: options.endpoints.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            turn: AtomicUsize::new(0),
            credentials: options.credentials.clone(),
            token: Mutex::default(),
            away: AtomicBool::new(false),
        }))
    }
}

impl Store for Etcd {
    fn find(&self, keys: Keys) -> BoxFuture<'static, io::Result<Vec<Entry>>> {
        let gateway = Arc::clone(&self.0);
        async move {
            let found = timeout(PATIENCE, gateway.find(&keys)).await;
            let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            gateway.told(&found);
            found
        }
        .boxed()
    }
}

fn http(options: &EtcdOptions) -> io::Result<Http> {
    let secure = Secure { files: options.tls.clone().unwrap_or_default(), name: None };
    let tls = connections::client(&secure)?;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(ATTEMPT));
    let connector = HttpsConnectorBuilder::new().with_tls_config((*tls).clone()).https_or_http().enable_http1();
    let mut client = Client::builder(TokioExecutor::new());
    client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(KEPT);
    Ok(client.build(connector.wrap_connector(tcp)))
}

impl Gateway {
    async fn find(&self, keys: &Keys) -> io::Result<Vec<Entry>> {
        let answer = self.ask("/v3/kv/range", &wire::range(keys, MOST)).await?;
        let found = wire::found(&answer)?;
        let leases: BTreeSet<i64> = found.iter().map(|found| found.lease).filter(|lease| *lease != 0).collect();
        let left = async |lease| (lease, self.left(lease).await);
        let asked = stream::iter(leases.into_iter().take(LEASES)).map(left).buffer_unordered(LEASES_AT_ONCE);
        let left: HashMap<i64, u32> = asked.collect().await;
        let lease = |lease: i64| (lease != 0).then(|| left.get(&lease).copied().unwrap_or(0));
        let entry = |found: wire::Found| Entry { key: found.key, value: found.value, lease: lease(found.lease) };
        Ok(found.into_iter().map(entry).collect())
    }

    /// The seconds that a lease has left. One that is over, or unknown, has none: its keys are about to go.
    async fn left(&self, lease: i64) -> u32 {
        let answer = self.ask("/v3/lease/timetolive", &wire::lease(lease)).await;
        answer
            .inspect_err(|error| debug!(%error, lease, "a lease is not known"))
            .ok()
            .map_or(0, |told| wire::left(&told))
    }

    /// Asks one server after the other, beginning with the one that answered last.
    async fn ask(&self, path: &str, question: &Value) -> io::Result<Value> {
        let first = self.turn.load(Ordering::Relaxed);
        let mut failed = io::Error::from(io::ErrorKind::NotConnected);
        for step in 0..self.endpoints.len() {
            let turn = (first + step) % self.endpoints.len();
            match timeout(ATTEMPT, self.ask_at(&self.endpoints[turn], path, question)).await {
                Ok(Ok(answer)) => {
                    self.turn.store(turn, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
            debug!(endpoint = self.endpoints[turn], error = %failed, "etcd did not answer");
        }
        Err(failed)
    }

    async fn ask_at(&self, endpoint: &str, path: &str, question: &Value) -> io::Result<Value> {
        let kept = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let token = match (&self.credentials, kept) {
            (None, _) => None,
            (Some(_), Some(kept)) => Some(kept),
            (Some(credentials), None) => Some(self.authenticate(endpoint, credentials).await?),
        };
        match (self.send(endpoint, path, question, token).await?, &self.credentials) {
            // The token is too old: etcd forgets those that were not used for some minutes.
            ((StatusCode::UNAUTHORIZED, _), Some(credentials)) => {
                let token = self.authenticate(endpoint, credentials).await?;
                told(self.send(endpoint, path, question, Some(token)).await?)
            }
            (answer, _) => told(answer),
        }
    }

    async fn authenticate(&self, endpoint: &str, (user, password): &(String, String)) -> io::Result<HeaderValue> {
        let question = wire::credentials(user, password);
        let answer = told(self.send(endpoint, "/v3/auth/authenticate", &question, None).await?)?;
        let mut token = HeaderValue::try_from(wire::token(&answer)?).map_err(io::Error::other)?;
        token.set_sensitive(true);
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(token)
    }

    async fn send(
        &self,
        endpoint: &str,
        path: &str,
        question: &Value,
        token: Option<HeaderValue>,
    ) -> io::Result<(StatusCode, Bytes)> {
        let http = self.http.as_ref().ok_or_else(|| io::Error::other("the files for TLS could not be read"))?;
        let mut request = Request::post(format!("{endpoint}{path}")).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.body(Full::from(question.to_string())).map_err(io::Error::other)?;
        let response = http.request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(io::Error::other)?;
        Ok((status, body.to_bytes()))
    }

    /// Says once that no server answers, and once that one does again.
    fn told(&self, found: &io::Result<Vec<Entry>>) {
        let away = found.is_err();
        if self.away.swap(away, Ordering::Relaxed) != away {
            match found {
                Ok(_) => info!(endpoints = self.endpoints.join(" "), "etcd answers again"),
                Err(error) => {
                    warn!(endpoints = self.endpoints.join(" "), %error, "etcd does not answer; its names fail meanwhile");
                }
            }
        }
    }
}

fn told((status, body): (StatusCode, Bytes)) -> io::Result<Value> {
    if status != StatusCode::OK {
        let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        return Err(io::Error::other(format!("etcd says {status}: {text}")));
    }
    serde_json::from_slice(&body).map_err(io::Error::other)
}
