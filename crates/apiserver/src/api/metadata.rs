//! The parts of `metadata` that are the server's.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::admission::FieldError;
use crate::errors::ApiError;
use crate::registry::Resource;

/// Letters of generated names: no vowels, and no digits that look like them, so that no words come out.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Characters of a generated suffix.
const SUFFIX: usize = 5;

/// Longest name that a suffix is appended to (253 characters are the limit of names, but 63 that of what becomes a label).
const MAX_PREFIX: usize = 63 - SUFFIX;

/// The object's metadata; made when missing.
pub(super) fn metadata_mut(object: &mut Value) -> Result<&mut Map<String, Value>, ApiError> {
    let fields = object.as_object_mut().ok_or_else(|| ApiError::bad_request("the body has to be an object"))?;
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    metadata.as_object_mut().ok_or_else(|| ApiError::bad_request("metadata has to be an object"))
}

/// Checks that a body is of the resource's kind, as far as it says.
pub(super) fn check_type(resource: &Resource, body: &Value) -> Result<(), ApiError> {
    let expected = resource.api_version();
    if let Some(version) = body["apiVersion"].as_str().filter(|version| !version.is_empty() && *version != expected) {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    match body["kind"].as_str() {
        Some(kind) if !kind.is_empty() && kind != resource.kind => Err(ApiError::bad_request(format!(
            "the kind in the data ({kind}) does not match the expected kind ({})",
            resource.kind
        ))),
        _ => Ok(()),
    }
}

/// Makes the metadata of a body that of a new object: name and namespace settled, uid and times set.
pub(super) fn begin(resource: &Resource, object: &mut Value, namespace: &str, now: &str) -> Result<(), ApiError> {
    let metadata = metadata_mut(object)?;
    check_namespace(metadata, namespace)?;
    if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|version| !version.is_empty()) {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    for field in ["selfLink", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        metadata.shift_remove(field);
    }
    let named = metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    let prefix = metadata.get("generateName").and_then(Value::as_str).map(str::to_owned).unwrap_or_default();
    if !named {
        if prefix.is_empty() {
            let cause = FieldError::required("metadata.name", "name or generateName is required");
            return Err(ApiError::invalid(&resource.group, &resource.kind, "", &[cause]));
        }
        metadata.insert("name".to_owned(), Value::from(generated_name(&prefix)));
    }
    if resource.namespaced {
        metadata.insert("namespace".to_owned(), Value::from(namespace));
    } else {
        metadata.shift_remove("namespace");
    }
    metadata.insert("uid".to_owned(), Value::from(Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), Value::from(now));
    Ok(())
}

/// Checks that a changed object is still the one at its place, and drops what is not kept.
pub(super) fn keep_identity(at: &super::Place<'_>, old: &Value, new: &mut Value) -> Result<(), ApiError> {
    let metadata = metadata_mut(new)?;
    check_namespace(metadata, at.namespace)?;
    for field in ["selfLink", "managedFields"] {
        metadata.shift_remove(field);
    }
    let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default();
    if !name.is_empty() && name != at.name {
        let url = at.name;
        let why = format!("the name of the object ({name}) does not match the name on the URL ({url})");
        return Err(ApiError::bad_request(why));
    }
    metadata.insert("name".to_owned(), Value::from(at.name));
    if at.resource.namespaced {
        metadata.insert("namespace".to_owned(), Value::from(at.namespace));
    }
    let (uid, stored) = (metadata.get("uid").and_then(Value::as_str), old["metadata"]["uid"].as_str());
    match uid.filter(|uid| !uid.is_empty()) {
        Some(uid) if Some(uid) != stored => {
            let stored = stored.unwrap_or_default();
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}");
            Err(ApiError::conflict(at.resource, at.name, &why))
        }
        _ => Ok(()),
    }
}

fn check_namespace(metadata: &Map<String, Value>, namespace: &str) -> Result<(), ApiError> {
    match metadata.get("namespace").and_then(Value::as_str) {
        Some(said) if !said.is_empty() && said != namespace => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        _ => Ok(()),
    }
}

/// The finalizers of an object.
pub(super) fn finalizers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether a deletion of the object was begun.
pub(super) fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Whether nothing keeps an object whose deletion was begun.
pub(super) fn may_go(object: &Value) -> bool {
    let graceless = object["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0;
    // Only namespaces have finalizers in their spec.
    let kept = object["kind"] == "Namespace" && object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    is_deleting(object) && graceless && !kept && finalizers(object).is_empty()
}

/// Whether the kind counts changes of its desired state.
pub(super) fn counts_generations(resource: &Resource) -> bool {
    resource.custom.is_some()
        || matches!(resource.group.as_str(), "apps" | "apiextensions.k8s.io" | "discovery.k8s.io" | "networking.k8s.io")
}

/// A prefix with a random suffix.
fn generated_name(prefix: &str) -> String {
    let prefix: String = prefix.chars().take(MAX_PREFIX).collect();
    let random = Uuid::new_v4();
    let letter = |byte: &u8| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]);
    // The first bytes of a version 4 UUID are all random.
    let suffix: String = random.as_bytes().iter().take(SUFFIX).map(letter).collect();
    format!("{prefix}{suffix}")
}
