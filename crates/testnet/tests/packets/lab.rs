//! The packet table's cluster, made of network namespaces.
//!
//! Every node and every host outside has a wire of its own to one router, and everything has host prefixes, as pods have: so the
//! router alone says which way packets take. Pods are joined to their nodes as podnet joins them.
//!
//! One node at a time is under test ([`Lab::lead_through`]). Whatever comes from elsewhere is led through it, whoever it is for, as
//! the table wants it; only what the node itself sends goes straight to where it is addressed. An address that nobody has, such as a
//! ClusterIP, is then reached at a place `beyond` the cluster, so that a packet which should have been translated or refused and was
//! not is seen as what it is.

mod wires;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use podnet_kernel::{netlink::RtSocket, sysctl};
use podnet_model::{Change, Family};
use podnet_planner::services::packet_table::{self, ADDRESSES, NODES, OUTSIDE, six};

use crate::namespace::Namespace;

/// The host that has every address which nobody else has.
pub(crate) const BEYOND: &str = "beyond";

/// The cluster.
pub(crate) struct Lab {
    /// By name: nodes, pods, hosts outside, and [`BEYOND`].
    pub(crate) places: BTreeMap<String, Place>,
    router: Namespace,
}

/// A node, a pod or a host.
pub(crate) struct Place {
    pub(crate) namespace: Namespace,
    /// Its addresses; those of [`BEYOND`] are the ones that nobody else has.
    pub(crate) addrs: Vec<IpAddr>,
    /// A pod's node.
    pub(crate) node: Option<String>,
}

impl Lab {
    /// Makes the cluster. No node does anything for Services yet.
    pub(crate) fn new(tag: &str) -> Self {
        let mut places = places(tag);
        let router = namespace(tag, "router");
        let mut socket = RtSocket::open_in(&router.netns).unwrap();
        for (number, (name, place)) in (1..).zip(places.iter().filter(|(_, place)| place.node.is_none())) {
            wires::to_router(&mut socket, name, place, number);
        }
        for (number, (name, pod)) in (1..).zip(places.iter().filter(|(_, place)| place.node.is_some())) {
            let node = pod.node.as_ref().expect("a pod");
            wires::to_node(&places[node], name, pod, number);
            wires::route_by(&mut socket, node, &places[node], &pod.addrs);
        }
        let unclaimed: Vec<IpAddr> = unclaimed(&places);
        wires::route_by(&mut socket, BEYOND, &places[BEYOND], &unclaimed);
        let beyond = places.get_mut(BEYOND).expect("made above");
        // What should have been answered before and was not is not answered here; and that host listens at addresses that it is only led
        // to.
        for setting in ["net.ipv4.icmp_echo_ignore_all", "net.ipv6.icmp.echo_ignore_all", "net.ipv6.ip_nonlocal_bind"] {
            sysctl::set(&beyond.namespace.netns, setting, "1").unwrap();
        }
        wires::batch(
            &beyond.namespace,
            unclaimed.iter().map(|addr| (Family::of(addr), format!("route add local {addr} dev lo"))),
        );
        beyond.addrs = unclaimed;
        for (table, node) in (101..).zip(NODES) {
            // Refusals by ICMP are limited to some at once (`icmp(7)`), and many rows are refused at once.
            for (setting, value) in [("net.ipv4.icmp_ratemask", "0"), ("net.ipv6.icmp.ratelimit", "0")] {
                sysctl::set(&places[node].namespace.netns, setting, value).unwrap();
            }
            wires::default_route(&router, table, node, &places[node].addrs);
            wires::default_route(&places[node].namespace, wires::OUT, "eth0", &wires::GATEWAYS);
        }
        Self { places, router }
    }

    /// Gives a node more addresses.
    pub(crate) fn add_addrs(&mut self, node: &str, addrs: &[IpAddr]) {
        let place = self.places.get_mut(node).expect("a node of the table");
        wires::add_addrs(place, addrs);
        wires::route_by(&mut RtSocket::open_in(&self.router.netns).unwrap(), node, place, addrs);
        place.addrs.extend(addrs);
    }

    /// From now on this node is the one under test.
    pub(crate) fn lead_through(&self, node: &str) {
        let table = 101 + NODES.iter().position(|name| *name == node).expect("a node of the table");
        wires::direct(&self.router, Some((node, table)));
        for other in NODES {
            // What a pod says to another one of its node goes out to the router as well, and comes back by the node under test.
            let out = (other != node).then_some(("eth0", wires::OUT));
            wires::direct(&self.places[other].namespace, out);
        }
    }

    /// The place that has an address, or where it is seen to arrive.
    pub(crate) fn place_of(&self, addr: IpAddr) -> Option<(&str, &Place)> {
        let found = self.places.iter().find(|(_, place)| place.addrs.contains(&addr));
        found.map(|(name, place)| (name.as_str(), place))
    }

    /// An address as the table names it.
    pub(crate) fn name_of(&self, addr: IpAddr) -> String {
        let known = ADDRESSES.iter().find(|(_, known)| both(*known).contains(&addr));
        known.map_or_else(|| addr.to_string(), |(name, _)| (*name).to_owned())
    }
}

/// All places, not joined yet.
fn places(tag: &str) -> BTreeMap<String, Place> {
    let place = |name: &str, addrs: Vec<IpAddr>, node| {
        (name.to_owned(), Place { namespace: namespace(tag, name), addrs, node })
    };
    let both = |name: &str| [packet_table::address(name), six::address(name)].into_iter().flatten().collect();
    let hosts = NODES.iter().chain(&OUTSIDE).map(|name| place(name, both(name), None));
    let beyond = [Ipv4Addr::new(203, 0, 113, 1).into(), Ipv6Addr::new(0x2001, 0xdb8, 0xbeef, 0, 0, 0, 0, 1).into()];
    let pods = packet_table::changes().into_iter().filter_map(|change| match change {
        Change::Pod(key, Some(pod)) => Some(place(&key.name, both(&key.name), pod.node.map(|node| node.to_string()))),
        _ => None,
    });
    hosts.chain([place(BEYOND, beyond.into(), None)]).chain(pods).collect()
}

fn unclaimed(places: &BTreeMap<String, Place>) -> Vec<IpAddr> {
    let claimed = |addr: &IpAddr| places.values().any(|place| place.addrs.contains(addr));
    ADDRESSES.iter().flat_map(|(_, addr)| both(*addr)).filter(|addr| !claimed(addr)).collect()
}

/// An address and what stands for it in IPv6.
fn both(addr: Ipv4Addr) -> [IpAddr; 2] {
    [addr.into(), six::six(addr.into())]
}

fn namespace(tag: &str, name: &str) -> Namespace {
    Namespace::new(&format!("{tag}-{name}"))
}
