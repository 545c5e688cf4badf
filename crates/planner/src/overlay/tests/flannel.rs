//! flannel's configuration, and its nodes as peers.

use podnet_model::flannel::{Backend, Lease};

use super::*;

const VXLAN: Backend = Backend::Vxlan { vni: 1, port: 8472, direct_routing: false };

fn conf(backend: Backend) -> Change {
    let conf = NetConf { network: "10.244.0.0/16".parse().unwrap(), subnet_len: 24, backend, ipv6: false };
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
    let on_link = |device: &str, via: &str, source: Option<&str>| {
        let source = source.map(|source| source.parse().unwrap());
        Some(RouteTarget::OnLink { device: device.into(), via: via.parse().unwrap(), source })
    };
    let on = |device: &str, via: &str| on_link(device, via, None);
    let udp = |via: &str| on_link("podnet.udp", via, Some("172.29.0.11"));
    let (near, far) = ("172.29.0.12", "172.29.1.13");
    for (backend, to_near, to_far) in [
        (VXLAN, on("podnet.vxlan", near), on("podnet.vxlan", far)),
        (Backend::Vxlan { vni: 1, port: 8472, direct_routing: true }, via(near), on("podnet.vxlan", far)),
        (Backend::HostGw, via(near), None),
        (Backend::Ipip { direct_routing: false }, on("podnet.ipip", near), on("podnet.ipip", far)),
        (Backend::Udp { port: 8285 }, udp(near), udp(far)),
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

#[test]
fn flannels_nodes_are_told_what_they_need_and_once_they_are_told_it_is_known() {
    let mac = vtep_mac(&"node1".into());
    for (backend, data, lease_mac) in [
        (VXLAN, format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#), Some(mac)),
        (Backend::HostGw, "null".to_owned(), None),
        (Backend::Udp { port: 8285 }, "null".to_owned(), None),
    ] {
        let mut overlay = parts(backend);
        let words = overlay.flannel_words().unwrap();
        assert!(!words.shown);
        let prefix = "flannel.alpha.coreos.com";
        let expected = [
            ("backend-data", data.as_str()),
            ("backend-type", backend.name()),
            ("kube-subnet-manager", "true"),
            ("public-ip", "172.29.0.11"),
        ];
        let told: Vec<_> = words.annotations.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(told, expected.map(|(key, value)| format!("{prefix}/{key}={value}")));
        overlay.apply(&flannels(part(1), backend.name(), lease_mac));
        assert!(overlay.flannel_words().unwrap().shown);
    }
    assert_eq!(cluster(EncapMode::Always).flannel_words(), None);
}

#[test]
fn with_wireguard_flannels_nodes_are_told_the_key_once_there_is_one() {
    let mut overlay = parts(Backend::WireGuard { port: 51820 });
    overlay.set_keys(vec![key(1)]);
    assert_eq!(overlay.flannel_words(), None);
    overlay.apply(&with(part(1), |node| node.wireguard_key = Some(key(1).public)));
    let data = format!(r#"{{"PublicKey":"{}"}}"#, key(1).public);
    assert_eq!(overlay.flannel_words().unwrap().annotations["flannel.alpha.coreos.com/backend-data"], data);
}

#[test]
fn other_plugins_learn_the_nodes_part_and_the_mtu_from_flannels_file() {
    let expected =
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
    assert_eq!(parts(VXLAN).subnet_env().as_deref(), Some(expected));
    assert_eq!(after(&[part(2), conf(VXLAN)]).subnet_env(), None);
}

#[test]
fn that_flannels_ipv6_is_not_done_is_told_and_ipv4_works() {
    let mut overlay = parts(VXLAN);
    let Change::NetConf(namespace, Some(with_ipv4)) = conf(VXLAN) else { panic!("a configuration") };
    assert_eq!(overlay.apply(&Change::NetConf(namespace, Some(NetConf { ipv6: true, ..with_ipv4 }))), []);
    let message = "kube-flannel-cfg asks for IPv6 (EnableIPv6), of which only the IPv4 part is done; an IPPool of IPv6 beside it gives \
                   pods IPv6 addresses";
    assert_eq!(overlay.problems().map(|problem| problem.to_string()).collect::<Vec<_>>(), [message]);
    // Blocks of such a pool take the pool's way, beside flannel's parts.
    overlay.apply(&pool("six", "fd00:10:233::/64", EncapMode::Always));
    overlay.apply(&block("fd00:10:233::40/122", Some("node2")));
    let next_hop = vtep_next_hop(vtep_mac(&"node2".into())).to_string();
    assert_eq!(route(&overlay, "fd00:10:233::40/122"), on_link(&next_hop));
}
