//! The simulated underlay: a namespace that is switch and router, one namespace for each node, and the host's own place on it.
//!
//! Every part is made where it is missing and left alone where it is there, so a half-made fabric is completed and a whole one
//! keeps its pods' connections.

mod ranges;

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
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
    let forward = |key: &str| sysctl::set(&fabric, key, "1").doing(|| "cannot make the fabric a router".into());
    forward("net/ipv4/ip_forward")?;
    if cluster.pod_cidr_v6.is_some() {
        if !sysctl::has_ipv6() {
            let failure =
                Failure::new("pods cannot have IPv6 addresses: this machine's kernel was started without IPv6");
            return Err(failure.remedy("start podnet without --ip-family dual"));
        }
        forward("net/ipv6/conf/all/forwarding")?;
    }
    for index in 0..usize::from(cluster.subnets) {
        ensure_bridge(&mut switch, index, cluster)
            .doing(|| format!("cannot make the switch of subnet {}", index + 1))?;
    }
    ensure_host_link(&fabric).doing(|| "cannot connect this machine to the underlay".into())?;
    allow_ipv6_on_host(cluster)?;
    ensure_host(&mut switch, cluster).doing(|| "cannot connect this machine to the underlay".into())?;
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
    link::set_up(switch, &name)?;
    ensure_addresses(switch, &name, cluster, cluster.router(index))
}

fn bridge(index: usize) -> String {
    format!("pn{index}")
}

/// Of each family that the underlay has. The device is up, or may have lost its IPv6 addresses when it went down.
fn ensure_addresses(
    socket: &mut RtSocket,
    device: &str,
    cluster: &Cluster,
    address: std::net::Ipv4Addr,
) -> Result<(), NetlinkError> {
    let index = link::index_of(socket, device)?;
    let there = addr::list(socket, index)?;
    let wanted = cluster.addresses(address).into_iter().map(|addr| match addr {
        IpAddr::V4(addr) => IpNet::V4(Ipv4Net::new_assert(addr, 24)),
        IpAddr::V6(addr) => IpNet::V6(Ipv6Net::new_assert(addr, 64)),
    });
    wanted.filter(|address| !there.contains(address)).try_for_each(|address| addr::add(socket, index, address))
}

fn ensure_host_link(fabric: &NetNs) -> Result<(), NetlinkError> {
    let mut host = RtSocket::open()?;
    if link::find(&mut host, HOST_LINK)?.is_none() {
        let peer = VethPeer { name: HOST_PORT, mac: None, netns: Some(fabric) };
        link::create_veth(&mut host, &Veth { name: HOST_LINK, mac: None, peer, mtu: MTU })?;
    }
    Ok(())
}

/// The host lies on the first subnet and reaches the others through the fabric's router.
fn ensure_host(switch: &mut RtSocket, cluster: &Cluster) -> Result<(), NetlinkError> {
    let mut host = RtSocket::open()?;
    plug(switch, HOST_PORT, 0)?;
    link::set_up(&mut host, HOST_LINK)?;
    ensure_addresses(&mut host, HOST_LINK, cluster, cluster.host_address())?;
    for range in (1..usize::from(cluster.subnets)).flat_map(|index| cluster.ranges(index)) {
        through(&mut host, range, cluster, 0)?;
    }
    Ok(())
}

/// A machine may keep new devices from IPv6.
fn allow_ipv6_on_host(cluster: &Cluster) -> Result<(), Failure> {
    if cluster.pod_cidr_v6.is_none() {
        return Ok(());
    }
    let what = || format!("cannot let {HOST_LINK} have IPv6");
    sysctl::allow_ipv6(&NetNs::current().doing(what)?, HOST_LINK).doing(what)
}

fn plug(switch: &mut RtSocket, port: &str, subnet: usize) -> Result<(), NetlinkError> {
    link::set_master(switch, port, &bridge(subnet))?;
    link::set_up(switch, port)
}

/// A route through the router on a subnet, by its address of the same family.
fn through(socket: &mut RtSocket, dst: IpNet, cluster: &Cluster, subnet: usize) -> Result<(), NetlinkError> {
    let routers = cluster.addresses(cluster.router(subnet)).into_iter();
    routers.filter(|router| router.is_ipv4() == dst.addr().is_ipv4()).try_for_each(|via| {
        let target = Target::Gateway { device: None, via, onlink: false };
        route::replace(socket, &Route { dst, target, protocol: PROTOCOL_STATIC, source: None })
    })
}

fn ensure_node(switch: &mut RtSocket, cluster: &Cluster, place: &NodePlace) -> Result<(), Failure> {
    let namespace = ensure_namespace(&place.name)?;
    let mut node = open(&namespace, &place.name)?;
    if cluster.pod_cidr_v6.is_some() {
        // Otherwise the device would lose its IPv6 address whenever it is set down. It may be about to be made: that has the default.
        for device in ["default", "all"] {
            let key = format!("net/ipv6/conf/{device}/keep_addr_on_down");
            sysctl::set(&namespace, &key, "1").doing(|| format!("cannot prepare {} for IPv6", place.name))?;
        }
    }
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
    link::set_up(node, NODE_DEVICE)?;
    ensure_addresses(node, NODE_DEVICE, cluster, place.address)?;
    let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    everything.into_iter().try_for_each(|dst| through(node, dst, cluster, place.subnet))
}
