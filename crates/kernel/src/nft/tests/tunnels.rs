//! What pods send into tunnels does not come there.

use std::{net::UdpSocket, time::Duration};

use podnet_model::{Change, EncapMode, LinkName, NodeAddr, Pool};
use podnet_planner::border::{Border, BorderConfig};
use rustix::net::{AddressFamily, SendFlags, SocketType, recvfrom, sendto, sockopt};

use super::{super::*, *};
use crate::{
    netlink::RtSocket,
    pod_interface::PodInterface,
    sysctl,
    testing::{TestNs, mac},
};

const TABLE: &str = "podnet";
const VXLAN: u16 = 4789;
/// Behind everything that is sent before it on the same way.
const CONTROL: u16 = 9;

fn node_addr(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, number).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// A node's rules in a cluster whose pods are in the range of [`pod_addr`], by VXLAN, and leave it with the node's address.
fn rules(family: Family) -> RuleSet {
    let range = match family {
        Family::V4 => "10.0.0.0/24",
        Family::V6 => "fd00::/64",
    };
    let mut border = Border::new(BorderConfig {
        family,
        node_addrs: vec![NodeAddr(node_addr(family, 1)), NodeAddr(node_addr(family, 2))],
        pod_cidrs: Vec::new(),
        no_nat_cidrs: Vec::new(),
    });
    let pool = Pool::new("pods".into(), range.parse().unwrap());
    let pool = Pool { vxlan: EncapMode::Always, nat_outgoing: true, ..pool };
    let _ = border.apply(&Change::Pool("pods".into(), Some(pool)));
    border.desired()
}

/// Two nodes on one wire; the first has a pod. Of the second, the third address is one that nobody knows of, and the pods' range has
/// one too, as flannel's device does.
struct Nodes {
    nodes: [TestNs; 2],
    pod: TestNs,
}

fn nodes(tag: &str) -> Nodes {
    let nodes = [1, 2].map(|number| TestNs::new(&format!("{tag}-node{number}")));
    let pod = TestNs::new(&format!("{tag}-pod"));
    nodes[0].command(&format!(
        "ip link add eth0 type veth peer name eth0 netns {}",
        nodes[1].path.file_name().unwrap().to_str().unwrap()
    ));
    for (node, number) in nodes.iter().zip(1..) {
        for setting in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            sysctl::set(node, setting, "1").unwrap();
        }
        node.command(&format!("ip addr add {}/24 dev eth0", node_addr(Family::V4, number)));
        node.command(&format!("ip addr add {}/64 dev eth0 nodad", node_addr(Family::V6, number)));
        node.command("ip link set eth0 up");
    }
    for family in Family::ALL {
        let [first, second] = [1, 2].map(|number| node_addr(family, number));
        nodes[1].command(&format!("ip route add {} via {first}", pod_addr(family, 1)));
        for more in [node_addr(family, 3), pod_addr(family, 64)] {
            nodes[1].command(&format!("ip addr add {more} dev lo"));
            nodes[0].command(&format!("ip route add {more} via {second}"));
        }
    }
    let interface = PodInterface {
        netns: pod.clone(),
        container_ifname: "eth0".into(),
        host_ifname: LinkName::from("pn000000000001"),
        addr: Family::ALL.map(|family| pod_addr(family, 1)).into(),
        routes: Vec::new(),
        mtu: 1500,
        pod_mac: mac(1, 1),
        host_mac: mac(2, 1),
        bridge: None,
    };
    interface.create(&mut RtSocket::open_in(&nodes[0]).unwrap()).unwrap();
    Nodes { nodes, pod }
}

