//! What is going on on a connection that carries several requests at once.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How many requests are being worked on, and since when there have been so many.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<(usize, Instant)>);

/// A request that is being worked on.
pub(crate) struct Busy(Arc<Activity>);

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }
}

impl Activity {
    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.change(|requests| requests + 1);
        Busy(Arc::clone(self))
    }

    /// How long there has been no request.
    pub(crate) fn idle(&self) -> Duration {
        let (requests, since) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if requests > 0 { Duration::ZERO } else { since.elapsed() }
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (change(state.0), Instant::now());
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|requests| requests.saturating_sub(1));
    }
}
