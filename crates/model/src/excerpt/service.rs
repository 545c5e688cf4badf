//! Service.

use k8s_openapi::api::core::v1 as api;
use serde::{Deserialize, Deserializer};

use super::metadata::{All, Choice, Metadata};
use crate::convert::RANGES_ANNOTATION;

/// A Service: how it is reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// The object; what is left out of it is absent.
    pub object: api::Service,
}

struct Annotations;

impl Choice for Annotations {
    fn is_read(key: &str) -> bool {
        key == RANGES_ANNOTATION
    }
}

#[derive(Deserialize)]
struct Read {
    metadata: Option<Metadata<All, Annotations>>,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "type")]
    type_: Option<String>,
    external_name: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    ports: Option<Vec<api::ServicePort>>,
    publish_not_ready_addresses: Option<bool>,
    load_balancer_class: Option<String>,
    load_balancer_source_ranges: Option<Vec<String>>,
    session_affinity: Option<String>,
    session_affinity_config: Option<api::SessionAffinityConfig>,
    internal_traffic_policy: Option<String>,
    external_traffic_policy: Option<String>,
    health_check_node_port: Option<i32>,
    traffic_distribution: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    load_balancer: Option<api::LoadBalancerStatus>,
}

impl From<Spec> for api::ServiceSpec {
    fn from(spec: Spec) -> Self {
        Self {
            type_: spec.type_,
            external_name: spec.external_name,
            cluster_ip: spec.cluster_ip,
            cluster_ips: spec.cluster_ips,
            external_ips: spec.external_ips,
            ports: spec.ports,
            publish_not_ready_addresses: spec.publish_not_ready_addresses,
            load_balancer_class: spec.load_balancer_class,
            load_balancer_source_ranges: spec.load_balancer_source_ranges,
            session_affinity: spec.session_affinity,
            session_affinity_config: spec.session_affinity_config,
            internal_traffic_policy: spec.internal_traffic_policy,
            external_traffic_policy: spec.external_traffic_policy,
            health_check_node_port: spec.health_check_node_port,
            traffic_distribution: spec.traffic_distribution,
            ..Self::default()
        }
    }
}

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { metadata, spec, status } = Read::deserialize(deserializer)?;
        let (metadata, _) = metadata.map(Metadata::into_parts).unwrap_or_default();
        let status = status.map(|Status { load_balancer }| api::ServiceStatus { load_balancer, conditions: None });
        Ok(Self { object: api::Service { metadata, spec: spec.map(Into::into), status } })
    }
}
