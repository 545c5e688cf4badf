//! What clients may not decide: the parts of an object that belong to the server, to a subresource or to what was before.

use serde_json::{Map, Value, json};

use super::{
    allocate,
    tree::{copy, entries, list, object_at, set_default, text},
};

/// Removes what a client may not set on a new object, and sets what every new object of the kind has.
pub fn prepare_create(group: &str, kind: &str, object: &mut Value) {
    let quality = (group.is_empty() && kind == "Pod").then(|| quality_of_service(object));
    let Some(object) = object.as_object_mut() else { return };
    match (group, kind) {
        ("", "Pod") => {
            object.insert("status".to_owned(), json!({ "phase": "Pending", "qosClass": quality }));
        }
        ("", "Namespace") => {
            object.insert("status".to_owned(), json!({ "phase": "Active" }));
            if let Some(spec) = object_at(object, "spec") {
                // What empties the namespace before it goes; not a default, since an empty list means that it is empty.
                set_default(spec, "finalizers", json!(["kubernetes"]));
            }
        }
        ("", "Service") => {
            object.insert("status".to_owned(), json!({ "loadBalancer": {} }));
        }
        // A node registers itself together with its status.
        ("", "Node") => {}
        _ if has_status(group, kind) => {
            object.insert("status".to_owned(), Value::Object(Map::new()));
        }
        _ => {}
    }
}

/// Makes a changed object keep what a change of the main resource cannot change: the status, and the metadata that is the
/// server's. Fields that the server chose once and that the change leaves out stay as well (`spec.nodeName`, a Service's
/// addresses and node ports, a Secret's type).
pub fn prepare_update(group: &str, kind: &str, old: &Value, new: &mut Value) {
    let Some(object) = new.as_object_mut() else { return };
    keep_metadata(old, object);
    if has_status(group, kind) {
        copy(old, object, "status");
    }
    match (group, kind) {
        ("", "Service") => allocate::inherit(old, object),
        ("", "Pod") => keep_where_missing(&old["spec"], object_at(object, "spec"), &["nodeName"]),
        ("", "Node") => {
            let fields = ["podCIDR", "podCIDRs", "providerID"];
            keep_where_missing(&old["spec"], object_at(object, "spec"), &fields);
        }
        ("", "Namespace") => {
            if let Some(spec) = object_at(object, "spec") {
                // Finalizers of a namespace are changed through its `finalize` subresource.
                copy(&old["spec"], spec, "finalizers");
            }
        }
        ("", "Secret") => keep_where_missing(old, Some(object), &["type"]),
        _ => {}
    }
}

/// Makes a change through the status subresource change the status alone. Nodes and pods may also change labels and
/// annotations so: node agents write theirs in the same request.
pub fn prepare_status_update(group: &str, kind: &str, old: &Value, new: &mut Value) {
    let mut result = old.clone();
    let (Some(object), Some(changed)) = (result.as_object_mut(), new.as_object()) else { return };
    match changed.get("status") {
        Some(status) => object.insert("status".to_owned(), status.clone()),
        None => object.shift_remove("status"),
    };
    let metadata = changed.get("metadata").unwrap_or(&Value::Null);
    if let Some(kept) = object_at(object, "metadata") {
        if !metadata["resourceVersion"].is_null() {
            copy(metadata, kept, "resourceVersion");
        }
        if group.is_empty() && matches!(kind, "Node" | "Pod") {
            copy(metadata, kept, "labels");
            copy(metadata, kept, "annotations");
        }
    }
    *new = result;
}

/// Whether a change counts for `metadata.generation`: the desired state is another one.
pub fn generation_bumped(group: &str, kind: &str, old: &Value, new: &Value) -> bool {
    match (group, kind) {
        ("" | "events.k8s.io" | "coordination.k8s.io" | "rbac.authorization.k8s.io", _) => false,
        ("apps", "Deployment") => {
            old["spec"] != new["spec"] || old["metadata"]["annotations"] != new["metadata"]["annotations"]
        }
        ("discovery.k8s.io", "EndpointSlice") => {
            differs(old, new) || old["metadata"]["labels"] != new["metadata"]["labels"]
        }
        _ => differs(old, new),
    }
}

/// Whether anything but metadata and status differs.
fn differs(old: &Value, new: &Value) -> bool {
    let desired = |object: &Value| -> Map<String, Value> {
        let outside = |name: &str| matches!(name, "metadata" | "status" | "apiVersion" | "kind");
        entries(object)
            .filter(|(name, value)| !outside(name) && !value.is_null())
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect()
    };
    desired(old) != desired(new)
}

/// Built-in kinds whose status only the status subresource changes. (Custom resources say it in their definition.)
fn has_status(group: &str, kind: &str) -> bool {
    match group {
        "" => matches!(kind, "Pod" | "Node" | "Namespace" | "Service" | "PersistentVolume" | "PersistentVolumeClaim"),
        "apps" => kind != "ControllerRevision",
        "batch" => true,
        "networking.k8s.io" => kind == "Ingress",
        "policy" => kind == "PodDisruptionBudget",
        "apiextensions.k8s.io" => kind == "CustomResourceDefinition",
        _ => false,
    }
}

fn keep_metadata(old: &Value, new: &mut Map<String, Value>) {
    let Some(metadata) = object_at(new, "metadata") else { return };
    let fields = ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"];
    for field in fields {
        copy(&old["metadata"], metadata, field);
    }
    keep_where_missing(&old["metadata"], Some(metadata), &["uid", "name", "namespace", "generateName"]);
}

fn keep_where_missing(old: &Value, new: Option<&mut Map<String, Value>>, fields: &[&str]) {
    let Some(new) = new else { return };
    for field in fields {
        if new.get(*field).is_none_or(|value| value.is_null() || value == "") {
            copy(old, new, field);
        }
    }
}

/// The pod's quality of service class: Guaranteed where every container has equal requests and limits of cpu and memory,
/// BestEffort where none has any, otherwise Burstable.
fn quality_of_service(pod: &Value) -> &'static str {
    let (mut any, mut all_limited) = (false, true);
    for container in list(&pod["spec"]["containers"]).iter().chain(list(&pod["spec"]["initContainers"])) {
        let resources = &container["resources"];
        for resource in ["cpu", "memory"] {
            let (request, limit) = (&resources["requests"][resource], &resources["limits"][resource]);
            any |= !request.is_null() || !limit.is_null();
            all_limited &= !limit.is_null() && (request.is_null() || same_quantity(request, limit));
        }
    }
    match (any, all_limited) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn same_quantity(a: &Value, b: &Value) -> bool {
    a == b || super::quantity::milli(text(a)).is_some_and(|a| Some(a) == super::quantity::milli(text(b)))
}
