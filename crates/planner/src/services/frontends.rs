//! Which frontends a Service asks for.

use std::{collections::BTreeMap, net::IpAddr};

use podnet_model::{Family, PortName, Protocol, Service, ServiceKey, service::ServiceKind};

use crate::ruleset::{BackendAddress, FrontendKey};

/// A Service's wish for a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The port whose endpoints are the backends.
    pub(super) port: PortName,
    /// Its protocol.
    pub(super) protocol: Protocol,
    /// The frontend is at a node's address, where clients come from anywhere.
    pub(super) node_port: bool,
}

/// A frontend that at least one Service claims.
#[derive(Debug, Default)]
pub(super) struct Frontend {
    /// Who claims it: the first one has it.
    pub(super) claims: BTreeMap<ServiceKey, Claim>,
    /// What the rule set has of it.
    pub(super) made: Made,
}

/// What the rule set has of a frontend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Made {
    /// Nothing.
    #[default]
    Nothing,
    /// It is refused.
    Refused,
    /// It is translated.
    Translated {
        /// Through a chain that marks for masquerading.
        node_port: bool,
        /// The backends by slot, at least one.
        slots: Vec<BackendAddress>,
    },
}

impl Made {
    /// The backends by slot.
    pub(super) fn slots(&self) -> &[BackendAddress] {
        match self {
            Self::Translated { slots, .. } => slots,
            Self::Nothing | Self::Refused => &[],
        }
    }
}

/// The ClusterIPs of a Service that are of the family; none where it has no virtual address.
pub(super) fn cluster_ips(service: &Service, family: Family) -> impl Iterator<Item = IpAddr> {
    let ips = match &service.kind {
        ServiceKind::Virtual { cluster_ips } => cluster_ips.as_slice(),
        ServiceKind::Headless | ServiceKind::External { .. } => &[],
    };
    ips.iter().map(|ip| ip.0).filter(move |ip| Family::of(ip) == family)
}

/// The frontends of a Service on a node with these addresses. Of two ports that ask for the same one, the first has it.
pub(super) fn claims(service: &Service, family: Family, node_addrs: &[IpAddr]) -> BTreeMap<FrontendKey, Claim> {
    let mut claims = BTreeMap::new();
    if !matches!(service.kind, ServiceKind::Virtual { .. }) {
        return claims;
    }
    for port in &service.ports {
        let mut claim = |addr: IpAddr, number: u16, node_port: bool| {
            let key = FrontendKey { addr, protocol: port.protocol, port: number };
            let claim = Claim { port: port.name.clone(), protocol: port.protocol, node_port };
            claims.entry(key).or_insert(claim);
        };
        cluster_ips(service, family).for_each(|ip| claim(ip, port.port.0, false));
        if let Some(node_port) = port.node_port {
            node_addrs.iter().for_each(|addr| claim(*addr, node_port.0, true));
        }
    }
    claims
}
