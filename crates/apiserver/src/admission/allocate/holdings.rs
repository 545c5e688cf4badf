//! What one Service has of the ranges, and what its type lets it have.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;

use super::super::tree::{list, text};

/// An address family, as Services name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// The family that an element of `ipFamilies` names.
    pub(super) fn named(value: &Value) -> Option<Self> {
        match text(value) {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    pub(super) fn of_net(network: &IpNet) -> Self {
        if matches!(network, IpNet::V4(_)) { Self::V4 } else { Self::V6 }
    }

    pub(super) fn of_address(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// A port of every node, for one transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodePort {
    pub(super) protocol: Transport,
    pub(super) number: u16,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    pub(super) fn of(port: &Value) -> Self {
        match text(&port["protocol"]) {
            "UDP" => Self::Udp,
            "SCTP" => Self::Sctp,
            _ => Self::Tcp,
        }
    }
}

/// What one Service has of the ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) ports: BTreeSet<NodePort>,
}

impl Holdings {
    /// What a complete Service has.
    pub(super) fn of(service: &Value) -> Self {
        let spec = &service["spec"];
        let mut holdings = Self::default();
        if needs_address(spec) {
            let named = list(&spec["clusterIPs"]).iter().chain([&spec["clusterIP"]]);
            holdings.addresses = named.filter_map(|address| text(address).parse().ok()).collect();
        }
        if takes_node_ports(spec) {
            let ports = list(&spec["ports"]).iter();
            holdings.ports = ports
                .filter_map(|port| Some(NodePort { protocol: Transport::of(port), number: number(&port["nodePort"])? }))
                .collect();
        }
        holdings.ports.extend(health_check_port(spec));
        holdings
    }
}

/// A port's number; none where there is none yet or an impossible one.
pub(super) fn number(port: &Value) -> Option<u16> {
    port.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

/// Where load balancers ask the nodes whether they have endpoints.
pub(super) fn health_check_port(spec: &Value) -> Option<NodePort> {
    number(&spec["healthCheckNodePort"]).map(|number| NodePort { protocol: Transport::Tcp, number })
}

pub(super) fn needs_address(spec: &Value) -> bool {
    spec["type"] != "ExternalName"
}

/// Whether the Service's ports may have node ports.
pub(super) fn takes_node_ports(spec: &Value) -> bool {
    matches!(text(&spec["type"]), "NodePort" | "LoadBalancer")
}

/// Whether they get one without asking.
pub(super) fn wants_node_ports(spec: &Value) -> bool {
    spec["type"] == "NodePort" || (spec["type"] == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != false)
}

/// Whether load balancers have to know which nodes have endpoints.
pub(in crate::admission) fn needs_health_check(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

/// Whether the Service can be reached from outside, so that it needs a policy for that.
pub(in crate::admission) fn is_external(spec: &Value) -> bool {
    takes_node_ports(spec) || (needs_address(spec) && !list(&spec["externalIPs"]).is_empty())
}
