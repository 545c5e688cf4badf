//! What kube-proxy serves of itself: `/healthz` and `/livez` at `healthzBindAddress`, `/proxyMode`, `/configz` and `/metrics` at
//! `metricsBindAddress`.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderName, StatusCode, header},
    routing::get,
};
use podnet_model::{Family, ProxyConfig, proxy::Mode};
use serde_json::{Map, Value, json};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{
    configz::configz,
    facts::word,
    guests::Guests,
    ports,
    programming::{Health, Moment, Programming},
};
use crate::health::Renderer;

/// Between attempts at a port that somebody else has.
const PAUSE: Duration = Duration::from_secs(2);

/// Where the servers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// `healthzBindAddress`.
    pub healthz: SocketAddr,
    /// `metricsBindAddress`.
    pub metrics: SocketAddr,
}

/// What they answer with.
pub struct Status {
    /// Of `/healthz` and `/livez`.
    pub programming: Arc<Programming>,
    /// Of `/proxyMode`; none while no mode is in force.
    pub mode: watch::Receiver<Option<Mode>>,
    /// Of `/proxyMode` too: the mode whose rules serve while the one in force waits.
    pub stands_in: watch::Receiver<Option<Mode>>,
    /// Of `/configz`.
    pub config: watch::Receiver<Arc<ProxyConfig>>,
    /// Of `/metrics`.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// How `/healthz` and `/livez` answered.
    pub answers: Arc<Answers>,
}

/// How often it was answered that all is well, and that it is not.
#[derive(Debug, Default)]
pub struct Answers {
    healthz: [AtomicU64; 2],
    livez: [AtomicU64; 2],
}

impl Answers {
    /// In the text format of Prometheus, under kube-proxy's names.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        for (path, counts) in [("healthz", &self.healthz), ("livez", &self.livez)] {
            let name = format!("kubeproxy_proxy_{path}_total");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} Answers of /{path}, by code.\n# TYPE {name} counter");
            for (code, count) in [200, 503].into_iter().zip(counts) {
                let _ = writeln!(text, "{name}{{code=\"{code}\"}} {}", count.load(Ordering::Relaxed));
            }
        }
        text
    }
}

/// Serves both ports for good, each where it is to be as that changes.
pub async fn serve(status: Arc<Status>, places: watch::Receiver<Option<Places>>, guests: Guests) {
    let of_health = ("health of Services", health(status.clone()), guests.clone());
    let healthz = at(places.clone(), |places| places.healthz, of_health);
    let metrics = at(places, |places| places.metrics, ("metrics of Services", facts(status), guests));
    tokio::join!(healthz, metrics);
}

async fn at(
    mut places: watch::Receiver<Option<Places>>,
    which: impl Fn(&Places) -> SocketAddr,
    (purpose, router, guests): (&'static str, Router, Guests),
) {
    let mut told = false;
    loop {
        let known = places.wait_for(Option::is_some).await.ok().and_then(|places| places.as_ref().map(&which));
        // Nobody says any more where it is to be.
        let Some(address) = known else { return };
        let elsewhere = |places: &Option<Places>| places.as_ref().map(&which) != Some(address);
        let moved = async { places.wait_for(elsewhere).await.is_ok() };
        tokio::select! {
            true = moved => info!(%address, purpose, "port given up for another one"),
            Err(error) = ports::serve(address, router.clone(), guests.clone()) => {
                if !std::mem::replace(&mut told, true) {
                    warn!(%address, purpose, %error, "port cannot be had; it is tried again");
                }
                sleep(PAUSE).await;
                continue;
            }
            else => return,
        }
        told = false;
    }
}

fn health(status: Arc<Status>) -> Router {
    let livez = status.clone();
    Router::new()
        .route("/healthz", get(move || async move { healthz(&status, Moment::now()) }))
        .route("/livez", get(move || async move { self::livez(&livez, Moment::now()) }))
}

type Answer = (StatusCode, [(HeaderName, &'static str); 3], String);

/// A load balancer shall send no new connections to a node that leaves.
fn healthz(status: &Status, now: Moment) -> Answer {
    let health = status.programming.health(now);
    let eligible = health.eligible;
    let mut body = told(&health, now);
    body["nodeEligible"] = eligible.into();
    answer(health.healthy && eligible, &body, &status.answers.healthz)
}

/// A node that leaves is alive.
fn livez(status: &Status, now: Moment) -> Answer {
    let health = status.programming.health(now);
    let body = told(&health, now);
    answer(health.healthy, &body, &status.answers.livez)
}

/// Both families are in force by the same rounds, so they are as healthy.
fn told(health: &Health, now: Moment) -> Value {
    let (last, healthy) = (health.last_updated.unwrap_or_default().to_string(), health.healthy);
    let family = json!({"lastUpdated": last, "healthy": healthy});
    let status: Map<String, Value> =
        Family::ALL.map(|each| (word(each).to_owned(), family.clone())).into_iter().collect();
    json!({"lastUpdated": last, "currentTime": now.wall.to_string(), "healthy": healthy, "status": status})
}

fn answer(well: bool, body: &Value, counts: &[AtomicU64; 2]) -> Answer {
    counts[usize::from(!well)].fetch_add(1, Ordering::Relaxed);
    let code = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, headers(), body.to_string())
}

/// Those who ask again and again do not hold a connection in between.
pub(super) const fn headers() -> [(HeaderName, &'static str); 3] {
    [
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONNECTION, "close"),
    ]
}

fn facts(status: Arc<Status>) -> Router {
    let (metrics, config, renderer) = (status.clone(), status.config.clone(), Renderer::default());
    let json = [(header::CONTENT_TYPE, "application/json")];
    let mode = move || serving(*status.mode.borrow(), *status.stands_in.borrow()).map_or("", Mode::name);
    let content = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Router::new()
        .route("/proxyMode", get(move || async move { mode() }))
        .route("/configz", get(move || async move { (json, configz(&config.borrow())) }))
        .route("/healthz", get(|| async { "ok" }))
        .route(
            "/metrics",
            get(move || async move { renderer.render(move || (metrics.metrics)()).await.map(|text| (content, text)) }),
        )
}

/// The mode in which Services are served.
pub(super) fn serving(in_force: Option<Mode>, stands_in: Option<Mode>) -> Option<Mode> {
    stands_in.or(in_force)
}

#[cfg(test)]
mod tests;
