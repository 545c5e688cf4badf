//! Who a pod is, as its object says.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::ResourceExt;
use podnet_flow::{PodIdentity, names::Owner};

/// Labels that tell more of a controller's doing than of the pod, which are left out where nobody says which ones are wanted.
const UNINTERESTING: [&str; 5] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];

/// When its node took it in, or else when it was made.
pub(super) fn began(pod: &Pod) -> Option<Timestamp> {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    started.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

/// Whether a label is wanted, of these where there are any (`AgentConfig::flow_labels`).
fn is_of_interest(key: &str, wanted: &[String]) -> bool {
    let is_meant = |wanted: &String| match wanted.strip_suffix('*') {
        Some(beginning) => key.starts_with(beginning),
        None => key == wanted,
    };
    if wanted.is_empty() { !UNINTERESTING.contains(&key) } else { wanted.iter().any(is_meant) }
}

/// Who a pod is, with the labels that are wanted, and its addresses; none of those that have none of their own, or no more.
pub(super) fn identity(pod: &Pod, wanted: &[String]) -> Option<(PodIdentity, Vec<IpAddr>)> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if spec.host_network == Some(true) || is_over {
        return None;
    }
    let addrs = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
    let labels: BTreeMap<Arc<str>, Arc<str>> = pod
        .labels()
        .iter()
        .filter(|(key, _)| is_of_interest(key, wanted))
        .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
        .collect();
    let identity = PodIdentity {
        namespace: pod.metadata.namespace.as_deref()?.into(),
        name: pod.metadata.name.as_deref()?.into(),
        uid: pod.metadata.uid.as_deref()?.into(),
        node: spec.node_name.as_deref()?.into(),
        labels,
        owner: owner(pod),
        service_account: spec.service_account_name.as_deref().map(Arc::from),
    };
    Some((identity, addrs))
}

/// A ReplicaSet is named after its Deployment, with the pods' hash behind it.
fn owner(pod: &Pod) -> Option<Owner> {
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let hash = pod.labels().get("pod-template-hash").map(|hash| format!("-{hash}"));
    let deployment =
        hash.and_then(|hash| controller.name.strip_suffix(&hash)).filter(|_| controller.kind == "ReplicaSet");
    Some(match deployment {
        Some(name) => Owner { kind: "Deployment".into(), name: name.into() },
        None => Owner { kind: controller.kind.as_str().into(), name: controller.name.as_str().into() },
    })
}
