//! flannel's configuration, and its nodes as peers.

use podnet_model::{
    Dual,
    flannel::{Backend, Lease},
};

use super::*;

const VXLAN: Backend = Backend::Vxlan { vni: 1, port: 8472, direct_routing: false };

fn conf(backend: Backend) -> Change {
    conf_of(backend, "10.244.0.0/16", "")
}

fn conf_of(backend: Backend, v4: &str, v6: &str) -> Change {
    let networks = Dual { v4: v4.parse().ok(), v6: v6.parse().ok() };
    Change::NetConf("kube-flannel".into(), Some(NetConf { networks, subnet_len: 24, backend }))
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
        let vtep_macs = Dual { v4: mac, v6: None };
        node.lease = Some(Lease { backend: backend.into(), public_ip: Some(public_ip), public_ipv6: None, vtep_macs });
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
    let device = vxlan(parts(VXLAN).desired()).unwrap();
    assert_eq!((device.vni, device.port, device.addrs), (1, 8472, ["10.244.1.0".parse().unwrap()].into()));
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
        let told = said(&words);
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
    assert_eq!(overlay.flannel_words().unwrap().annotations["flannel.alpha.coreos.com/backend-data"], Some(data));
}

#[test]
fn other_plugins_learn_the_nodes_part_and_the_mtu_from_flannels_file() {
    let expected =
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
    assert_eq!(parts(VXLAN).subnet_env().as_deref(), Some(expected));
    assert_eq!(after(&[part(2), conf(VXLAN)]).subnet_env(), None);
}

fn said(words: &FlannelWords) -> Vec<String> {
    words.annotations.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?))).collect()
}

/// A node with addresses and parts of both families.
fn both(number: u8) -> Change {
    with(part(number), |node| {
        let subnet = if number == 3 { 1 } else { 0 };
        let addr: IpAddr = format!("fd00:29:0:{subnet}::1{number}").parse().unwrap();
        (node.addr6, node.subnet6) = (Some(NodeAddr(addr)), IpNet::new(addr, 64).ok());
        node.pod_cidrs.push(format!("fd00:10:244:{number}::/64").parse().unwrap());
    })
}

/// Three such nodes, with flannel's configuration for both families.
fn in_both(backend: Backend) -> Overlay {
    after(&[both(1), both(2), both(3), conf_of(backend, "10.244.0.0/16", "fd00:10:244::/56")])
}

const PART6: [&str; 4] = ["", "fd00:10:244:1::/64", "fd00:10:244:2::/64", "fd00:10:244:3::/64"];

#[test]
fn each_family_has_its_own_device_as_with_flannel() {
    let overlay = in_both(VXLAN);
    let state = overlay.desired();
    let (four, six) = (vxlan(state).unwrap(), vxlan6(state).unwrap());
    assert_eq!((four.local.to_string().as_str(), four.mtu), ("172.29.0.11", 1450));
    assert_eq!((six.local.to_string().as_str(), six.vni, six.port, six.mtu), ("fd00:29::11", 1, 8472, 1430));
    let addr = |text: &str| std::collections::BTreeSet::from([text.parse::<IpAddr>().unwrap()]);
    assert_eq!((four.addrs, six.addrs), (addr("10.244.1.0"), addr("fd00:10:244:1::")));
    let behind = |name: &str| vtep_next_hop(vtep_mac(&name.into())).to_string();
    assert_eq!(route(&overlay, "10.244.2.0/24"), on_link("172.29.0.12"));
    assert_eq!(route(&overlay, PART6[1]), Some(RouteTarget::Blackhole));
    assert_eq!(
        [2, 3].map(|number| route(&overlay, PART6[number])),
        ["node2", "node3"].map(|name| on_link6(&behind(name)))
    );
    let mac = vtep_mac(&"node2".into());
    let remotes = ["podnet.vxlan", "podnet.vxlan6"].map(|device| state.fdb[&(device.into(), mac)].to_string());
    assert_eq!(remotes, ["172.29.0.12", "fd00:29::12"]);
    assert!(!state.neighbours.keys().any(|(device, addr)| *device == "podnet.vxlan".into() && addr.is_ipv6()));
    assert_eq!(overlay.problems().count(), 0);
    let direct = in_both(Backend::Vxlan { vni: 1, port: 8472, direct_routing: true });
    assert_eq!([2, 3].map(|number| route(&direct, PART6[number])), [via("fd00:29::12"), on_link6(&behind("node3"))]);
    let gateways = in_both(Backend::HostGw);
    assert_eq!([2, 3].map(|number| route(&gateways, PART6[number])), [via("fd00:29::12"), None]);
}

