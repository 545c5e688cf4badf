//! Every way between nodes carries TCP, UDP, ICMP and fragments between pods: what the planner plans is done to two nodes in
//! namespaces, here, and in the virtual machine where this kernel lacks what is needed. A packet passes the devices that a trace names, also by
//! a Service, and to neighbours on a bridge. Flows are counted on that kernel, too.
#![allow(clippy::unwrap_used)]

mod bridged;
mod counted;
mod lab;
mod namespace;
mod probes;
mod traced;

use std::{net::UdpSocket, sync::atomic::Ordering, time::Duration};

use podnet_kernel::{
    executor,
    fastpath::{self, Behind, FastPath},
    netlink::RtSocket,
};
use podnet_model::{
    EncapMode::{Always, CrossSubnet, Never},
    flannel::Backend,
};
use podnet_planner::overlay::Support;
use podnet_testnet::{vm, wait};

use crate::{
    lab::{Lab, Outside, Underlay, felix, net_conf, pool, pool6},
    namespace::Namespace,
    probes::Capture,
};

#[test]
fn vxlan_carries_everything_between_pods() {
    for (mode, underlay) in [(Always, Underlay::OneSubnet), (CrossSubnet, Underlay::Routed)] {
        let mut lab = Lab::new("vxlan", underlay, &pool(mode, Never));
        assert_eq!(lab.devices(), ["podnet.vxlan"]);
        lab.everything_passes(1450);
        lab.passes_as_traced();
    }
}

#[test]
fn vxlan_carries_ipv6_too_over_whatever_family_the_underlay_has() {
    for (outside, underlay, mode, mtu) in [
        (Outside::V4, Underlay::Routed, Always, 1450),
        (Outside::Both, Underlay::Routed, CrossSubnet, 1450),
        (Outside::V6, Underlay::OneSubnet, Always, 1430),
        (Outside::V6, Underlay::Routed, CrossSubnet, 1430),
    ] {
        let mut lab = Lab::with("vxlan6", underlay, outside, mtu, &[&pool(mode, Never), &pool6(mode)]);
        let device = if outside == Outside::V6 { "podnet.vxlan6" } else { "podnet.vxlan" };
        assert_eq!(lab.devices(), [device], "{outside:?}");
        for node in &lab.nodes {
            assert_eq!(node.overlay.pod_mtu(), mtu, "{outside:?}");
        }
        lab.everything_passes_by_ipv6(mtu as usize);
        lab.everything_passes(mtu as usize);
        assert_eq!(lab.repairs(), [], "{outside:?}");
        lab.passes_as_traced();
        lab.passes_as_traced_by_ipv6();
    }
}

#[test]
fn a_node_of_both_families_and_one_of_ipv6_alone_reach_each_others_pods_by_both() {
    let mut lab =
        Lab::with("mixed", Underlay::Routed, Outside::Mixed, 1430, &[&pool(Always, Never), &pool6(CrossSubnet)]);
    assert_eq!(lab.devices(), ["podnet.vxlan", "podnet.vxlan6"]);
    lab.everything_passes_by_ipv6(1430);
    lab.everything_passes(1430);
    assert_eq!(lab.repairs(), []);
    lab.passes_as_traced();
    lab.passes_as_traced_by_ipv6();
}

#[test]
fn plain_routes_carry_ipv6_and_without_ipv4_on_the_underlay_ipv4_too() {
    for outside in [Outside::Both, Outside::V6] {
        let mut lab =
            Lab::with("plain6", Underlay::OneSubnet, outside, 1500, &[&pool(CrossSubnet, Never), &pool6(Never)]);
        lab.everything_passes_by_ipv6(1500);
        lab.everything_passes(1500);
        assert_eq!(lab.repairs(), [], "{outside:?}");
        lab.passes_as_traced();
        lab.passes_as_traced_by_ipv6();
    }
}

#[test]
fn a_connection_by_ipv6_survives_a_change_of_mode_node_by_node() {
    let mut lab = Lab::with("change6", Underlay::OneSubnet, Outside::Both, 1450, &[&pool6(Always)]);
    let mut connection = lab.connect_by_ipv6();
    connection.exchange();
    for mode in [Never, CrossSubnet, Always] {
        for node in 0..2 {
            lab.apply(node, &pool6(mode));
        }
        connection.exchange();
    }
    assert_eq!(lab.devices(), ["podnet.vxlan"]);
}

