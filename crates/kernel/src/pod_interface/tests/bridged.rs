//! Pods on a bridge of the node.

use std::process::Command;

use super::*;
use crate::{
    addr,
    nft::{NftSocket, Sender},
};

/// Sends a frame with these words by a device: its index, to whom, from whom, and all else, in hexadecimal.
const SEND: &str = r#"
    socket(my $s, 17, 3, 0) or die $!;
    my ($index, @frame) = @ARGV;
    send($s, pack("H*", join("", @frame)), 0, pack("SniSCCx8", 17, 3, $index, 1, 0, 6)) or die $!;
"#;

/// Has a pod send a frame, as it is.
fn send(pods: &Pods, from: usize, frame: &[&str]) {
    let link = pods.namespaces[from].command("ip -o link show dev eth0");
    let index = link.split(':').next().unwrap();
    let mut command = Command::new("perl");
    command.args(["-e", SEND, index]).args(frame);
    let output = pods.namespaces[from].run(move || command.output()).unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn digits(mac: Mac) -> String {
    mac.to_string().replace(':', "")
}

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
        // A subnet has an address for that; a block has none, as a pod may have its last.
        let all = if gateway == "169.254.1.1" { "255.255.255.255:9000" } else { "10.233.64.63:9000" };
        said.send_to(b"all", all).unwrap();
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
        "ip link set cni0 type bridge no_linklocal_learn 0",
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

/// A block has no addresses that nobody may have, unlike a subnet.
#[test]
fn pods_with_the_first_and_the_last_address_of_a_block_are_neighbours_too() {
    let gateways = ["169.254.1.1/32", "fe80::1/128"];
    let mut pods = bridged("bridge-ends", &gateways);
    bridge(&gateways).prepare(&mut pods.host, false).unwrap();
    let addrs = ["10.233.64.0", "10.233.64.63", "10.233.64.7"];
    for (interface, addr) in pods.interfaces.iter_mut().zip(addrs) {
        interface.addr[0] = addr.parse().unwrap();
        interface.create(&mut pods.host).unwrap();
        assert_eq!(interface.check(&mut pods.host).unwrap(), []);
    }
    for (from, to) in [(2, 1), (1, 2), (2, 0), (0, 1)] {
        assert!(!pods.namespaces[from].command(&format!("ip route get {}", addrs[to])).contains("via"));
        pods.namespaces[from].command(&format!("ping -c 1 -W 2 {}", addrs[to]));
    }
    // The way to the neighbours is part of what is looked after.
    pods.namespaces[2].command("ip route del 10.233.64.0/26");
    let missing = Difference::NoRoute { device: "eth0".into(), dst: "10.233.64.0/26".parse().unwrap() };
    assert_eq!(pods.interfaces[2].check(&mut pods.host).unwrap(), [missing]);
}

/// As the node checks them.
fn check_senders(pods: &Pods) {
    let sender = |interface: &PodInterface| Sender {
        port: interface.host_ifname.clone(),
        mac: interface.pod_mac,
        addrs: interface.addr.clone(),
    };
    let senders: Vec<Sender> = pods.interfaces.iter().map(sender).collect();
    let mut socket = pods.node.run(NftSocket::open).unwrap().unwrap();
    socket.check_segments("pods", "pod", &senders).unwrap();
}

/// A packet of UDP to port 9000 with this text, from one of the pods to another, in hexadecimal.
fn datagram(from: u8, to: u8, text: &str) -> String {
    let [whole, part] = [28, 8].map(|heads| format!("{:04x}", heads + text.len()));
    let head = |sum: u16| format!("4500{whole}000000004011{sum:04x}0ae940{from:02x}0ae940{to:02x}");
    let words = (0..40).step_by(4).map(|at| u32::from_str_radix(&head(0)[at..at + 4], 16).unwrap());
    let sum = words.sum::<u32>();
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    let text: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{}03e82328{part}0000{text}", head(!sum))
}

#[test]
fn a_pod_sends_as_no_other_whatever_tags_of_vlans_its_frames_have() {
    let gateways = ["169.254.1.1/32", "fe80::1/128"];
    let mut pods = bridged("bridge-tags", &gateways);
    bridge(&gateways).prepare(&mut pods.host, false).unwrap();
    for interface in &pods.interfaces {
        interface.create(&mut pods.host).unwrap();
    }
    check_senders(&pods);
    let heard = pods.namespaces[1].run(|| UdpSocket::bind("0.0.0.0:9000")).unwrap().unwrap();
    heard.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let [own, to] = [0, 1].map(|number: usize| digits(pods.interfaces[number].pod_mac));
    // What comes last is honest, and arrives after all else.
    for tags in ["", "81000000", "8100000081000000", "88a8000088a80000", "88a8000081000000", "810000008100000081000000"]
    {
        send(&pods, 0, &[&to, &own, tags, "0800", &datagram(3, 2, "false")]);
        send(&pods, 0, &[&to, &own, "0800", &datagram(1, 2, "true")]);
        let mut text = [0; 9];
        let (length, from) = heard.recv_from(&mut text).unwrap();
        assert_eq!((&text[..length], from.ip()), (&b"true"[..], v4(1).into()), "tags {tags:?}");
    }
}

/// What is sent to the bridge alone passes no rule.
#[test]
fn a_pod_gets_nothing_of_a_neighbours_by_what_it_sends_to_the_bridge_alone() {
    let gateways = ["169.254.1.1/32", "fe80::1/128"];
    let mut pods = bridged("bridge-learn", &gateways);
    bridge(&gateways).prepare(&mut pods.host, false).unwrap();
    for interface in &pods.interfaces {
        interface.create(&mut pods.host).unwrap();
    }
    check_senders(&pods);
    pods.namespaces[1].command("ping -c 1 -W 2 10.233.64.1");
    let neighbour = pods.interfaces[1].pod_mac;
    for last in ["0e", "03", "00", "02"] {
        send(&pods, 0, &["0180c20000", last, &digits(neighbour), "88cc", &"00".repeat(46)]);
        // What is answered was sent after it.
        pods.namespaces[0].command("ping -c 1 -W 2 192.0.2.1");
        let known = pods.node.command("bridge fdb show br cni0");
        let line = known.lines().find(|line| line.starts_with(&neighbour.to_string())).unwrap();
        assert!(line.contains("dev pod2 "), "{last}: {line}");
    }
}

#[test]
fn a_bridge_that_was_only_begun_is_finished_and_one_without_room_for_ipv6_has_all_else() {
    let begun = TestNs::new("bridge-begun");
    let mut host = RtSocket::open_in(&begun).unwrap();
    begun.command("ip link add cni0 address ee:ee:ee:ee:ee:ee type bridge");
    bridge(&["169.254.1.1/32"]).prepare(&mut host, false).unwrap();
    let narrow = TestNs::new("bridge-narrow");
    let mut narrow_host = RtSocket::open_in(&narrow).unwrap();
    let small = NodeBridge { mtu: 1230, has_ipv6: false, ..bridge(&["169.254.1.1/32"]) };
    for _ in 0..2 {
        small.prepare(&mut narrow_host, false).unwrap();
    }
    for node in [&begun, &narrow] {
        for (key, value) in bridge::settings(&"cni0".into()) {
            assert_eq!(sysctl::read(node, &key).unwrap(), value, "{key}");
        }
    }
    for wide in [begun, narrow] {
        let mut host = RtSocket::open_in(&wide).unwrap();
        bridge(&["169.254.1.1/32"]).prepare(&mut host, true).unwrap();
        for (key, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("disable_ipv6", "0")] {
            assert_eq!(sysctl::read(&wide, &format!("net/ipv6/conf/cni0/{key}")).unwrap(), value, "{key}");
        }
        assert!(!wide.command("ip -6 addr show dev cni0").contains("fe80:"));
    }
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

#[test]
fn ways_to_who_is_gone_are_found_on_the_bridge_and_no_others() {
    let mut pods = bridged("bridge-strays", &["169.254.1.1/32", "fe80::1/128"]);
    bridge(&["169.254.1.1/32", "fe80::1/128"]).prepare(&mut pods.host, false).unwrap();
    for interface in &pods.interfaces {
        interface.create(&mut pods.host).unwrap();
    }
    // Killed in between: the device went and nobody knew of the rest. And what is somebody else's.
    remove(&mut pods.host, &"pod1".into()).unwrap();
    pods.node.command("ip link add other type bridge");
    pods.node.command("ip link set other up");
    pods.node.command("ip neigh add 10.233.64.77 lladdr 02:00:00:00:00:77 dev other nud permanent");
    pods.node.command("ip route add 10.233.64.78 dev cni0 proto static");
    let held = pods.interfaces[1..].iter().flat_map(|interface| interface.addr.clone()).collect();
    let strays = bridge::remove_strays(&mut pods.host, BRIDGE, &held).unwrap();
    assert_eq!(strays.into_iter().collect::<Vec<_>>(), pods.interfaces[0].addr);
    assert!(bridge::remove_strays(&mut pods.host, BRIDGE, &held).unwrap().is_empty());
    let left = pods.node.command("ip route show") + &pods.node.command("ip neigh show nud permanent");
    assert!(
        !left.contains("10.233.64.1 ") && left.contains("10.233.64.77 ") && left.contains("10.233.64.78 "),
        "{left}"
    );
    for interface in &pods.interfaces[1..] {
        assert_eq!(interface.check(&mut pods.host).unwrap(), []);
    }
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