#[test]
fn a_node_of_flannels_is_reached_by_ipv6_where_it_says() {
    let mut overlay = in_both(VXLAN);
    let (mac4, mac6) = (Mac([0x8e, 0, 0, 0, 0, 4]), Mac([0x8e, 0, 0, 0, 0, 6]));
    overlay.apply(&with(flannels(part(2), "vxlan", Some(mac4)), |node| {
        node.pod_cidrs.push(PART6[2].parse().unwrap());
        let lease = node.lease.as_mut().unwrap();
        lease.public_ipv6 = "fd00:29::99".parse().ok();
        lease.vtep_macs.v6 = Some(mac6);
    }));
    let state = overlay.desired();
    let next_hop = vtep_next_hop(mac6);
    assert_eq!(route(&overlay, PART6[2]), on_link6(&next_hop.to_string()));
    assert_eq!(state.neighbours[&("podnet.vxlan6".into(), next_hop.into())], mac6);
    assert_eq!(state.fdb[&("podnet.vxlan6".into(), mac6)].to_string(), "fd00:29::99");
    assert_eq!(state.fdb[&("podnet.vxlan".into(), mac4)].to_string(), "172.29.0.12");
    assert!(
        !state.fdb.contains_key(&("podnet.vxlan".into(), mac6))
            && !state.fdb.contains_key(&("podnet.vxlan6".into(), mac4))
    );
    // Without an address to send to there is no way, and that is told.
    overlay.apply(&with(part(2), |node| node.pod_cidrs.push(PART6[2].parse().unwrap())));
    assert_eq!(route(&overlay, PART6[2]), None);
    let told = overlay.problems().map(|problem| problem.to_string()).collect::<Vec<_>>();
    assert_eq!(
        told,
        [
            "block fd00:10:244:2::/64 of node node2 gets no route: flannel's nodes carry IPv6 between IPv6 addresses, and \
                       this node or that one has none on the underlay"
        ]
    );
}

#[test]
fn flannels_nodes_and_programs_are_told_of_ipv6() {
    let mut overlay = in_both(VXLAN);
    let words = overlay.flannel_words().unwrap();
    let mac = vtep_mac(&"node1".into());
    let prefix = "flannel.alpha.coreos.com";
    let data = format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#);
    let expected = [
        ("backend-data", data.as_str()),
        ("backend-type", "vxlan"),
        ("backend-v6-data", &data),
        ("kube-subnet-manager", "true"),
        ("public-ip", "172.29.0.11"),
        ("public-ipv6", "fd00:29::11"),
    ];
    assert_eq!(said(&words), expected.map(|(key, value)| format!("{prefix}/{key}={value}")));
    assert_eq!(
        overlay.subnet_env().unwrap(),
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:244::/56\n\
         FLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n"
    );
    // What somebody wrote over the addresses is what peers are told.
    overlay.apply(&with(both(1), |node| {
        node.overwrites = Dual { v4: "203.0.113.1".parse().ok(), v6: "2001:db8::1".parse().ok() };
        let vtep_macs = Dual { v4: Some(mac), v6: Some(mac) };
        let (public_ip, public_ipv6) = ("203.0.113.1".parse().ok(), "2001:db8::1".parse().ok());
        node.lease = Some(Lease { backend: "vxlan".into(), public_ip, public_ipv6, vtep_macs });
    }));
    let words = overlay.flannel_words().unwrap();
    assert!(words.shown && said(&words).contains(&format!("{prefix}/public-ipv6=2001:db8::1")));
    // IPv6 is turned off: what was told is taken back.
    overlay.apply(&conf(VXLAN));
    let words = overlay.flannel_words().unwrap();
    assert!(!words.shown && words.annotations[&*format!("{prefix}/public-ipv6")].is_none());
    // And IPv4 is.
    overlay.apply(&conf_of(VXLAN, "", "fd00:10:244::/56"));
    assert!(overlay.subnet_env().unwrap().starts_with("FLANNEL_IPV6_NETWORK="));
    assert_eq!(overlay.flannel_words().unwrap().annotations[&*format!("{prefix}/public-ip")], None);
}

#[test]
fn a_backend_that_carries_ipv4_alone_is_told_once_and_ipv4_works() {
    let overlay = in_both(Backend::Udp { port: 8285 });
    assert!(route(&overlay, "10.244.2.0/24").is_some() && route(&overlay, PART6[2]).is_none());
    let message = "kube-flannel-cfg asks for IPv6 (EnableIPv6), which its backend udp does not carry: pods reach others by IPv6 on their own \
                   node only; the backends vxlan, host-gw and wireguard carry both families";
    assert_eq!(overlay.problems().map(|problem| problem.to_string()).collect::<Vec<_>>(), [message]);
}

#[test]
fn blocks_of_an_ippool_of_ipv6_beside_flannels_range_take_the_pools_way() {
    let mut overlay = parts(VXLAN);
    overlay.apply(&pool("six", "fd00:10:233::/64", EncapMode::Always));
    overlay.apply(&block("fd00:10:233::40/122", Some("node2")));
    let next_hop = vtep_next_hop(vtep_mac(&"node2".into())).to_string();
    assert_eq!(route(&overlay, "fd00:10:233::40/122"), on_link(&next_hop));
}