#[test]
fn plain_routes_carry_everything_between_pods_of_one_subnet() {
    for vxlan in [Never, CrossSubnet] {
        let mut lab = Lab::new("plain", Underlay::OneSubnet, &pool(vxlan, Never));
        lab.everything_passes(1500);
        lab.passes_as_traced();
    }
}

#[test]
fn udp_carries_everything_between_pods() {
    for underlay in [Underlay::OneSubnet, Underlay::Routed] {
        let mut lab = Lab::new("udp", underlay, &net_conf(Backend::Udp { port: 8285 }));
        assert_eq!(lab.devices(), ["podnet.udp"]);
        lab.everything_passes(1472);
        assert_eq!(lab.repairs(), []);
        lab.passes_as_traced();
    }
}

#[test]
fn the_udp_tunnel_comes_back_with_its_device() {
    let mut lab = Lab::new("udpback", Underlay::OneSubnet, &net_conf(Backend::Udp { port: 8285 }));
    let mut connection = lab.connect();
    connection.exchange();
    lab.nodes[0].namespace.command("ip link del podnet.udp");
    let steps = lab.repairs();
    assert!(!steps.is_empty());
    executor::apply(&mut lab.nodes[0].socket, &steps).unwrap();
    lab.nodes[0].carry();
    connection.exchange();
}

#[test]
fn a_node_that_speaks_flannels_udp_is_understood_and_a_stranger_is_not() {
    let lab = Lab::new("udpraw", Underlay::OneSubnet, &net_conf(Backend::Udp { port: 8285 }));
    let [first, second] = &lab.nodes[..] else { panic!("two nodes") };
    let refused = || first.carrier.as_ref().unwrap().carried().refused.load(Ordering::Relaxed);
    let socket = second.namespace.netns.run(|| UdpSocket::bind("192.0.2.2:0")).unwrap().unwrap();
    // From an address that the sender does not have.
    socket.send_to(&probes::echo_request([10, 233, 7, 7], [10, 233, 1, 5]), "192.0.2.1:8285").unwrap();
    socket.send_to(b"no packet at all", "192.0.2.1:8285").unwrap();
    wait::eventually("both are refused", Duration::from_secs(20), || match refused() {
        2 => Ok(()),
        other => Err(format!("{other} are")),
    });
    // flannel's node has the port; here its place is taken, so that the pod of the second node gets the answer.
    let answers = probes::IcmpListener::start(&second.pod);
    socket.send_to(&probes::echo_request([10, 233, 2, 5], [10, 233, 1, 5]), "192.0.2.1:8285").unwrap();
    assert_eq!(answers.next_source(), [10, 233, 1, 5]);
}

#[test]
fn with_alloc_somebody_else_carries_the_packets() {
    let mut lab = Lab::new("alloc", Underlay::OneSubnet, &net_conf(Backend::Alloc));
    assert_eq!(lab.devices(), [""; 0]);
    // The underlay's routers, or whoever it is.
    lab.nodes[0].namespace.command("ip route add 10.233.2.0/26 via 192.0.2.2");
    lab.nodes[1].namespace.command("ip route add 10.233.1.0/26 via 192.0.2.1");
    lab.everything_passes(1500);
}

