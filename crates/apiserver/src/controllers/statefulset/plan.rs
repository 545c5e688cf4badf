//! Which pod comes or goes next: decided from what is there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus},
        core::v1::Pod,
    },
    jiff::Timestamp,
};

use super::pod::{REVISION, parts};
use crate::controllers::pods::{self, Availability};

/// What to do for a StatefulSet.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// In this order.
    pub(super) actions: Vec<Action>,
    /// When a pod will have been ready for long enough.
    pub(super) wake: Option<Duration>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Make the pod of this number, of the set's template or of the one before it.
    Create {
        /// The number.
        ordinal: i32,
        /// Of the set's template.
        updated: bool,
    },
    /// Let the pod go.
    Delete(Arc<Pod>),
}

/// Decides from the set, the pods that it owns, and the names of the revision that pods had and of the one that they shall have.
///
/// Pods come up from the lowest number, each once those before it are there; those that are too many go from the highest, one at a
/// time; and when all are well, those of an older template are replaced from the highest down to the partition. With the policy
/// `Parallel` the first two do not wait.
pub(super) fn plan(set: &StatefulSet, owned: &[Arc<Pod>], (current, update): (&str, &str), now: Timestamp) -> Plan {
    let Some(spec) = &set.spec else { return Plan { actions: Vec::new(), wake: None } };
    let view = View { spec, update, now, pods: by_ordinal(owned) };
    let wake = view.pods.values().filter_map(|pod| view.until_available(pod)).min();
    let actions = view.missing(current).or_else(|| view.surplus()).or_else(|| view.outdated()).unwrap_or_default();
    Plan { actions, wake }
}

struct View<'a> {
    spec: &'a StatefulSetSpec,
    update: &'a str,
    now: Timestamp,
    pods: BTreeMap<i32, &'a Arc<Pod>>,
}

impl View<'_> {
    /// What is to be done for pods that are not there or not well. None where all are, so that others may go.
    fn missing(&self, current: &str) -> Option<Vec<Action>> {
        let mut actions = Vec::new();
        for ordinal in wanted(self.spec) {
            let step = match self.pods.get(&ordinal) {
                None => Some(Action::Create { ordinal, updated: current == self.update || self.is_updated(ordinal) }),
                // It is made anew under its name when it is gone.
                Some(pod) if pods::is_finished(pod) && !pods::is_terminating(pod) => {
                    Some(Action::Delete((*pod).clone()))
                }
                Some(pod) if self.is_well(pod) => continue,
                Some(_) => None,
            };
            // One that never gets well by its old template would hold up the template that mends it.
            let there = self.pods.get(&ordinal).filter(|_| self.is_outdated(ordinal));
            let hopeless = || there.map(|pod| Action::Delete((*pod).clone()));
            actions.extend(step.or_else(hopeless));
            if self.is_ordered() {
                return Some(actions);
            }
        }
        (!actions.is_empty()).then_some(actions)
    }

    /// Whether the pod of this number is to be replaced by one of the set's template.
    fn is_outdated(&self, ordinal: i32) -> bool {
        let old = |pod: &&Arc<Pod>| !pods::is_terminating(pod) && revision(pod) != Some(self.update);
        self.replaces() && self.is_updated(ordinal) && self.pods.get(&ordinal).is_some_and(old)
    }

    /// The highest of those that are too many; all of them where they do not wait for each other.
    fn surplus(&self) -> Option<Vec<Action>> {
        let numbers = wanted(self.spec);
        let surplus: Vec<_> = self.pods.iter().filter(|(ordinal, _)| !numbers.contains(ordinal)).rev().collect();
        if surplus.is_empty() {
            return None;
        }
        let leaving = surplus.iter().any(|(_, pod)| pods::is_terminating(pod));
        let staying = surplus.iter().filter(|(_, pod)| !pods::is_terminating(pod));
        let at_once = if !self.is_ordered() {
            usize::MAX
        } else if leaving {
            0
        } else {
            1
        };
        Some(staying.take(at_once).map(|(_, pod)| Action::Delete((**pod).clone())).collect())
    }

    /// The highest that is of an older template, once all above it are well.
    fn outdated(&self) -> Option<Vec<Action>> {
        if !self.replaces() {
            return None;
        }
        for ordinal in wanted(self.spec).rev().filter(|ordinal| self.is_updated(*ordinal)) {
            let pod = self.pods.get(&ordinal)?;
            if self.is_outdated(ordinal) {
                return Some(vec![Action::Delete((*pod).clone())]);
            }
            if !self.is_well(pod) {
                return None;
            }
        }
        None
    }

    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    /// Whether pods are replaced for their template's sake.
    fn replaces(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        strategy != Some("OnDelete")
    }

    /// Whether the pod of this number is to be of the set's template.
    fn is_updated(&self, ordinal: i32) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        let partition = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition).unwrap_or_default();
        !self.replaces() || ordinal >= first(self.spec).saturating_add(partition)
    }

    fn is_well(&self, pod: &Pod) -> bool {
        pods::is_active(pod) && self.availability(pod) == Availability::Available
    }

    fn availability(&self, pod: &Pod) -> Availability {
        pods::availability(pod, self.spec.min_ready_seconds.unwrap_or_default(), self.now)
    }

    fn until_available(&self, pod: &Pod) -> Option<Duration> {
        match self.availability(pod) {
            Availability::In(time) => Some(time),
            Availability::Available | Availability::No => None,
        }
    }
}

/// What the set's status should say.
pub(super) fn status(
    set: &StatefulSet,
    owned: &[Arc<Pod>],
    (current, update): (&str, &str),
    now: Timestamp,
) -> StatefulSetStatus {
    let count =
        |test: &dyn Fn(&Pod) -> bool| i32::try_from(owned.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX);
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default();
    let replicas = count(&|pod| !pods::is_finished(pod));
    let ready = count(&|pod| pods::is_active(pod) && pods::is_ready(pod));
    let available =
        |pod: &Pod| pods::is_active(pod) && pods::availability(pod, min_ready, now) == Availability::Available;
    let of = |wanted: &str| count(&|pod| pods::is_active(pod) && revision(pod) == Some(wanted));
    let updated = of(update);
    let wanted = set.spec.as_ref().map_or(0, |spec| wanted(spec).len());
    // All are of the new template, and well: what was new is what there is.
    let is_done = usize::try_from(updated) == Ok(wanted) && replicas == updated && ready == updated;
    let current = if is_done { update } else { current };
    StatefulSetStatus {
        replicas,
        ready_replicas: Some(ready),
        available_replicas: Some(count(&available)),
        current_replicas: Some(of(current)),
        updated_replicas: Some(updated),
        current_revision: Some(current.to_owned()),
        update_revision: Some(update.to_owned()),
        observed_generation: set.metadata.generation,
        collision_count: Some(0),
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    }
}

fn by_ordinal(owned: &[Arc<Pod>]) -> BTreeMap<i32, &Arc<Pod>> {
    owned.iter().filter_map(|pod| Some((parts(pod)?.1, pod))).collect()
}

fn revision(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(REVISION).map(String::as_str)
}

fn first(spec: &StatefulSetSpec) -> i32 {
    spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default()
}

fn wanted(spec: &StatefulSetSpec) -> std::ops::Range<i32> {
    first(spec)..first(spec).saturating_add(spec.replicas.unwrap_or(1).max(0))
}

#[cfg(test)]
mod tests;
