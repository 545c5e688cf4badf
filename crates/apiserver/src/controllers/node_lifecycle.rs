//! Nodes that fall silent, and what was on them.
//!
//! A node lives as long as it renews its Lease. Renewals are timed by when they are heard, not by the clock that they carry: neither a
//! wrong clock nor a restart of this process makes a living node look dead.

mod eviction;
mod health;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use eviction::Evictions;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use tracing::{info, warn};

use super::{
    cache::Change,
    caches::Caches,
    key::Key,
    pods,
    queue::Queue,
    recorder::{Recorder, Tone},
    worker::{During, Failure, Outcome, absent_is_fine, work},
};

/// The namespace of the nodes' Leases.
const LEASES: &str = "kube-node-lease";
/// How long pods outlive a Node object whose deletion was seen: it may be registered again at once.
const AFTER_DELETION: Duration = Duration::from_secs(5);
/// How long pods may name a node that was never there.
const NEVER_SEEN: Duration = Duration::from_secs(40);

/// The controller of nodes' lives.
pub(crate) struct NodeLifecycle {
    client: Client,
    caches: Arc<Caches>,
    recorder: Recorder,
    /// How long a node may be silent.
    grace: Duration,
    queue: Queue<Key>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last sign of life of each node and when it was heard.
    heard: HashMap<String, (Sign, Instant)>,
    /// When pods of a node that is not there become garbage.
    missing: HashMap<String, Instant>,
    /// When a taint without a time was seen first, by node and taint.
    tainted: HashMap<(String, String), Timestamp>,
}

/// What a node says when it lives.
#[derive(Clone, Debug, PartialEq)]
enum Sign {
    /// It exists.
    Existence,
    /// Its Lease was renewed.
    Renewal(Option<MicroTime>),
    /// Its status was written by itself.
    Heartbeat(Time),
}

impl NodeLifecycle {
    /// Listens to the caches from now on.
    pub(crate) fn new(client: Client, caches: &Arc<Caches>, recorder: &Recorder, grace: Duration) -> Arc<Self> {
        let recorder = recorder.of("node-controller");
        let (queue, state) = (Queue::default(), Mutex::default());
        let controller = Arc::new(Self { client, caches: Arc::clone(caches), recorder, grace, queue, state });
        let listener = Arc::clone(&controller);
        caches.nodes.listen(move |change| listener.node_changed(change));
        let listener = Arc::clone(&controller);
        caches.leases.listen(move |change| listener.lease_changed(change));
        let listener = Arc::clone(&controller);
        caches.pods.listen(move |change| listener.pod_changed(change));
        controller
    }