#[test]
fn ipip_and_wireguard_work_in_the_virtual_machine() {
    let modules = ["ipip", "wireguard", "tun", "veth", "vxlan", "sch_ingress", "cls_bpf", "nf_conntrack_netlink"];
    vm::run_tests("machine_", &[&modules[..], &vm::NF_TABLES].concat());
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_has_every_kind_of_tunnel() {
    assert_eq!(executor::support(&mut RtSocket::open().unwrap()).unwrap(), Support::ALL);
}

/// Its kernel is older than the newer hooks (`tcx`, Linux 6.6).
#[test]
#[ignore = "runs in the virtual machine"]
fn machine_takes_the_programs_of_the_fast_path() {
    let namespace = Namespace::new("fastpath");
    namespace.command("ip link add pn0 type veth peer name pn1");
    namespace.netns.run(|| fastpath::settings_to_change().unwrap()).unwrap();
    let mut socket = RtSocket::open_in(&namespace.netns).unwrap();
    let programs = FastPath::load().unwrap();
    assert!(programs.attach(&mut socket, &"pn0".into(), Behind::Pod).unwrap());
    assert!(programs.is_at(&mut socket, &"pn0".into(), Behind::Pod).unwrap());
    assert!(fastpath::detach(&mut socket, &"pn0".into()).unwrap());
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_ipip_carries_everything_between_pods() {
    for (mode, underlay) in [(Always, Underlay::OneSubnet), (CrossSubnet, Underlay::Routed)] {
        let mut lab = Lab::new("ipip", underlay, &pool(Never, mode));
        assert_eq!(lab.devices(), ["podnet.ipip"]);
        lab.everything_passes(1480);
        // What was planned is what is there: a restarted agent changes nothing.
        assert_eq!(lab.repairs(), []);
        lab.passes_as_traced();
    }
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_a_connection_survives_a_change_of_mode_node_by_node() {
    let mut lab = Lab::new("change", Underlay::OneSubnet, &pool(Always, Never));
    let mut connection = lab.connect();
    connection.exchange();
    for change in [pool(Never, Always), pool(Never, CrossSubnet), pool(Never, Never), pool(Always, Never)] {
        for node in 0..2 {
            lab.apply(node, &change);
        }
        connection.exchange();
    }
    assert_eq!(lab.devices(), ["podnet.vxlan"]);
}

/// Encryption in force between two nodes on two subnets.
fn encrypted(tag: &str, outside: Outside, mtu: u32) -> Lab {
    let mut lab = Lab::with(tag, Underlay::Routed, outside, mtu, &[&pool(Always, Never), &pool6(Always)]);
    lab.publish_key(1, 10);
    lab.publish_key(2, 20);
    lab.apply_everywhere(&felix());
    lab
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_wireguard_carries_everything_between_pods() {
    let mut lab = encrypted("wg", Outside::V4, 1500);
    assert_eq!(lab.devices(), ["podnet.vxlan", "podnet.wg"]);
    lab.everything_passes(1440);
    assert_eq!(lab.repairs(), []);
    lab.passes_as_traced();
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_wireguard_carries_ipv6_too_over_whatever_family_the_underlay_has() {
    for (outside, mtu) in [(Outside::V4, 1440), (Outside::Both, 1440), (Outside::V6, 1420)] {
        let mut lab = encrypted("wg6", outside, mtu);
        lab.everything_passes_by_ipv6(mtu as usize);
        lab.everything_passes(mtu as usize);
        assert_eq!(lab.repairs(), [], "{outside:?}");
        lab.passes_as_traced();
        lab.passes_as_traced_by_ipv6();
    }
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_nobody_on_the_underlay_reads_what_pods_say() {
    const SECRET: &[u8] = b"nobody else shall read this";
    let mut lab = Lab::new("read", Underlay::Routed, &pool(Always, Never));
    let reads = |lab: &Lab| {
        let capture = Capture::start(lab.router.as_ref().unwrap());
        let [first, second] = &lab.nodes[..] else { panic!("two nodes") };
        probes::udp_exchange(&first.pod, &second.pod, second.pod_address, SECRET);
        let frames = capture.frames();
        assert!(!frames.is_empty(), "nothing was heard");
        frames.iter().any(|frame| frame.windows(SECRET.len()).any(|window| window == SECRET))
    };
    assert!(reads(&lab), "VXLAN hides nothing: the capture works");
    lab.publish_key(1, 10);
    lab.publish_key(2, 20);
    lab.apply_everywhere(&felix());
    assert!(!reads(&lab));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_connections_survive_encryption_and_a_change_of_keys() {
    let mut lab = Lab::new("keys", Underlay::OneSubnet, &pool(Never, Never));
    let mut connection = lab.connect();
    connection.exchange();
    lab.publish_key(1, 10);
    lab.publish_key(2, 20);
    lab.apply_everywhere(&felix());
    connection.exchange();
    // The next key of the first node: its own device and its peer change by the same event.
    lab.publish_key(1, 11);
    connection.exchange();
    assert_eq!(lab.repairs(), []);
}
