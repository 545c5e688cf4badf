//! Every object, in order, and the latest events: what reads are served from.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::watch;

use super::event::{Event, Expired, Ring};
use super::{Change, Object};

/// A place in a list: namespace and name of the last object of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

/// Objects of one resource at one revision.
#[derive(Debug)]
pub struct Listing {
    /// The store's revision at which these are the objects.
    pub revision: u64,
    /// The objects by namespace and name.
    pub objects: Vec<Arc<Object>>,
    /// How many more there are after these.
    pub remaining: usize,
}

/// All tables and the revision that they are at.
#[derive(Debug)]
pub(super) struct Cache {
    revision: u64,
    /// Nothing is known of what happened up to this revision: the process did not live then.
    born: u64,
    tables: HashMap<Arc<str>, Table>,
}

/// The objects of one resource.
#[derive(Debug)]
pub(super) struct Table {
    objects: BTreeMap<String, BTreeMap<String, Arc<Object>>>,
    ring: Ring,
    tip: watch::Sender<u64>,
}

impl Table {
    fn starting_at(revision: u64) -> Self {
        Self { objects: BTreeMap::new(), ring: Ring::starting_after(revision), tip: watch::Sender::new(revision) }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.tip.subscribe()
    }

    fn put(&mut self, object: Arc<Object>) {
        let names = self.objects.entry(object.key.namespace.clone()).or_default();
        names.insert(object.key.name.clone(), object);
    }

    fn remove(&mut self, object: &Object) {
        if let Some(names) = self.objects.get_mut(&object.key.namespace) {
            names.remove(&object.key.name);
            if names.is_empty() {
                self.objects.remove(&object.key.namespace);
            }
        }
    }

    fn after<'a>(
        &'a self,
        namespace: Option<&'a str>,
        after: Option<&'a Position>,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        let from: Bound<&str> = match (namespace, after) {
            (Some(namespace), _) => Bound::Included(namespace),
            (None, Some(after)) => Bound::Included(after.namespace.as_str()),
            (None, None) => Bound::Unbounded,
        };
        let to: Bound<&str> = namespace.map_or(Bound::Unbounded, Bound::Included);
        self.objects.range::<str, _>((from, to)).flat_map(move |(namespace, names)| {
            let start = match after {
                Some(after) if after.namespace == *namespace => Bound::Excluded(after.name.as_str()),
                _ => Bound::Unbounded,
            };
            names.range::<str, _>((start, Bound::Unbounded)).map(|(_, object)| object)
        })
    }
}

impl Cache {
    pub(super) fn starting_at(revision: u64) -> Self {
        Self { revision, born: revision, tables: HashMap::new() }
    }

    /// Takes an object from disk into the cache.
    pub(super) fn restore(&mut self, object: Arc<Object>) {
        let resource = Arc::clone(&object.key.resource);
        self.table(&resource).put(object);
    }

    /// The table of a resource; made when it is asked for the first time.
    pub(super) fn table(&mut self, resource: &str) -> &mut Table {
        if !self.tables.contains_key(resource) {
            self.tables.insert(Arc::from(resource), Table::starting_at(self.born));
        }
        // Just inserted when it was missing.
        self.tables.get_mut(resource).expect("the table was inserted above")
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.tables.get(resource)?.objects.get(namespace)?.get(name)
    }

    pub(super) fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<&Position>,
        limit: usize,
    ) -> Listing {
        let Some(table) = self.tables.get(resource) else {
            return Listing { revision: self.revision, objects: Vec::new(), remaining: 0 };
        };
        let mut rest = table.after(namespace, after);
        let objects: Vec<_> = rest.by_ref().take(limit).cloned().collect();
        let remaining = rest.count();
        Listing { revision: self.revision, objects, remaining }
    }

    pub(super) fn events_after(&self, resource: &str, revision: u64) -> Result<(Vec<Arc<Event>>, u64), Expired> {
        if revision > self.revision {
            // A revision of another history: the store was replaced. The client's view is worth nothing.
            return Err(Expired { asked: revision, oldest: self.revision });
        }
        match self.tables.get(resource) {
            Some(table) => table.ring.after(revision).map(|events| (events, self.revision)),
            None if revision < self.born => Err(Expired { asked: revision, oldest: self.born }),
            None => Ok((Vec::new(), self.revision)),
        }
    }

    pub(super) fn subscribe(&self, resource: &str) -> Option<watch::Receiver<u64>> {
        self.tables.get(resource).map(Table::subscribe)
    }

    /// Makes a committed batch visible, all of it at once.
    pub(super) fn apply(&mut self, events: Vec<Event>) {
        let mut touched: Vec<Arc<str>> = Vec::new();
        for event in events {
            self.revision = event.revision();
            let resource = Arc::clone(&event.object.key.resource);
            let table = self.table(&resource);
            match event.change {
                Change::Added | Change::Modified => table.put(Arc::clone(&event.object)),
                Change::Deleted => table.remove(&event.object),
            }
            table.ring.push(Arc::new(event));
            if !touched.contains(&resource) {
                touched.push(resource);
            }
        }
        let revision = self.revision;
        for resource in touched {
            self.table(&resource).tip.send_replace(revision);
        }
    }
}
