//! Health, metrics and the resolved configuration, over HTTP on the node itself.

use std::{
    fmt::Write as _,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, extract::State, http::StatusCode, routing::get};

use crate::AgentConfig;

/// What the health port tells.
#[derive(Clone)]
pub struct Health(Arc<Facts>);

struct Facts {
    sources: Mutex<Vec<Source>>,
    ready: AtomicBool,
    configuration: String,
}

/// Metrics of a part of the agent.
type Source = Box<dyn Fn() -> String + Send>;

impl Health {
    /// Serves the port on a task of its own.
    ///
    /// # Errors
    ///
    /// When the port cannot be opened.
    pub async fn serve(config: &AgentConfig) -> io::Result<Self> {
        let health = Self(Arc::new(Facts {
            ready: AtomicBool::new(false),
            sources: Mutex::default(),
            configuration: format!("{config:#?}\n"),
        }));
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/config", get(|State(health): State<Health>| async move { health.0.configuration.clone() }))
            .with_state(health.clone());
        let listener = tokio::net::TcpListener::bind(config.health_address).await?;
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "health port closed");
            }
        });
        Ok(health)
    }

    /// Adds the metrics of a part of the agent, in the text format of Prometheus.
    pub fn add_metrics(&self, source: impl Fn() -> String + Send + 'static) {
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// The metrics of all parts.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let ready = u8::from(self.0.ready.load(Ordering::Acquire));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP podnet_agent_ready Whether the agent serves CNI requests.");
        let _ = writeln!(text, "# TYPE podnet_agent_ready gauge\npodnet_agent_ready {ready}");
        for source in self.0.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            text.push_str(&source());
        }
        text
    }

    /// From now on the agent serves ADDs.
    pub fn ready(&self) {
        self.0.ready.store(true, Ordering::Release);
    }
}

async fn readyz(State(health): State<Health>) -> (StatusCode, &'static str) {
    if health.0.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the cluster's state or the node's network is not complete yet\n")
    }
}

async fn metrics(State(health): State<Health>) -> String {
    health.metrics()
}
