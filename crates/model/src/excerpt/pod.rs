//! Pod.

use k8s_openapi::{
    api::core::v1 as api,
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
};
use serde::{Deserialize, Deserializer};

use super::metadata::{All, Metadata};

/// A Pod: who it is, where it is and how it looks names up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// The object; what is left out of it is absent.
    pub object: api::Pod,
}

/// All annotations are read: which of them ask for something is IPAM's and the limits' affair.
#[derive(Deserialize)]
struct Read {
    metadata: Option<Metadata<All, All, Vec<OwnerReference>>>,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    host_network: Option<bool>,
    service_account_name: Option<String>,
    dns_policy: Option<String>,
    dns_config: Option<api::PodDNSConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<api::PodIP>>,
    start_time: Option<Time>,
}

impl From<Spec> for api::PodSpec {
    fn from(spec: Spec) -> Self {
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

impl From<Status> for api::PodStatus {
    fn from(status: Status) -> Self {
        Self { phase: status.phase, pod_ips: status.pod_ips, start_time: status.start_time, ..Self::default() }
    }
}

impl<'de> Deserialize<'de> for Pod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { metadata, spec, status } = Read::deserialize(deserializer)?;
        let (mut metadata, owner_references) = metadata.map(Metadata::into_parts).unwrap_or_default();
        metadata.owner_references = owner_references;
        Ok(Self { object: api::Pod { metadata, spec: spec.map(Into::into), status: status.map(Into::into) } })
    }
}
