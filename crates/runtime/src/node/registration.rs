//! The Node object and its lease: that the node is there, what it has, and whether it is ready.

use std::time::{Duration, SystemTime};

use futures::StreamExt;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{Node, NodeStatus},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
    jiff::Timestamp,
    serde_json::json,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tracing::{debug, info, warn};

use crate::{
    cluster::{api::said, events::timestamp, is_newer},
    config::NodeConfig,
    pod::NetworkState,
};

mod status;

/// Where nodes' leases are.
const LEASES: &str = "kube-node-lease";
/// kubelet's numbers: a lease of 40 s, renewed four times in that, and a status at least each 5 min.
const LEASE_SECONDS: i32 = 40;
const RENEWAL: Duration = Duration::from_secs(10);
const STATUS_EACH: Duration = Duration::from_secs(300);
/// Between attempts while the API server does not answer; with `podnet up` it starts together with the nodes.
const AGAIN: Duration = Duration::from_millis(100);

/// The API server is given this long for each request: below the pause between renewals, so that one that hangs costs one renewal.
const PATIENCE: Duration = Duration::from_secs(8);
/// A renewal that failed is tried again after this.
const RENEW_AGAIN: Duration = Duration::from_secs(1);
/// Between two corrections of what somebody else wrote into the status: who disagrees for ever shall not keep the API server busy.
const BETWEEN_CORRECTIONS: Duration = Duration::from_millis(500);

/// The API server could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("{}", said(.0))]
    Refused(kube::Error),
    #[error("no answer in {} s", PATIENCE.as_secs())]
    Silent,
}

impl RequestError {
    fn is_missing(&self) -> bool {
        matches!(self, Self::Refused(kube::Error::Api(status)) if status.code == 404)
    }
}

async fn ask<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, RequestError> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(RequestError::Refused),
        Err(_) => Err(RequestError::Silent),
    }
}

/// Keeps the node registered, for ever. What others make of its Node object meanwhile (a node that was silent is marked as lost, an
/// object may be deleted) is seen in a watch, and at the next renewal where the watch is broken, and answered at once.
pub(super) async fn keep(client: Client, config: NodeConfig, mut network: watch::Receiver<NetworkState>) {
    let (nodes, leases) = (Api::all(client.clone()), Api::namespaced(client, LEASES));
    let own = watcher::Config::default().fields(&format!("metadata.name={}", config.node_name));
    let shown = podnet_client::watch::steadily(watcher(nodes.clone(), own));
    let mut shown = std::pin::pin!(shown);
    let mut registration = Registration { nodes, leases, config, uid: None, since: None, told: None, listed: false };
    let mut renewals = tokio::time::interval(RENEWAL);
    // After a pause of the whole process one renewal says as much as all that were missed.
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut status_due = Instant::now();
    let mut reported = None::<Instant>;
    loop {
        let news = tokio::select! {
            _ = renewals.tick() => match registration.renew().await {
                Ok(news) => news,
                Err(error) => {
                    debug!(%error, "the lease was not renewed");
                    renewals.reset_after(RENEW_AGAIN);
                    false
                }
            },
            () = tokio::time::sleep_until(status_due) => {
                let state = network.borrow_and_update().clone();
                status_due = Instant::now() + match registration.report(&state).await {
                    Ok(()) => STATUS_EACH,
                    Err(error) => {
                        debug!(%error, "the node's status was not written");
                        AGAIN
                    }
                };
                reported = Some(Instant::now());
                false
            }
            event = shown.next() => match event {
                Some(Ok(event)) => registration.notice(&event),
                Some(Err(error)) => {
                    debug!(%error, "the watch of the own node is interrupted");
                    false
                }
                None => return,
            },
            changed = network.changed() => match changed {
                Ok(()) => {
                    status_due = Instant::now();
                    false
                }
                Err(_) => return,
            },
        };
        if news {
            let now = Instant::now();
            status_due = status_due.min(reported.map_or(now, |at| now.max(at + BETWEEN_CORRECTIONS)));
        }
    }
}

struct Registration {
    nodes: Api<Node>,
    leases: Api<Lease>,
    config: NodeConfig,
    /// Of the Node object; none where there is none that is known.
    uid: Option<String>,
    /// Whether the node is ready, and since when.
    since: Option<(bool, Timestamp)>,
    /// What was written last, and the version of the object that it made.
    told: Option<(NodeStatus, Option<String>)>,
    /// The present list of the watch had the node.
    listed: bool,
}

