//! The values that fields have which nobody set: the ones that the Kubernetes API documents, since controllers and kubectl rely on
//! reading them. Applying them twice changes nothing.

mod identity;
mod pod;
mod service;
mod workload;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::tree::{Object, each, list, object_at, set_default, set_default_text};

/// Fills what is not set. For a new pod the name has to be set before: the name of the volume with its service account's token
/// is derived from it.
pub fn default_object(group: &str, kind: &str, object: &mut Value) {
    let Some(object) = object.as_object_mut() else { return };
    match (group, kind) {
        ("", "Pod") => pod::default_pod(object),
        ("", "Service") => service::default_service(object),
        ("", "Namespace") => default_namespace(object),
        ("", "Secret") => default_secret(object),
        ("", "Node") => default_node(object),
        ("", "Endpoints") => {
            for subset in each(object, "subsets") {
                for port in each(subset, "ports") {
                    set_default_text(port, "protocol", "TCP");
                }
            }
        }
        ("discovery.k8s.io", "EndpointSlice") => default_endpoint_slice(object),
        ("apps", "Deployment") => workload::default_deployment(object),
        ("apps", "ReplicaSet") => workload::default_replica_set(object),
        ("apps", "StatefulSet") => workload::default_stateful_set(object),
        ("apps", "DaemonSet") => workload::default_daemon_set(object),
        ("batch", "Job") => workload::default_job(object),
        ("networking.k8s.io", "NetworkPolicy") => default_network_policy(object),
        _ => {}
    }
}

fn default_namespace(namespace: &mut Object) {
    if let Some(status) = object_at(namespace, "status") {
        set_default_text(status, "phase", "Active");
    }
    if let Some(metadata) = object_at(namespace, "metadata")
        && let Some(name) = metadata.get("name").cloned()
        && let Some(labels) = object_at(metadata, "labels")
    {
        // Namespace selectors choose a namespace by this label, so that it cannot be anything else.
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
    }
}

/// `stringData` is for writing only: its values go into `data`, encoded.
fn default_secret(secret: &mut Object) {
    set_default_text(secret, "type", "Opaque");
    let plain = match secret.get("stringData") {
        Some(Value::Object(plain)) if plain.values().all(Value::is_string) => plain.clone(),
        _ => return,
    };
    secret.shift_remove("stringData");
    if plain.is_empty() {
        return;
    }
    if let Some(data) = object_at(secret, "data") {
        for (key, value) in plain {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, encoded.into());
        }
    }
}

fn default_node(node: &mut Object) {
    let Some(status) = object_at(node, "status") else { return };
    if let Some(capacity) = status.get("capacity").cloned() {
        set_default(status, "allocatable", capacity);
    }
}

fn default_endpoint_slice(slice: &mut Object) {
    for port in each(slice, "ports") {
        set_default(port, "name", "");
        set_default_text(port, "protocol", "TCP");
    }
}

fn default_network_policy(policy: &mut Object) {
    let Some(spec) = object_at(policy, "spec") else { return };
    for rules in ["ingress", "egress"] {
        for rule in each(spec, rules) {
            for port in each(rule, "ports") {
                set_default_text(port, "protocol", "TCP");
            }
        }
    }
    set_default(spec, "podSelector", Map::new());
    let egress = spec.get("egress").is_some_and(|rules| !list(rules).is_empty());
    let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    set_default(spec, "policyTypes", types);
}
