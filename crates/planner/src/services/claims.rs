//! Which frontends a Service asks for.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use podnet_model::{
    Family, PortName, Protocol, Service, ServiceKey,
    service::{ServiceKind, TrafficPolicy},
};

use super::serving::{FrontendKind, Serving};
use crate::ruleset::FrontendKey;

/// A Service's wish for a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// What sort of address it is.
    pub(super) kind: FrontendKind,
    /// The port whose endpoints are the backends.
    pub(super) port: PortName,
    /// Its protocol.
    pub(super) protocol: Protocol,
    /// When its Service was made.
    pub(super) created: u32,
}

/// A frontend that at least one Service claims.
#[derive(Debug, Default)]
pub(super) struct Frontend {
    /// Who claims it, sorted by sort of address, age and name: the first one has it.
    pub(super) claims: Vec<(ServiceKey, Claim)>,
    /// What is done for it.
    pub(super) serving: Option<Arc<Serving>>,
}

impl Frontend {
    /// Replaces the claim of a Service, or takes it away.
    pub(super) fn claim(&mut self, service: &ServiceKey, claim: Option<Claim>) {
        self.claims.retain(|(claimant, _)| claimant != service);
        if let Some(claim) = claim {
            let rank = |(service, claim): &(ServiceKey, Claim)| (claim.kind, claim.created, service.clone());
            let new = (service.clone(), claim);
            let place = self.claims.partition_point(|other| rank(other) < rank(&new));
            self.claims.insert(place, new);
            self.claims.shrink_to_fit();
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

/// The frontends of a Service on a node with these addresses, sorted, where load balancers gave it those. Of several ports that ask for the same one the first has it, and a
/// ClusterIP is one though it is named again as an external address.
pub(super) fn claims(
    service: &Service,
    family: Family,
    node_addrs: &[IpAddr],
    given: &[IpAddr],
) -> Vec<(FrontendKey, Claim)> {
    let mut claims = BTreeMap::new();
    if !matches!(service.kind, ServiceKind::Virtual { .. }) {
        return Vec::new();
    }
    let own = move |addr: &IpAddr| Family::of(addr) == family;
    for port in &service.ports {
        let mut claim = |kind, addr: IpAddr, number: u16| {
            let key = FrontendKey { addr, protocol: port.protocol, port: number };
            let (port, protocol, created) = (port.name.clone(), port.protocol, service.created);
            claims.entry(key).or_insert_with(|| Claim { kind, port, protocol, created });
        };
        cluster_ips(service, family).for_each(|ip| claim(FrontendKind::ClusterIp, ip, port.port.0));
        if let Some(node_port) = port.node_port {
            node_addrs.iter().for_each(|addr| claim(FrontendKind::NodePort, *addr, node_port.0));
        }
        given.iter().copied().filter(own).for_each(|addr| claim(FrontendKind::LoadBalancer, addr, port.port.0));
        let external = service.external_ips.iter().copied().filter(own);
        external.for_each(|addr| claim(FrontendKind::ExternalIp, addr, port.port.0));
    }
    claims.into_iter().collect()
}

/// The policies by which a frontend of this sort chooses its backends: for the node and its pods, and for everybody else.
pub(super) const fn policies(service: &Service, kind: FrontendKind) -> (TrafficPolicy, TrafficPolicy) {
    match kind {
        FrontendKind::ClusterIp => (service.internal_policy, service.internal_policy),
        FrontendKind::NodePort | FrontendKind::LoadBalancer | FrontendKind::ExternalIp => {
            (TrafficPolicy::Cluster, service.external_policy)
        }
    }
}
