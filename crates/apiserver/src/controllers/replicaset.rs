//! ReplicaSets: as many pods as asked for.

mod deletion_order;
mod intentions;
mod plan;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::{StreamExt, stream};
use intentions::Intentions;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetStatus},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use tracing::{debug, info};

use super::{
    cache::Change,
    caches::Caches,
    key::Key,
    naming, ownership,
    queue::Queue,
    recorder::{Recorder, Tone},
    worker::{During, Failure, Outcome, PARALLEL_WRITES, absent_is_fine, work},
};

/// The controller of ReplicaSets.
pub(crate) struct ReplicaSets {
    client: Client,
    caches: Arc<Caches>,
    recorder: Recorder,
    queue: Queue<Key>,
    intentions: Intentions,
}

impl ReplicaSets {
    /// Listens to the caches from now on.
    pub(crate) fn new(client: Client, caches: &Arc<Caches>, recorder: &Recorder) -> Arc<Self> {
        let recorder = recorder.of("replicaset-controller");
        let (queue, intentions) = (Queue::default(), Intentions::default());
        let controller = Arc::new(Self { client, caches: Arc::clone(caches), recorder, queue, intentions });
        let listener = Arc::clone(&controller);
        caches.replica_sets.listen(move |change| listener.set_changed(change));
        let listener = Arc::clone(&controller);
        caches.pods.listen(move |change| listener.pod_changed(change));
        controller
    }

