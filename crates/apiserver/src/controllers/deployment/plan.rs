//! What has to change for a Deployment, decided from its ReplicaSets.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec},
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
    jiff::Timestamp,
};
use kube::api::ObjectMeta;

use super::{
    members::{HASH_LABEL, Member},
    rollout::{self, Limits},
    status::{self, Progress},
};
use crate::controllers::{naming, ownership, pods};

/// The number of the template, counted up with each rollout.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Numbers that a template had before a rollback gave it a new one.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// How many pods the Deployment wanted when it last scaled the set.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// How many pods the Deployment would have had at most then.
pub(super) const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations that are the Deployment's own.
const NOT_COPIED: [&str; 5] =
    ["kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED, MAXIMUM];
/// Characters of the hash of a template.
const HASH_LENGTH: usize = 10;

/// What is known.
pub(super) struct View<'a> {
    /// The Deployment.
    pub(super) deployment: &'a Deployment,
    /// The ReplicaSets that it owns.
    pub(super) sets: &'a [Arc<ReplicaSet>],
    /// The pods of its namespace.
    pub(super) pods: &'a [Arc<Pod>],
    /// The time.
    pub(super) now: Timestamp,
}

/// What to do.
#[derive(Debug)]
pub(super) struct Plan {
    /// Changes of ReplicaSets, in this order.
    pub(super) actions: Vec<Action>,
    /// The revision that the Deployment has to be marked with, when it is another one.
    pub(super) revision: Option<String>,
    /// The Deployment's status.
    pub(super) status: DeploymentStatus,
    /// When time alone changes something.
    pub(super) wake: Option<Duration>,
}

/// One change.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// A new ReplicaSet.
    Create(Box<ReplicaSet>),
    /// Another size or other annotations.
    Update {
        /// The set as it should be.
        set: Box<ReplicaSet>,
        /// Its size before.
        from: i32,
    },
    /// An old set that nobody will go back to.
    Delete {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
}

/// The Deployment's ReplicaSets.
pub(super) struct Members {
    /// The one of the present template.
    pub(super) current: Option<Member>,
    /// The others, oldest first.
    pub(super) old: Vec<Member>,
}

/// Decides.
pub(super) fn plan(view: &View<'_>) -> Plan {
    let empty = DeploymentSpec::default();
    let spec = view.deployment.spec.as_ref().unwrap_or(&empty);
    let hash = template_hash(&spec.template);
    let mut members = sort(view, spec, &hash);
    let limits = Limits::of(spec);
    let mut progress = Progress::Unchanged;
    if view.deployment.metadata.deletion_timestamp.is_none() {
        progress = decide(view, spec, &hash, &limits, &mut members);
    }
    let (status, wake) = status::status(view.deployment, spec, &limits, &members, progress, view.now);
    let mut actions = changes(&members);
    if view.deployment.metadata.deletion_timestamp.is_none() && status::is_complete(view.deployment, spec, &status) {
        actions.extend(superfluous(spec, &members.old));
    }
    let revision = members.current.as_ref().and_then(|current| current.annotation(REVISION));
    let marked = view.deployment.metadata.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
    let revision = revision.filter(|revision| marked.map(String::as_str) != Some(revision)).map(str::to_owned);
    Plan { actions, revision, status, wake }
}

fn decide(view: &View<'_>, spec: &DeploymentSpec, hash: &str, limits: &Limits, members: &mut Members) -> Progress {
    let paused = spec.paused == Some(true);
    if paused || was_scaled(limits, members) {
        rollout::scale_proportionally(limits, members);
        mark(limits, members);
        return if paused { Progress::Paused } else { Progress::Unchanged };
    }
    let recreate = spec.strategy.as_ref().is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"));
    if recreate {
        members.old.iter_mut().for_each(|old| old.scale(0));
        if members.old.iter().any(|old| is_alive(view.pods, old)) {
            renumber(view.deployment, members);
            mark(limits, members);
            return Progress::Unchanged;
        }
    }
    let mut progress = Progress::Unchanged;
    if members.current.is_none() {
        let new = Member::new(new_set(view.deployment, spec, hash));
        progress = Progress::Created(new.name().to_owned());
        members.current = Some(new);
    } else if status::is_first_sight(view.deployment) {
        progress = Progress::Found;
    }
    renumber(view.deployment, members);
    if recreate {
        if let Some(current) = &mut members.current {
            current.scale(limits.desired);
        }
    } else {
        rollout::roll(limits, members);
    }
    mark(limits, members);
    progress
}

fn sort(view: &View<'_>, spec: &DeploymentSpec, hash: &str) -> Members {
    let mut old: Vec<_> = view.sets.iter().map(Member::existing).collect();
    old.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
    // Where several fit (which only another controller could have made), the oldest is it.
    let current = old.iter().position(|member| member.is_of(&spec.template, hash)).map(|at| old.remove(at));
    Members { current, old }
}

