//! What a Deployment reports: the numbers and the conditions that `kubectl rollout status` and `kubectl wait` read.

use std::time::Duration;

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use super::{members::Member, plan::Members, rollout::Limits};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
/// The rollout is finished.
const DONE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// What this look at the Deployment did for its progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing in itself; the numbers tell.
    Unchanged,
    /// A ReplicaSet for the template is being created.
    Created(String),
    /// The template had a ReplicaSet already.
    Found,
    /// Nothing, because nothing may happen.
    Paused,
}

/// The status, and when it has to be looked at again because a deadline passes.
pub(super) fn status(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    limits: &Limits,
    members: &Members,
    progress: Progress,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = numbers(deployment, members);
    let mut conditions = before.conditions.clone().unwrap_or_default();
    let available = status.available_replicas.unwrap_or_default() >= limits.minimum();
    set(&mut conditions, now, availability(available));
    // Numbers of pods that a set will be told to have by this very plan are not in its status yet.
    let name = members.current.as_ref().map(|current| current.name().to_owned()).unwrap_or_default();
    let wake = if spec.progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX) {
        report_progress(deployment, spec, &before, &status, &mut conditions, progress, &name, now)
    } else {
        conditions.retain(|condition| condition.type_ != PROGRESSING);
        None
    };
    report_failures(&mut conditions, members);
    status.conditions = (!conditions.is_empty()).then_some(conditions);
    (status, wake)
}

/// Whether the template has no condition of progress yet.
pub(super) fn is_first_sight(deployment: &Deployment) -> bool {
    let conditions = deployment.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    find(conditions, PROGRESSING).is_none()
}

/// Whether every wanted pod is of the current template and available, and no other is left.
pub(super) fn is_complete(deployment: &Deployment, spec: &DeploymentSpec, status: &DeploymentStatus) -> bool {
    let desired = Some(spec.replicas.unwrap_or(1)).filter(|desired| *desired != 0);
    status.updated_replicas == desired
        && status.replicas == desired
        && status.available_replicas == desired
        && status.observed_generation >= deployment.metadata.generation
}

fn numbers(deployment: &Deployment, members: &Members) -> DeploymentStatus {
    let all = || members.old.iter().chain(&members.current);
    let replicas: i32 = all().map(|member| member.observed(|status| Some(status.replicas))).sum();
    let available: i32 = all().map(|member| member.observed(|status| status.available_replicas)).sum();
    let wanted: i32 = all().map(Member::replicas).sum();
    let updated = members.current.as_ref().map(|current| current.observed(|status| Some(status.replicas)));
    let counted = |count: i32| (count > 0).then_some(count);
    DeploymentStatus {
        replicas: counted(replicas),
        updated_replicas: updated.and_then(counted),
        ready_replicas: counted(all().map(|member| member.observed(|status| status.ready_replicas)).sum()),
        available_replicas: counted(available),
        unavailable_replicas: counted(wanted - available),
        observed_generation: deployment.metadata.generation,
        collision_count: deployment.status.as_ref().and_then(|status| status.collision_count),
        conditions: None,
        terminating_replicas: None,
    }
}

