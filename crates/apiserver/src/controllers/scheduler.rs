//! The scheduler: a node for each pod that has none.
//!
//! Pods that wait are placed together, each knowing where those before it went, and then bound in parallel. A pod that fits nowhere
//! is put aside until something changes that might make room for it.

mod affinity;
mod filter;
mod place;
mod resources;
mod snapshot;
mod tolerations;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::{Binding, Node, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{Status, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use place::Verdict;
use serde_json::json;
use snapshot::Snapshot;
use tracing::{debug, info, warn};

pub(crate) use snapshot::is_ready as is_node_ready;
pub(crate) use tolerations::{Stay, tolerated_for};

use super::{
    cache::Change,
    caches::Caches,
    key::Key,
    pods,
    queue::Queue,
    recorder::{Recorder, Tone},
    worker::{During, Failure, PARALLEL_WRITES, absent_is_fine},
};

/// The name by which pods ask for this scheduler.
const NAME: &str = "default-scheduler";
/// How many pods are placed before the first of them is bound.
const BATCH: usize = 256;

/// The scheduler.
pub(crate) struct Scheduler {
    client: Client,
    caches: Arc<Caches>,
    recorder: Recorder,
    queue: Queue<Key>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Pods that were bound and are not seen as bound yet: their nodes, by the pod's uid.
    assumed: HashMap<String, String>,
    /// Pods that fit nowhere.
    aside: BTreeSet<Key>,
}

impl Scheduler {
    /// Listens to the caches from now on.
    pub(crate) fn new(client: Client, caches: &Arc<Caches>, recorder: &Recorder) -> Arc<Self> {
        let (queue, state) = (Queue::default(), Mutex::default());
        let caches_for_self = Arc::clone(caches);
        let scheduler = Arc::new(Self { client, caches: caches_for_self, recorder: recorder.of(NAME), queue, state });
        let listener = Arc::clone(&scheduler);
        caches.pods.listen(move |change| listener.pod_changed(change));
        let listener = Arc::clone(&scheduler);
        caches.nodes.listen(move |change| listener.node_changed(change));
        scheduler
    }

    fn pod_changed(&self, change: &Change<'_, Pod>) {
        match change {
            Change::Set { old, new } => {
                if pods::node(new).is_some() {
                    self.locked().assumed.remove(&new.uid().unwrap_or_default());
                }
                if is_waiting(new) {
                    let spec_changed = old.is_none_or(|old| old.spec != new.spec);
                    let aside = self.locked().aside.contains(&Key::of(&new.metadata));
                    if spec_changed || !aside {
                        self.queue.add(Key::of(&new.metadata));
                    }
                }
                let made_room = old.is_some_and(|old| pods::is_finished(new) && !pods::is_finished(old));
                let relabelled = old.is_none_or(|old| old.metadata.labels != new.metadata.labels);
                let arrived = pods::node(new).is_some() && old.is_none_or(|old| pods::node(old).is_none());
                // A pod that arrived may be the one that another wants to be near to.
                if made_room || (pods::node(new).is_some() && relabelled) || arrived {
                    self.retry_all();
                }
            }
            Change::Removed(pod) => {
                let mut state = self.locked();
                state.assumed.remove(&pod.uid().unwrap_or_default());
                state.aside.remove(&Key::of(&pod.metadata));
                drop(state);
                self.retry_all();
            }
            Change::Listed { .. } => {}
        }
    }

    fn node_changed(&self, change: &Change<'_, Node>) {
        let matters = match change {
            Change::Set { old: Some(old), new } => {
                let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
                old.spec != new.spec
                    || old.metadata.labels != new.metadata.labels
                    || allocatable(old) != allocatable(new)
                    || snapshot::is_ready(old) != snapshot::is_ready(new)
            }
            Change::Set { old: None, .. } | Change::Removed(_) => true,
            Change::Listed { .. } => false,
        };
        if matters {
            self.retry_all();
        }
    }

    fn retry_all(&self) {
        let aside = std::mem::take(&mut self.locked().aside);
        aside.into_iter().for_each(|key| self.queue.add(key));
    }

    /// Works for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let mut keys = vec![self.queue.take().await];
            while keys.len() < BATCH
                && let Some(key) = self.queue.take_ready()
            {
                keys.push(key);
            }
            self.schedule(&keys).await;
            keys.iter().for_each(|key| self.queue.done(key));
        }
    }

