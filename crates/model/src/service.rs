//! A Service as the planner and the DNS read it.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{ClusterIp, NodePort, PortName, Protocol, ServiceKey, ServicePort, labels::Labels};

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
    /// `spec.externalIPs`: addresses that somebody leads to the nodes.
    pub external_ips: Vec<IpAddr>,
    /// What a load balancer gave it; none but for type `LoadBalancer`.
    pub ingress: Vec<Ingress>,
    /// `spec.loadBalancerClass` names a controller that is not podnet: what it gives is its own affair.
    pub is_anothers: bool,
    /// What a load balancer is called that gave it a name rather than an address.
    pub ingress_names: Vec<Arc<str>>,
    /// `spec.loadBalancerSourceRanges`: who may come by an address of the load balancer; everybody where there is none.
    pub source_ranges: Vec<IpNet>,
    /// `spec.sessionAffinity: ClientIP`, with its timeout in seconds.
    pub affinity: Option<u32>,
    /// `spec.internalTrafficPolicy`.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`; of types `NodePort` and `LoadBalancer`, and where there are external addresses.
    pub external_policy: TrafficPolicy,
    /// `spec.healthCheckNodePort`: where each node says how many endpoints it has, for a load balancer that asks.
    pub health_check: Option<NodePort>,
    /// `spec.trafficDistribution`, which EndpointSlices' hints follow.
    pub traffic_distribution: Option<Arc<str>>,
    /// The label `service.kubernetes.io/service-proxy-name`: another program proxies it.
    pub proxy: Option<Arc<str>>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// When it was made (`metadata.creationTimestamp`), in seconds since 1970; 0 where that is not known. Of two Services that ask for the
    /// same address and port the older one has it.
    pub created: u32,
}

impl Service {
    /// One that asks for nothing special.
    #[must_use]
    pub fn new(key: ServiceKey, kind: ServiceKind, ports: Vec<Port>) -> Self {
        Self {
            key,
            kind,
            ports,
            publish_not_ready: false,
            external_ips: Vec::new(),
            ingress: Vec::new(),
            is_anothers: false,
            ingress_names: Vec::new(),
            source_ranges: Vec::new(),
            affinity: None,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            health_check: None,
            traffic_distribution: None,
            proxy: None,
            labels: Labels::default(),
            created: 0,
        }
    }
}

/// Which endpoints take part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All.
    #[default]
    Cluster,
    /// Those of the node that the connection comes to.
    Local,
}

/// An address of a load balancer (`status.loadBalancer.ingress[]`; one that is a name is nothing to a node).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// `ip`.
    pub addr: IpAddr,
    /// `ipMode` is `Proxy`: what comes to the nodes is addressed to them and not to this address, and what they send there has to go
    /// through the load balancer.
    pub is_proxy: bool,
}

/// How a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Virtual addresses (`ClusterIP`, `NodePort` and `LoadBalancer` Services): at least one. A Service that was imported from other
    /// clusters may have none yet.
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
