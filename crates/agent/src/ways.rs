//! What this node tells the others about the way to it: its WireGuard key, and what flannel's nodes want to know.
//!
//! The network's thread says what the cluster's state asks for; a task of its own writes it to this node's object, for as long as it
//! takes. What is written comes back as a change of the cluster's state.

mod keyring;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    error::Error,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use kube::Client;
use podnet_client::node::publish_annotations;
use podnet_model::{NodeName, convert::WIREGUARD_PUBLIC_KEY, wireguard::KeyPair};
use podnet_planner::overlay::{FlannelWords, Overlay};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

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
    flannel: watch::Sender<Flannel>,
    /// flannel's file (`subnet.env`).
    subnet_file: PathBuf,
}

/// What flannel's nodes and programs are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Flannel {
    words: Option<FlannelWords>,
    subnet_env: Option<String>,
}

impl Ways {
    /// With the keys in that file, which are made where there are none, and flannel's file at that place.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written.
    pub fn open(keys: &Path, subnet_file: &Path) -> Result<Self, KeyringError> {
        Ok(Self {
            keyring: Keyring::open(keys)?,
            wish: watch::Sender::new(Wish::default()),
            flannel: watch::Sender::new(Flannel::default()),
            subnet_file: subnet_file.to_path_buf(),
        })
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
        let flannel = Flannel { words: overlay.flannel_words(), subnet_env: overlay.subnet_env() };
        self.flannel.send_if_modified(|old| {
            let differs = *old != flannel;
            *old = flannel;
            differs
        });
    }

    /// Writes it to this node's object and to flannel's file, whenever it differs.
    pub async fn publish(&self, client: &Client, node: &NodeName) -> Infallible {
        tokio::select! {
            never = self.publish_key(client, node) => never,
            never = self.publish_flannel(client, node) => never,
        }
    }

    async fn publish_flannel(&self, client: &Client, node: &NodeName) -> Infallible {
        let mut wanted = self.flannel.subscribe();
        let (mut told, mut written) = (None, None);
        loop {
            let Flannel { words, subnet_env } = wanted.borrow_and_update().clone();
            let mut done = Ok(());
            if written != subnet_env {
                done = tokio::task::block_in_place(|| self.write_subnet_file(subnet_env.as_deref()));
                if done.is_ok() {
                    written = subnet_env;
                }
            }
            if let Some(words) = words.filter(|words| !words.shown || told.as_ref() != Some(&words.annotations)) {
                let annotations = words.annotations.clone();
                match in_time(publish_annotations(client, node, &annotations)).await {
                    Ok(()) => told = Some(words.annotations),
                    Err(error) => done = Err(error),
                }
            }
            let pause = match done {
                Ok(()) => ROUND,
                Err(error) => {
                    warn!(
                        error = &*error as &dyn Error,
                        "flannel's nodes and programs not told of this node; it is tried again"
                    );
                    sleep(RETRY).await;
                    RETRY
                }
            };
            let _ = timeout(pause, wanted.changed()).await;
        }
    }

    /// Whole or not at all. What another flannel wrote is only ever replaced, and what podnet wrote goes with the configuration.
    fn write_subnet_file(&self, content: Option<&str>) -> Result<(), Box<dyn Error + Send + Sync>> {
        let path = &self.subnet_file;
        let Some(content) = content else {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            };
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let new = path.with_extension("env.new");
        fs::write(&new, content)?;
        // Plugins of other users' making read it.
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
        fs::rename(&new, path)?;
        info!(path = %path.display(), "flannel's file written");
        Ok(())
    }

    async fn publish_key(&self, client: &Client, node: &NodeName) -> Infallible {
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
            let _ = timeout(pause, wishes.changed()).await;
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

#[cfg(test)]
mod tests;
