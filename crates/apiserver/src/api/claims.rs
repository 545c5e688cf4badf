//! Writes of Services, with what follows of them for the addresses and ports that Services have.

use std::sync::Arc;

use super::Api;
use crate::admission::allocate::Taken;
use crate::store::{Object, Write, WriteError};

/// What a write means for addresses and ports.
#[derive(Debug)]
pub(super) enum Claim {
    /// Nothing.
    Nothing,
    /// A new Service was given these.
    Created(Taken),
    /// A Service was given these; it was this one before.
    Changed { taken: Taken, old: Arc<Object> },
    /// A Service is deleted.
    Deleted,
}

impl Claim {
    pub(super) fn of_change(taken: Option<Taken>, old: &Arc<Object>) -> Self {
        taken.map_or(Self::Nothing, |taken| Self::Changed { taken, old: Arc::clone(old) })
    }
}

impl Api {
    /// Performs a write; what it means for addresses and ports follows. A request ends wherever it waits when its client goes away. The
    /// write happens all the same, and so must what follows: that of a Service is a task of its own.
    pub(super) async fn write(&self, write: Write, claim: Claim) -> Result<Arc<Object>, WriteError> {
        if matches!(claim, Claim::Nothing) {
            return self.store().write(write).await;
        }
        let api = self.clone();
        let task = tokio::spawn(async move {
            let written = api.store().write(write).await;
            api.conclude(&claim, written.as_deref().ok());
            written
        });
        task.await.unwrap_or(Err(WriteError::Closed))
    }

    fn conclude(&self, claim: &Claim, stored: Option<&Object>) {
        match (claim, stored) {
            (Claim::Created(taken) | Claim::Changed { taken, .. }, None) => self.services().give_back(taken),
            (Claim::Changed { old, .. }, Some(stored)) => self.services().settle(&stored.value, &old.value),
            (Claim::Deleted, Some(deleted)) => self.services().release(&deleted.value),
            (Claim::Created(_), Some(_)) | (Claim::Deleted, None) | (Claim::Nothing, _) => {}
        }
    }
}
