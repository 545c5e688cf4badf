//! Events: what people see in `kubectl describe`.

use k8s_openapi::api::core::v1::Event;
use kube::{Api, Client, api::PostParams};
use podnet_model::{NodeName, PodKey};
use serde_json::json;

/// Who tells.
const COMPONENT: &str = "podnet-agent";

/// Tells what is wrong with a pod, which is given by its name and its uid. `reason` is one word in camel case.
///
/// # Errors
///
/// When the API server cannot be reached or refuses.
pub async fn warn_of_pod(
    client: &Client,
    node: &NodeName,
    (pod, uid): (&PodKey, &str),
    reason: &str,
    message: &str,
) -> Result<(), kube::Error> {
    let now = chrono::Utc::now();
    let time = now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let event: Event = serde_json::from_value(json!({
        "metadata": {
            "name": format!("{}.{:x}", pod.name, now.timestamp_micros()),
            "namespace": pod.namespace.as_str(),
        },
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "name": &*pod.name, "namespace": pod.namespace.as_str(), "uid": uid,
        },
        "type": "Warning", "reason": reason, "message": message, "count": 1,
        "source": {"component": COMPONENT, "host": node.as_str()},
        "reportingComponent": COMPONENT, "reportingInstance": node.as_str(),
        "firstTimestamp": time, "lastTimestamp": time,
    }))
    .map_err(kube::Error::SerdeError)?;
    Api::<Event>::namespaced(client.clone(), pod.namespace.as_str()).create(&PostParams::default(), &event).await?;
    Ok(())
}
