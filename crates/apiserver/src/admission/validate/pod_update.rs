//! What of a pod can still be changed: next to nothing.

use serde_json::Value;

use super::super::{
    FieldError,
    tree::{copy, list},
};

const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn validate(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    for field in ["containers", "initContainers"] {
        if list(&old["spec"][field]).len() != list(&new["spec"][field]).len() {
            let message = if field == "containers" {
                "pod updates may not add or remove containers"
            } else {
                "pod updates may not add or remove init containers"
            };
            errors.push(FieldError::forbidden(format!("spec.{field}"), message));
            return;
        }
    }
    validate_tolerations(&old["spec"]["tolerations"], &new["spec"]["tolerations"], errors);
    validate_deadline(&old["spec"]["activeDeadlineSeconds"], &new["spec"]["activeDeadlineSeconds"], errors);
    if let Some(field) = first_difference(&old["spec"], &masked(old, new)) {
        errors.push(FieldError::forbidden("spec", format!("{UPDATABLE}; changed here: `spec{field}`")));
    }
}

/// The new spec with everything that may change as it was.
fn masked(old: &Value, new: &Value) -> Value {
    let mut spec = new["spec"].clone();
    for field in ["containers", "initContainers"] {
        let before = list(&old["spec"][field]);
        let Some(Value::Array(containers)) = spec.get_mut(field) else { continue };
        for (container, before) in containers.iter_mut().zip(before) {
            if let Some(container) = container.as_object_mut() {
                copy(before, container, "image");
            }
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        for field in ["activeDeadlineSeconds", "tolerations", "ephemeralContainers", "schedulingGates"] {
            copy(&old["spec"], spec, field);
        }
        // A binding is written as a change of the pod. Once bound, a pod stays on its node.
        if old["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
            copy(&old["spec"], spec, "nodeName");
        }
        let grace = &old["spec"]["terminationGracePeriodSeconds"];
        if grace.as_i64().is_some_and(|seconds| seconds < 0) && new["spec"]["terminationGracePeriodSeconds"] == 1 {
            copy(&old["spec"], spec, "terminationGracePeriodSeconds");
        }
    }
    spec
}

fn validate_tolerations(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(toleration) = toleration.as_object_mut() {
            toleration.shift_remove("tolerationSeconds");
        }
        toleration
    };
    let kept: Vec<Value> = list(new).iter().map(without_seconds).collect();
    if !list(old).iter().all(|toleration| kept.contains(&without_seconds(toleration))) {
        let message = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", message));
    }
}

fn validate_deadline(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let field = "spec.activeDeadlineSeconds";
    match (old.as_i64(), new.as_i64()) {
        (Some(old), Some(new)) if new > old => {
            errors.push(FieldError::invalid(field, new, "must be less than or equal to previous value"));
        }
        (Some(_), None) => {
            errors.push(FieldError::invalid(
                field,
                new.clone(),
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

/// Where two values differ first, as a path. A field that is null and one that is missing are the same.
fn first_difference(old: &Value, new: &Value) -> Option<String> {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            names.into_iter().find_map(|name| Some(format!(".{name}{}", first_difference(&old[name], &new[name])?)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.into_iter().find_map(|(i, (a, b))| Some(format!("[{i}]{}", first_difference(a, b)?)))
        }
        _ if old == new => None,
        _ => Some(String::new()),
    }
}
