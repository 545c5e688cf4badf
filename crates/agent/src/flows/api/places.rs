//! How many may ask for something at once.

use std::sync::Arc;

use axum::http::StatusCode;
use podnet_client::shares::{Share, Shares};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Refusal, asker::Asker};

/// What all ask for, of which one may not have all.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    shares: Arc<Shares<String>>,
}

/// One of them, until the value goes.
pub(super) type Place = (OwnedSemaphorePermit, Share<String>);

impl Places {
    /// So many, and of these so many for one user or pod.
    pub(super) fn new(all: usize, of_one: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), shares: Shares::new(of_one) }
    }

    /// One more for somebody. They are told `theirs` where they have as many as they may, and `none_left` where others have the rest.
    pub(super) fn take(&self, asker: &Asker, theirs: &str, none_left: &str) -> Result<Place, Refusal> {
        let share = self.shares.take(asker.name());
        let share = share.ok_or_else(|| Refusal::new(StatusCode::TOO_MANY_REQUESTS, theirs))?;
        let place = Arc::clone(&self.all).try_acquire_owned();
        let place = place.map_err(|_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, none_left))?;
        Ok((place, share))
    }
}
