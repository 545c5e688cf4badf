//! Garbage collection by owner references, for all kinds there are (Kubernetes documentation, "Garbage Collection").
//!
//! The metadata of all objects make a graph. What has lost its last owner is deleted; an owner that is deleted in the foreground
//! goes after its dependents; one that is deleted as an orphanage leaves them behind.

mod decide;
mod graph;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use decide::{Decision, decide};
use futures::StreamExt;
use graph::{Graph, Item, Uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
};
use tracing::{debug, info, warn};

use super::{
    cache::{Cache, Change},
    caches::Caches,
    kinds::{self, AnyMeta, Kind},
    queue::Queue,
    worker::{During, Failure, Outcome, absent_is_fine, work},
};

/// How long to wait before the kinds are asked for again after a failure.
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);
/// How long the first lists may take before collection begins without them.
const FIRST_LISTS: Duration = Duration::from_secs(30);

/// The garbage collector.
pub(crate) struct GarbageCollector {
    client: Client,
    queue: Queue<Uid>,
    graph: Mutex<Graph>,
    kinds: Mutex<Vec<Kind>>,
    /// Objects with owners of kinds that nobody serves, for when somebody does.
    undecided: Mutex<HashSet<Uid>>,
    definitions_changed: Notify,
    /// Group and plural of the kinds whose metadata come from the shared caches.
    shared: HashSet<(String, String)>,
}

impl GarbageCollector {
    /// Listens to the caches from now on.
    pub(crate) fn new(client: Client, caches: &Caches) -> Arc<Self> {
        let mut shared = HashSet::new();
        let mut listeners = Vec::new();
        share(&caches.deployments, true, &mut shared, &mut listeners);
        share(&caches.replica_sets, true, &mut shared, &mut listeners);
        share(&caches.pods, true, &mut shared, &mut listeners);
        share(&caches.services, true, &mut shared, &mut listeners);
        share(&caches.slices, true, &mut shared, &mut listeners);
        share(&caches.endpoints, true, &mut shared, &mut listeners);
        share(&caches.leases, true, &mut shared, &mut listeners);
        share(&caches.nodes, false, &mut shared, &mut listeners);
        share(&caches.namespaces, false, &mut shared, &mut listeners);
        let collector = Arc::new(Self {
            client,
            queue: Queue::default(),
            graph: Mutex::default(),
            kinds: Mutex::default(),
            undecided: Mutex::default(),
            definitions_changed: Notify::new(),
            shared,
        });
        listeners.into_iter().for_each(|listen| listen(&collector));
        collector
    }

