//! Objects as a client sends them, and what is wrong with them as text.
#![allow(clippy::needless_pass_by_value, reason = "the objects are literals at the call")]

use serde_json::{Value, json};

use crate::admission::{default_object, validate_create, validate_update};

/// A pod of one container.
pub(super) fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "nginx:1.27"}]},
    })
}

/// A deployment of one container.
pub(super) fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}},
        },
    })
}

/// A Service of one port.
pub(super) fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
}

/// The object with one field set to another value (null removes it), by JSON pointer; what is missing on the way is made.
pub(super) fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let mut at = &mut object;
    for part in pointer.split('/').skip(1).map(|part| part.replace("~1", "/")) {
        at = match (part.parse::<usize>(), at.is_array()) {
            (Ok(i), true) => &mut at[i],
            _ => &mut at[part.as_str()],
        };
    }
    *at = value;
    object
}

/// The object as it is stored.
pub(super) fn defaulted(group: &str, kind: &str, mut object: Value) -> Value {
    default_object(group, kind, &mut object);
    object
}

/// What is wrong with a new object once it has its defaults.
pub(super) fn refusals(group: &str, kind: &str, object: Value) -> Vec<String> {
    let errors = validate_create(group, kind, &defaulted(group, kind, object));
    errors.iter().map(ToString::to_string).collect()
}

/// What is wrong with a change.
pub(super) fn change_refusals(group: &str, kind: &str, old: Value, new: Value) -> Vec<String> {
    let errors = validate_update(group, kind, &defaulted(group, kind, old), &defaulted(group, kind, new));
    errors.iter().map(ToString::to_string).collect()
}