    async fn schedule(&self, keys: &[Key]) {
        let mut waiting: Vec<_> = keys.iter().filter_map(|key| self.caches.pods.find(key)).collect();
        let mut snapshot = {
            let mut state = self.locked();
            waiting.retain(|pod| is_waiting(pod) && !state.assumed.contains_key(&pod.uid().unwrap_or_default()));
            if waiting.is_empty() {
                return;
            }
            // Aside before the snapshot is taken: what changes from now on brings those back that find no place in it.
            state.aside.extend(waiting.iter().map(|pod| Key::of(&pod.metadata)));
            self.snapshot(&state.assumed)
        };
        waiting.sort_by_cached_key(|pod| urgency(pod));
        let place = |pod: Arc<Pod>| {
            let verdict = place::place(&mut snapshot, &pod);
            (pod, verdict)
        };
        let verdicts: Vec<_> = waiting.into_iter().map(place).collect();
        let acts = verdicts.into_iter().map(|(pod, verdict)| async move {
            let key = Key::of(&pod.metadata);
            let acted = match verdict {
                Verdict::On(node) => self.bind(&pod, &node).await,
                Verdict::Nowhere(reason) => self.put_aside(&pod, &key, &reason).await,
            };
            self.settle(key, acted);
        });
        stream::iter(acts).buffer_unordered(PARALLEL_WRITES).collect::<Vec<()>>().await;
    }

    fn snapshot(&self, assumed: &HashMap<String, String>) -> Snapshot {
        let namespaces = self.caches.namespaces.all();
        let labels: BTreeMap<_, _> =
            namespaces.iter().map(|namespace| (namespace.name_any(), namespace.labels().clone())).collect();
        Snapshot::new(&self.caches.nodes.all(), &self.caches.pods.all(), assumed, labels)
    }

    fn settle(&self, key: Key, acted: Result<(), Failure>) {
        match acted {
            Ok(()) => self.queue.succeeded(&key),
            // The pod is gone, or somebody else bound it: the watch tells.
            Err(failure) if failure.is_outdated() => {
                let error = &failure as &dyn std::error::Error;
                debug!(pod = %key, error, "pod changed while it was being scheduled");
                self.queue.retry(key);
            }
            Err(failure) => {
                let error = &failure as &dyn std::error::Error;
                warn!(pod = %key, error, "pod not scheduled, trying again");
                self.queue.retry(key);
            }
        }
    }

    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), Failure> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let uid = pod.uid().unwrap_or_default();
        {
            let mut state = self.locked();
            state.aside.remove(&Key::of(&pod.metadata));
            state.assumed.insert(uid.clone(), node.to_owned());
        }
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                uid: Some(uid.clone()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let parameters = PostParams::default();
        let bound = api.create_subresource::<_, Status>("binding", &name, &parameters, &binding).await;
        match bound.during(|| format!("binding pod {namespace}/{name} to node {node}")) {
            Ok(_) => {
                // A pod that the watch has shown bound, or gone, is known from there.
                let known = self.caches.pods.find(&Key::new(&*namespace, &*name));
                if known.is_none_or(|known| known.uid().as_ref() != Some(&uid) || pods::node(&known).is_some()) {
                    self.locked().assumed.remove(&uid);
                }
                info!(pod = %format_args!("{namespace}/{name}"), node, "pod scheduled");
                let message = format!("Successfully assigned {namespace}/{name} to {node}");
                self.recorder.tell(pod, Tone::Normal, "Scheduled", message);
                Ok(())
            }
            Err(failure) => {
                self.locked().assumed.remove(&uid);
                Err(failure)
            }
        }
    }

    async fn put_aside(&self, pod: &Pod, key: &Key, reason: &str) -> Result<(), Failure> {
        let known = pods::condition(pod, "PodScheduled");
        let said = known.is_some_and(|known| known.status == "False" && known.message.as_deref() == Some(reason));
        if said {
            return Ok(());
        }
        self.recorder.tell(pod, Tone::Warning, "FailedScheduling", reason);
        let since = known.filter(|known| known.status == "False").and_then(|known| known.last_transition_time.clone());
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": reason,
            "lastTransitionTime": since.unwrap_or_else(|| Time(Timestamp::now())),
        });
        let patch =
            Patch::Strategic(json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [condition] } }));
        let api = Api::<Pod>::namespaced(self.client.clone(), &key.namespace);
        let written = api.patch_status(&key.name, &PatchParams::default(), &patch).await;
        absent_is_fine(written.during(|| format!("writing the conditions of pod {key}"))).map(|_| ())
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the pod waits for this scheduler.
fn is_waiting(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.node_name.as_deref().unwrap_or_default().is_empty()
        && spec.scheduler_name.as_deref().is_none_or(|name| name == NAME)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        && pods::is_active(pod)
}

/// The order in which pods are placed: the important first, then the oldest.
fn urgency(pod: &Pod) -> (std::cmp::Reverse<i32>, Option<Timestamp>, Key) {
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (std::cmp::Reverse(priority), created, Key::of(&pod.metadata))
}