struct New {
    type_: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

fn availability(available: bool) -> New {
    let (status, reason, message) = if available {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    New { type_: AVAILABLE, status, reason, message: message.to_owned() }
}

#[allow(clippy::too_many_arguments, reason = "the inputs of one decision, each used once")]
fn report_progress(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    conditions: &mut Vec<DeploymentCondition>,
    progress: Progress,
    set_name: &str,
    now: Timestamp,
) -> Option<Duration> {
    let new = |status, reason, message| New { type_: PROGRESSING, status, reason, message };
    match progress {
        Progress::Paused => {
            set(conditions, now, new("Unknown", "DeploymentPaused", "Deployment is paused".to_owned()));
            return None;
        }
        Progress::Created(name) => {
            set(conditions, now, new("True", "NewReplicaSetCreated", format!("Created new replica set \"{name}\"")));
        }
        Progress::Found => {
            let message = format!("Found new replica set \"{set_name}\"");
            set(conditions, now, new("True", "FoundNewReplicaSet", message));
        }
        Progress::Unchanged => {
            if find(conditions, PROGRESSING).is_some_and(|known| known.reason.as_deref() == Some("DeploymentPaused")) {
                set(conditions, now, new("Unknown", "DeploymentResumed", "Deployment is resumed".to_owned()));
            }
        }
    }
    let known = find(conditions, PROGRESSING).cloned();
    let was_done = known.as_ref().is_some_and(|known| known.reason.as_deref() == Some(DONE));
    if was_done && status.replicas == status.updated_replicas {
        return None;
    }
    if is_complete(deployment, spec, status) {
        let message = format!("ReplicaSet \"{set_name}\" has successfully progressed.");
        set(conditions, now, new("True", DONE, message));
        return None;
    }
    if has_moved(before, status) {
        let message = format!("ReplicaSet \"{set_name}\" is progressing.");
        // Each move starts the deadline anew, which is what the time of the update tells.
        renew(conditions, now, new("True", "ReplicaSetUpdated", message));
    }
    let deadline = Duration::from_secs(u64::try_from(spec.progress_deadline_seconds?).unwrap_or_default());
    let known = find(conditions, PROGRESSING)?;
    if known.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let passed = known.last_update_time.as_ref().map_or(SignedDuration::ZERO, |at| now.duration_since(at.0));
    match deadline.checked_sub(Duration::try_from(passed).unwrap_or_default()) {
        Some(left) if !left.is_zero() => Some(left),
        _ => {
            let message = format!("ReplicaSet \"{set_name}\" has timed out progressing.");
            set(conditions, now, new("False", TIMED_OUT, message));
            None
        }
    }
}

fn has_moved(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let number = |number: Option<i32>| number.unwrap_or_default();
    let outdated = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(now.updated_replicas) > number(before.updated_replicas)
        || outdated(now) < outdated(before)
        || number(now.ready_replicas) > number(before.ready_replicas)
        || number(now.available_replicas) > number(before.available_replicas)
}

/// The failure of a ReplicaSet to make pods is the Deployment's own.
fn report_failures(conditions: &mut Vec<DeploymentCondition>, members: &Members) {
    const TYPE: &str = "ReplicaFailure";
    conditions.retain(|condition| condition.type_ != TYPE);
    let failed = members.current.iter().chain(&members.old).find_map(|member| {
        member.set.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == TYPE)
    });
    conditions.extend(failed.map(|failed| DeploymentCondition {
        type_: failed.type_.clone(),
        status: failed.status.clone(),
        reason: failed.reason.clone(),
        message: failed.message.clone(),
        last_transition_time: failed.last_transition_time.clone(),
        last_update_time: failed.last_transition_time.clone(),
    }));
}

fn find<'a>(conditions: &'a [DeploymentCondition], type_: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Sets a condition unless it says the same already.
fn set(conditions: &mut Vec<DeploymentCondition>, now: Timestamp, new: New) {
    let same = find(conditions, new.type_)
        .is_some_and(|known| known.status == new.status && known.reason.as_deref() == Some(new.reason));
    if !same {
        renew(conditions, now, new);
    }
}

/// Sets a condition. The time of its transition stays where its status stays.
fn renew(conditions: &mut Vec<DeploymentCondition>, now: Timestamp, new: New) {
    let known = conditions.iter().position(|condition| condition.type_ == new.type_).map(|at| conditions.remove(at));
    let since = known.filter(|known| known.status == new.status).and_then(|known| known.last_transition_time);
    conditions.push(DeploymentCondition {
        type_: new.type_.to_owned(),
        status: new.status.to_owned(),
        reason: Some(new.reason.to_owned()),
        message: Some(new.message),
        last_update_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    });
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}
