//! Pods on a bridge of the node.

use super::*;
use crate::addr;

const BRIDGE: Mac = Mac([0xee, 0xee, 0xee, 0xee, 0xee, 0xee]);

fn bridge(gateways: &[&str]) -> NodeBridge {
    NodeBridge {
        name: "cni0".into(),
        mac: BRIDGE,
        mtu: 1450,
        gateways: gateways.iter().map(|net| net.parse().unwrap()).collect(),
        has_ipv6: true,
    }
}

/// Pods with addresses of a range that is on link by IPv4 and not by IPv6; that of the last one is of another block.
fn bridged(tag: &str, gateways: &[&str]) -> Pods {
    let mut pods = pods(tag, 3);
    for interface in &mut pods.interfaces {
        interface.host_mac = BRIDGE;
        interface.bridge = Some(OnBridge {
            bridge: "cni0".into(),
            hairpin: true,
            segments: vec!["10.233.64.0/26".parse().unwrap()],
            gateways: gateways.iter().map(|net| net.parse().unwrap()).collect(),
        });
    }
    pods.interfaces[2].addr = vec!["10.233.70.9".parse().unwrap(), "fd00:1::9".parse().unwrap()];
    pods
}

#[test]
fn pods_on_a_bridge_are_neighbours_and_reach_all_else_by_the_node() {
    for gateways in [["169.254.1.1/32", "fe80::1/128"], ["10.233.64.62/26", "fd00::ff/64"]] {
        let mut pods = bridged("bridged", &gateways);
        pods.node.command("ip -6 addr add fd00::fe/128 dev lo nodad");
        bridge(&gateways).prepare(&mut pods.host, false).unwrap();
        for interface in &pods.interfaces {
            interface.create(&mut pods.host).unwrap();
            assert_eq!(interface.check(&mut pods.host).unwrap(), []);
        }
        assert_eq!(bridge(&gateways).differences(&mut pods.host).unwrap(), []);
        let gateway = gateways[0].split('/').next().unwrap();
        for to in ["10.233.64.2", "fd00::2", "10.233.70.9", "fd00:1::9", "192.0.2.1", gateway] {
            pods.namespaces[0].command(&format!("ping -c 1 -W 2 {to}"));
        }
        pods.node.command("ping -c 1 -W 2 10.233.64.1");
        pods.node.command("ping -c 1 -W 2 fd00::1");
        assert!(!pods.namespaces[0].command("ip route get 10.233.64.2").contains("via"));
        assert!(pods.namespaces[0].command("ip route get 10.233.70.9").contains(&format!("via {gateway}")));
        // The node knows no range of the bridge's, but its pods.
        let routes = pods.node.command("ip route show dev cni0");
        assert!(!routes.contains("/26") && routes.contains("10.233.64.1 "), "{routes}");
        // What is sent to all is heard by all.
        let heard = pods.namespaces[1].run(|| UdpSocket::bind("0.0.0.0:9000")).unwrap().unwrap();
        heard.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let said = pods.namespaces[0].run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        said.set_broadcast(true).unwrap();
        said.send_to(b"all", "10.233.64.63:9000").unwrap();
        assert_eq!(heard.recv_from(&mut [0; 9]).unwrap().1.ip(), v4(1));
    }
}

