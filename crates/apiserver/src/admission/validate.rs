//! Is an object one that the cluster can work with? Rules and wording are the Kubernetes API's.
//!
//! Objects are validated after defaulting. Values of a wrong type are `decode_check`'s to report and count as missing here.

mod containers;
mod data;
mod metadata;
mod network;
mod pod;
mod pod_update;
mod service;
mod workload;

use serde_json::Value;

use super::{FieldError, tree};

/// What is wrong with a new object.
pub fn validate_create(group: &str, kind: &str, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata::validate(group, kind, object, &mut errors);
    validate_kind(group, kind, object, &mut errors);
    errors
}

/// What is wrong with a changed object, or with the change.
pub fn validate_update(group: &str, kind: &str, old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata::validate(group, kind, new, &mut errors);
    metadata::validate_change(old, new, &mut errors);
    validate_kind(group, kind, new, &mut errors);
    match (group, kind) {
        ("", "Pod") => pod_update::validate(old, new, &mut errors),
        ("", "Service") => service::validate_change(old, new, &mut errors),
        ("", "ConfigMap" | "Secret") => data::validate_change(kind, old, new, &mut errors),
        ("", "Node") => network::validate_node_change(old, new, &mut errors),
        ("discovery.k8s.io", "EndpointSlice") => {
            immutable("addressType", &old["addressType"], &new["addressType"], &mut errors);
        }
        ("apps", _) => workload::validate_change(kind, old, new, &mut errors),
        _ => {}
    }
    errors
}

fn validate_kind(group: &str, kind: &str, object: &Value, errors: &mut Vec<FieldError>) {
    match (group, kind) {
        ("", "Pod") => pod::validate(object, errors),
        ("", "Service") => service::validate(object, errors),
        ("", "ConfigMap") => data::validate_config_map(object, errors),
        ("", "Secret") => data::validate_secret(object, errors),
        ("", "Event") => data::validate_event(object, errors),
        ("", "Node") => network::validate_node(object, errors),
        ("", "Endpoints") => network::validate_endpoints(object, errors),
        ("discovery.k8s.io", "EndpointSlice") => network::validate_endpoint_slice(object, errors),
        ("coordination.k8s.io", "Lease") => data::validate_lease(object, errors),
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet") => workload::validate(kind, object, errors),
        ("batch", "Job") => workload::validate_job(object, errors),
        _ => {}
    }
}

const MUST_BE_PORT: &str = "must be between 1 and 65535, inclusive";
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// One of the words, where anything is set.
fn one_of(field: &str, value: &Value, supported: &[&str], errors: &mut Vec<FieldError>) {
    if let Some(word) = value.as_str()
        && !supported.contains(&word)
    {
        errors.push(FieldError::not_supported(field, word, supported));
    }
}

/// A text that a check of `names` accepts.
fn named(field: &str, value: &str, check: fn(&str) -> Result<(), String>, errors: &mut Vec<FieldError>) {
    if let Err(message) = check(value) {
        errors.push(FieldError::invalid(field, value, message));
    }
}

/// A port's number.
fn port_number(field: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if let Some(number) = value.as_i64()
        && !(1..=65535).contains(&number)
    {
        errors.push(FieldError::invalid(field, number, MUST_BE_PORT));
    }
}

/// A port's number or name.
fn port_reference(field: &str, value: &Value, errors: &mut Vec<FieldError>) {
    port_number(field, value, errors);
    if let Some(name) = value.as_str() {
        named(field, name, super::names::port_name, errors);
    }
}

/// A number that is not below 0.
fn not_negative(field: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if let Some(number) = value.as_i64().filter(|number| *number < 0) {
        errors.push(FieldError::invalid(field, number, NOT_NEGATIVE));
    }
}

/// A field that cannot change.
fn immutable(field: &str, old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    if old != new {
        errors.push(FieldError::invalid(field, new.clone(), "field is immutable"));
    }
}

/// Labels, as metadata and selectors have them.
fn labels(field: &str, labels: &Value, errors: &mut Vec<FieldError>) {
    for (key, value) in tree::entries(labels) {
        named(field, key, super::names::qualified_name, errors);
        if let Some(value) = value.as_str() {
            named(field, value, super::names::label_value, errors);
        }
    }
}