    /// Works for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        work("replicaset", &self.queue, |key| Box::pin(self.reconcile(key))).await;
    }

    fn set_changed(&self, change: &Change<'_, ReplicaSet>) {
        if let Change::Removed(set) = change {
            self.intentions.forget(set.metadata.uid.as_deref().unwrap_or_default());
        }
        change.states().for_each(|set| self.queue.add(Key::of(&set.metadata)));
    }

    fn pod_changed(&self, change: &Change<'_, Pod>) {
        match change {
            Change::Set { new, .. } => self.intentions.seen(new),
            Change::Removed(pod) => self.intentions.gone(pod),
            Change::Listed { since } => self.intentions.listed(*since),
        }
        for pod in change.states() {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            if let Some(name) = ownership::controller_of_kind::<ReplicaSet>(&**pod) {
                self.queue.add(Key::new(namespace, name));
            } else if ownership::controller(&**pod).is_none() {
                self.queue_adopters(&namespace, pod);
            }
        }
    }

    fn queue_adopters(&self, namespace: &str, pod: &Pod) {
        for set in self.caches.replica_sets.namespace(namespace) {
            let selector = set.spec.as_ref().and_then(|spec| ownership::selector(Some(&spec.selector)));
            if ownership::selects(selector.as_ref(), pod.metadata.labels.as_ref()) {
                self.queue.add(Key::of(&set.metadata));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, Failure> {
        let Some(set) = self.caches.replica_sets.find(&key) else { return Ok(Outcome::Done) };
        let (Some(spec), Some(uid)) = (&set.spec, &set.metadata.uid) else { return Ok(Outcome::Done) };
        // Before the pods: what is seen between the two is then counted twice by name, and not missed.
        let intended = self.intentions.of(uid);
        let terminating = set.metadata.deletion_timestamp.is_some();
        let selector = ownership::selector(Some(&spec.selector));
        let pods = self.caches.pods.namespace(&key.namespace);
        let claims = ownership::claims(uid, terminating, selector.as_ref(), pods);
        if !terminating {
            ownership::settle(&self.client, &*set, &claims).await?;
            if !claims.adopt.is_empty() {
                // Adopted pods count once they are seen as owned.
                return Ok(Outcome::Done);
            }
        }
        let plan = plan::plan(&set, &claims.owned, &intended, Timestamp::now());
        let mut outcome = Ok(());
        if !terminating {
            outcome = self.create(&set, plan.create).await;
            if outcome.is_ok() {
                outcome = self.delete(&set, uid, &plan.delete).await;
            }
        }
        let failed = outcome.as_ref().err().filter(|failure| !failure.is_outdated()).map(Failure::message);
        let creating = plan.create > 0;
        let status = plan::status(&set, &claims.owned, failed.map(|message| (creating, message)), Timestamp::now());
        let written = self.write_status(&key, &set, status).await;
        outcome.and(written).map(|()| plan.wake.into())
    }

    /// Creates pods, several at a time. After a first refusal no further one is tried: the next would be refused as well.
    async fn create(&self, set: &ReplicaSet, count: usize) -> Result<(), Failure> {
        let refused = AtomicBool::new(false);
        let creations = (0..count).map(|_| async {
            if refused.load(Ordering::Relaxed) {
                return Ok(());
            }
            let created = self.create_one(set).await;
            refused.fetch_or(created.is_err(), Ordering::Relaxed);
            created
        });
        let results: Vec<_> = stream::iter(creations).buffer_unordered(PARALLEL_WRITES).collect().await;
        results.into_iter().collect()
    }

    async fn create_one(&self, set: &ReplicaSet) -> Result<(), Failure> {
        let (namespace, set_name) = (set.namespace().unwrap_or_default(), set.name_any());
        let name = naming::random(&format!("{set_name}-"));
        let uid = set.uid().unwrap_or_default();
        self.intentions.create(&uid, &name);
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let created = api.create(&PostParams::default(), &plan::pod(set, &name)).await;
        match created.during(|| format!("creating pod {namespace}/{name}")) {
            Ok(_) => {
                self.intentions.created(&uid, &name);
                debug!(pod = %name, %namespace, "pod created");
                self.recorder.tell(set, Tone::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(failure) => {
                self.intentions.not_created(&uid, &name);
                let message = format!("Error creating: {}", failure.message());
                self.recorder.tell(set, Tone::Warning, "FailedCreate", message);
                Err(failure)
            }
        }
    }

    async fn delete(&self, set: &ReplicaSet, set_uid: &str, pods: &[Arc<Pod>]) -> Result<(), Failure> {
        let deletions = pods.iter().cloned().map(|pod| async move { self.delete_one(set, set_uid, &pod).await });
        let results: Vec<_> = stream::iter(deletions).buffer_unordered(PARALLEL_WRITES).collect().await;
        results.into_iter().collect()
    }

    async fn delete_one(&self, set: &ReplicaSet, set_uid: &str, pod: &Pod) -> Result<(), Failure> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let pod_uid = pod.uid().unwrap_or_default();
        self.intentions.delete(set_uid, &pod_uid);
        let only_this = Preconditions { uid: Some(pod_uid.clone()), resource_version: None };
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let deleted = api.delete(&name, &DeleteParams::background().preconditions(only_this)).await;
        match deleted.map(|_| ()).during(|| format!("deleting pod {namespace}/{name}")) {
            Ok(()) => {
                self.intentions.deleted(set_uid, &pod_uid);
                debug!(pod = %name, %namespace, "pod deleted");
                self.recorder.tell(set, Tone::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            // Gone, or another of the same name: either way this pod does not count any more once the cache knows.
            Err(failure) if failure.is_outdated() => {
                self.intentions.deleted(set_uid, &pod_uid);
                Ok(())
            }
            Err(failure) => {
                self.intentions.not_deleted(set_uid, &pod_uid);
                let message = format!("Error deleting: {}", failure.message());
                self.recorder.tell(set, Tone::Warning, "FailedDelete", message);
                Err(failure)
            }
        }
    }

    async fn write_status(&self, key: &Key, set: &ReplicaSet, status: ReplicaSetStatus) -> Result<(), Failure> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        info!(replicaset = %key, replicas = status.replicas, ready = status.ready_replicas, "replicaset status");
        let changed = ReplicaSet { status: Some(status), ..set.clone() };
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &key.namespace);
        let written = api.replace_status(&key.name, &PostParams::default(), &changed).await;
        absent_is_fine(written.during(|| format!("writing the status of replicaset {key}"))).map(|_| ())
    }
}