    /// Works for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut watches = Watches::default();
        self.follow_kinds(&mut watches).await;
        if tokio::time::timeout(FIRST_LISTS, watches.synced()).await.is_err() {
            warn!("some kinds could not be listed; garbage collection begins without them");
        }
        let collection = work("garbage-collector", &self.queue, |uid| Box::pin(self.reconcile(uid)));
        let renewal = async {
            loop {
                self.definitions_changed.notified().await;
                tokio::time::sleep(kinds::SETTLING).await;
                self.follow_kinds(&mut watches).await;
            }
        };
        tokio::join!(collection, renewal);
    }

    /// Brings the watches in line with the kinds that are served.
    async fn follow_kinds(self: &Arc<Self>, watches: &mut Watches) {
        let kinds = loop {
            match kinds::discover(&self.client).await {
                Ok(kinds) => break kinds,
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "the kinds of objects cannot be discovered");
                    tokio::time::sleep(DISCOVERY_RETRY).await;
                }
            }
        };
        let is_shared =
            |kind: &Kind| self.shared.contains(&(kind.resource.group.clone(), kind.resource.plural.clone()));
        let wanted: HashSet<Kind> = kinds.iter().filter(|kind| !is_shared(kind)).cloned().collect();
        for gone in watches.drop_all_but(&wanted) {
            info!(kind = %gone.resource.kind, group = %gone.resource.group, "kind is not served any more");
            let orphans = self.locked().remove_kind(&gone.resource);
            orphans.into_iter().for_each(|uid| self.queue.add(uid));
        }
        for kind in wanted {
            watches.start(kind, |kind, synced| {
                let collector = Arc::clone(self);
                async move { collector.follow(kind, synced).await }
            });
        }
        *self.kinds.lock().unwrap_or_else(PoisonError::into_inner) = kinds;
        let undecided = std::mem::take(&mut *self.undecided.lock().unwrap_or_else(PoisonError::into_inner));
        undecided.into_iter().for_each(|uid| self.queue.add(uid));
    }

    async fn follow(self: Arc<Self>, kind: Kind, synced: watch::Sender<bool>) {
        let api = Api::<AnyMeta>::all_with(self.client.clone(), &kind.resource);
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut listed = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    listed.extend(object.metadata.uid.clone());
                    self.observe(&kind.resource, kind.namespaced, &object.metadata);
                }
                Ok(Event::InitDone) => {
                    let gone = self.locked().uids_but(&kind.resource, &listed);
                    gone.iter().for_each(|uid| self.observe_end(uid));
                    synced.send_replace(true);
                }
                Ok(Event::Apply(object)) => self.observe(&kind.resource, kind.namespaced, &object.metadata),
                Ok(Event::Delete(object)) => self.observe_end(object.metadata.uid.as_deref().unwrap_or_default()),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    debug!(kind = %kind.resource.kind, error, "watch interrupted");
                }
            }
            if kind.resource.kind == "CustomResourceDefinition" {
                self.definitions_changed.notify_one();
            }
        }
    }

    fn observe(&self, resource: &ApiResource, namespaced: bool, metadata: &ObjectMeta) {
        let Some(item) = Item::of(resource, namespaced, metadata) else { return };
        let to_look_at = self.locked().set(item);
        to_look_at.into_iter().for_each(|uid| self.queue.add(uid));
    }

    fn observe_end(&self, uid: &str) {
        let to_look_at = self.locked().remove(uid);
        to_look_at.into_iter().for_each(|uid| self.queue.add(uid));
    }

    async fn reconcile(&self, uid: Uid) -> Result<Outcome, Failure> {
        // Until its owners are found, so that a kind that appears meanwhile brings it back.
        self.undecided.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone());
        let doubtful = self.locked().owners_out_of_sight(&uid);
        let mut absent = HashSet::new();
        for (namespace, owner) in doubtful {
            match self.is_there(&namespace, &owner).await? {
                Some(true) => {}
                Some(false) => drop(absent.insert(owner.uid)),
                // Whether an owner of a kind that nobody serves exists, nobody can tell.
                None => return Ok(Outcome::Done),
            }
        }
        self.undecided.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        let decision = decide(&self.locked(), &uid, &absent);
        match decision {
            Decision::Nothing => {}
            Decision::LookAt(others) => others.into_iter().for_each(|uid| self.queue.add(uid)),
            Decision::Delete(item, policy) => self.delete(&item, policy).await?,
            Decision::SetOwners(item, owners) => {
                self.patch(&item, json!({ "ownerReferences": owners })).await?;
            }
            Decision::Release(item, finalizer) => self.release(&item, finalizer).await?,
            Decision::Orphan { owner, dependents } => {
                for (dependent, owners) in dependents {
                    self.patch(&dependent, json!({ "ownerReferences": owners })).await?;
                }
                self.release(&owner, decide::ORPHAN).await?;
            }
        }
        Ok(Outcome::Done)
    }

    /// Asks the API itself; none where the owner's kind is not served.
    async fn is_there(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<bool>, Failure> {
        let kind = {
            let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            kinds.iter().find(|kind| kind.is(&owner.api_version, &owner.kind)).cloned()
        };
        let Some(kind) = kind else { return Ok(None) };
        if kind.namespaced && namespace.is_empty() {
            // A cluster-scoped object cannot be owned by a namespaced one.
            return Ok(Some(false));
        }
        let api: Api<AnyMeta> = if kind.namespaced {
            Api::namespaced_with(self.client.clone(), namespace, &kind.resource)
        } else {
            Api::all_with(self.client.clone(), &kind.resource)
        };
        let found = api.get_opt(&owner.name).await;
        let found = found.during(|| format!("looking for owner {} {namespace}/{}", owner.kind, owner.name))?;
        Ok(Some(found.is_some_and(|found| found.metadata.uid.as_deref() == Some(&*owner.uid))))
    }

    async fn delete(&self, item: &Item, policy: PropagationPolicy) -> Result<(), Failure> {
        let parameters = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions { uid: Some(item.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        let deleted = self.api(item).delete(&item.key.name, &parameters).await;
        absent_is_fine(deleted.map(|_| ()).during(|| format!("deleting {} {}", item.resource.kind, item.key)))?;
        info!(kind = %item.resource.kind, object = %item.key, "object deleted, its owner is gone");
        Ok(())
    }

    async fn release(&self, item: &Item, finalizer: &str) -> Result<(), Failure> {
        let rest: Vec<_> = item.finalizers.iter().filter(|own| *own != finalizer).collect();
        self.patch(item, json!({ "finalizers": rest })).await
    }

    async fn patch(&self, item: &Item, mut metadata: serde_json::Value) -> Result<(), Failure> {
        metadata["uid"] = json!(item.uid);
        metadata["resourceVersion"] = json!(item.resource_version);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let patched = self.api(item).patch(&item.key.name, &PatchParams::default(), &patch).await;
        let action = || format!("changing the metadata of {} {}", item.resource.kind, item.key);
        absent_is_fine(patched.during(action)).map(|_| ())
    }

    fn api(&self, item: &Item) -> Api<DynamicObject> {
        if item.namespaced {
            Api::namespaced_with(self.client.clone(), &item.key.namespace, &item.resource)
        } else {
            Api::all_with(self.client.clone(), &item.resource)
        }
    }

    fn locked(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has a collector listen to a cache.
type Listen = Box<dyn FnOnce(&Arc<GarbageCollector>)>;

/// Has the collector hear of the objects of a shared cache.
fn share<K>(
    cache: &Arc<Cache<K>>,
    namespaced: bool,
    shared: &mut HashSet<(String, String)>,
    listeners: &mut Vec<Listen>,
) where
    K: Resource<DynamicType = ()> + Send + Sync + 'static,
{
    let resource = ApiResource::erase::<K>(&());
    shared.insert((resource.group.clone(), resource.plural.clone()));
    let cache = Arc::clone(cache);
    listeners.push(Box::new(move |collector| {
        let collector = Arc::clone(collector);
        cache.listen(move |change| match change {
            Change::Set { new, .. } => collector.observe(&resource, namespaced, new.meta()),
            Change::Removed(old) => collector.observe_end(old.meta().uid.as_deref().unwrap_or_default()),
            Change::Listed { .. } => {}
        });
    }));
}

/// The watches of the kinds that no cache covers.
#[derive(Default)]
struct Watches {
    tasks: JoinSet<()>,
    running: HashMap<Kind, (AbortHandle, watch::Receiver<bool>)>,
}

impl Watches {
    fn start<F>(&mut self, kind: Kind, follow: impl FnOnce(Kind, watch::Sender<bool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.running.contains_key(&kind) {
            return;
        }
        let (sender, receiver) = watch::channel(false);
        let handle = self.tasks.spawn(follow(kind.clone(), sender));
        self.running.insert(kind, (handle, receiver));
    }

    fn drop_all_but(&mut self, wanted: &HashSet<Kind>) -> Vec<Kind> {
        let gone: Vec<_> = self.running.keys().filter(|kind| !wanted.contains(kind)).cloned().collect();
        for (handle, _) in gone.iter().filter_map(|kind| self.running.remove(kind)) {
            handle.abort();
        }
        while self.tasks.try_join_next().is_some() {}
        gone
    }

    async fn synced(&mut self) {
        for (_, receiver) in self.running.values_mut() {
            // A watch whose task ended has nothing to wait for.
            let _ = receiver.wait_for(|synced| *synced).await;
        }
    }
}
