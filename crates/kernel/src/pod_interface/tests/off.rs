//! Sandboxes and nodes on which IPv6 is turned off.

use super::*;

#[test]
fn a_sandbox_in_which_a_runtime_turned_ipv6_off_gets_its_address_all_the_same() {
    let mut pods = pods("off", 2);
    for setting in ["all", "default"] {
        sysctl::set(&pods.namespaces[0], &format!("net.ipv6.conf.{setting}.disable_ipv6"), "1").unwrap();
    }
    for interface in &pods.interfaces {
        interface.create(&mut pods.host).unwrap();
        assert_eq!(interface.check(&mut pods.host).unwrap(), []);
    }
    pods.namespaces[0].command("ping -c 1 -W 2 fd00::2");
    pods.namespaces[0].command("ping -c 1 -W 2 fd00::1");
    // Where no IPv6 address is wanted it stays off.
    let four = PodInterface { addr: vec![v4(9).into()], ..interface(&pods.namespaces[0], 9) };
    let four = PodInterface { container_ifname: "eth9".into(), ..four };
    four.create(&mut pods.host).unwrap();
    assert_eq!(sysctl::read(&pods.namespaces[0], "net.ipv6.conf.eth9.disable_ipv6").unwrap(), "1");
}

#[test]
fn a_node_on_which_new_devices_have_no_ipv6_gives_it_to_those_of_pods_that_have_an_address() {
    let mut pods = pods("hardened", 2);
    sysctl::set(&pods.node, "net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    pods.interfaces[1].addr.retain(IpAddr::is_ipv4);
    for interface in &pods.interfaces {
        interface.create(&mut pods.host).unwrap();
        assert_eq!(interface.check(&mut pods.host).unwrap(), []);
    }
    let disabled = |device| sysctl::read(&pods.node, &format!("net.ipv6.conf.{device}.disable_ipv6")).unwrap();
    assert_eq!(["pod1", "pod2"].map(disabled), ["0", "1"]);
}

#[test]
fn pods_of_ipv4_are_attached_where_packets_have_no_room_for_ipv6() {
    let mut pods = pods("narrow", 2);
    for interface in &mut pods.interfaces {
        interface.addr.retain(IpAddr::is_ipv4);
        interface.mtu = 1230;
        interface.create(&mut pods.host).unwrap();
        assert_eq!(interface.check(&mut pods.host).unwrap(), []);
    }
    pods.namespaces[0].command(&format!("ping -c 1 -W 2 -M do -s 1202 {}", pods.interfaces[1].addr[0]));
}