#[test]
fn what_somebody_did_to_a_bridge_and_its_ports_is_found_and_mended() {
    let gateways = ["10.233.64.62/26", "fd00::ff/64"];
    let mut pods = bridged("bridge-mend", &gateways);
    let bridge = bridge(&gateways);
    bridge.prepare(&mut pods.host, false).unwrap();
    for interface in &pods.interfaces {
        interface.create(&mut pods.host).unwrap();
    }
    let ends: Vec<HostEnd> = pods.interfaces.iter().map(PodInterface::host_end).collect();
    assert!(host_end::damaged(&mut pods.host, &ends).unwrap().is_empty());
    for damage in [
        "ip link delete cni0",
        "ip link set cni0 down",
        "ip link set cni0 address 02:00:00:00:00:07",
        "ip link set cni0 mtu 1400",
        "ip addr del 10.233.64.62/26 dev cni0",
        "ip link set pod1 nomaster",
        "ip route del 10.233.64.1 dev cni0",
        "ip neigh del 10.233.64.1 dev cni0",
        "ip -6 neigh flush dev cni0 nud permanent",
    ] {
        pods.node.command(damage);
        let of_bridge = bridge.differences(&mut pods.host).unwrap();
        bridge.prepare(&mut pods.host, true).unwrap();
        let damaged = host_end::damaged(&mut pods.host, &ends).unwrap();
        assert!(!of_bridge.is_empty() || !damaged.is_empty(), "{damage}");
        damaged.iter().for_each(|damaged| damaged.mend(&mut pods.host).unwrap());
        assert_eq!(bridge.differences(&mut pods.host).unwrap(), [], "{damage}");
        assert!(host_end::damaged(&mut pods.host, &ends).unwrap().is_empty(), "{damage}");
        for to in ["10.233.64.2", "fd00::2", "192.0.2.1"] {
            pods.namespaces[0].command(&format!("ping -c 1 -W 2 {to}"));
        }
    }
    // What is gone leaves nothing on the bridge.
    for addr in &pods.interfaces[0].addr {
        cut_off(&mut pods.host, *addr, Some(&"cni0".into())).unwrap();
    }
    remove(&mut pods.host, &"pod1".into()).unwrap();
    let left = pods.node.command("ip route show dev cni0") + &pods.node.command("ip neigh show dev cni0");
    assert!(!left.contains("10.233.64.1 ") && !left.contains("fd00::1 "), "{left}");
}

#[test]
fn a_bridge_of_somebody_else_is_left_alone_and_told() {
    let mut pods = bridged("bridge-foreign", &["169.254.1.1/32"]);
    pods.node.command("ip link add cni0 type bridge");
    let error = bridge(&[]).prepare(&mut pods.host, false).unwrap_err();
    assert!(error.to_string().starts_with("bridge cni0 is another program's; remove it"), "{error}");
    pods.node.command("ip link delete cni0");
    assert!(pods.interfaces[0].create(&mut pods.host).is_err());
    assert!(!pods.interfaces[0].is_name_taken().unwrap());
    pods.node.command("ip link add cni0 type veth peer name cni1");
    let error = bridge(&[]).prepare(&mut pods.host, false).unwrap_err();
    assert_eq!(error.to_string(), "device cni0 is no bridge (veth)");
}

/// An address of the segment's range that another node borrowed.
#[test]
fn what_of_the_range_is_elsewhere_is_reached_by_the_node() {
    let mut pods = bridged("bridge-lent", &["169.254.1.1/32"]);
    bridge(&["169.254.1.1/32"]).prepare(&mut pods.host, false).unwrap();
    pods.interfaces[0].create(&mut pods.host).unwrap();
    let other = TestNs::new("bridge-lent-other");
    let mut far = RtSocket::open_in(&other).unwrap();
    let peer = VethPeer { name: "far", mac: None, netns: Some(&other) };
    link::create_veth(&mut pods.host, &Veth { name: "near", mac: None, peer, mtu: 1450 }).unwrap();
    let index = link::index_of(&mut far, "far").unwrap();
    addr::add(&mut far, index, "10.233.64.40/32".parse().unwrap()).unwrap();
    pods.node.command("ip link set near up");
    other.command("ip link set far up");
    other.command("ip route add default dev far");
    pods.node.command("ip route add 10.233.64.40/32 dev near");
    pods.node.command("ip route add blackhole 10.233.64.0/26");
    sysctl::set(&other, "net.ipv4.conf.far.proxy_arp", "0").unwrap();
    sysctl::set(&pods.node, "net.ipv4.conf.near.proxy_arp", "1").unwrap();
    pods.namespaces[0].command("ping -c 1 -W 2 10.233.64.40");
}
