//! EndpointSlices: the backends of Services.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::{NodeName, PodAddr, PodKey, PortName, Protocol, ServiceKey, SliceKey, TargetPort};

/// One EndpointSlice (`discovery.k8s.io/v1`) of IPv4 or IPv6 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name of the slice.
    pub key: SliceKey,
    /// The Service that it belongs to (label `kubernetes.io/service-name`).
    pub service: ServiceKey,
    /// The ports that every endpoint of this slice serves.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// When the change was made that this version of the slice tells (`endpoints.kubernetes.io/last-change-trigger-time`).
    pub triggered: Option<Timestamp>,
    /// A Service of this slice is not for nodes to proxy: the label `service.kubernetes.io/headless`, or
    /// `service.kubernetes.io/service-proxy-name`.
    pub unproxied: bool,
}

/// An EndpointSlice of a Service that other clusters of a cluster set have (KEP-1645).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedSlice {
    /// The cluster that the endpoints are in (label `multicluster.kubernetes.io/source-cluster`): a DNS label.
    pub cluster: Arc<str>,
    /// The slice; its Service is the ServiceImport (label `multicluster.kubernetes.io/service-name`).
    pub slice: EndpointSlice,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// The name of the Service port that it stands behind.
    pub name: PortName,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port at the backend.
    pub port: TargetPort,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address: the API allows several only for uses that no consumer has, and takes the first.
    pub addr: PodAddr,
    /// `conditions.ready`; absent means ready.
    pub ready: bool,
    /// `conditions.serving`; absent means as `ready`.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
    /// `hostname`, for DNS.
    pub hostname: Option<Arc<str>>,
    /// `nodeName`.
    pub node: Option<NodeName>,
    /// `zone`: where in the topology it is.
    pub zone: Option<Arc<str>>,
    /// `targetRef`, where it is a pod.
    pub pod: Option<PodKey>,
    /// `hints`: for whom it is meant.
    pub hints: Hints,
}

impl Endpoint {
    /// One that is ready, and of which no more is known.
    #[must_use]
    pub fn new(addr: PodAddr) -> Self {
        Self {
            addr,
            ready: true,
            serving: true,
            terminating: false,
            hostname: None,
            node: None,
            zone: None,
            pod: None,
            hints: Hints::default(),
        }
    }
}

/// For whom an endpoint is meant, as the controller of EndpointSlices deals them out; empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `forZones[].name`.
    pub zones: Vec<Arc<str>>,
    /// `forNodes[].name`.
    pub nodes: Vec<NodeName>,
}
