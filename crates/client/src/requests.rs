//! Requests to the API server: told of, and held back where there are to be no more of them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body;
use tokio::sync::Semaphore;
use tower::{BoxError, Layer, Service};

/// Requests in a second, and at once beyond them, where only one of the two is given: those of client-go.
const QPS: u32 = 5;
const BURST: u32 = 10;

/// How many requests there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In a second, on average.
    pub qps: Option<u32>,
    /// At once, when there were none for some time.
    pub burst: Option<u32>,
    /// Whose answers have not begun.
    pub max_inflight: Option<u32>,
}

/// A request that has its answer, or never will.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Whom it was sent to: name and port.
    pub host: &'a str,
    /// The method.
    pub method: &'a str,
    /// The status; none where there was no answer.
    pub code: Option<u16>,
    /// How long it was held back.
    pub held: Duration,
    /// How long it took then, until its answer began.
    pub took: Duration,
}

/// Who is told of requests.
pub type Listener = Arc<dyn Fn(&Asked<'_>) + Send + Sync>;

/// What all requests of a client go through.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    host: String,
    bucket: Option<Mutex<Bucket>>,
    places: Option<Semaphore>,
    listener: Option<Listener>,
}

/// Tokens, of which each request takes one.
#[derive(Debug)]
struct Bucket {
    /// Tokens in a second.
    rate: f64,
    most: f64,
    /// Less than none where requests wait for theirs.
    there: f64,
    at: Instant,
}

impl Bucket {
    fn new(limits: Limits, now: Instant) -> Option<Self> {
        if limits.qps.is_none() && limits.burst.is_none() {
            return None;
        }
        let most = f64::from(limits.burst.unwrap_or(BURST));
        Some(Self { rate: f64::from(limits.qps.unwrap_or(QPS)), most, there: most, at: now })
    }

    /// How long a request that comes now has to wait.
    fn take(&mut self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.there = (self.there + since * self.rate).min(self.most) - 1.0;
        self.at = now;
        if self.there >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.there / self.rate) }
    }
}

impl Gate {
    /// A gate before the server `host`.
    pub(crate) fn new(host: String, limits: Limits, listener: Option<Listener>) -> Self {
        let bucket = Bucket::new(limits, Instant::now()).map(Mutex::new);
        let places = limits.max_inflight.map(|most| Semaphore::new(most as usize));
        Self(Arc::new(Inner { host, bucket, places, listener }))
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.clone() }
    }
}

/// A client's service behind the gate.
pub(crate) struct Gated<S> {
    inner: S,
    gate: Gate,
}

impl<S, B> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.method().clone();
        let gate = Arc::clone(&self.gate.0);
        // A future does nothing before it is asked to.
        let answer = self.inner.call(request);
        Box::pin(async move {
            let came = Instant::now();
            let wait =
                gate.bucket.as_ref().map(|bucket| bucket.lock().unwrap_or_else(PoisonError::into_inner).take(came));
            if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
                tokio::time::sleep(wait).await;
            }
            let place = match &gate.places {
                Some(places) => Some(places.acquire().await?),
                None => None,
            };
            let sent = Instant::now();
            let answered = answer.await;
            drop(place);
            if let Some(listener) = &gate.listener {
                let code = answered.as_ref().ok().map(|response| response.status().as_u16());
                let (held, took) = (sent - came, sent.elapsed());
                listener(&Asked { host: &gate.host, method: method.as_str(), code, held, took });
            }
            answered
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_go_at_once_and_then_so_many_in_a_second() {
        let start = Instant::now();
        let limits = Limits { qps: Some(2), burst: Some(3), max_inflight: None };
        let mut bucket = Bucket::new(limits, start).unwrap();
        let waits: Vec<u128> = (0..5).map(|_| bucket.take(start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 500, 1000]);
        let later = start + Duration::from_secs(60);
        let waits: Vec<u128> = (0..4).map(|_| bucket.take(later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 500], "no more are saved up than go at once");
        assert!(Bucket::new(Limits::default(), start).is_none());
    }
}