impl Registration {
    /// Takes in what the watch says; answers whether the node has to say itself again.
    fn notice(&mut self, event: &watcher::Event<Node>) -> bool {
        match event {
            watcher::Event::Init => {
                self.listed = false;
                false
            }
            watcher::Event::InitApply(node) => {
                self.listed = true;
                self.compare(node)
            }
            watcher::Event::InitDone => !self.listed && self.deleted(),
            watcher::Event::Apply(node) => self.compare(node),
            watcher::Event::Delete(node) => node.metadata.uid == self.uid && self.deleted(),
        }
    }

    fn deleted(&mut self) -> bool {
        if self.uid.take().is_some() {
            warn!(node = %self.config.node_name, "the Node object was deleted: it is registered again");
        }
        true
    }

    fn compare(&self, shown: &Node) -> bool {
        let Some((own, version)) = &self.told else { return false };
        let since = is_newer(shown.metadata.resource_version.as_deref(), version.as_deref());
        let news = since && status::contradicts(own, shown.status.as_ref().unwrap_or(&NodeStatus::default()));
        if news {
            info!(node = %self.config.node_name, "the Node object says something else than the node: its status is written");
        }
        news
    }

    /// Makes the Node object, or brings the labels of one that is there up to date; answers its uid.
    async fn register(&self) -> Result<String, RequestError> {
        let name = &self.config.node_name;
        let labels = status::labels(&self.config);
        let node = match ask(self.nodes.get_opt(name)).await? {
            Some(_) => {
                let patch = json!({ "metadata": { "labels": labels } });
                ask(self.nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch))).await?
            }
            None => {
                let metadata = ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() };
                ask(self.nodes.create(&PostParams::default(), &Node { metadata, ..Node::default() })).await?
            }
        };
        info!(node = %name, "node registered");
        Ok(node.metadata.uid.unwrap_or_default())
    }

    /// Renews the lease of a registered node, and looks at its object; answers whether the node has to say itself again.
    async fn renew(&mut self) -> Result<bool, RequestError> {
        let Some(uid) = self.uid.clone() else { return Ok(false) };
        self.renew_lease(&uid).await?;
        Ok(match ask(self.nodes.get_opt(&self.config.node_name)).await? {
            Some(node) => self.compare(&node),
            None => self.deleted(),
        })
    }

    async fn renew_lease(&self, uid: &str) -> Result<(), RequestError> {
        let name = &self.config.node_name;
        let now = MicroTime(now_precise());
        let patch =
            json!({ "spec": { "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now } });
        match ask(self.leases.patch(name, &PatchParams::default(), &Patch::Merge(&patch))).await {
            Err(error) if error.is_missing() => {}
            other => return other.map(drop),
        }
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: name.clone(),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        };
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(name.clone()),
                lease_duration_seconds: Some(LEASE_SECONDS),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        };
        ask(self.leases.create(&PostParams::default(), &lease)).await.map(drop)
    }

    /// Writes the status, of a node that is registered first where it is not.
    async fn report(&mut self, network: &NetworkState) -> Result<(), RequestError> {
        let first = self.uid.is_none();
        if first {
            self.uid = Some(self.register().await?);
        }
        let now = timestamp(SystemTime::now());
        let ready = matches!(network, NetworkState::Ready(_));
        let changed = self.since.filter(|(known, _)| *known == ready).map_or(now, |(_, at)| at);
        self.since = Some((ready, changed));
        let status = status::status(&self.config, network, now, changed);
        let mut patch = json!({ "status": status });
        // Strategic, so that conditions of others (the network's own, for one) stay. Addresses are merged by their type, of which a node
        // of two families has two of one: the list has to be replaced as a whole, as kubelets do.
        if let Some(addresses) = patch["status"]["addresses"].as_array_mut() {
            addresses.push(json!({ "$patch": "replace" }));
        }
        let name = &self.config.node_name;
        match ask(self.nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch))).await {
            Ok(node) => self.told = Some((status, node.metadata.resource_version)),
            Err(error) => {
                if error.is_missing() {
                    self.deleted();
                }
                return Err(error);
            }
        }
        if first && let Err(error) = self.renew().await {
            debug!(%error, "the first lease was not written");
        }
        Ok(())
    }
}

fn now_precise() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_microsecond(i64::try_from(since.as_micros()).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
