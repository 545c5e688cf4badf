//! Deployments: a ReplicaSet for each template, and pods moving from the old ones to the current one.

mod members;
mod plan;
mod rollout;
mod status;

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use plan::{Action, Plan, View};
use serde_json::json;
use tracing::info;

use super::{
    cache::Change,
    caches::Caches,
    key::Key,
    ownership, pods,
    queue::Queue,
    recorder::{Recorder, Tone},
    worker::{During, Failure, Outcome, absent_is_fine, work},
};

/// The controller of Deployments.
pub(crate) struct Deployments {
    client: Client,
    caches: Arc<Caches>,
    recorder: Recorder,
    queue: Queue<Key>,
}

impl Deployments {
    /// Listens to the caches from now on.
    pub(crate) fn new(client: Client, caches: &Arc<Caches>, recorder: &Recorder) -> Arc<Self> {
        let recorder = recorder.of("deployment-controller");
        let controller = Arc::new(Self { client, caches: Arc::clone(caches), recorder, queue: Queue::default() });
        let listener = Arc::clone(&controller);
        caches.deployments.listen(move |change| {
            change.states().for_each(|deployment| listener.queue.add(Key::of(&deployment.metadata)));
        });
        let listener = Arc::clone(&controller);
        caches.replica_sets.listen(move |change| listener.set_changed(change));
        let listener = Arc::clone(&controller);
        caches.pods.listen(move |change| listener.pod_changed(change));
        controller
    }

    /// Works for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        work("deployment", &self.queue, |key| Box::pin(self.reconcile(key))).await;
    }

    fn set_changed(&self, change: &Change<'_, ReplicaSet>) {
        for set in change.states() {
            let namespace = set.namespace().unwrap_or_default();
            if let Some(name) = ownership::controller_of_kind::<Deployment>(&**set) {
                self.queue.add(Key::new(namespace, name));
            } else if ownership::controller(&**set).is_none() {
                for deployment in self.caches.deployments.namespace(&namespace) {
                    let spec = deployment.spec.as_ref();
                    let selector = spec.and_then(|spec| ownership::selector(Some(&spec.selector)));
                    if ownership::selects(selector.as_ref(), set.metadata.labels.as_ref()) {
                        self.queue.add(Key::of(&deployment.metadata));
                    }
                }
            }
        }
    }

    /// The end of a pod matters to the strategy Recreate, which waits for the last one.
    fn pod_changed(&self, change: &Change<'_, Pod>) {
        let ended = match change {
            Change::Removed(pod) => pod,
            Change::Set { new, .. } if pods::is_finished(new) => new,
            _ => return,
        };
        let ended: &Pod = ended;
        let namespace = ended.namespace().unwrap_or_default();
        let Some(set) = ownership::controller_of_kind::<ReplicaSet>(ended) else { return };
        let Some(set) = self.caches.replica_sets.find(&Key::new(&*namespace, set)) else { return };
        if let Some(name) = ownership::controller_of_kind::<Deployment>(&*set) {
            self.queue.add(Key::new(namespace, name));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, Failure> {
        let Some(deployment) = self.caches.deployments.find(&key) else { return Ok(Outcome::Done) };
        let (Some(spec), Some(uid)) = (&deployment.spec, &deployment.metadata.uid) else { return Ok(Outcome::Done) };
        let terminating = deployment.metadata.deletion_timestamp.is_some();
        let selector = ownership::selector(Some(&spec.selector));
        let sets = self.caches.replica_sets.namespace(&key.namespace);
        let claims = ownership::claims(uid, terminating, selector.as_ref(), sets);
        if !terminating {
            ownership::settle(&self.client, &*deployment, &claims).await?;
            if !claims.adopt.is_empty() {
                // Adopted sets count once they are seen as owned.
                return Ok(Outcome::Done);
            }
        }
        let pods = self.caches.pods.namespace(&key.namespace);
        let view = View { deployment: &deployment, sets: &claims.owned, pods: &pods, now: Timestamp::now() };
        let plan = plan::plan(&view);
        self.perform(&key, &deployment, plan).await
    }

    async fn perform(&self, key: &Key, deployment: &Deployment, plan: Plan) -> Result<Outcome, Failure> {
        for action in plan.actions {
            self.act(key, deployment, action).await?;
        }
        let api = Api::<Deployment>::namespaced(self.client.clone(), &key.namespace);
        if let Some(revision) = plan.revision {
            let patch = Patch::Merge(json!({ "metadata": { "annotations": { plan::REVISION: revision } } }));
            let written = api.patch(&key.name, &PatchParams::default(), &patch).await;
            absent_is_fine(written.during(|| format!("writing the revision of deployment {key}")))?;
            // The status is written from the state that this write makes; it comes with the next look.
            return Ok(plan.wake.into());
        }
        if deployment.status.as_ref() != Some(&plan.status) {
            let changed = Deployment { status: Some(plan.status), ..deployment.clone() };
            let written = api.replace_status(&key.name, &PostParams::default(), &changed).await;
            absent_is_fine(written.during(|| format!("writing the status of deployment {key}")))?;
        }
        Ok(plan.wake.into())
    }

    async fn act(&self, key: &Key, deployment: &Deployment, action: Action) -> Result<(), Failure> {
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &key.namespace);
        match action {
            Action::Create(set) => {
                let (name, replicas) = (set.name_any(), members::replicas(&set));
                let created = api.create(&PostParams::default(), &set).await;
                created.during(|| format!("creating replicaset {}/{name}", key.namespace))?;
                info!(deployment = %key, replicaset = %name, replicas, "replicaset created");
                if replicas > 0 {
                    self.tell_scaling(deployment, &name, 0, replicas);
                }
            }
            Action::Update { set, from } => {
                let (name, to) = (set.name_any(), members::replicas(&set));
                let written = api.replace(&name, &PostParams::default(), &set).await;
                written.during(|| format!("updating replicaset {}/{name}", key.namespace))?;
                if from != to {
                    info!(deployment = %key, replicaset = %name, from, to, "replicaset scaled");
                    self.tell_scaling(deployment, &name, from, to);
                }
            }
            Action::Delete { name, uid } => {
                let only_this = Preconditions { uid: Some(uid), resource_version: None };
                let deleted = api.delete(&name, &DeleteParams::background().preconditions(only_this)).await;
                absent_is_fine(deleted.during(|| format!("deleting replicaset {}/{name}", key.namespace)))?;
                info!(deployment = %key, replicaset = %name, "old replicaset deleted");
            }
        }
        Ok(())
    }

    fn tell_scaling(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.recorder.tell(deployment, Tone::Normal, "ScalingReplicaSet", message);
    }
}
