//! What joins the places.

use std::{
    io::Write,
    net::IpAddr,
    process::{Command, Stdio},
};

use ipnet::IpNet;
use podnet_kernel::{
    addr,
    link::{self, Veth, VethPeer},
    neigh,
    netlink::RtSocket,
    pod_interface::{GATEWAY_V4, GATEWAY_V6, PodInterface},
    route::{self, PROTOCOL_STATIC, Route, Target},
};
use podnet_model::{Family, LinkName, Mac};

use super::Place;
use crate::namespace::Namespace;

const MTU: u32 = 1500;
/// What a place reaches the router by.
pub(super) const GATEWAYS: [IpAddr; 2] = [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)];
/// The number of a node's table that leads everything to the router.
pub(super) const OUT: usize = 100;

/// Joins a node or a host to the router, whose end has the name of the place. Neighbours are permanent: no first packet waits until
/// somebody has been asked where an address is.
pub(super) fn to_router(router: &mut RtSocket, name: &str, place: &Place, number: u8) {
    let (own, routers) = (mac(1, number), mac(2, number));
    let peer = VethPeer { name: "eth0", mac: Some(own), netns: Some(&place.namespace.netns) };
    link::create_veth(router, &Veth { name, mac: Some(routers), peer, mtu: MTU }).unwrap();
    link::set_up(router, name).unwrap();
    let mut inside = RtSocket::open_in(&place.namespace.netns).unwrap();
    link::set_up(&mut inside, "eth0").unwrap();
    let device = link::index_of(router, name).unwrap();
    let eth0 = link::index_of(&mut inside, "eth0").unwrap();
    for own_addr in &place.addrs {
        addr::add(&mut inside, eth0, IpNet::from(*own_addr)).unwrap();
        neigh::replace(router, device, *own_addr, own).unwrap();
        route::replace(router, &to(IpNet::from(*own_addr), Target::Device(device))).unwrap();
    }
    for (default, gateway) in ["0.0.0.0/0", "::/0"].into_iter().zip(GATEWAYS) {
        neigh::replace(&mut inside, eth0, gateway, routers).unwrap();
        route::replace(&mut inside, &to(default.parse().unwrap(), via(eth0, gateway))).unwrap();
    }
}

/// Gives more addresses to what is joined to the router.
pub(super) fn add_addrs(place: &Place, addrs: &[IpAddr]) {
    let mut inside = RtSocket::open_in(&place.namespace.netns).unwrap();
    let eth0 = link::index_of(&mut inside, "eth0").unwrap();
    for own_addr in addrs {
        addr::add(&mut inside, eth0, IpNet::from(*own_addr)).unwrap();
    }
}

/// Joins a pod to its node.
pub(super) fn to_node(node: &Place, name: &str, pod: &Place, number: u8) {
    let interface = PodInterface {
        netns: pod.namespace.netns.clone(),
        container_ifname: "eth0".into(),
        host_ifname: LinkName::from(format!("pn-{name}")),
        addr: pod.addrs.clone(),
        routes: Vec::new(),
        mtu: MTU,
        pod_mac: mac(3, number),
        host_mac: mac(4, number),
        bridge: None,
    };
    interface.create(&mut RtSocket::open_in(&node.namespace.netns).unwrap()).unwrap();
}

/// The router reaches these addresses by way of a place that is joined to it.
pub(super) fn route_by(router: &mut RtSocket, name: &str, place: &Place, addrs: &[IpAddr]) {
    let device = link::index_of(router, name).unwrap();
    for addr in addrs {
        let gateway = place.addrs.iter().find(|own| Family::of(own) == Family::of(addr));
        let gateway = gateway.unwrap_or_else(|| panic!("{name} has no address of the family of {addr}"));
        route::replace(router, &to(IpNet::from(*addr), via(device, *gateway))).unwrap();
    }
}

/// A table whose only routes lead everything to these gateways.
pub(super) fn default_route(namespace: &Namespace, table: usize, device: &str, gateways: &[IpAddr]) {
    let route = |gateway: &IpAddr| {
        (Family::of(gateway), format!("route add default via {gateway} dev {device} onlink table {table}"))
    };
    batch(namespace, gateways.iter().map(route));
}

/// What does not come in by a device, or is not for the place itself, is routed by a table; instead of what was said before.
pub(super) fn direct(namespace: &Namespace, unless_from: Option<(&str, usize)>) {
    let mut rules = vec!["rule flush".to_owned(), "rule add priority 32766 lookup main".to_owned()];
    if let Some((device, table)) = unless_from {
        rules.push(format!("rule add priority 100 iif {device} lookup main"));
        rules.push(format!("rule add priority 101 lookup {table}"));
    }
    batch(namespace, Family::ALL.into_iter().flat_map(|family| rules.iter().map(move |rule| (family, rule.clone()))));
}

/// Runs lines of `ip -batch`, those of each family at once; panics where it fails.
pub(super) fn batch(namespace: &Namespace, lines: impl IntoIterator<Item = (Family, String)>) {
    let lines: Vec<_> = lines.into_iter().collect();
    for family in Family::ALL {
        let own = lines.iter().filter(|(of, _)| *of == family);
        let text: String = own.map(|(_, line)| format!("{line}\n")).collect();
        if text.is_empty() {
            continue;
        }
        let option = if family == Family::V4 { "-4" } else { "-6" };
        let output = namespace.netns.run(|| {
            let pipes = || (Stdio::piped(), Stdio::piped(), Stdio::piped());
            let (stdin, stdout, stderr) = pipes();
            let mut command = Command::new("ip");
            command.args([option, "-batch", "-"]).stdin(stdin).stdout(stdout).stderr(stderr);
            let mut child = command.spawn()?;
            child.stdin.take().expect("piped").write_all(text.as_bytes())?;
            child.wait_with_output()
        });
        let output = output.unwrap().unwrap();
        assert!(output.status.success(), "ip {option} -batch: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    }
}

fn to(dst: IpNet, target: Target) -> Route {
    Route { dst, target, protocol: PROTOCOL_STATIC, source: None }
}

fn via(device: u32, gateway: IpAddr) -> Target {
    Target::Gateway { device: Some(device), via: gateway, onlink: true }
}

fn mac(group: u8, number: u8) -> Mac {
    Mac([2, 0, 0, 1, group, number])
}
