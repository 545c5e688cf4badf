//! What becomes of an object because of its owners, or of its dependents because of it.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PropagationPolicy;

use super::graph::{Graph, Item, Uid};

/// The finalizer of an object that goes after its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object that leaves its dependents behind.
pub(super) const ORPHAN: &str = "orphan";

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// All is as it should be.
    Nothing,
    /// These others have to be looked at.
    LookAt(Vec<Uid>),
    /// The object goes.
    Delete(Item, PropagationPolicy),
    /// The object keeps these owners only.
    SetOwners(Item, Vec<OwnerReference>),
    /// The object loses a finalizer.
    Release(Item, &'static str),
    /// The dependents get these owners, and then the owner loses its finalizer.
    Orphan {
        /// The owner.
        owner: Item,
        /// Its dependents with the owners that they keep.
        dependents: Vec<(Item, Vec<OwnerReference>)>,
    },
}

/// Decides for one object. `absent` are those of its owners that the API says are not there; other owners that the graph does not
/// show are taken to exist.
pub(super) fn decide(graph: &Graph, uid: &str, absent: &HashSet<Uid>) -> Decision {
    let Some(item) = graph.item(uid) else { return Decision::Nothing };
    if item.leaves_orphans() {
        return orphan(graph, item);
    }
    if item.waits_for_dependents() {
        return wait_for_dependents(graph, item);
    }
    if item.terminating || item.owners.is_empty() {
        return Decision::Nothing;
    }
    let is_waiting = |owner: &OwnerReference| graph.item(&owner.uid).is_some_and(Item::waits_for_dependents);
    let is_solid = |owner: &&OwnerReference| !absent.contains(&owner.uid) && !is_waiting(owner);
    let solid: Vec<_> = item.owners.iter().filter(is_solid).cloned().collect();
    if solid.len() == item.owners.len() {
        return Decision::Nothing;
    }
    if !solid.is_empty() {
        return Decision::SetOwners(item.clone(), solid);
    }
    let has_dependents = graph.dependents(uid).next().is_some();
    let policy = if item.owners.iter().any(is_waiting) && has_dependents {
        // The owner waits for the whole tree below it.
        PropagationPolicy::Foreground
    } else if item.has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if item.has(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    Decision::Delete(item.clone(), policy)
}

fn orphan(graph: &Graph, item: &Item) -> Decision {
    let dependents = graph.dependents(&item.uid).map(|(dependent, _)| {
        let kept = dependent.owners.iter().filter(|owner| owner.uid != item.uid).cloned().collect();
        (dependent.clone(), kept)
    });
    Decision::Orphan { owner: item.clone(), dependents: dependents.collect() }
}

fn wait_for_dependents(graph: &Graph, item: &Item) -> Decision {
    let blocks = |owner: &OwnerReference| owner.block_owner_deletion == Some(true);
    if !graph.dependents(&item.uid).any(|(_, owner)| blocks(owner)) {
        return Decision::Release(item.clone(), FOREGROUND);
    }
    let remaining = graph.dependents(&item.uid).filter(|(dependent, _)| !dependent.terminating);
    Decision::LookAt(remaining.map(|(dependent, _)| dependent.uid.clone()).collect())
}

#[cfg(test)]
mod tests {
    use kube::{
        api::ObjectMeta,
        core::{ApiResource, GroupVersionKind},
    };
    use serde_json::{Value, json};

    use super::*;

    /// An object named like its uid, owned by those.
    fn item(uid: &str, owners: &[&str], change: impl FnOnce(&mut Value)) -> Item {
        let owners: Vec<_> = owners
            .iter()
            .map(|owner| {
                json!({ "apiVersion": "v1", "kind": "Thing", "name": owner, "uid": owner, "blockOwnerDeletion": true })
            })
            .collect();
        let mut metadata = json!({ "name": uid, "namespace": "shop", "uid": uid, "ownerReferences": owners });
        change(&mut metadata);
        let metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Thing"));
        Item::of(&resource, true, &metadata).unwrap()
    }

    fn plain(_: &mut Value) {}

    fn ending(finalizer: &str) -> impl FnOnce(&mut Value) {
        let finalizer = finalizer.to_owned();
        move |metadata| {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            metadata["finalizers"] = json!([finalizer, "example.com/other"]);
        }
    }

    fn graph(items: impl IntoIterator<Item = Item>) -> Graph {
        let mut graph = Graph::default();
        for item in items {
            graph.set(item);
        }
        graph
    }

    fn absent(uids: &[&str]) -> HashSet<Uid> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    #[test]
    fn an_object_stays_while_an_owner_is_there() {
        let graph = graph([item("owner", &[], plain), item("child", &["owner"], plain)]);
        assert_eq!(decide(&graph, "child", &absent(&[])), Decision::Nothing);
    }

    #[test]
    fn an_object_whose_last_owner_is_gone_is_deleted_in_the_background() {
        let mut graph = graph([item("owner", &[], plain), item("child", &["owner"], plain)]);
        assert_eq!(graph.remove("owner"), ["child"]);
        assert_eq!(graph.owners_out_of_sight("child").len(), 1);
        let wanted = Decision::Delete(item("child", &["owner"], plain), PropagationPolicy::Background);
        assert_eq!(decide(&graph, "child", &absent(&["owner"])), wanted);
    }

    #[test]
    fn an_owner_that_the_graph_does_not_show_but_the_api_has_counts() {
        let graph = graph([item("child", &["unseen"], plain)]);
        assert_eq!(decide(&graph, "child", &absent(&[])), Decision::Nothing);
    }

    #[test]
    fn an_object_that_keeps_an_owner_loses_the_reference_to_the_others() {
        let child = item("child", &["gone", "there"], plain);
        let kept = vec![child.owners[1].clone()];
        let graph = graph([item("there", &[], plain), child.clone()]);
        assert_eq!(decide(&graph, "child", &absent(&["gone"])), Decision::SetOwners(child, kept));
    }

    #[test]
    fn an_owner_deleted_in_the_foreground_goes_after_the_tree_below_it() {
        let owner = item("owner", &[], ending(FOREGROUND));
        let (child, leaf) = (item("child", &["owner"], plain), item("leaf", &["child"], plain));
        let mut graph = graph([leaf.clone(), child.clone()]);
        assert_eq!(graph.set(owner.clone()), ["owner"]);
        assert_eq!(decide(&graph, "owner", &absent(&[])), Decision::LookAt(vec!["child".to_owned()]));
        assert_eq!(decide(&graph, "child", &absent(&[])), Decision::Delete(child, PropagationPolicy::Foreground));
        graph.set(item("child", &["owner"], ending(FOREGROUND)));
        assert_eq!(decide(&graph, "leaf", &absent(&[])), Decision::Delete(leaf, PropagationPolicy::Background));
        assert_eq!(graph.remove("leaf"), ["child"], "which waits for it");
        assert!(matches!(decide(&graph, "child", &absent(&[])), Decision::Release(_, FOREGROUND)));
        assert_eq!(graph.remove("child"), ["owner"]);
        assert_eq!(decide(&graph, "owner", &absent(&[])), Decision::Release(owner, FOREGROUND));
    }

    #[test]
    fn dependents_that_do_not_block_are_not_waited_for() {
        let child =
            item("child", &["owner"], |metadata| metadata["ownerReferences"][0]["blockOwnerDeletion"] = json!(false));
        let owner = item("owner", &[], ending(FOREGROUND));
        let graph = graph([owner.clone(), child]);
        assert_eq!(decide(&graph, "owner", &absent(&[])), Decision::Release(owner, FOREGROUND));
    }

    #[test]
    fn orphans_lose_their_owner_before_it_goes() {
        let owner = item("owner", &[], ending(ORPHAN));
        let child = item("child", &["owner", "other"], plain);
        let kept = vec![child.owners[1].clone()];
        let graph = graph([owner.clone(), child.clone()]);
        let wanted = Decision::Orphan { owner, dependents: vec![(child, kept)] };
        assert_eq!(decide(&graph, "owner", &absent(&[])), wanted);
    }

    #[test]
    fn a_kind_that_is_not_served_any_more_takes_its_objects_with_it() {
        let mut graph = graph([item("owner", &[], plain), item("child", &["owner"], plain)]);
        let resource = item("owner", &[], plain).resource;
        graph.remove_kind(&resource);
        assert!(graph.item("owner").is_none() && graph.item("child").is_none());
    }
}
