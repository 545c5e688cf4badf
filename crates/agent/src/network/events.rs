//! What the network's thread waits for.

use std::time::Instant;

use podnet_client::watch::Update;
use podnet_kernel::monitor::Notice;
use tokio::{
    sync::{mpsc, watch},
    time::timeout_at,
};

/// What the worker waits for.
pub(super) struct Events {
    pub(super) updates: mpsc::Receiver<Update>,
    pub(super) notices: mpsc::Receiver<Vec<Notice>>,
    /// The node's resolver gives way.
    pub(super) gives_way: watch::Receiver<bool>,
}

/// What came.
pub(super) enum Event {
    Update(Box<Update>),
    Notices(Vec<Notice>),
    Time,
    End,
}

impl Events {
    /// The next event, or [`Event::Time`] when it is time.
    pub(super) async fn next(&mut self, deadline: Option<Instant>) -> Event {
        let waiting = async {
            tokio::select! {
                update = self.updates.recv() => update.map_or(Event::End, |update| Event::Update(Box::new(update))),
                // Without a listener nothing is heard, and the network goes on.
                Ok(()) = self.gives_way.changed() => Event::Time,
                Some(notices) = self.notices.recv() => Event::Notices(notices),
            }
        };
        match deadline {
            Some(deadline) => timeout_at(deadline.into(), waiting).await.unwrap_or(Event::Time),
            None => waiting.await,
        }
    }
}
