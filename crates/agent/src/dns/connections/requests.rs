//! Upstreams that are asked in requests of HTTP/2: DNS over HTTPS (RFC 8484) and gRPC. One connection carries many at once.

use std::{
    collections::HashMap,
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{HeaderValue, Request, Response, StatusCode, header, request::Builder};
use data_encoding::BASE64URL_NOPAD;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podnet_dns::{Carrier, Destination, Exchange, metrics::Metrics};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use super::{NEW, Place, lock, place, tls};
use crate::dns::{
    activity::{Activity, Busy},
    protobuf,
};

/// Bytes of the largest message, with what gRPC puts around it.
const ANSWER: usize = 65_535 + 64;
const MEDIA_TYPE: &str = "application/dns-message";

/// The connections that are open.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pools: Mutex<HashMap<Place, Arc<Pool>>>,
}

/// The connections to one upstream.
#[derive(Debug)]
struct Pool {
    turn: AtomicUsize,
    seats: Vec<tokio::sync::Mutex<Option<Open>>>,
}

#[derive(Clone, Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    activity: Arc<Activity>,
    opened: Instant,
    /// It was opened for a message that had to have a new one.
    fresh: bool,
}

/// A connection of gRPC, counted for as long as it is open.
struct Pooled(Arc<Metrics>, Destination);

impl Pooled {
    fn new(metrics: &Arc<Metrics>, exchange: &Exchange) -> Option<Self> {
        (exchange.carrier == Carrier::Grpc).then(|| {
            metrics.upstreams.pooled(&exchange.upstream, true);
            Self(Arc::clone(metrics), exchange.upstream.clone())
        })
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.0.upstreams.pooled(&self.1, false);
    }
}

impl Open {
    fn serves(&self, exchange: &Exchange) -> bool {
        let age = self.opened.elapsed();
        let is_old = exchange.keep.age.is_some_and(|most| age > most);
        !self.sender.is_closed() && !is_old && (!exchange.fresh || (self.fresh && age < NEW))
    }
}

impl Requests {
    /// Asks in a request, over a connection that is there or a new one, which is counted under `proto`.
    pub(super) async fn exchange(
        &self,
        exchange: &Exchange,
        proto: &'static str,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Vec<u8>> {
        let (mut sender, busy) = self.connection(exchange, proto, metrics).await?;
        let request = request(exchange)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let mut message = match exchange.carrier {
            Carrier::Grpc => called(response).await?,
            _ => requested(response).await?,
        };
        drop(busy);
        // The question went without its id.
        let length = message.len().min(2);
        message.splice(..length, exchange.message.iter().copied().take(length));
        Ok(message)
    }

    /// A connection; those who come while it is being opened wait for it.
    async fn connection(
        &self,
        exchange: &Exchange,
        proto: &'static str,
        metrics: &Arc<Metrics>,
    ) -> io::Result<(SendRequest<Full<Bytes>>, Busy)> {
        let size = if exchange.carrier == Carrier::Grpc { exchange.keep.most.unwrap_or(1).max(1) } else { 1 };
        let pool = {
            let mut pools = lock(&self.pools);
            let new = || Pool { turn: AtomicUsize::new(0), seats: (0..size).map(|_| Default::default()).collect() };
            Arc::clone(pools.entry(place(exchange)).or_insert_with(|| Arc::new(new())))
        };
        let seat = &pool.seats[pool.turn.fetch_add(1, Ordering::Relaxed) % pool.seats.len()];
        let mut seat = seat.lock().await;
        let kept = seat.as_ref().filter(|open| open.serves(exchange)).cloned();
        metrics.upstreams.connection(&exchange.upstream, proto, kept.is_some());
        let open = match kept {
            Some(open) => open,
            None => Open { fresh: exchange.fresh, ..open(exchange, metrics).await? },
        };
        *seat = Some(open.clone());
        let busy = open.activity.begin();
        Ok((open.sender, busy))
    }
}

async fn open(exchange: &Exchange, metrics: &Arc<Metrics>) -> io::Result<Open> {
    match &exchange.upstream {
        Destination::Internet(addr) => {
            let stream = TcpStream::connect(addr).await?;
            let _ = stream.set_nodelay(true);
            begin(stream, exchange, metrics).await
        }
        Destination::Unix(path) => begin(UnixStream::connect(&**path).await?, exchange, metrics).await,
    }
}

