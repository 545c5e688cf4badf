//! The rows of the table as [`trace`](crate::trace) is asked for them.
//!
//! The table's nodes are joined by plain routes of one subnet, each pod has a link of its own to its node, whose end there is called by
//! [`link_of`]: so everything that a row's packet passes has a name.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use podnet_model::{Block, BlockCidr, Change, EncapMode, Family, LinkName, Node, NodeName, proxy::Mode};

use super::{Direction, NODES, Row, changes, cluster::range, config, configured, six};
use crate::trace::{Cluster, Facts, Link, Source, Target, Trace, Unknown};

/// What the nodes' addresses are in.
const SUBNET: &str = "172.29.0.0/16";
/// What pods' addresses are drawn from, and for which node.
const BLOCKS: [(&str, &str); 4] =
    [("10.233.64.0/26", "node1"), ("10.233.65.0/26", "node2"), ("10.233.66.0/26", "node3"), ("10.240.0.0/26", "node1")];
const MTU: u32 = 1500;

/// The node's end of the link of a pod of the table.
#[must_use]
pub fn link_of(pod: &str) -> LinkName {
    LinkName::from(format!("pn-{pod}"))
}

/// The table's cluster in the version with addresses of a family, each node with Services in this mode. In mode `ebpf` the nodes' own
/// processes are served at the socket as well.
#[must_use]
pub fn cluster(family: Family, mode: Mode) -> Cluster {
    with(family, mode, Vec::new(), &[])
}

/// The same with a configuration of kube-proxy that says more, as the rows of [`configured`] have it: node1 has a second address.
#[must_use]
pub fn cluster_configured(family: Family, mode: Mode) -> Cluster {
    let second = match family {
        Family::V4 => configured::SECOND.into(),
        Family::V6 => six::six(configured::SECOND.into()),
    };
    with(family, mode, vec![Change::Proxy(Some(Arc::new(configured::proxy())))], &[("node1", second)])
}

/// The table's cluster with more objects, and further addresses of nodes.
fn with(family: Family, mode: Mode, more: Vec<Change>, further: &[(&str, IpAddr)]) -> Cluster {
    let of_family = |cidr: &str| match family {
        Family::V4 => range(cidr),
        Family::V6 => six::range_six(range(cidr)),
    };
    let mut changes: Vec<Change> = match family {
        Family::V4 => changes(),
        Family::V6 => six::changes(),
    };
    let subnet = of_family(SUBNET);
    for change in &mut changes {
        match change {
            Change::Node(_, Some(node)) => join(node, family, subnet),
            Change::Pool(_, Some(pool)) => pool.vxlan = EncapMode::Never,
            _ => {}
        }
    }
    let links: Vec<(IpAddr, NodeName, Link)> = changes.iter().flat_map(links).collect();
    changes.extend(BLOCKS.map(|(cidr, owner)| {
        let cidr = BlockCidr(of_family(cidr));
        Change::Block(cidr, Some(Block::new(cidr, Some(owner.into()))))
    }));
    changes.extend(more);
    let facts = NODES.map(|node| {
        let (_, border) = if family == Family::V4 { config(node) } else { six::config(node) };
        let own = links.iter().filter(|(_, of, _)| of.as_str() == node);
        let facts = Facts {
            addrs: further.iter().filter(|(of, _)| *of == node).map(|(_, addr)| *addr).collect(),
            no_nat_cidrs: border.no_nat_cidrs,
            serves_node_at_sockets: mode == Mode::Ebpf,
            links: own.map(|(addr, _, link)| (*addr, link.clone())).collect(),
            ..Facts::new("eth0".into(), MTU, mode)
        };
        (NodeName::from(node), facts)
    });
    Cluster::new(changes, facts.into())
}

fn join(node: &mut Node, family: Family, subnet: IpNet) {
    match family {
        Family::V4 => node.subnet = Some(subnet),
        Family::V6 => node.subnet6 = Some(subnet),
    }
}

/// The links of what may be a pod.
fn links(change: &Change) -> Vec<(IpAddr, NodeName, Link)> {
    let Change::Pod(key, Some(pod)) = change else { return Vec::new() };
    let link = Link::routed(link_of(&key.name));
    let Some(node) = &pod.node else { return Vec::new() };
    pod.addrs.iter().map(|addr| (addr.0, node.clone(), link.clone())).collect()
}

/// Whether a row's packet is followed from a pod, through the pod's own node. A few rows have a pod of another node send as if it were of the
/// row's: its packets come to the row's node from outside.
#[must_use]
pub fn is_from_pod(cluster: &Cluster, row: &Row) -> bool {
    let pod = cluster.pod_of(row.packet.src).and_then(|key| cluster.pods().get(key));
    let node = pod.and_then(|pod| pod.node.as_ref());
    row.direction == Direction::FromPod && node.is_some_and(|node| node.as_str() == row.node)
}

/// Follows a row's packet.
///
/// # Errors
/// Where nobody could send it.
pub fn trace(cluster: &Cluster, row: &Row) -> Result<Trace, Unknown> {
    let packet = &row.packet;
    let pod = cluster.pod_of(packet.src).filter(|_| is_from_pod(cluster, row));
    let from = match (row.direction, pod) {
        (Direction::FromHost, _) => Source::Node(row.node.into()),
        (_, Some(pod)) => Source::Pod(pod.clone()),
        (_, None) => Source::World(packet.src, row.node.into()),
    };
    if packet.is_echo {
        return cluster.ping(&from, packet.dst);
    }
    cluster.trace(&from, Target { addr: packet.dst, protocol: packet.protocol, port: packet.dport })
}
