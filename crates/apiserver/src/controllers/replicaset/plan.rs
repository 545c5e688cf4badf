//! How many pods to create, which to delete, and what to report: decided from what is there.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::api::ObjectMeta;

use super::{deletion_order, intentions::Intended};
use crate::controllers::{
    ownership,
    pods::{self, Availability},
};

/// How many pods are created or deleted before the world is looked at again.
const BURST: usize = 500;

/// What to do for a ReplicaSet.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// How many pods to create.
    pub(super) create: usize,
    /// Which pods to delete.
    pub(super) delete: Vec<Arc<Pod>>,
    /// When a pod will have been ready for long enough.
    pub(super) wake: Option<Duration>,
}

/// Decides from the set, the pods that it owns and what was already asked for.
pub(super) fn plan(set: &ReplicaSet, owned: &[Arc<Pod>], intended: &Intended, now: Timestamp) -> Plan {
    let leaving = |pod: &Pod| pod.metadata.uid.as_ref().is_some_and(|uid| intended.deleting.contains_key(uid));
    let mut active: Vec<_> = owned.iter().filter(|pod| pods::is_active(pod) && !leaving(pod)).cloned().collect();
    let seen = |name: &String| owned.iter().any(|pod| pod.metadata.name.as_ref() == Some(name));
    let coming = intended.creating.keys().filter(|name| !seen(name)).count();
    let wanted = desired(set);
    let existing = active.len() + coming;
    // Pods that are on their way cannot be chosen; should they turn out to be too many, they are deleted once they are seen.
    let surplus = existing.saturating_sub(wanted).min(active.len());
    deletion_order::sort(&mut active);
    active.truncate(surplus.min(BURST));
    let wake = owned.iter().filter(|pod| pods::is_active(pod)).filter_map(|pod| until_available(set, pod, now)).min();
    Plan { create: wanted.saturating_sub(existing).min(BURST), delete: active, wake }
}

/// A pod of the set's template.
pub(super) fn pod(set: &ReplicaSet, name: &str) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let metadata = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            generate_name: set.metadata.name.as_ref().map(|name| format!("{name}-")),
            namespace: set.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![ownership::reference_to(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// What the set's status should say. A failure to create (true) or delete (false) pods is part of it until it is overcome.
pub(super) fn status(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    failed: Option<(bool, String)>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let spec = set.spec.as_ref();
    let template_labels = spec.and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.as_ref());
    let active: Vec<_> = owned.iter().filter(|pod| pods::is_active(pod)).collect();
    let count = |test: &dyn Fn(&Pod) -> bool| {
        let found = active.iter().filter(|pod| test(pod)).count();
        i32::try_from(found).unwrap_or(i32::MAX)
    };
    let fully_labeled = |pod: &Pod| {
        let has =
            |(key, value): (&String, &String)| pod.metadata.labels.as_ref().and_then(|own| own.get(key)) == Some(value);
        template_labels.is_none_or(|labels| labels.iter().all(has))
    };
    let available = |pod: &Pod| pods::availability(pod, min_ready_seconds(set), now) == Availability::Available;
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: some_count(count(&fully_labeled)),
        ready_replicas: some_count(count(&pods::is_ready)),
        available_replicas: some_count(count(&available)),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failed, now),
        terminating_replicas: None,
    }
}

/// Counts of nothing are left out, as Kubernetes does.
fn some_count(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// The set's conditions with the one that this controller owns, ReplicaFailure, brought up to date.
fn conditions(set: &ReplicaSet, failed: Option<(bool, String)>, now: Timestamp) -> Option<Vec<ReplicaSetCondition>> {
    const TYPE: &str = "ReplicaFailure";
    let before = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let known = before.iter().find(|condition| condition.type_ == TYPE).cloned();
    let mut conditions: Vec<_> = before.into_iter().filter(|condition| condition.type_ != TYPE).collect();
    if let Some((creating, message)) = failed {
        let reason = if creating { "FailedCreate" } else { "FailedDelete" };
        let since =
            known.filter(|known| known.reason.as_deref() == Some(reason)).and_then(|known| known.last_transition_time);
        conditions.push(ReplicaSetCondition {
            type_: TYPE.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(now))),
        });
    }
    (!conditions.is_empty()).then_some(conditions)
}

fn desired(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or_default()
}

fn min_ready_seconds(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
}

fn until_available(set: &ReplicaSet, pod: &Pod, now: Timestamp) -> Option<Duration> {
    match pods::availability(pod, min_ready_seconds(set), now) {
        Availability::In(wait) => Some(wait),
        Availability::Available | Availability::No => None,
    }
}

#[cfg(test)]
mod tests;
