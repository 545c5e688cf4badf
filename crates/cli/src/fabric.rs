//! The simulated underlay: a namespace that is switch and router, one namespace for each node, and the host's own place on it.
//!
//! Every part is made where it is missing and left alone where it is there, so a half-made fabric is completed and a whole one
//! keeps its pods' connections.

mod ranges;

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use podnet_kernel::{
    addr,
    link::{self, Veth, VethPeer},
    netlink::{NetlinkError, RtSocket},
    netns::NetNs,
    route::{self, PROTOCOL_STATIC, Route, Target},
    sysctl,
};

pub(crate) use ranges::refuse_taken;

use crate::{
    cluster::{Cluster, NodePlace},
    layout,
    report::{Doing, Failure},
};

/// The host's link to the underlay.
const HOST_LINK: &str = "pn-host";
/// The fabric's end of the host's link.
const HOST_PORT: &str = "host";
/// A node's device.
const NODE_DEVICE: &str = "eth0";
/// What Ethernet carries everywhere.
const MTU: u32 = 1500;

pub(crate) fn ensure(cluster: &Cluster) -> Result<(), Failure> {
    let fabric = ensure_namespace("fabric")?;
    let mut switch = open(&fabric, "the fabric")?;
    sysctl::set(&fabric, "net/ipv4/ip_forward", "1").doing(|| "cannot make the fabric a router".into())?;
    for index in 0..usize::from(cluster.subnets) {
        ensure_bridge(&mut switch, index, cluster)
            .doing(|| format!("cannot make the switch of subnet {}", index + 1))?;
    }
    ensure_host(&fabric, &mut switch, cluster).doing(|| "cannot connect this machine to the underlay".into())?;
    for place in cluster.places() {
        ensure_node(&mut switch, cluster, &place)?;
    }
    Ok(())
}

/// Removes the host's end; the rest goes with the namespaces.
pub(crate) fn remove_host_link() -> Result<(), Failure> {
    RtSocket::open()
        .and_then(|mut host| link::delete(&mut host, HOST_LINK))
        .doing(|| format!("cannot remove the link {HOST_LINK}"))
}

fn ensure_namespace(name: &str) -> Result<NetNs, Failure> {
    let path = layout::netns(name);
    let namespace = match NetNs::open(&path) {
        Ok(namespace) if is_namespace(&namespace) => Ok(namespace),
        // The name without its namespace: a crash between making the file and binding it.
        Ok(_) => NetNs::remove(&path).and_then(|()| NetNs::create(&path)),
        Err(error) if error.is_missing() => NetNs::create(&path),
        Err(error) => Err(error),
    }
    .doing(|| format!("cannot make the network namespace {}", path.display()))?;
    // A crash may also have come between the namespace and its loopback.
    link::set_up(&mut open(&namespace, name)?, "lo").doing(|| format!("cannot bring up lo in {}", path.display()))?;
    Ok(namespace)
}

fn is_namespace(namespace: &NetNs) -> bool {
    namespace.run(|| ()).is_ok()
}

fn open(namespace: &NetNs, what: &str) -> Result<RtSocket, Failure> {
    RtSocket::open_in(namespace).doing(|| format!("cannot talk to the kernel in the namespace of {what}"))
}

fn ensure_bridge(switch: &mut RtSocket, index: usize, cluster: &Cluster) -> Result<(), NetlinkError> {
    let name = bridge(index);
    if link::find(switch, &name)?.is_none() {
        link::create_bridge(switch, &name)?;
    }
    ensure_address(switch, &name, cluster.router(index), cluster.subnet(index))?;
    link::set_up(switch, &name)
}

fn bridge(index: usize) -> String {
    format!("pn{index}")
}

fn ensure_address(
    socket: &mut RtSocket,
    device: &str,
    address: std::net::Ipv4Addr,
    subnet: Ipv4Net,
) -> Result<(), NetlinkError> {
    let index = link::index_of(socket, device)?;
    let address = IpNet::V4(Ipv4Net::new_assert(address, subnet.prefix_len()));
    if addr::list(socket, index)?.contains(&address) {
        return Ok(());
    }
    addr::add(socket, index, address)
}

/// The host lies on the first subnet and reaches the others through the fabric's router.
fn ensure_host(fabric: &NetNs, switch: &mut RtSocket, cluster: &Cluster) -> Result<(), NetlinkError> {
    let mut host = RtSocket::open()?;
    if link::find(&mut host, HOST_LINK)?.is_none() {
        let peer = VethPeer { name: HOST_PORT, mac: None, netns: Some(fabric) };
        link::create_veth(&mut host, &Veth { name: HOST_LINK, mac: None, peer, mtu: MTU })?;
    }
    plug(switch, HOST_PORT, 0)?;
    ensure_address(&mut host, HOST_LINK, cluster.host_address(), cluster.subnet(0))?;
    link::set_up(&mut host, HOST_LINK)?;
    for index in 1..usize::from(cluster.subnets) {
        route::replace(&mut host, &through(cluster.subnet(index), cluster.router(0)))?;
    }
    Ok(())
}

fn plug(switch: &mut RtSocket, port: &str, subnet: usize) -> Result<(), NetlinkError> {
    link::set_master(switch, port, &bridge(subnet))?;
    link::set_up(switch, port)
}

fn through(dst: Ipv4Net, via: std::net::Ipv4Addr) -> Route {
    let target = Target::Gateway { device: None, via: IpAddr::V4(via), onlink: false };
    Route { dst: IpNet::V4(dst), target, protocol: PROTOCOL_STATIC, source: None }
}

fn ensure_node(switch: &mut RtSocket, cluster: &Cluster, place: &NodePlace) -> Result<(), Failure> {
    let namespace = ensure_namespace(&place.name)?;
    let mut node = open(&namespace, &place.name)?;
    connect_node(switch, &mut node, &namespace, cluster, place)
        .doing(|| format!("cannot connect {} to the underlay", place.name))
}

fn connect_node(
    switch: &mut RtSocket,
    node: &mut RtSocket,
    namespace: &NetNs,
    cluster: &Cluster,
    place: &NodePlace,
) -> Result<(), NetlinkError> {
    if link::find(switch, &place.name)?.is_none() {
        let peer = VethPeer { name: NODE_DEVICE, mac: None, netns: Some(namespace) };
        link::create_veth(switch, &Veth { name: &place.name, mac: None, peer, mtu: MTU })?;
    }
    plug(switch, &place.name, place.subnet)?;
    ensure_address(node, NODE_DEVICE, place.address, cluster.subnet(place.subnet))?;
    link::set_up(node, NODE_DEVICE)?;
    let everything = Ipv4Net::default();
    route::replace(node, &through(everything, cluster.router(place.subnet)))
}
