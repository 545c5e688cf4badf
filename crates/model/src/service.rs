//! A Service as the planner and the DNS read it.

use std::sync::Arc;

use crate::{ClusterIp, NodePort, PortName, Protocol, ServiceKey, ServicePort};

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ServiceKey,
    /// How it is reached.
    pub kind: ServiceKind,
    /// Its ports; empty only for a headless or external one.
    pub ports: Vec<Port>,
    /// `spec.publishNotReadyAddresses`: endpoints count as ready always.
    pub publish_not_ready: bool,
}

/// How a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Virtual addresses (`ClusterIP`, `NodePort` and `LoadBalancer` Services): at least one.
    Virtual {
        /// `spec.clusterIPs`, first one first.
        cluster_ips: Vec<ClusterIp>,
    },
    /// `spec.clusterIP: None`: a name for the endpoints, and nothing to translate.
    Headless,
    /// `spec.type: ExternalName`: a CNAME.
    External {
        /// `spec.externalName`.
        name: Arc<str>,
    },
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `name`, which links it to the EndpointSlices' ports; may be empty where it is the only one.
    pub name: PortName,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`.
    pub port: ServicePort,
    /// `nodePort`, for `NodePort` and `LoadBalancer` Services.
    pub node_port: Option<NodePort>,
}
