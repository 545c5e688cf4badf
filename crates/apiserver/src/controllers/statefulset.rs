//! StatefulSets: pods that are told apart by numbers, made and removed in their order.
//! <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/>
//!
//! A pod's name follows from its number, so that it cannot be made twice: the API refuses the second one.

mod plan;
mod pod;
mod revisions;

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus},
        core::v1::{Pod, PodTemplateSpec},
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
    ownership,
    queue::Queue,
    recorder::{Recorder, Tone},
    worker::{During, Failure, Outcome, absent_is_fine, work},
};
use plan::Action;

/// The controller of StatefulSets.
pub(crate) struct StatefulSets {
    client: Client,
    caches: Arc<Caches>,
    recorder: Recorder,
    queue: Queue<Key>,
}

impl StatefulSets {
    /// Listens to the caches from now on.
    pub(crate) fn new(client: Client, caches: &Arc<Caches>, recorder: &Recorder) -> Arc<Self> {
        let recorder = recorder.of("statefulset-controller");
        let controller = Arc::new(Self { client, caches: Arc::clone(caches), recorder, queue: Queue::default() });
        let listener = Arc::clone(&controller);
        caches.stateful_sets.listen(move |change| {
            change.states().for_each(|set| listener.queue.add(Key::of(&set.metadata)));
        });
        let listener = Arc::clone(&controller);
        caches.pods.listen(move |change| listener.pod_changed(change));
        controller
    }

