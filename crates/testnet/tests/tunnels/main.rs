//! Every way between nodes carries TCP, UDP, ICMP and fragments between pods: what the planner plans is done to two nodes in
//! namespaces, here, and in the virtual machine where this kernel lacks what is needed.
#![allow(clippy::unwrap_used)]

mod lab;
mod probes;

use podnet_kernel::{executor, netlink::RtSocket};
use podnet_model::EncapMode::{Always, CrossSubnet, Never};
use podnet_planner::overlay::Support;
use podnet_testnet::vm;

use crate::{
    lab::{Lab, Underlay, felix, pool},
    probes::Capture,
};

#[test]
fn vxlan_carries_everything_between_pods() {
    for (mode, underlay) in [(Always, Underlay::OneSubnet), (CrossSubnet, Underlay::Routed)] {
        let mut lab = Lab::new("vxlan", underlay, &pool(mode, Never));
        assert_eq!(lab.devices(), ["podnet.vxlan"]);
        lab.everything_passes(1450);
    }
}

#[test]
fn plain_routes_carry_everything_between_pods_of_one_subnet() {
    for vxlan in [Never, CrossSubnet] {
        let mut lab = Lab::new("plain", Underlay::OneSubnet, &pool(vxlan, Never));
        lab.everything_passes(1500);
    }
}

#[test]
fn ipip_and_wireguard_work_in_the_virtual_machine() {
    vm::run_tests("machine_", &["ipip", "wireguard", "tun", "veth", "vxlan"]);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_has_every_kind_of_tunnel() {
    assert_eq!(executor::support(&mut RtSocket::open().unwrap()).unwrap(), Support::ALL);
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
fn encrypted(tag: &str) -> Lab {
    let mut lab = Lab::new(tag, Underlay::Routed, &pool(Always, Never));
    lab.publish_key(1, 10);
    lab.publish_key(2, 20);
    lab.apply_everywhere(&felix());
    lab
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_wireguard_carries_everything_between_pods() {
    let mut lab = encrypted("wg");
    assert_eq!(lab.devices(), ["podnet.vxlan", "podnet.wg"]);
    lab.everything_passes(1440);
    assert_eq!(lab.repairs(), []);
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