    /// Works for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        work("node-lifecycle", &self.queue, |key| Box::pin(self.reconcile(key))).await;
    }

    fn node_changed(&self, change: &Change<'_, Node>) {
        match change {
            Change::Set { old, new } => {
                let name = new.name_any();
                let beat = |node: &Node| health::ready(node).and_then(|ready| ready.last_heartbeat_time.clone());
                if let Some(heartbeat) = beat(new).filter(|new| old.is_some_and(|old| beat(old).as_ref() != Some(new)))
                {
                    self.hear(&name, Sign::Heartbeat(heartbeat));
                }
                let mut state = self.locked();
                state.missing.remove(&name);
                state.heard.entry(name).or_insert_with(|| (Sign::Existence, Instant::now()));
                drop(state);
                self.queue.add(Key::of(&new.metadata));
            }
            Change::Removed(node) => {
                let name = node.name_any();
                let mut state = self.locked();
                state.heard.remove(&name);
                state.tainted.retain(|(tainted, _), _| *tainted != name);
                state.missing.insert(name, Instant::now() + AFTER_DELETION);
                drop(state);
                self.queue.add(Key::of(&node.metadata));
            }
            Change::Listed { .. } => {}
        }
    }

    fn lease_changed(&self, change: &Change<'_, Lease>) {
        let Change::Set { new, .. } = change else { return };
        if new.namespace().as_deref() != Some(LEASES) {
            return;
        }
        let name = new.name_any();
        self.hear(&name, Sign::Renewal(new.spec.as_ref().and_then(|spec| spec.renew_time.clone())));
    }

    fn hear(&self, node: &str, sign: Sign) {
        let mut state = self.locked();
        if state.heard.get(node).is_none_or(|(known, _)| *known != sign) {
            state.heard.insert(node.to_owned(), (sign, Instant::now()));
        }
    }

    fn pod_changed(&self, change: &Change<'_, Pod>) {
        let Change::Set { old, new } = change else { return };
        let Some(node) = pods::node(new) else { return };
        let key = Key::cluster(node);
        match self.caches.nodes.find(&key) {
            None => {
                self.locked().missing.entry(node.to_owned()).or_insert_with(|| Instant::now() + NEVER_SEEN);
                self.queue.add(key);
            }
            Some(node) if old.is_none_or(|old| pods::node(old).is_none()) && eviction::may_evict(&node) => {
                self.queue.add(key);
            }
            Some(_) => {}
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, Failure> {
        let Some(node) = self.caches.nodes.find(&key) else { return self.collect_pods(&key.name).await };
        let now = Timestamp::now();
        let silence = self.locked().heard.get(&key.name).map(|(_, at)| at.elapsed()).unwrap_or_default();
        let lost = silence >= self.grace;
        let mut node = (*node).clone();
        if lost && let Some(conditions) = health::conditions_of_a_lost_node(&node, now) {
            warn!(node = %key, silent_for = ?silence, "node is lost: it renews its lease no more");
            node.status.get_or_insert_default().conditions = Some(conditions);
            let api = Api::<Node>::all(self.client.clone());
            let written = api.replace_status(&key.name, &PostParams::default(), &node).await;
            node = written.during(|| format!("marking node {key} as lost"))?;
            let message = format!("Node {key} status is now: NodeNotReady");
            self.recorder.tell(&node, Tone::Normal, "NodeNotReady", message);
        }
        if let Some(taints) = health::taints(&node, now) {
            info!(node = %key, taints = ?taints.iter().map(|taint| &taint.key).collect::<Vec<_>>(), "node's taints change");
            let metadata = json!({ "uid": node.uid(), "resourceVersion": node.resource_version() });
            let patch = Patch::Merge(json!({ "metadata": metadata, "spec": { "taints": taints } }));
            let api = Api::<Node>::all(self.client.clone());
            let patched = api.patch(&key.name, &PatchParams::default(), &patch).await;
            node = patched.during(|| format!("changing the taints of node {key}"))?;
        }
        let on_node: Vec<_> = self.pods_on(&key.name);
        if lost {
            self.mark_not_ready(&on_node, now).await?;
        }
        let next_eviction = self.evict(&node, &on_node, now).await?;
        let next_check = (!lost).then(|| self.grace.saturating_sub(silence) + Duration::from_millis(1));
        // A lost node is looked at when it is heard of again: it writes its status then.
        Ok(next_check.into_iter().chain(next_eviction).min().into())
    }

    fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        let mut pods = self.caches.pods.all();
        pods.retain(|pod| pods::node(pod) == Some(node));
        pods
    }

    /// Nobody can vouch for the pods of a lost node.
    async fn mark_not_ready(&self, on_node: &[Arc<Pod>], now: Timestamp) -> Result<(), Failure> {
        for pod in on_node.iter().filter(|pod| pods::is_ready(pod)) {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            let condition = json!({
                "type": "Ready", "status": "False", "reason": "NodeNotReady", "message": "Node is not ready",
                "lastTransitionTime": Time(now),
            });
            let patch = json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [condition] } });
            let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
            let written = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            absent_is_fine(written.during(|| format!("marking pod {namespace}/{name} as not ready")))?;
            self.recorder.tell(&**pod, Tone::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }

    async fn evict(&self, node: &Node, on_node: &[Arc<Pod>], now: Timestamp) -> Result<Option<Duration>, Failure> {
        let name = node.name_any();
        let taints = {
            let mut state = self.locked();
            let present = eviction::taints(node);
            state.tainted.retain(|(tainted, taint), _| {
                *tainted != name || present.iter().any(|present| eviction::identity(present) == *taint)
            });
            let since = |taint: &_, state: &mut State| {
                *state.tainted.entry((name.clone(), eviction::identity(taint))).or_insert(now)
            };
            present
                .into_iter()
                .map(|taint| (since(&taint, &mut state), taint))
                .map(|(seen, taint)| (taint.time_added.as_ref().map_or(seen, |time| time.0), taint))
                .collect::<Vec<_>>()
        };
        let some_node_is_ready = self.caches.nodes.all().iter().any(|node| health::is_ready(node));
        let Evictions { due, next } = eviction::evictions(&taints, on_node, some_node_is_ready, now);
        for pod in due {
            let (namespace, pod_name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            info!(pod = %format_args!("{namespace}/{pod_name}"), node = %name, "pod evicted from a tainted node");
            let message = format!("Marking for deletion Pod {namespace}/{pod_name}");
            self.recorder.tell(&*pod, Tone::Normal, "TaintManagerEviction", message);
            self.delete(&pod, DeleteParams::background()).await?;
        }
        Ok(next)
    }

    /// Deletes the pods of a node that does not exist: nobody is there to end them.
    async fn collect_pods(&self, node: &str) -> Result<Outcome, Failure> {
        let orphans = self.pods_on(node);
        if orphans.is_empty() {
            self.locked().missing.remove(node);
            return Ok(Outcome::Done);
        }
        let deadline = {
            let mut state = self.locked();
            *state.missing.entry(node.to_owned()).or_insert_with(|| Instant::now() + NEVER_SEEN)
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return Ok(Outcome::After(left));
        }
        let found = Api::<Node>::all(self.client.clone()).get_metadata_opt(node).await;
        if found.during(|| format!("looking for node {node}"))?.is_some() {
            // The cache is behind and will tell.
            return Ok(Outcome::After(Duration::from_secs(1)));
        }
        for pod in orphans {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            info!(pod = %format_args!("{namespace}/{name}"), node, "pod deleted, its node is gone");
            self.delete(&pod, DeleteParams::background().grace_period(0)).await?;
        }
        Ok(Outcome::Done)
    }

    async fn delete(&self, pod: &Pod, parameters: DeleteParams) -> Result<(), Failure> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let only_this = Preconditions { uid: pod.uid(), resource_version: None };
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let deleted = api.delete(&name, &parameters.preconditions(only_this)).await;
        absent_is_fine(deleted.map(|_| ()).during(|| format!("deleting pod {namespace}/{name}"))).map(|_| ())
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
