//! What a node's agent tells the cluster about the node and its pods.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use podnet_model::{
    Dual, Family, NodeName, PodKey,
    convert::{IPV4_ADDRESS, IPV6_ADDRESS},
    crd::StickyAddress,
    pod::StickyOwner,
};
use serde_json::json;
use tokio::time::sleep;
use tracing::info;

/// Publishes the node's own address of each family with its prefix length, by which peers know who shares a subnet with them, and that
/// the network of the node is up (condition `NetworkUnavailable`, `node-status.md` of the Kubernetes documentation).
///
/// # Errors
///
/// When the API server cannot be reached or the Node object does not exist yet.
pub async fn publish_network(
    client: &Client,
    node: &NodeName,
    addresses: Dual<Option<IpNet>>,
) -> Result<(), kube::Error> {
    let nodes = Api::<Node>::all(client.clone());
    let [v4, v6] = [addresses.v4, addresses.v6].map(|address| address.map(|address| address.to_string()));
    let annotations = json!({"metadata": {"annotations": {IPV4_ADDRESS: v4, IPV6_ADDRESS: v6}}});
    nodes.patch(node.as_str(), &PatchParams::default(), &Patch::Merge(annotations)).await?;
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let condition = json!({"status": {"conditions": [{
        "type": "NetworkUnavailable", "status": "False", "reason": "PodnetIsUp", "message": "podnet is running on this node",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    }]}});
    nodes.patch_status(node.as_str(), &PatchParams::default(), &Patch::Strategic(condition)).await?;
    Ok(())
}

/// Writes annotations of the node's object, and removes those without a value.
///
/// # Errors
///
/// When the API server cannot be reached or the Node object does not exist yet.
pub async fn publish_annotations(
    client: &Client,
    node: &NodeName,
    annotations: &BTreeMap<&str, Option<String>>,
) -> Result<(), kube::Error> {
    let nodes = Api::<Node>::all(client.clone());
    let patch = json!({"metadata": {"annotations": annotations}});
    nodes.patch(node.as_str(), &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
}

/// The node's first `InternalIP` of each family. One is awaited for as long as it takes.
pub async fn internal_ips(client: &Client, node: &NodeName) -> Dual<Option<IpAddr>> {
    const PAUSE: Duration = Duration::from_millis(500);
    let nodes = Api::<Node>::all(client.clone());
    loop {
        match nodes.get(node.as_str()).await {
            Ok(object) => {
                let addresses = object.status.and_then(|status| status.addresses).unwrap_or_default();
                let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
                let internal: Vec<IpAddr> = internal.filter_map(|address| address.address.parse().ok()).collect();
                if !internal.is_empty() {
                    return Dual::from_fn(|family| internal.iter().find(|addr| Family::of(addr) == family).copied());
                }
                info!(%node, "the node has no InternalIP yet; it is waited for");
            }
            Err(error) => {
                info!(%node, error = &error as &dyn std::error::Error, "the node's InternalIP is not known yet");
            }
        }
        sleep(PAUSE).await;
    }
}

/// Publishes a pod's addresses in the annotations that Calico's tools read (`cni.projectcalico.org/podIP` and `podIPs`). The uid makes
/// sure that it is still that pod.
///
/// # Errors
///
/// When the API server cannot be reached; a pod that is gone is no error.
pub async fn publish_pod_address(
    client: &Client,
    pod: &PodKey,
    uid: &str,
    addrs: &[IpAddr],
) -> Result<(), kube::Error> {
    let texts: Vec<String> = addrs.iter().map(|addr| IpNet::from(*addr).to_string()).collect();
    let mut patch = json!({"metadata": {"annotations": {
        "cni.projectcalico.org/podIP": texts.first().cloned().unwrap_or_default(),
        "cni.projectcalico.org/podIPs": texts.join(","),
    }}});
    if !uid.is_empty() {
        patch["metadata"]["uid"] = uid.into();
    }
    let pods = Api::<Pod>::namespaced(client.clone(), pod.namespace.as_str());
    match pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Keeps a pod's addresses for the next pod of its name.
///
/// # Errors
///
/// When the API server cannot be reached or refuses.
pub async fn publish_sticky_address(
    client: &Client,
    pod: &PodKey,
    owner: &StickyOwner,
    addrs: &[IpAddr],
) -> Result<(), kube::Error> {
    let api = Api::<StickyAddress>::namespaced(client.clone(), pod.namespace.as_str());
    let mut object = StickyAddress::of(pod, owner, addrs);
    match api.get_opt(&pod.name).await? {
        Some(found) if found.spec == object.spec && found.owner_references() == object.owner_references() => Ok(()),
        Some(found) => {
            object.metadata.resource_version = found.metadata.resource_version;
            api.replace(&pod.name, &PostParams::default(), &object).await.map(|_| ())
        }
        None => api.create(&PostParams::default(), &object).await.map(|_| ()),
    }
}