async fn begin(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    exchange: &Exchange,
    metrics: &Arc<Metrics>,
) -> io::Result<Open> {
    match &exchange.secure {
        None => speak(stream, exchange, metrics).await,
        Some(secure) => {
            let stream = tls::connect(stream, &exchange.upstream, secure, &["h2"]).await;
            let stream = stream.inspect_err(|error| {
                tracing::warn!(upstream = %exchange.upstream, %error, "an upstream cannot be asked over TLS");
            })?;
            speak(stream, exchange, metrics).await
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    exchange: &Exchange,
    metrics: &Arc<Metrics>,
) -> io::Result<Open> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let activity = Arc::new(Activity::default());
    let (seen, idle, pooled) = (Arc::clone(&activity), exchange.keep.idle, Pooled::new(metrics, exchange));
    tokio::spawn(async move {
        let _pooled = pooled;
        let mut connection = pin!(connection);
        while seen.idle() < idle {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = tokio::time::sleep(idle.saturating_sub(seen.idle()).max(Duration::from_millis(10))) => {}
            }
        }
    });
    Ok(Open { sender, activity, opened: Instant::now(), fresh: false })
}

/// The request for a message, whose id is left out: so equal questions are equal requests (RFC 8484 §4.1).
fn request(exchange: &Exchange) -> io::Result<Request<Full<Bytes>>> {
    let mut message = exchange.message.clone();
    message.iter_mut().take(2).for_each(|byte| *byte = 0);
    let scheme = if exchange.secure.is_some() { "https" } else { "http" };
    let name = exchange.secure.as_ref().and_then(|secure| secure.name.as_ref());
    let host = match (name, &exchange.upstream) {
        (Some(name), _) => name.to_string().trim_end_matches('.').to_owned(),
        (None, Destination::Internet(addr)) => addr.to_string(),
        // A path is no authority of a URL; gRPC's libraries say this for all unix sockets.
        (None, Destination::Unix(_)) => "localhost".to_owned(),
    };
    let at = |path: &str| format!("{scheme}://{host}{path}");
    let built = match &exchange.carrier {
        Carrier::Grpc => Request::post(at(protobuf::METHOD))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(Full::from(protobuf::framed(&message))),
        Carrier::Https { path, get: true } => {
            let sign = if path.contains('?') { '&' } else { '?' };
            let uri = format!("{}{sign}dns={}", at(path), BASE64URL_NOPAD.encode(&message));
            accepting(Request::get(uri)).body(Full::default())
        }
        Carrier::Https { path, get: false } => {
            accepting(Request::post(at(path))).header(header::CONTENT_TYPE, MEDIA_TYPE).body(Full::from(message))
        }
        Carrier::Dns => return Err(io::ErrorKind::InvalidInput.into()),
    };
    built.map_err(io::Error::other)
}

fn accepting(request: Builder) -> Builder {
    request.header(header::ACCEPT, MEDIA_TYPE)
}

async fn requested(response: Response<Incoming>) -> io::Result<Vec<u8>> {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(io::Error::other(format!("the upstream says {status}")));
    }
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind.is_none_or(|kind| !kind.starts_with(MEDIA_TYPE.as_bytes())) {
        return Err(io::Error::other("the upstream's response is no DNS message"));
    }
    let body = Limited::new(response.into_body(), ANSWER).collect().await.map_err(io::Error::other)?;
    Ok(body.to_bytes().to_vec())
}

async fn called(response: Response<Incoming>) -> io::Result<Vec<u8>> {
    let mut status = response.headers().get(protobuf::STATUS).cloned();
    let body = Limited::new(response.into_body(), ANSWER).collect().await.map_err(io::Error::other)?;
    if let Some(told) = body.trailers().and_then(|trailers| trailers.get(protobuf::STATUS)) {
        status = Some(told.clone());
    }
    match status {
        Some(status) if status == "0" => protobuf::unframed(&body.to_bytes())
            .ok_or_else(|| io::Error::other("the upstream's answer is no message of gRPC")),
        status => Err(io::Error::other(format!("the upstream's answer has the status {status:?}"))),
    }
}
