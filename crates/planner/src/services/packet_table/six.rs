//! The same cluster and the same rows with addresses of IPv6: each address of IPv4 stands for one of fd00::/96, and whatever is made of
//! addresses is made of those.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podnet_model::{
    Change, ClusterIp, Family, NodeAddr, PodAddr,
    balancer::{AddressPool, Span},
    service::ServiceKind,
};

use super::{Fate, Row};
use crate::{
    border::BorderConfig,
    ruleset::{BackendAddress, walk::Packet},
    services::ServicesConfig,
};

/// The IPv6 address that stands for one of IPv4; one of IPv6 stays what it is.
#[must_use]
pub fn six(addr: IpAddr) -> IpAddr {
    match addr {
        addr if addr.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(addr) => Ipv6Addr::from_bits(0xfd << 120 | u128::from(addr.to_bits())).into(),
        addr @ IpAddr::V6(_) => addr,
    }
}

/// The address of a name.
#[must_use]
pub fn address(name: &str) -> Option<IpAddr> {
    super::address(name).map(six)
}

/// What the node is told when it starts.
#[must_use]
pub fn config(node: &str) -> (ServicesConfig, BorderConfig) {
    let (services, border) = super::config(node);
    let node_addrs: Vec<_> = services.node_addrs.iter().map(|addr| NodeAddr(six(addr.0))).collect();
    let no_nat_cidrs = border.no_nat_cidrs.iter().copied().map(range_six).collect();
    let services = ServicesConfig { family: Family::V6, node_addrs: node_addrs.clone(), ..services };
    (services, BorderConfig { family: Family::V6, node_addrs, no_nat_cidrs, ..border })
}

/// The objects of the cluster.
#[must_use]
pub fn changes() -> Vec<Change> {
    super::changes().into_iter().map(change_six).collect()
}

/// The rows of the table.
#[must_use]
pub fn rows() -> Vec<Row> {
    super::rows().into_iter().map(row_six).collect()
}

pub(super) fn row_six(row: Row) -> Row {
    let packet = Packet { src: six(row.packet.src), dst: six(row.packet.dst), ..row.packet };
    let sticks_at = row.sticks_at.iter().map(|at| BackendAddress { addr: six(at.addr), ..*at }).collect();
    Row { packet, fate: fate_six(row.fate), sticks_at, ..row }
}

/// What stands for an address of an object in that object's other version.
fn other(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V6(addr) if addr.to_bits() >> 32 == 0xfd << 88 => Ipv4Addr::from_bits(addr.to_bits() as u32).into(),
        addr => six(addr),
    }
}

pub(crate) fn change_six(mut change: Change) -> Change {
    match &mut change {
        Change::Node(_, Some(node)) => {
            node.addr = NodeAddr(six(node.addr.0));
            node.addr6 = Some(node.addr);
        }
        Change::Pod(_, Some(pod)) => pod.addrs.iter_mut().for_each(|addr| *addr = PodAddr(six(addr.0))),
        Change::Pool(_, Some(pool)) => pool.cidr = range_six(pool.cidr),
        Change::AddressPool(_, Some(pool)) => {
            let span = |span: &Span| format!("{}-{}", six(span.first()), six(span.last())).parse().unwrap_or(*span);
            let spans = pool.spans.iter().map(span).collect();
            *pool = AddressPool { spans, ..(**pool).clone() }.into();
        }
        Change::Slice(_, Some(slice)) => {
            slice.endpoints.iter_mut().for_each(|endpoint| endpoint.addr = PodAddr(other(endpoint.addr.0)));
        }
        Change::Service(_, Some(service)) => {
            if let ServiceKind::Virtual { cluster_ips } = &mut service.kind {
                cluster_ips.iter_mut().for_each(|ip| *ip = ClusterIp(other(ip.0)));
            }
            service.external_ips.iter_mut().for_each(|addr| *addr = six(*addr));
            service.ingress.iter_mut().for_each(|ingress| ingress.addr = other(ingress.addr));
            service.source_ranges.iter_mut().for_each(|range| *range = range_other(*range));
        }
        _ => {}
    }
    change
}

/// As [`other`].
fn range_other(range: IpNet) -> IpNet {
    match (range, other(range.network())) {
        (IpNet::V6(range), IpAddr::V4(network)) if range.prefix_len() >= 96 => {
            Ipv4Net::new_assert(network, range.prefix_len() - 96).into()
        }
        (range, _) => range_six(range),
    }
}

pub(super) fn range_six(range: IpNet) -> IpNet {
    match (range, six(range.network())) {
        (IpNet::V4(range), IpAddr::V6(network)) => Ipv6Net::new_assert(network, range.prefix_len() + 96).into(),
        (range, _) => range,
    }
}

fn fate_six(fate: Fate) -> Fate {
    let six = |(to, masqueraded): (BackendAddress, bool)| (BackendAddress { addr: six(to.addr), ..to }, masqueraded);
    match fate {
        Fate::Arrives(at) => Fate::Arrives(at.into_iter().map(six).collect::<BTreeMap<_, _>>()),
        fate => fate,
    }
}