/// Whether the Deployment's size changed since its sets were last sized: then sizes are mended before any rollout goes on.
fn was_scaled(limits: &Limits, members: &Members) -> bool {
    let all = members.old.iter().chain(&members.current);
    all.filter(|member| member.replicas() > 0)
        .filter_map(|member| member.number(DESIRED))
        .any(|desired| desired != i64::from(limits.desired))
}

/// Whether a set still has pods whose containers may run.
fn is_alive(all: &[Arc<Pod>], member: &Member) -> bool {
    let uid = member.set.metadata.uid.as_deref().unwrap_or_default();
    all.iter().any(|pod| ownership::is_controlled_by(&**pod, uid) && !pods::is_finished(pod))
}

/// Gives the current set the highest revision, and the Deployment's annotations.
fn renumber(deployment: &Deployment, members: &mut Members) {
    let highest = members.old.iter().filter_map(|old| old.number(REVISION)).max().unwrap_or_default();
    let Some(current) = &mut members.current else { return };
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            current.annotate(key, value);
        }
    }
    let own = current.number(REVISION).unwrap_or_default();
    if own > highest {
        return;
    }
    if own > 0 {
        let history = current.annotation(REVISION_HISTORY).filter(|history| !history.is_empty());
        let history = history.map_or_else(|| own.to_string(), |history| format!("{history},{own}"));
        current.annotate(REVISION_HISTORY, &history);
    }
    current.annotate(REVISION, &(highest + 1));
}

/// Remembers for which size of the Deployment the sets were sized.
fn mark(limits: &Limits, members: &mut Members) {
    let current = members.current.iter_mut();
    for member in members.old.iter_mut().filter(|old| old.replicas() > 0).chain(current) {
        member.annotate(DESIRED, &limits.desired);
        member.annotate(MAXIMUM, &limits.maximum());
    }
}

/// A ReplicaSet for the Deployment's template. Its name follows from the template, so that none is ever made twice.
fn new_set(deployment: &Deployment, spec: &DeploymentSpec, hash: &str) -> ReplicaSet {
    let with_hash = |labels: Option<&BTreeMap<String, String>>| {
        let mut labels = labels.cloned().unwrap_or_default();
        labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
        labels
    };
    let mut template = spec.template.clone();
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels = Some(with_hash(metadata.labels.as_ref()));
    let labels = metadata.labels.clone();
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            owner_references: Some(vec![ownership::reference_to(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector: LabelSelector {
                match_labels: Some(with_hash(spec.selector.match_labels.as_ref())),
                match_expressions: spec.selector.match_expressions.clone(),
            },
            template: Some(template),
        }),
        status: None,
    }
}

/// A text that is the same for the same template.
fn template_hash(template: &PodTemplateSpec) -> String {
    // Maps are sorted and fields have a fixed order, so the same template is the same text. It cannot fail to become one.
    let text = serde_json::to_vec(template).unwrap_or_default();
    naming::hash(&[&text], HASH_LENGTH)
}

/// What differs between the sets as they are and as they should be. Those that grow come first.
fn changes(members: &Members) -> Vec<Action> {
    let mut actions = Vec::new();
    for member in members.current.iter().chain(&members.old) {
        match &member.before {
            None => actions.push(Action::Create(Box::new(member.set.clone()))),
            Some(before) if **before != member.set => {
                let from = super::members::replicas(before);
                actions.push(Action::Update { set: Box::new(member.set.clone()), from });
            }
            Some(_) => {}
        }
    }
    actions.sort_by_key(|action| match action {
        Action::Update { set, from } => super::members::replicas(set) < *from,
        _ => false,
    });
    actions
}

/// Old sets beyond those that a rollback may want.
fn superfluous(spec: &DeploymentSpec, old: &[Member]) -> Vec<Action> {
    let kept = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or_default();
    let is_idle = |member: &&Member| {
        let status = member.set.status.as_ref();
        member.replicas() == 0
            && member.before.as_ref().is_some_and(|before| super::members::replicas(before) == 0)
            && member.set.metadata.deletion_timestamp.is_none()
            && status.is_some_and(|status| status.replicas == 0)
            && status.and_then(|status| status.observed_generation) >= member.set.metadata.generation
    };
    let mut idle: Vec<_> = old.iter().filter(is_idle).collect();
    idle.sort_by_key(|member| Reverse(member.number(REVISION)));
    let deleted = idle.into_iter().skip(kept).filter_map(|member| {
        Some(Action::Delete { name: member.name().to_owned(), uid: member.set.metadata.uid.clone()? })
    });
    deleted.collect()
}

#[cfg(test)]
mod tests;
