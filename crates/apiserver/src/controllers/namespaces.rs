//! The end of a namespace: everything in it is deleted, and when nothing is left, so is the namespace.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use tracing::{debug, info};

use super::{
    cache::Change,
    caches::Caches,
    key::Key,
    kinds::{self, AnyMeta, Kind},
    queue::Queue,
    worker::{During, Failure, Outcome, absent_is_fine, work},
};

/// What keeps a namespace until this controller has emptied it.
const FINALIZER: &str = "kubernetes";
/// The first wait for what does not go at once: pods with their grace, objects with finalizers. Doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest such wait.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// The controller that ends namespaces.
pub(crate) struct NamespaceEnds {
    client: Client,
    caches: Arc<Caches>,
    queue: Queue<Key>,
    waits: Mutex<HashMap<String, Duration>>,
}

impl NamespaceEnds {
    /// Listens to the caches from now on.
    pub(crate) fn new(client: Client, caches: &Arc<Caches>) -> Arc<Self> {
        let (queue, waits) = (Queue::default(), Mutex::default());
        let controller = Arc::new(Self { client, caches: Arc::clone(caches), queue, waits });
        let listener = Arc::clone(&controller);
        caches.namespaces.listen(move |change| match change {
            Change::Set { new, .. } if is_ending(new) => listener.queue.add(Key::of(&new.metadata)),
            _ => {}
        });
        // Pods are what takes long; the end of each may be the last that the namespace waits for.
        let listener = Arc::clone(&controller);
        caches.pods.listen(move |change| {
            if let Change::Removed(pod) = change {
                let namespace = Key::cluster(pod.metadata.namespace.clone().unwrap_or_default());
                if listener.caches.namespaces.find(&namespace).is_some_and(|namespace| is_ending(&namespace)) {
                    listener.queue.add(namespace);
                }
            }
        });
        controller
    }

    /// Works for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        work("namespace", &self.queue, |key| Box::pin(self.reconcile(key))).await;
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, Failure> {
        let Some(namespace) = self.caches.namespaces.find(&key).filter(|namespace| is_ending(namespace)) else {
            return Ok(Outcome::Done);
        };
        let name = key.name.as_str();
        let kinds = kinds::discover(&self.client).await.during(|| "discovering the kinds of objects".to_owned())?;
        let mut left = Vec::new();
        for kind in kinds.iter().filter(|kind| kind.namespaced) {
            let remaining = self.empty(name, kind).await?;
            if !remaining.is_empty() {
                left.push((kind, remaining));
            }
        }
        if left.is_empty() {
            self.waits.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            self.finalize(&namespace, name).await?;
            return Ok(Outcome::Done);
        }
        debug!(namespace = name, kinds = left.len(), "the namespace is not empty yet");
        self.report(&namespace, name, &left).await?;
        Ok(Outcome::After(self.next_wait(name)))
    }

    /// Deletes the namespace's objects of a kind; answers those that are there still.
    async fn empty(&self, namespace: &str, kind: &Kind) -> Result<Vec<AnyMeta>, Failure> {
        let api = Api::<AnyMeta>::namespaced_with(self.client.clone(), namespace, &kind.resource);
        let plural = &kind.resource.plural;
        let list = || async {
            let listed = api.list(&ListParams::default()).await;
            // A kind whose definition has just been deleted has no objects.
            absent_is_fine(listed.during(|| format!("listing {plural} in namespace {namespace}")))
                .map(|list| list.map(|list| list.items).unwrap_or_default())
        };
        let found = list().await?;
        let deletable: Vec<_> = found.iter().filter(|object| object.metadata.deletion_timestamp.is_none()).collect();
        if deletable.is_empty() {
            return Ok(found);
        }
        let action = || format!("deleting the {plural} in namespace {namespace}");
        if kind.collectively {
            let deleted = api.delete_collection(&DeleteParams::background(), &ListParams::default()).await;
            absent_is_fine(deleted.map(|_| ()).during(action))?;
        } else {
            for object in deletable {
                let name = object.metadata.name.as_deref().unwrap_or_default();
                let deleted = api.delete(name, &DeleteParams::background()).await;
                absent_is_fine(deleted.map(|_| ()).during(action))?;
            }
        }
        list().await
    }

    async fn finalize(&self, namespace: &Namespace, name: &str) -> Result<(), Failure> {
        let mut changed = namespace.clone();
        if let Some(finalizers) = changed.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let api = Api::<Namespace>::all(self.client.clone());
        let written = api.replace_subresource("finalize", name, &PostParams::default(), &changed).await;
        absent_is_fine(written.during(|| format!("finalizing namespace {name}")))?;
        info!(namespace = name, "namespace emptied and released");
        Ok(())
    }

    /// Says in the namespace's conditions what it waits for.
    async fn report(&self, namespace: &Namespace, name: &str, left: &[(&Kind, Vec<AnyMeta>)]) -> Result<(), Failure> {
        let conditions = conditions(left, Timestamp::now());
        let known = namespace.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let says_the_same = conditions.iter().all(|new| {
            known.iter().any(|old| old.type_ == new.type_ && old.status == new.status && old.message == new.message)
        });
        if says_the_same {
            return Ok(());
        }
        let mut changed = namespace.clone();
        changed.status.get_or_insert_default().conditions = Some(conditions);
        let api = Api::<Namespace>::all(self.client.clone());
        let written = api.replace_status(name, &PostParams::default(), &changed).await;
        absent_is_fine(written.during(|| format!("writing the status of namespace {name}"))).map(|_| ())
    }

    fn next_wait(&self, name: &str) -> Duration {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = waits.get(name).map_or(FIRST_WAIT, |wait| (*wait * 2).min(LAST_WAIT));
        waits.insert(name.to_owned(), wait);
        wait
    }
}

/// Whether the namespace is to be emptied by this controller.
fn is_ending(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
    namespace.metadata.deletion_timestamp.is_some() && finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

fn conditions(left: &[(&Kind, Vec<AnyMeta>)], now: Timestamp) -> Vec<NamespaceCondition> {
    let kind_name = |kind: &Kind| match kind.resource.group.as_str() {
        "" => format!("{}.", kind.resource.plural),
        group => format!("{}.{group}", kind.resource.plural),
    };
    let content: Vec<_> = left
        .iter()
        .map(|(kind, objects)| format!("{} has {} resource instances", kind_name(kind), objects.len()))
        .collect();
    let mut finalizers: HashMap<&str, usize> = HashMap::new();
    for finalizer in
        left.iter().flat_map(|(_, objects)| objects).flat_map(|one| one.metadata.finalizers.iter().flatten())
    {
        *finalizers.entry(finalizer).or_default() += 1;
    }
    let mut finalizers: Vec<_> =
        finalizers.into_iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    finalizers.sort();
    let condition = |type_: &str, reason: &str, message: String| NamespaceCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
    };
    let message = format!("Some resources are remaining: {}", content.join(", "));
    let mut conditions = vec![condition("NamespaceContentRemaining", "SomeResourcesRemain", message)];
    if !finalizers.is_empty() {
        let message = format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", "));
        conditions.push(condition("NamespaceFinalizersRemaining", "SomeFinalizersRemain", message));
    }
    conditions
}
