//! What was asked of the API and is not in the cache yet.
//!
//! A ReplicaSet that counts its pods in a cache which is behind would create some twice. So each creation and deletion is
//! remembered until the watch shows it: intended pods count as there, pods to be deleted count as gone.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use k8s_openapi::api::core::v1::Pod;

use crate::controllers::{ownership, pods};

/// The intentions of all ReplicaSets, by the set's uid.
#[derive(Default)]
pub(super) struct Intentions(Mutex<HashMap<String, Intended>>);

/// The intentions of one ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Intended {
    /// Names of pods to be created; the time is that of the API's answer.
    pub(super) creating: HashMap<String, Option<Instant>>,
    /// Uids of pods to be deleted; the time is that of the API's answer.
    pub(super) deleting: HashMap<String, Option<Instant>>,
}

impl Intentions {
    /// What is intended for a set now.
    pub(super) fn of(&self, set: &str) -> Intended {
        self.locked().get(set).cloned().unwrap_or_default()
    }

    /// A pod is about to be created.
    pub(super) fn create(&self, set: &str, name: &str) {
        self.locked().entry(set.to_owned()).or_default().creating.insert(name.to_owned(), None);
    }

    /// The API has the pod: a list from now on shows it, or it is gone.
    pub(super) fn created(&self, set: &str, name: &str) {
        self.change(set, |intended| {
            if let Some(answered) = intended.creating.get_mut(name) {
                *answered = Some(Instant::now());
            }
        });
    }

    /// The API refused the pod.
    pub(super) fn not_created(&self, set: &str, name: &str) {
        self.change(set, |intended| {
            intended.creating.remove(name);
        });
    }

    /// A pod is about to be deleted.
    pub(super) fn delete(&self, set: &str, uid: &str) {
        self.locked().entry(set.to_owned()).or_default().deleting.insert(uid.to_owned(), None);
    }

    /// The API has marked or removed the pod.
    pub(super) fn deleted(&self, set: &str, uid: &str) {
        self.change(set, |intended| {
            if let Some(answered) = intended.deleting.get_mut(uid) {
                *answered = Some(Instant::now());
            }
        });
    }

    /// The API refused to delete the pod.
    pub(super) fn not_deleted(&self, set: &str, uid: &str) {
        self.change(set, |intended| {
            intended.deleting.remove(uid);
        });
    }

    /// The watch showed a pod.
    pub(super) fn seen(&self, pod: &Pod) {
        self.observe(pod, pods::is_terminating(pod));
    }

    /// The watch showed a pod's end.
    pub(super) fn gone(&self, pod: &Pod) {
        self.observe(pod, true);
    }

    /// The cache holds a list that was asked for at that moment: everything that was answered before is in it.
    pub(super) fn listed(&self, since: Instant) {
        let outlived = |answered: &mut Option<Instant>| answered.is_none_or(|at| at >= since);
        self.locked().retain(|_, intended| {
            intended.creating.retain(|_, answered| outlived(answered));
            intended.deleting.retain(|_, answered| outlived(answered));
            !intended.is_empty()
        });
    }

    /// The set is gone.
    pub(super) fn forget(&self, set: &str) {
        self.locked().remove(set);
    }

    fn observe(&self, pod: &Pod, leaving: bool) {
        let Some(owner) = ownership::controller(pod) else { return };
        let (name, uid) = (&pod.metadata.name, &pod.metadata.uid);
        self.change(&owner.uid, |intended| {
            if let Some(name) = name {
                intended.creating.remove(name);
            }
            if let (true, Some(uid)) = (leaving, uid) {
                intended.deleting.remove(uid);
            }
        });
    }

    fn change(&self, set: &str, change: impl FnOnce(&mut Intended)) {
        let mut all = self.locked();
        if let Some(intended) = all.get_mut(set) {
            change(intended);
            if intended.is_empty() {
                all.remove(set);
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Intended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intended {
    fn is_empty(&self) -> bool {
        self.creating.is_empty() && self.deleting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, terminating: bool) -> Pod {
        serde_json::from_value(json!({ "metadata": {
            "name": name, "uid": format!("uid-{name}"),
            "deletionTimestamp": terminating.then_some("2026-01-01T00:00:00Z"),
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set", "controller": true }],
        }}))
        .unwrap()
    }

    #[test]
    fn a_creation_is_intended_until_the_watch_shows_the_pod() {
        let intentions = Intentions::default();
        intentions.create("set", "a");
        intentions.created("set", "a");
        assert!(intentions.of("set").creating.contains_key("a"));
        intentions.seen(&pod("a", false));
        assert_eq!(intentions.of("set"), Intended::default());
    }

    #[test]
    fn a_pod_that_the_watch_showed_before_the_answer_is_intended_no_more() {
        let intentions = Intentions::default();
        intentions.create("set", "a");
        intentions.seen(&pod("a", false));
        intentions.created("set", "a");
        assert_eq!(intentions.of("set"), Intended::default());
    }

    #[test]
    fn a_deletion_is_intended_until_the_pod_is_seen_leaving() {
        let intentions = Intentions::default();
        intentions.delete("set", "uid-a");
        intentions.seen(&pod("a", false));
        assert!(intentions.of("set").deleting.contains_key("uid-a"));
        intentions.seen(&pod("a", true));
        assert_eq!(intentions.of("set"), Intended::default());
    }

    #[test]
    fn a_new_list_settles_what_was_answered_before_it_and_nothing_else() {
        let intentions = Intentions::default();
        intentions.create("set", "answered");
        intentions.created("set", "answered");
        intentions.create("set", "under-way");
        intentions.listed(Instant::now());
        assert_eq!(intentions.of("set").creating.into_keys().collect::<Vec<_>>(), ["under-way"]);
    }
}
