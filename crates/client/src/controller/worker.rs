//! The loop that every controller runs: take a key, make the world fit, come back when that failed.

use std::{fmt::Display, future::Future, hash::Hash, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tracing::{debug, warn};

use super::queue::Queue;

/// How many objects a controller works on at a time.
pub const CONCURRENCY: usize = 8;
/// How many writes a controller has under way for one object.
pub const PARALLEL_WRITES: usize = 16;

/// What a look at an object came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do until something changes.
    Done,
    /// Time will change something: look again then.
    After(Duration),
}

impl From<Option<Duration>> for Outcome {
    fn from(wait: Option<Duration>) -> Self {
        wait.map_or(Self::Done, Self::After)
    }
}

/// Why an object could not be made to fit.
#[derive(Debug, thiserror::Error)]
#[error("{action} failed")]
pub struct Failure {
    action: String,
    source: Box<kube::Error>,
}

impl Failure {
    /// Whether the cache was behind: the next look, at a newer state, will do better.
    pub fn is_outdated(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.code == 409 || status.code == 404)
    }

    /// Whether the object that was written to is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.code == 404)
    }

    /// What the API said, for events and conditions.
    pub fn message(&self) -> String {
        match &*self.source {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        }
    }
}

/// Says what was tried when a request failed.
pub trait During<T> {
    /// The failure names the action.
    fn during(self, action: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> During<T> for kube::Result<T> {
    fn during(self, action: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|source| Failure { action: action(), source: Box::new(source) })
    }
}

/// Turns "it is not there" into nothing.
pub fn absent_is_fine<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Err(failure) if failure.is_not_found() => Ok(None),
        other => other.map(Some),
    }
}

/// Works on the queue's keys for ever.
pub async fn work<K, F, Fut>(controller: &'static str, queue: &Queue<K>, reconcile: F)
where
    K: Clone + Ord + Hash + Display,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Result<Outcome, Failure>>,
{
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            key = queue.take(), if running.len() < CONCURRENCY => {
                let looked_at = reconcile(key.clone());
                running.push(async move { (key, looked_at.await) });
            }
            Some((key, result)) = running.next() => {
                settle(controller, queue, &key, result);
                queue.done(&key);
            }
        }
    }
}

fn settle<K: Clone + Ord + Hash + Display>(
    controller: &str,
    queue: &Queue<K>,
    key: &K,
    result: Result<Outcome, Failure>,
) {
    match result {
        Ok(outcome) => {
            queue.succeeded(key);
            if let Outcome::After(wait) = outcome {
                queue.add_after(key.clone(), wait);
            }
        }
        Err(failure) => {
            let retry_in = queue.retry(key.clone());
            let error = &failure as &dyn std::error::Error;
            if failure.is_outdated() {
                debug!(controller, %key, error, ?retry_in, "acted on an old state, looking again");
            } else {
                warn!(controller, %key, error, ?retry_in, "object not settled, trying again");
            }
        }
    }
}
