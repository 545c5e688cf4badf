//! flannel's configuration, and its nodes as peers.

use podnet_model::flannel::{Backend, Lease};

use super::*;

const VXLAN: Backend = Backend::Vxlan { vni: 1, port: 8472, direct_routing: false };

fn conf(backend: Backend) -> Change {
    let conf = NetConf { network: "10.244.0.0/16".parse().unwrap(), subnet_len: 24, backend };
    Change::NetConf("kube-flannel".into(), Some(conf))
}

fn part(number: u8) -> Change {
    let addr = ["", "172.29.0.11", "172.29.0.12", "172.29.1.13"][usize::from(number)];
    with(node(&format!("node{number}"), addr), |node| {
        node.pod_cidrs.push(format!("10.244.{number}.0/24").parse::<IpNet>().unwrap());
    })
}

/// The same node as flannel itself shows it.
fn flannels(change: Change, backend: &str, mac: Option<Mac>) -> Change {
    with(change, |node| {
        let IpAddr::V4(public_ip) = node.addr.0 else { panic!("IPv4") };
        node.lease = Some(Lease { backend: backend.into(), public_ip, vtep_mac: mac });
    })
}

/// Three nodes with their parts of flannel's range.
fn parts(backend: Backend) -> Overlay {
    after(&[part(1), part(2), part(3), conf(backend)])
}

#[test]
fn each_backend_carries_nodes_parts_its_own_way() {
    let on = |device: &str, via: &str| Some(RouteTarget::OnLink { device: device.into(), via: via.parse().unwrap() });
    let (near, far) = ("172.29.0.12", "172.29.1.13");
    for (backend, to_near, to_far) in [
        (VXLAN, on("podnet.vxlan", near), on("podnet.vxlan", far)),
        (Backend::Vxlan { vni: 1, port: 8472, direct_routing: true }, via(near), on("podnet.vxlan", far)),
        (Backend::HostGw, via(near), None),
        (Backend::Ipip { direct_routing: false }, on("podnet.ipip", near), on("podnet.ipip", far)),
        (Backend::Udp { port: 8285 }, on("podnet.udp", near), on("podnet.udp", far)),
        (Backend::Alloc, None, None),
        // Nobody has a key yet, and plain packets are not what was asked for.
        (Backend::WireGuard { port: 51820 }, None, None),
    ] {
        let overlay = parts(backend);
        assert_eq!(route(&overlay, "10.244.1.0/24"), Some(RouteTarget::Blackhole), "{backend:?}");
        assert_eq!(route(&overlay, "10.244.2.0/24"), to_near, "{backend:?}");
        assert_eq!(route(&overlay, "10.244.3.0/24"), to_far, "{backend:?}");
    }
}

#[test]
fn the_device_is_flannels_in_identifier_port_and_address() {
    let device = parts(VXLAN).desired().vxlan.clone().unwrap();
    assert_eq!((device.vni, device.port, device.addr), (1, 8472, Some("10.244.1.0".parse().unwrap())));
}

#[test]
fn the_program_behind_the_udp_tunnel_is_told_where_to_listen_and_who_has_what() {
    let overlay = parts(Backend::Udp { port: 8285 });
    let tunnel = overlay.desired().tunnels.get(&LinkName::from("podnet.udp"));
    let Some(Tunnel::Udp(udp)) = tunnel else { panic!("no tunnel") };
    assert_eq!(udp.mtu, 1472);
    let carrier = overlay.carrier().unwrap();
    assert_eq!((carrier.local.to_string().as_str(), carrier.port, &carrier.device), ("172.29.0.11", 8285, &udp.name));
    let ranges: Vec<_> = carrier.ranges.iter().map(|(range, node)| format!("{range} {node}")).collect();
    assert_eq!(ranges, ["10.244.2.0/24 172.29.0.12", "10.244.3.0/24 172.29.1.13"]);
    assert_eq!(parts(VXLAN).carrier(), None);
}

#[test]
fn frames_to_a_node_of_flannels_go_to_the_address_that_it_told() {
    let mut overlay = parts(VXLAN);
    let mac = Mac([0x8e, 0x66, 0xa0, 1, 2, 3]);
    overlay.apply(&flannels(part(2), "vxlan", Some(mac)));
    let state = overlay.desired();
    let device = LinkName::from("podnet.vxlan");
    assert_eq!(state.neighbours[&(device.clone(), "172.29.0.12".parse().unwrap())], mac);
    assert_eq!(state.fdb[&(device, mac)], "172.29.0.12".parse::<IpAddr>().unwrap());
    assert_eq!((state.neighbours.len(), state.fdb.len()), (2, 2));
}

#[test]
fn a_node_of_flannels_with_another_backend_is_told_and_gets_no_route() {
    let mut overlay = parts(VXLAN);
    overlay.apply(&flannels(part(2), "host-gw", None));
    assert_eq!(route(&overlay, "10.244.2.0/24"), None);
    let message =
        "node node2 has flannel's backend host-gw and not vxlan, as kube-flannel-cfg says: its pods get no routes";
    assert_eq!(overlay.problems().map(|problem| problem.to_string()).collect::<Vec<_>>(), [message]);
}

#[test]
fn what_a_node_told_flannel_counts_for_nothing_without_flannels_configuration() {
    let mut overlay = parts(VXLAN);
    overlay.apply(&flannels(part(2), "vxlan", Some(Mac([2, 0, 0, 0, 0, 1]))));
    overlay.apply(&gone(&conf(VXLAN)));
    assert_eq!(overlay.desired(), &State::default());
    overlay.apply(&pool("default", "10.233.64.0/18", EncapMode::Always));
    assert!(overlay.desired().fdb.contains_key(&("podnet.vxlan".into(), vtep_mac(&"node2".into()))));
}

#[test]
fn parts_outside_flannels_range_are_nobodys() {
    let mut overlay = parts(VXLAN);
    overlay.apply(&with(part(3), |node| node.pod_cidrs = vec!["10.99.3.0/24".parse().unwrap()]));
    assert_eq!(overlay.desired().routes.len(), 2);
}
