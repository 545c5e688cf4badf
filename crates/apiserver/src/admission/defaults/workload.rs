//! Kinds that make pods from a template.

use serde_json::{Value, json};

use super::{
    super::tree::{Object, object_at, set_default, set_default_text},
    pod::default_spec,
};

pub(super) fn default_deployment(deployment: &mut Object) {
    let Some(spec) = with_template(deployment) else { return };
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    let Some(strategy) = object_at(spec, "strategy") else { return };
    set_default_text(strategy, "type", "RollingUpdate");
    if is(strategy, "RollingUpdate")
        && let Some(rolling) = object_at(strategy, "rollingUpdate")
    {
        set_default(rolling, "maxUnavailable", "25%");
        set_default(rolling, "maxSurge", "25%");
    }
}

pub(super) fn default_replica_set(set: &mut Object) {
    if let Some(spec) = with_template(set) {
        set_default(spec, "replicas", 1);
    }
}

pub(super) fn default_stateful_set(set: &mut Object) {
    let Some(spec) = with_template(set) else { return };
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default_text(spec, "podManagementPolicy", "OrderedReady");
    set_default(
        spec,
        "persistentVolumeClaimRetentionPolicy",
        json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }),
    );
    let Some(strategy) = object_at(spec, "updateStrategy") else { return };
    set_default_text(strategy, "type", "RollingUpdate");
    if is(strategy, "RollingUpdate")
        && let Some(rolling) = object_at(strategy, "rollingUpdate")
    {
        set_default(rolling, "partition", 0);
    }
}

pub(super) fn default_daemon_set(set: &mut Object) {
    let Some(spec) = with_template(set) else { return };
    set_default(spec, "revisionHistoryLimit", 10);
    let Some(strategy) = object_at(spec, "updateStrategy") else { return };
    set_default_text(strategy, "type", "RollingUpdate");
    if is(strategy, "RollingUpdate")
        && let Some(rolling) = object_at(strategy, "rollingUpdate")
    {
        set_default(rolling, "maxUnavailable", 1);
        set_default(rolling, "maxSurge", 0);
    }
}

pub(super) fn default_job(job: &mut Object) {
    let Some(spec) = with_template(job) else { return };
    let unset = |field: &str| spec.get(field).is_none_or(Value::is_null);
    // A job with a parallelism alone is a work queue: it has no number of completions.
    if unset("completions") && unset("parallelism") {
        set_default(spec, "completions", 1);
    }
    set_default(spec, "parallelism", 1);
    set_default(spec, "backoffLimit", 6);
    set_default_text(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    set_default_text(spec, "podReplacementPolicy", replacement);
}

/// The workload's spec, its template's spec filled.
fn with_template(workload: &mut Object) -> Option<&mut Object> {
    let spec = object_at(workload, "spec")?;
    if let Some(Value::Object(template)) = spec.get_mut("template")
        && let Some(Value::Object(pod)) = template.get_mut("spec")
    {
        default_spec(pod);
    }
    Some(spec)
}

fn is(strategy: &Object, kind: &str) -> bool {
    strategy.get("type").is_some_and(|known| known == kind)
}
