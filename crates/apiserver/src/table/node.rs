//! Nodes.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    AGE, Column, NAME, Printer, age,
    cells::{joined, list, name, or_none, text},
};

pub(super) static NODES: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status"),
        Column::text("Roles"),
        AGE,
        Column::text("Version"),
        Column::text("Internal-IP").wide(),
        Column::text("External-IP").wide(),
        Column::text("OS-Image").wide(),
        Column::text("Kernel-Version").wide(),
        Column::text("Container-Runtime").wide(),
    ],
    cells,
};

fn cells(node: &Value, now: DateTime<Utc>) -> Vec<Value> {
    let info = &node["status"]["nodeInfo"];
    let known = |field: &str| match text(&info[field]) {
        "" => json!("<unknown>"),
        value => json!(value),
    };
    vec![
        name(node),
        status(node),
        roles(node),
        age::of(node, now),
        json!(text(&info["kubeletVersion"])),
        address(node, "InternalIP"),
        address(node, "ExternalIP"),
        known("osImage"),
        known("kernelVersion"),
        known("containerRuntimeVersion"),
    ]
}

fn status(node: &Value) -> Value {
    let ready = list(&node["status"]["conditions"]).iter().find(|c| c["type"] == "Ready");
    let word = match ready.map(|condition| text(&condition["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = if node["spec"]["unschedulable"] == true { ",SchedulingDisabled" } else { "" };
    json!(format!("{word}{cordoned}"))
}

fn roles(node: &Value) -> Value {
    let labels = node["metadata"]["labels"].as_object();
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    joined(roles)
}

fn address(node: &Value, kind: &str) -> Value {
    let address = list(&node["status"]["addresses"]).iter().find(|a| a["type"] == kind);
    or_none(address.map_or("", |address| text(&address["address"])))
}