fn listen(at: &NetNs, to: IpAddr, port: u16) -> UdpSocket {
    let socket = at.run(|| UdpSocket::bind((to, port))).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// Whether what is sent to the port arrives.
fn arrives(from: &NetNs, at: &NetNs, to: IpAddr, port: u16) -> bool {
    let [tunnel, control] = [port, CONTROL].map(|port| listen(at, to, port));
    let send = |port| {
        let socket = UdpSocket::bind((unspecified(to), 0)).unwrap();
        socket.send_to(b"?", (to, port)).unwrap();
    };
    from.run(|| [port, CONTROL].map(send)).unwrap();
    control.recv(&mut [0; 8]).unwrap();
    tunnel.set_nonblocking(true).unwrap();
    tunnel.recv(&mut [0; 8]).is_ok()
}

fn unspecified(addr: IpAddr) -> IpAddr {
    podnet_planner::ruleset::unspecified(Family::of(&addr))
}

/// The same of a packet in a packet (RFC 2003).
fn ipip_arrives(from: &NetNs, at: &NetNs, to: Ipv4Addr) -> bool {
    let protocol = std::num::NonZeroU32::new(4).map(rustix::net::Protocol::from_raw);
    let open = || rustix::net::socket(AddressFamily::INET, SocketType::RAW, protocol).unwrap();
    let (socket, control) = (at.run(open).unwrap(), listen(at, to.into(), CONTROL));
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_millis(1))).unwrap();
    from.run(|| {
        sendto(open(), &[0; 20], SendFlags::empty(), &std::net::SocketAddrV4::new(to, 0)).unwrap();
        UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"?", (to, CONTROL)).unwrap();
    })
    .unwrap();
    control.recv(&mut [0; 8]).unwrap();
    recvfrom(&socket, &mut [0; 64][..], rustix::net::RecvFlags::empty()).is_ok()
}

#[test]
fn a_pod_sends_into_no_tunnel_of_a_node() {
    let Nodes { nodes: [first, second], pod } = nodes("tunnels");
    for family in Family::ALL {
        let [own, other, unknown] = [1, 2, 3].map(|number| node_addr(family, number));
        let of_range = pod_addr(family, 64);
        let ways = [(&first, own), (&second, other), (&second, unknown), (&second, of_range)];
        for (at, to) in ways {
            assert!(arrives(&pod, at, to, VXLAN), "to {to}: there is a way");
        }
        // What the pod's node keeps away from whomever, and what the other one does not take.
        for (rules_at, kept) in [(&first, [true, true, true, false]), (&second, [false, true, true, true])] {
            let mut socket = NftSocket::open_in(rules_at).unwrap();
            socket.replace(TABLE, &rules(family)).unwrap();
            for ((at, to), kept) in ways.into_iter().zip(kept) {
                assert_eq!(!arrives(&pod, at, to, VXLAN), kept, "to {to}");
                assert!(arrives(&pod, at, to, VXLAN + 1), "to {to}: another port");
                if let IpAddr::V4(to) = to {
                    assert_eq!(!ipip_arrives(&pod, at, to), kept, "IPIP to {to}");
                }
            }
            assert!(arrives(&first, &second, other, VXLAN), "between nodes");
            assert!(arrives(&second, &first, own, VXLAN), "between nodes");
            socket.delete_table(family, TABLE).unwrap();
        }
        if let (IpAddr::V4(own), IpAddr::V4(other)) = (own, other) {
            assert!(ipip_arrives(&pod, &second, other) && ipip_arrives(&second, &first, own));
        }
    }
}

#[test]
fn nft_lists_the_ports_of_tunnels() {
    let namespace = TestNs::new("tunnels-list");
    let mut socket = NftSocket::open_in(&namespace).unwrap();
    for family in Family::ALL {
        let rules = rules(family);
        socket.replace(TABLE, &rules).unwrap();
        let mut room = usize::MAX;
        let listed = socket.listed(family, TABLE, &mut room).unwrap().unwrap();
        assert_eq!(listed.differences(TABLE, &rules), [""; 0]);
    }
    for listing in [namespace.command("nft list ruleset"), namespace.command("nft -j list ruleset")] {
        assert!(listing.contains("inet_service") && listing.contains("4789"), "{listing}");
    }
}
