//! Who owns whom.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{api::ObjectMeta, core::ApiResource};

use super::decide::{FOREGROUND, ORPHAN};
use crate::controllers::key::Key;

/// An object's uid.
pub(super) type Uid = String;

/// An object, as far as its ownership goes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// Where objects of its kind are.
    pub(super) resource: ApiResource,
    /// Whether they live in namespaces.
    pub(super) namespaced: bool,
    /// Which one it is.
    pub(super) key: Key,
    /// Its uid.
    pub(super) uid: Uid,
    /// Its version, for changes that must not be based on an old one.
    pub(super) resource_version: Option<String>,
    /// Its owners.
    pub(super) owners: Vec<OwnerReference>,
    /// Whether somebody asked for its deletion.
    pub(super) terminating: bool,
    /// What keeps it.
    pub(super) finalizers: Vec<String>,
}

impl Item {
    /// The item of an object; none where the object has no uid.
    pub(super) fn of(resource: &ApiResource, namespaced: bool, metadata: &ObjectMeta) -> Option<Self> {
        Some(Self {
            resource: resource.clone(),
            namespaced,
            key: Key::of(metadata),
            uid: metadata.uid.clone()?,
            resource_version: metadata.resource_version.clone(),
            owners: metadata.owner_references.clone().unwrap_or_default(),
            terminating: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
        })
    }

    /// Whether it goes after its dependents.
    pub(super) fn waits_for_dependents(&self) -> bool {
        self.terminating && self.has(FOREGROUND)
    }

    /// Whether it goes and leaves its dependents behind.
    pub(super) fn leaves_orphans(&self) -> bool {
        self.terminating && self.has(ORPHAN)
    }

    /// Whether it carries the finalizer.
    pub(super) fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|own| own == finalizer)
    }
}

/// All objects.
#[derive(Debug, Default)]
pub(super) struct Graph {
    items: HashMap<Uid, Item>,
    /// The dependents of each owner, whether the owner is known or not.
    dependents: HashMap<Uid, BTreeSet<Uid>>,
    /// The objects of each group and plural.
    kinds: HashMap<(String, String), BTreeSet<Uid>>,
}

impl Graph {
    /// Takes an object's present state in; answers which objects have to be looked at because of it.
    pub(super) fn set(&mut self, item: Item) -> Vec<Uid> {
        let uid = item.uid.clone();
        let old_owners = self.items.remove(&uid).map(|before| before.owners).unwrap_or_default();
        for owner in &old_owners {
            self.unlink(&owner.uid, &uid);
        }
        for owner in &item.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        self.kinds.entry(kind_key(&item.resource)).or_default().insert(uid.clone());

        let owners_changed = old_owners != item.owners;
        let mut look_at = Vec::new();
        if owners_changed {
            // An owner may be waiting for this object to cease to be its dependent.
            let waiting = |owner: &&OwnerReference| self.items.get(&owner.uid).is_some_and(Item::waits_for_dependents);
            look_at.extend(old_owners.iter().filter(waiting).map(|owner| owner.uid.clone()));
        }
        let ending = item.waits_for_dependents() || item.leaves_orphans();
        // Each new version of an object whose deletion waits is looked at, since a change that was refused as based on an old
        // version can be made on this one.
        if (owners_changed && !item.owners.is_empty()) || ending {
            look_at.push(uid.clone());
        }
        self.items.insert(uid, item);
        look_at
    }

    /// Takes an object out; answers which objects have to be looked at because of it.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Uid> {
        let Some(item) = self.items.remove(uid) else { return Vec::new() };
        if let Some(kind) = self.kinds.get_mut(&kind_key(&item.resource)) {
            kind.remove(uid);
        }
        for owner in &item.owners {
            self.unlink(&owner.uid, uid);
        }
        let mut look_at: Vec<_> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        let waiting =
            item.owners.iter().filter(|owner| self.items.get(&owner.uid).is_some_and(Item::waits_for_dependents));
        look_at.extend(waiting.map(|owner| owner.uid.clone()));
        look_at
    }

    /// Takes all objects of a kind out; answers which objects have to be looked at because of it.
    pub(super) fn remove_kind(&mut self, resource: &ApiResource) -> Vec<Uid> {
        let uids = self.kinds.remove(&kind_key(resource)).unwrap_or_default();
        uids.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    /// The objects of a kind that are not among these.
    pub(super) fn uids_but(&self, resource: &ApiResource, kept: &BTreeSet<Uid>) -> Vec<Uid> {
        let all = self.kinds.get(&kind_key(resource));
        all.into_iter().flat_map(|all| all.difference(kept)).cloned().collect()
    }

    /// An object.
    pub(super) fn item(&self, uid: &str) -> Option<&Item> {
        self.items.get(uid)
    }

    /// The objects that name this one as their owner, with the reference.
    pub(super) fn dependents<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = (&'a Item, &'a OwnerReference)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|dependent| self.items.get(dependent)).flat_map(move |item| {
            item.owners.iter().filter(move |owner| owner.uid == uid).map(move |owner| (item, owner))
        })
    }

    /// The owners of an object that are not in the graph, with the namespace in which to look for them.
    pub(super) fn owners_out_of_sight(&self, uid: &str) -> Vec<(String, OwnerReference)> {
        let Some(item) = self.items.get(uid).filter(|item| !item.terminating) else { return Vec::new() };
        let unseen = item.owners.iter().filter(|owner| !self.items.contains_key(&owner.uid));
        unseen.map(|owner| (item.key.namespace.clone(), owner.clone())).collect()
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

fn kind_key(resource: &ApiResource) -> (String, String) {
    (resource.group.clone(), resource.plural.clone())
}