    /// Works for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        work("statefulset", &self.queue, |key| Box::pin(self.reconcile(key))).await;
    }

    /// A pod without an owner may be one that a set is to adopt, by its name.
    fn pod_changed(&self, change: &Change<'_, Pod>) {
        for pod in change.states() {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            if let Some(name) = ownership::controller_of_kind::<StatefulSet>(&**pod) {
                self.queue.add(Key::new(namespace, name));
            } else if let Some((set, _)) = ownership::controller(&**pod).is_none().then(|| pod::parts(pod)).flatten() {
                self.queue.add(Key::new(namespace, set));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, Failure> {
        let Some(set) = self.caches.stateful_sets.find(&key) else { return Ok(Outcome::Done) };
        let (Some(spec), Some(uid)) = (&set.spec, &set.metadata.uid) else { return Ok(Outcome::Done) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let selector = ownership::selector(Some(&spec.selector));
        let mut claims = ownership::claims(uid, false, selector.as_ref(), self.caches.pods.namespace(&key.namespace));
        // What has not a name of the set's is none of it, whatever its labels.
        claims.adopt.retain(|pod| pod::parts(pod).is_some_and(|(set, _)| set == key.name));
        ownership::settle(&self.client, &*set, &claims).await?;
        if !claims.adopt.is_empty() {
            // Adopted pods count once they are seen as owned.
            return Ok(Outcome::Done);
        }
        let update = revisions::name(&set);
        let before = set.status.as_ref();
        if before.and_then(|status| status.update_revision.as_deref()) != Some(&*update) {
            self.keep_revision(&key, &set, &update).await?;
        }
        let current = before.and_then(|status| status.current_revision.clone()).unwrap_or_else(|| update.clone());
        let now = Timestamp::now();
        let plan = plan::plan(&set, &claims.owned, (&current, &update), now);
        let mut outcome = Ok(());
        for action in plan.actions {
            outcome = self.act(&key, &set, action, (&current, &update)).await;
            if outcome.is_err() {
                break;
            }
        }
        let status = plan::status(&set, &claims.owned, (&current, &update), now);
        let written = self.write_status(&key, &set, status).await;
        outcome.and(written).map(|()| plan.wake.into())
    }

    async fn act(
        &self,
        key: &Key,
        set: &StatefulSet,
        action: Action,
        (current, update): (&str, &str),
    ) -> Result<(), Failure> {
        match action {
            Action::Create { ordinal, updated } => {
                let revision = if updated { update } else { current };
                let template = if updated || current == update {
                    set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default()
                } else {
                    self.template_of(key, current).await?
                };
                self.create(key, set, &pod::make(set, template, ordinal, revision)).await
            }
            Action::Delete(pod) => self.delete(key, set, &pod).await,
        }
    }

    async fn create(&self, key: &Key, set: &StatefulSet, pod: &Pod) -> Result<(), Failure> {
        let name = pod.name_any();
        let api = Api::<Pod>::namespaced(self.client.clone(), &key.namespace);
        let created = api.create(&PostParams::default(), pod).await;
        match created.during(|| format!("creating pod {}/{name}", key.namespace)) {
            Ok(_) => {
                debug!(pod = %name, set = %key, "pod created");
                let message = format!("create Pod {name} in StatefulSet {} successful", key.name);
                self.recorder.tell(set, Tone::Normal, "SuccessfulCreate", message);
                if let Some(claims) = pod::claims(set) {
                    let message = format!(
                        "this cluster has no volumes: {claims} of pod {name} is a directory of the machine below {}",
                        pod::VOLUMES
                    );
                    self.recorder.tell(set, Tone::Warning, "VolumeClaimIsDirectory", message);
                }
                Ok(())
            }
            // There already: the cache will know.
            Err(failure) if failure.is_outdated() => Err(failure),
            Err(failure) => {
                let message =
                    format!("create Pod {name} in StatefulSet {} failed error: {}", key.name, failure.message());
                self.recorder.tell(set, Tone::Warning, "FailedCreate", message);
                Err(failure)
            }
        }
    }

    async fn delete(&self, key: &Key, set: &StatefulSet, pod: &Pod) -> Result<(), Failure> {
        let name = pod.name_any();
        let only_this = Preconditions { uid: pod.uid(), resource_version: None };
        let api = Api::<Pod>::namespaced(self.client.clone(), &key.namespace);
        let deleted = api.delete(&name, &DeleteParams::background().preconditions(only_this)).await;
        absent_is_fine(deleted.during(|| format!("deleting pod {}/{name}", key.namespace)))?;
        debug!(pod = %name, set = %key, "pod deleted");
        let message = format!("delete Pod {name} in StatefulSet {} successful", key.name);
        self.recorder.tell(set, Tone::Normal, "SuccessfulDelete", message);
        Ok(())
    }

    /// The template of an earlier revision, for pods that the partition leaves as they are.
    async fn template_of(&self, key: &Key, revision: &str) -> Result<PodTemplateSpec, Failure> {
        let api = Api::<ControllerRevision>::namespaced(self.client.clone(), &key.namespace);
        let found = api.get(revision).await.during(|| format!("reading revision {}/{revision}", key.namespace))?;
        Ok(revisions::template(&found))
    }

    /// Writes the set's template down, and lets go of those that are older than the set's history is long.
    async fn keep_revision(&self, key: &Key, set: &StatefulSet, name: &str) -> Result<(), Failure> {
        let api = Api::<ControllerRevision>::namespaced(self.client.clone(), &key.namespace);
        let all = api.list(&Default::default()).await.during(|| format!("listing the revisions of {key}"))?;
        let own: Vec<_> = all
            .items
            .into_iter()
            .filter(|revision| ownership::is_controlled_by(revision, set.uid().as_deref().unwrap_or_default()))
            .collect();
        if !own.iter().any(|revision| revision.name_any() == name) {
            let created = api.create(&PostParams::default(), &revisions::make(set, name, &own)).await;
            created.during(|| format!("writing revision {}/{name}", key.namespace))?;
        }
        for old in revisions::superfluous(set, &own, name) {
            let deleted = api.delete(&old, &DeleteParams::default()).await;
            absent_is_fine(deleted.during(|| format!("deleting revision {}/{old}", key.namespace)))?;
        }
        Ok(())
    }

    async fn write_status(&self, key: &Key, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), Failure> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        info!(statefulset = %key, replicas = status.replicas, ready = status.ready_replicas, "statefulset status");
        let changed = StatefulSet { status: Some(status), ..set.clone() };
        let api = Api::<StatefulSet>::namespaced(self.client.clone(), &key.namespace);
        let written = api.replace_status(&key.name, &PostParams::default(), &changed).await;
        absent_is_fine(written.during(|| format!("writing the status of statefulset {key}"))).map(|_| ())
    }
}
