//! What this node tells the others about the way to it: its WireGuard key, and what flannel's nodes want to know.
//!
//! The network's thread says what the cluster's state asks for; a task of its own writes it to this node's object, for as long as it
//! takes. What is written comes back as a change of the cluster's state.

mod keyring;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    error::Error,
    path::Path,
    time::{Duration, SystemTime},
};

use kube::Client;
use podnet_client::node::publish_annotations;
use podnet_model::{NodeName, convert::WIREGUARD_PUBLIC_KEY, wireguard::KeyPair};
use podnet_planner::overlay::Overlay;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

pub use keyring::{Action, Keyring, KeyringError, LIFETIME, Wish};

/// How often it is looked whether a key is too old.
const ROUND: Duration = Duration::from_secs(60);
/// Before something is asked of an API server that just refused it.
const RETRY: Duration = Duration::from_millis(500);
/// For one request to the API server, and for a change that was made to come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// What this node tells the others.
#[derive(Debug)]
pub struct Ways {
    keyring: Keyring,
    wish: watch::Sender<Wish>,
}

impl Ways {
    /// With the keys in that file; they are made where there are none.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written.
    pub fn open(keys: &Path) -> Result<Self, KeyringError> {
        Ok(Self { keyring: Keyring::open(keys)?, wish: watch::Sender::new(Wish::default()) })
    }

    /// The WireGuard keys that this node may be seen with.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyPair> {
        self.keyring.pairs()
    }

    /// Takes in what the cluster's state asks for.
    pub fn learn(&self, overlay: &Overlay) {
        let wish = Wish { wanted: overlay.wants_wireguard(), shown: overlay.own_node().map(|node| node.wireguard_key) };
        self.wish.send_if_modified(|old| std::mem::replace(old, wish) != wish);
    }

    /// Writes it to this node's object, whenever it differs.
    pub async fn publish(&self, client: &Client, node: &NodeName) -> Infallible {
        let mut wishes = self.wish.subscribe();
        loop {
            let wish = *wishes.borrow_and_update();
            let (acted, pause) = match self.keyring.action(wish, SystemTime::now()) {
                Action::Rest => (Ok(()), ROUND),
                Action::Promote => (self.promote(), ROUND),
                Action::Publish(key) => {
                    let value = key.map(|key| key.to_string());
                    info!(key = value.as_deref().unwrap_or("none"), "WireGuard key published");
                    let annotations = BTreeMap::from([(WIREGUARD_PUBLIC_KEY, value)]);
                    (in_time(publish_annotations(client, node, &annotations)).await, PATIENCE)
                }
            };
            let pause = match acted {
                Ok(()) => pause,
                Err(error) => {
                    warn!(error = &*error as &dyn Error, "WireGuard key not changed; it is tried again");
                    sleep(RETRY).await;
                    RETRY
                }
            };
            if timeout(pause, wishes.changed()).await.is_err() {
                debug!("nothing new about the way to this node");
            }
        }
    }

    fn promote(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        tokio::task::block_in_place(|| self.keyring.promote())?;
        info!("the next WireGuard key is in use");
        Ok(())
    }
}

/// An API server that is cut off while it has our request would keep us waiting for ever.
async fn in_time(request: impl Future<Output = Result<(), kube::Error>>) -> Result<(), Box<dyn Error + Send + Sync>> {
    Ok(timeout(PATIENCE, request).await??)
}
