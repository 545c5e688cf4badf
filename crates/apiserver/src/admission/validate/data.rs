//! ConfigMaps, Secrets, events and leases.

use serde_json::Value;

use super::{
    super::{
        FieldError,
        names::config_key,
        tree::{entries, text},
    },
    immutable,
};

/// All data of a ConfigMap or Secret together, in bytes.
const DATA_MAX: usize = 1024 * 1024;

pub(super) fn validate_config_map(map: &Value, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for (key, value) in entries(&map["data"]) {
        let field = format!("data[{key}]");
        validate_key(&field, key, errors);
        if map["binaryData"].get(key).is_some() {
            errors.push(FieldError::invalid(field, key.as_str(), "duplicate of key present in binaryData"));
        }
        size += text(value).len();
    }
    for (key, value) in entries(&map["binaryData"]) {
        validate_key(&format!("binaryData[{key}]"), key, errors);
        size += decoded_len(text(value));
    }
    if size > DATA_MAX {
        errors.push(FieldError::too_long("", DATA_MAX));
    }
}

pub(super) fn validate_secret(secret: &Value, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for (key, value) in entries(&secret["data"]) {
        validate_key(&format!("data[{key}]"), key, errors);
        size += decoded_len(text(value));
    }
    if size > DATA_MAX {
        errors.push(FieldError::too_long("data", DATA_MAX));
    }
    let required: &[&str] = match text(&secret["type"]) {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required.iter().filter(|key| secret["data"].get(**key).is_none()) {
        errors.push(FieldError::required(format!("data[{key}]"), ""));
    }
}

fn validate_key(field: &str, key: &str, errors: &mut Vec<FieldError>) {
    if let Err(message) = config_key(key) {
        errors.push(FieldError::invalid(field, key, message));
    }
}

/// How many bytes a base64 text stands for.
fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// An immutable ConfigMap or Secret stays what it is, and a Secret's type does in any case.
pub(super) fn validate_change(kind: &str, old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    if kind == "Secret" {
        immutable("type", &old["type"], &new["type"], errors);
    }
    if old["immutable"] != true {
        return;
    }
    let message = "field is immutable when `immutable` is set";
    for field in ["immutable", "data", "binaryData"] {
        let empty = |value: &Value| entries(value).next().is_none();
        let same = old[field] == new[field] || (field != "immutable" && empty(&old[field]) && empty(&new[field]));
        if !same {
            errors.push(FieldError::forbidden(field, message));
        }
    }
}

pub(super) fn validate_event(event: &Value, errors: &mut Vec<FieldError>) {
    let about = &event["involvedObject"]["namespace"];
    let own = text(&event["metadata"]["namespace"]);
    let about = text(about);
    // Events about objects without a namespace are kept in the default one.
    let fits = if about.is_empty() { matches!(own, "" | "default" | "kube-system") } else { about == own };
    if !fits {
        errors.push(FieldError::invalid("involvedObject.namespace", about, "does not match event.namespace"));
    }
}

pub(super) fn validate_lease(lease: &Value, errors: &mut Vec<FieldError>) {
    let spec = &lease["spec"];
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        errors.push(FieldError::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
    }
    super::not_negative("spec.leaseTransitions", &spec["leaseTransitions"], errors);
}
