//! What the agent does beside serving: it tells the cluster what it gave, buries what was deleted while it was down, and gives back
//! what nobody needs.

use std::{
    convert::Infallible,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use kube::Client;
use podnet_client::node;
use podnet_model::NodeName;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, info, warn};

use crate::{
    AgentConfig, AgentError,
    addresses::Addresses,
    attach::{Attached, Attachments},
    network::Network,
    underlay::Underlay,
};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(10);
/// Changes of a block that come together are published together.
const GATHER: Duration = Duration::from_millis(100);
/// Before something is asked of an API server that just refused it.
const RETRY: Duration = Duration::from_millis(500);

/// The housekeeper.
pub struct Housekeeping {
    node: NodeName,
    address: IpNet,
    tombstones: PathBuf,
    client: Client,
    addresses: Arc<Addresses>,
    attachments: Arc<Attachments>,
}

impl Housekeeping {
    /// For this agent.
    #[must_use]
    pub fn new(
        config: &AgentConfig,
        client: Client,
        underlay: &Underlay,
        addresses: Arc<Addresses>,
        attachments: Arc<Attachments>,
    ) -> Self {
        let (node, address) = (config.node.clone(), underlay.address);
        Self { node, address, tombstones: config.tombstones(), client, addresses, attachments }
    }

    /// Frees what plugins deleted while the agent was down. Nothing is lost when it fails: the tombstone stays.
    pub fn bury_tombstones(&self) {
        let names = match tombstones(&self.tombstones) {
            Ok(names) => names,
            Err(error) => {
                warn!(%error, path = %self.tombstones.display(), "tombstones not read");
                return;
            }
        };
        for name in names {
            let Some((container_id, ifname)) = name.split_once('@') else { continue };
            match self.attachments.bury(container_id, ifname) {
                Ok(()) => {
                    info!(container_id, ifname, "attachment that was deleted while the agent was down is buried");
                    let _ = fs::remove_file(self.tombstones.join(&name));
                }
                Err(failure) => warn!(container_id, ifname, failure.msg, "attachment not buried; it is tried again"),
            }
        }
    }

    /// Takes over this node's blocks from the API server, for as long as it takes.
    pub async fn adopt_blocks(&self) {
        while let Err(error) = self.addresses.adopt().await {
            warn!(error = &error as &dyn std::error::Error, "blocks not read; it is tried again");
            sleep(RETRY).await;
        }
    }

    /// Keeps house until the network's thread ends.
    ///
    /// # Errors
    ///
    /// When it did.
    pub async fn keep(self, network: Network, attached: mpsc::Receiver<Attached>) -> Result<(), AgentError> {
        tokio::select! {
            never = self.publish_node() => match never {},
            never = self.publish_blocks() => match never {},
            never = self.publish_pods(attached) => match never {},
            never = self.rounds() => match never {},
            error = network.ended() => Err(error.into()),
        }
    }

    async fn publish_node(&self) -> Infallible {
        // The Node object may be registered only after the agent is up: on a real node kubelet waits for us.
        while let Err(error) = node::publish_network(&self.client, &self.node, self.address).await {
            debug!(error = &error as &dyn std::error::Error, "node not published yet");
            sleep(RETRY).await;
        }
        std::future::pending().await
    }

    async fn publish_blocks(&self) -> Infallible {
        loop {
            self.addresses.unpublished().await;
            sleep(GATHER).await;
            self.addresses.publish().await;
        }
    }

    async fn publish_pods(&self, mut attached: mpsc::Receiver<Attached>) -> Infallible {
        while let Some(pod) = attached.recv().await {
            if let Err(error) = node::publish_pod_address(&self.client, &pod.pod, &pod.uid, &[pod.addr]).await {
                warn!(pod = %pod.pod, error = &error as &dyn std::error::Error, "pod's address not published");
            }
        }
        std::future::pending().await
    }

    async fn rounds(&self) -> Infallible {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            tokio::task::block_in_place(|| {
                self.bury_tombstones();
                if let Err(error) = self.addresses.compact() {
                    warn!(error = &error as &dyn std::error::Error, "journal not compacted");
                }
            });
            self.addresses.give_surplus_back().await;
        }
    }
}

fn tombstones(directory: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
