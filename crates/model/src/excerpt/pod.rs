//! Pod. The API's type has room for all that may be said of one, some 2 KiB; this one is handed on from step to step by the hundred thousand.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1 as api,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use serde::{Deserialize, Deserializer};

use super::metadata::{All, Metadata};
use crate::labels::Labels;

/// A Pod: who it is, where it is and how it looks names up. What the API's traits show of its metadata is without labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    pub(crate) metadata: ObjectMeta,
    /// Shared with what is made of it.
    pub(crate) labels: Labels,
    pub(crate) spec: Option<PodSpec>,
    pub(crate) status: Option<PodStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub(crate) node_name: Option<String>,
    pub(crate) host_network: Option<bool>,
    pub(crate) service_account_name: Option<String>,
    pub(crate) dns_policy: Option<String>,
    pub(crate) dns_config: Option<api::PodDNSConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodStatus {
    pub(crate) phase: Option<String>,
    #[serde(rename = "podIPs")]
    pub(crate) pod_ips: Option<Vec<api::PodIP>>,
    pub(crate) start_time: Option<Time>,
}

/// All annotations are read: which of them ask for something is IPAM's and the limits' affair.
#[derive(Deserialize)]
struct Read {
    metadata: Option<Metadata<All, All, Vec<OwnerReference>>>,
    spec: Option<PodSpec>,
    status: Option<PodStatus>,
}

impl Pod {
    fn new(mut metadata: ObjectMeta, spec: Option<PodSpec>, status: Option<PodStatus>) -> Self {
        let labels = Arc::new(metadata.labels.take().unwrap_or_default());
        Self { metadata, labels, spec, status }
    }
}

impl<'de> Deserialize<'de> for Pod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { metadata, spec, status } = Read::deserialize(deserializer)?;
        let (mut metadata, owner_references) = metadata.map(Metadata::into_parts).unwrap_or_default();
        metadata.owner_references = owner_references;
        Ok(Self::new(metadata, spec, status))
    }
}

impl From<&api::Pod> for Pod {
    fn from(pod: &api::Pod) -> Self {
        let (spec, status) = (pod.spec.as_ref().map(PodSpec::from), pod.status.as_ref().map(PodStatus::from));
        Self::new(pod.metadata.clone(), spec, status)
    }
}

impl From<&api::PodSpec> for PodSpec {
    fn from(spec: &api::PodSpec) -> Self {
        Self {
            node_name: spec.node_name.clone(),
            host_network: spec.host_network,
            service_account_name: spec.service_account_name.clone(),
            dns_policy: spec.dns_policy.clone(),
            dns_config: spec.dns_config.clone(),
        }
    }
}

impl From<&api::PodStatus> for PodStatus {
    fn from(status: &api::PodStatus) -> Self {
        Self { phase: status.phase.clone(), pod_ips: status.pod_ips.clone(), start_time: status.start_time.clone() }
    }
}

/// What is left out is absent.
impl From<Pod> for api::Pod {
    fn from(pod: Pod) -> Self {
        let Pod { mut metadata, labels, spec, status } = pod;
        metadata.labels = (!labels.is_empty()).then(|| Arc::unwrap_or_clone(labels));
        Self { metadata, spec: spec.map(Into::into), status: status.map(Into::into) }
    }
}

impl From<PodSpec> for api::PodSpec {
    fn from(spec: PodSpec) -> Self {
        Self {
            node_name: spec.node_name,
            host_network: spec.host_network,
            service_account_name: spec.service_account_name,
            dns_policy: spec.dns_policy,
            dns_config: spec.dns_config,
            ..Self::default()
        }
    }
}

impl From<PodStatus> for api::PodStatus {
    fn from(status: PodStatus) -> Self {
        Self { phase: status.phase, pod_ips: status.pod_ips, start_time: status.start_time, ..Self::default() }
    }
}
