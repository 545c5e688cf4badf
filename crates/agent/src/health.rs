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
use tokio::sync::Semaphore;

use crate::AgentConfig;

/// What the health port tells.
#[derive(Clone)]
pub struct Health(Arc<Facts>);

struct Facts {
    sources: Mutex<Vec<Source>>,
    ready: AtomicBool,
    configuration: String,
    renderer: Renderer,
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
            renderer: Renderer::default(),
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

async fn metrics(State(health): State<Health>) -> Result<String, StatusCode> {
    let renderer = health.0.renderer.clone();
    renderer.render(move || health.metrics()).await
}

/// Renders metrics, some of which ask the kernel, beside what serves others: for one who asks at a time, as who hangs up leaves a thread
/// behind that is at it. Clones take turns with each other.
#[derive(Clone, Debug)]
pub(crate) struct Renderer(Arc<Semaphore>);

impl Default for Renderer {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Renderer {
    /// What this makes, when it is its turn.
    ///
    /// # Errors
    ///
    /// 500 where it failed.
    pub(crate) async fn render(&self, make: impl FnOnce() -> String + Send + 'static) -> Result<String, StatusCode> {
        let failed = StatusCode::INTERNAL_SERVER_ERROR;
        let turn = self.0.clone().acquire_owned().await.map_err(|_| failed)?;
        let made = tokio::task::spawn_blocking(move || {
            let text = make();
            drop(turn);
            text
        });
        made.await.map_err(|_| failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn who_asks_and_hangs_up_keeps_one_thread_however_often() {
        let renderer = Renderer::default();
        let (began, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
        let (go, waits) = std::sync::mpsc::channel::<()>();
        let slow = renderer.clone();
        let asked = tokio::spawn(async move {
            let make = move || {
                let _ = began.send(());
                let _ = waits.recv();
                String::new()
            };
            slow.render(make).await
        });
        assert_eq!(has_begun.recv().await, Some(()));
        asked.abort();
        assert!(asked.await.is_err());
        assert!(renderer.0.try_acquire().is_err(), "what it asked for is still being made");
        go.send(()).unwrap();
        assert_eq!(renderer.render(|| "text".to_owned()).await, Ok("text".to_owned()));
        let failed = renderer.render(|| panic!("as a fault of a part would")).await;
        assert_eq!(failed, Err(StatusCode::INTERNAL_SERVER_ERROR), "and not that there are none");
        assert_eq!(renderer.render(String::new).await, Ok(String::new()));
    }
}
