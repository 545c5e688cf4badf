//! CustomResourceDefinition objects themselves: completed, checked, established.

use serde_json::{Value, json};

use super::Schema;
use crate::admission::FieldError;

/// Keeps a definition until the objects of its kind are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Fills in the names and settings that a definition may leave out.
pub fn complete(definition: &mut Value) {
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.entry("conversion").or_insert_with(|| json!({ "strategy": "None" }));
    let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) else { return };
    let Some(kind) = names.get("kind").and_then(Value::as_str).map(str::to_owned) else { return };
    for (field, default) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        let value = names.entry(field).or_insert(Value::Null);
        if value.as_str().is_none_or(str::is_empty) {
            *value = Value::from(default);
        }
    }
}

/// What is wrong with a definition.
pub fn check(definition: &Value, is_builtin_group: impl Fn(&str) -> bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &definition["spec"];
    let group = required(spec, "spec.group", "group", &mut errors);
    let plural = required(&spec["names"], "spec.names.plural", "plural", &mut errors);
    required(&spec["names"], "spec.names.kind", "kind", &mut errors);
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    if name != format!("{plural}.{group}") {
        errors.push(FieldError::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    if is_builtin_group(&group) {
        errors.push(FieldError::invalid("spec.group", group, "belongs to the server itself"));
    }
    if !matches!(spec["scope"].as_str(), Some("Namespaced" | "Cluster")) {
        errors.push(FieldError::not_supported("spec.scope", spec["scope"].clone(), &["Cluster", "Namespaced"]));
    }
    if spec["conversion"]["strategy"] != "None" {
        let strategy = spec["conversion"]["strategy"].clone();
        errors.push(FieldError::not_supported("spec.conversion.strategy", strategy, &["None"]));
    }
    check_versions(&spec["versions"], &mut errors);
    errors
}

fn required(object: &Value, path: &str, field: &str, errors: &mut Vec<FieldError>) -> String {
    let text = object[field].as_str().unwrap_or_default();
    if text.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    text.to_owned()
}

fn check_versions(versions: &Value, errors: &mut Vec<FieldError>) {
    let versions = versions.as_array().map(Vec::as_slice).unwrap_or_default();
    let stored = versions.iter().filter(|version| version["storage"] == true).count();
    if stored != 1 {
        let rule = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", Value::from(versions.to_vec()), rule));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        required(version, &format!("{path}.name"), "name", errors);
        if let Err(faults) = Schema::parse(&version["schema"]["openAPIV3Schema"]) {
            let moved = |fault: FieldError| FieldError { field: format!("{path}.schema.{}", fault.field), ..fault };
            errors.extend(faults.into_iter().map(moved));
        }
    }
}

/// Sets the status of a definition: its names are accepted unless one of `others` in its group has them already, and then it is
/// established.
pub fn establish(definition: &mut Value, others: &[&Value], now: &str) {
    let conflict = others.iter().find_map(|other| name_conflict(definition, other));
    let accepted = conflict.is_none();
    let conditions = match conflict {
        None => json!([
            condition("NamesAccepted", true, "NoConflicts", "no conflicts found", now),
            condition("Established", true, "InitialNamesAccepted", "the initial names have been accepted", now),
        ]),
        Some(message) => json!([
            condition("NamesAccepted", false, "MultipleNamesConflict", &message, now),
            condition("Established", false, "NotAccepted", "not all names are accepted", now),
        ]),
    };
    let mut stored: Vec<Value> = definition["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let storage = versions.filter(|version| version["storage"] == true).map(|version| version["name"].clone());
    for version in storage.collect::<Vec<_>>() {
        if !stored.contains(&version) {
            stored.push(version);
        }
    }
    let names =
        if accepted { definition["spec"]["names"].clone() } else { definition["status"]["acceptedNames"].clone() };
    let previous = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let conditions = keep_times(conditions, &previous);
    definition["status"] = json!({ "conditions": conditions, "acceptedNames": names, "storedVersions": stored });
}

/// Whether objects of the definition are served.
pub fn is_established(definition: &Value) -> bool {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

fn condition(kind: &str, holds: bool, reason: &str, message: &str, now: &str) -> Value {
    let status = if holds { "True" } else { "False" };
    json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now })
}

/// A condition that says what it said before keeps its time; those of other types (Terminating) stay.
fn keep_times(conditions: Value, previous: &[Value]) -> Vec<Value> {
    let Value::Array(mut conditions) = conditions else { return Vec::new() };
    for condition in &mut conditions {
        let before =
            previous.iter().find(|old| old["type"] == condition["type"] && old["status"] == condition["status"]);
        if let Some(before) = before {
            condition["lastTransitionTime"] = before["lastTransitionTime"].clone();
        }
    }
    let others = previous.iter().filter(|old| !conditions.iter().any(|new| new["type"] == old["type"]));
    let others: Vec<_> = others.cloned().collect();
    conditions.extend(others);
    conditions
}

/// The name that two definitions of one group both claim.
fn name_conflict(definition: &Value, other: &Value) -> Option<String> {
    let same = |field: &str| definition["spec"][field] == other["spec"][field];
    if !same("group") || definition["metadata"]["name"] == other["metadata"]["name"] {
        return None;
    }
    let claims = |definition: &Value| -> Vec<String> {
        let names = &definition["spec"]["names"];
        let single = ["plural", "singular"].into_iter().filter_map(|field| names[field].as_str().map(str::to_owned));
        single.chain(super::texts(&names["shortNames"])).collect()
    };
    let taken = claims(other);
    let name = claims(definition).into_iter().find(|name| taken.contains(name))?;
    Some(format!("{name:?} is already in use"))
}
