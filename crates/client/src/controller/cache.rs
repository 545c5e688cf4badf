//! What the controllers know: one watch for each kind, kept in memory and shared by all of them.
//!
//! A cache is at most a little behind the API; each controller is written so that acting on an old state does no harm (conflicts,
//! deterministic names, remembered intentions) and that the next change corrects it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Instant,
};

use futures::StreamExt;
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::info;

use super::key::Key;

/// What a listener hears, after the cache has changed.
pub enum Change<'a, K> {
    /// An object appeared or changed.
    Set {
        /// What it was.
        old: Option<&'a Arc<K>>,
        /// What it is.
        new: &'a Arc<K>,
    },
    /// An object is gone; this was its last known state.
    Removed(&'a Arc<K>),
    /// A complete list, asked for at that moment, is in the cache: what was written before and is not in it is gone.
    Listed {
        /// When the list was asked for.
        since: Instant,
    },
}

impl<K> Change<'_, K> {
    /// The states of the object that changed: the old one and the new one, as far as there are any.
    pub fn states(&self) -> impl Iterator<Item = &Arc<K>> {
        let (old, new) = match self {
            Self::Set { old, new } => (*old, Some(*new)),
            Self::Removed(old) => (Some(*old), None),
            Self::Listed { .. } => (None, None),
        };
        old.into_iter().chain(new)
    }
}

type Listener<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;

/// All objects of a kind.
pub struct Cache<K> {
    objects: RwLock<BTreeMap<Key, Arc<K>>>,
    listeners: RwLock<Vec<Listener<K>>>,
    synced: watch::Sender<bool>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { objects: RwLock::default(), listeners: RwLock::default(), synced: watch::Sender::new(false) }
    }
}

impl<K> Cache<K> {
    /// The object of that name.
    pub fn find(&self, key: &Key) -> Option<Arc<K>> {
        self.read().get(key).cloned()
    }

    /// The objects of a namespace, ordered by name.
    pub fn namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = Bound::Included(Key::new(namespace, ""));
        let objects = self.read();
        let range = objects.range((from, Bound::Unbounded));
        range.take_while(|(key, _)| key.namespace == namespace).map(|(_, object)| Arc::clone(object)).collect()
    }

    /// All objects, ordered by namespace and name.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read().values().cloned().collect()
    }

    /// Has a function called after each change. It must be quick and must not block: the watch waits for it.
    pub fn listen(&self, listener: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    /// Waits until the objects have been listed once.
    pub async fn synced(&self) {
        // The sender lives as long as the cache.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Key, Arc<K>>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: &Change<'_, K>) {
        for listener in &*self.listeners.read().unwrap_or_else(PoisonError::into_inner) {
            listener(change);
        }
    }
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Lists and watches for ever.
    pub async fn follow(&self, api: Api<K>, config: watcher::Config) {
        self.follow_only(api, config, |_| {}).await;
    }

    /// As [`Cache::follow`], and keeps of each object what `prune` leaves of it.
    pub async fn follow_only(&self, api: Api<K>, config: watcher::Config, prune: fn(&mut K)) {
        let pruned = |mut object| {
            prune(&mut object);
            object
        };
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut listed = BTreeSet::new();
        let mut since = Instant::now();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => {
                    listed.clear();
                    since = Instant::now();
                }
                Ok(Event::InitApply(object)) => {
                    listed.insert(Key::of(object.meta()));
                    self.set(pruned(object));
                }
                Ok(Event::InitDone) => {
                    self.keep_only(&listed);
                    self.tell(&Change::Listed { since });
                    self.synced.send_replace(true);
                }
                Ok(Event::Apply(object)) => self.set(pruned(object)),
                Ok(Event::Delete(object)) => self.remove(&Key::of(object.meta())),
                // The watcher comes back by itself; until then the cache grows old and nothing worse.
                Err(error) => {
                    info!(kind = %K::kind(&()), error = &error as &dyn std::error::Error, "watch interrupted");
                }
            }
        }
    }

    /// Puts an object in and tells the listeners, unless the very same state is there already.
    pub fn set(&self, object: K) {
        let (key, new) = (Key::of(object.meta()), Arc::new(object));
        let old = self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&new));
        match old {
            Some(old) if old.meta().uid != new.meta().uid => {
                self.tell(&Change::Removed(&old));
                self.tell(&Change::Set { old: None, new: &new });
            }
            Some(old) if same_version(&*old, &*new) => {}
            old => self.tell(&Change::Set { old: old.as_ref(), new: &new }),
        }
    }

    /// Takes an object out and tells the listeners.
    pub fn remove(&self, key: &Key) {
        let old = self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some(old) = old {
            self.tell(&Change::Removed(&old));
        }
    }

    fn keep_only(&self, listed: &BTreeSet<Key>) {
        let gone: Vec<_> = self.read().keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

fn same_version<K: Resource>(old: &K, new: &K) -> bool {
    old.meta().resource_version.is_some() && old.meta().resource_version == new.meta().resource_version
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn object(namespace: &str, name: &str, uid: &str, version: &str) -> ConfigMap {
        let text = |text: &str| Some(text.to_owned());
        ConfigMap {
            metadata: ObjectMeta {
                namespace: text(namespace),
                name: text(name),
                uid: text(uid),
                resource_version: text(version),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    #[test]
    fn a_namespace_is_its_own_objects_in_order() {
        let cache = Cache::default();
        for (namespace, name) in [("b", "1"), ("a", "2"), ("a", "1"), ("aa", "1")] {
            cache.set(object(namespace, name, name, "1"));
        }
        let names: Vec<_> = cache.namespace("a").iter().filter_map(|object| object.metadata.name.clone()).collect();
        assert_eq!(names, ["1", "2"]);
    }

    #[test]
    fn listeners_hear_each_state_once_and_a_replaced_object_as_two() {
        let (cache, heard) = (Cache::default(), Arc::new(Mutex::new(Vec::new())));
        let sink = Arc::clone(&heard);
        cache.listen(move |change: &Change<'_, ConfigMap>| {
            let said = match change {
                Change::Set { old: None, .. } => "new",
                Change::Set { old: Some(_), .. } => "changed",
                Change::Removed(_) => "removed",
                Change::Listed { .. } => "listed",
            };
            sink.lock().unwrap().push(said);
        });
        cache.set(object("a", "x", "first", "1"));
        cache.set(object("a", "x", "first", "1"));
        cache.set(object("a", "x", "first", "2"));
        cache.set(object("a", "x", "second", "3"));
        cache.remove(&Key::new("a", "x"));
        cache.remove(&Key::new("a", "x"));
        assert_eq!(*heard.lock().unwrap(), ["new", "changed", "removed", "new", "removed"]);
    }
}
