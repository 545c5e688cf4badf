//! What pods have beside the verbs of all kinds: binding to a node, and eviction.

use serde_json::{Value, json};

use super::{Api, DeleteOptions, Part, Place, Saved, WriteOptions, now};
use crate::errors::ApiError;

impl Api {
    /// Binds a pod to the node that a Binding names.
    pub async fn bind(&self, at: &Place<'_>, binding: &Value, options: WriteOptions) -> Result<Saved, ApiError> {
        let node = binding["target"]["name"].as_str().unwrap_or_default();
        if node.is_empty() {
            return Err(ApiError::bad_request("Binding: target.name: Required value"));
        }
        let uid = binding["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty());
        let bound = |current: &Value| {
            check_bindable(at, current, node, uid)?;
            let mut pod = current.clone();
            pod["spec"]["nodeName"] = Value::from(node);
            Ok(pod)
        };
        let saved = self.modify(at, Part::Main, options, false, bound).await?;
        if options.dry_run {
            return Ok(saved);
        }
        self.modify(at, Part::Status, options, false, |pod| Ok(scheduled(pod))).await
    }

    /// Deletes a pod as its Eviction asks. Disruption budgets are not kept.
    pub async fn evict(&self, at: &Place<'_>, eviction: &Value, dry_run: bool) -> Result<(), ApiError> {
        let mut options = DeleteOptions::parse(&eviction["deleteOptions"], |_| None)?;
        options.dry_run |= dry_run;
        self.delete(at, &options).await.map(|_| ())
    }
}

fn check_bindable(at: &Place<'_>, pod: &Value, node: &str, uid: Option<&str>) -> Result<(), ApiError> {
    if uid.is_some_and(|uid| pod["metadata"]["uid"] != uid) {
        return Err(ApiError::conflict(at.resource, at.name, "the binding is for a pod with another uid"));
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        let why = format!("pod {} is being deleted, cannot be assigned to a host", at.name);
        return Err(ApiError::conflict(at.resource, at.name, &why));
    }
    match pod["spec"]["nodeName"].as_str() {
        Some(bound) if !bound.is_empty() => {
            let why = format!("pod {} is already assigned to node \"{bound}\" (wanted: \"{node}\")", at.name);
            Err(ApiError::conflict(at.resource, at.name, &why))
        }
        _ => Ok(()),
    }
}

/// The pod with its condition `PodScheduled` true.
fn scheduled(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions
        .push(json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now() }));
    pod["status"]["conditions"] = Value::from(conditions);
    pod
}
