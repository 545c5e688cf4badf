//! `metadata`, which every kind has.

use serde_json::Value;

use super::{
    super::{
        FieldError,
        names::{NameRule, qualified_name},
        tree::{entries, list, text},
    },
    immutable, labels, named,
};

/// All annotations of an object together, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

pub(super) fn validate(group: &str, kind: &str, object: &Value, errors: &mut Vec<FieldError>) {
    let metadata = &object["metadata"];
    let rule = NameRule::of(group, kind);
    match (text(&metadata["name"]), text(&metadata["generateName"])) {
        ("", "") => errors.push(FieldError::required("metadata.name", "name or generateName is required")),
        // A prefix may end as no name may: something is appended.
        ("", prefix) => {
            if let Err(message) = rule.check(&format!("{prefix}x")) {
                errors.push(FieldError::invalid("metadata.generateName", prefix, message));
            }
        }
        (name, _) => {
            if let Err(message) = rule.check(name) {
                errors.push(FieldError::invalid("metadata.name", name, message));
            }
        }
    }
    if let Some(namespace) = metadata["namespace"].as_str().filter(|namespace| !namespace.is_empty()) {
        named("metadata.namespace", namespace, super::super::names::label, errors);
    }
    validate_template(metadata, "metadata", errors);
    for (i, finalizer) in list(&metadata["finalizers"]).iter().enumerate() {
        named(&format!("metadata.finalizers[{i}]"), text(finalizer), qualified_name, errors);
    }
    validate_owners(metadata, errors);
}

/// Labels and annotations, which templates have too.
pub(super) fn validate_template(metadata: &Value, at: &str, errors: &mut Vec<FieldError>) {
    labels(&format!("{at}.labels"), &metadata["labels"], errors);
    let field = format!("{at}.annotations");
    let mut size = 0;
    for (key, value) in entries(&metadata["annotations"]) {
        // Annotation keys are case-insensitive in the prefix, unlike those of labels.
        if let Err(message) = qualified_name(&key.to_ascii_lowercase()) {
            errors.push(FieldError::invalid(field.as_str(), key.as_str(), message));
        }
        size += key.len() + text(value).len();
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(field, ANNOTATIONS_MAX));
    }
}

fn validate_owners(metadata: &Value, errors: &mut Vec<FieldError>) {
    let mut controllers = 0;
    for (i, owner) in list(&metadata["ownerReferences"]).iter().enumerate() {
        let at = format!("metadata.ownerReferences[{i}]");
        for (field, message) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(&owner[field]).is_empty() {
                errors.push(FieldError::invalid(format!("{at}.{field}"), text(&owner[field]), message));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let message = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid("metadata.ownerReferences", metadata["ownerReferences"].clone(), message));
    }
}

/// Metadata that cannot change.
pub(super) fn validate_change(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        let (old, new) = (&old["metadata"][field], &new["metadata"][field]);
        if !old.is_null() {
            immutable(&format!("metadata.{field}"), old, new, errors);
        }
    }
}
