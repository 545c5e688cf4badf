//! flannel's mode.

use podnet_model::{Dual, NetConf, flannel::Backend};

use super::*;

fn conf(v4: &str) -> Change {
    conf_of(v4, "")
}

fn conf_of(v4: &str, v6: &str) -> Change {
    let networks = Dual { v4: v4.parse().ok(), v6: v6.parse().ok() };
    Change::NetConf("kube-flannel".into(), Some(NetConf { networks, subnet_len: 24, backend: Backend::HostGw }))
}

fn node1(pod_cidrs: &[&str]) -> Change {
    let pod_cidrs = pod_cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    let node = Node::new("node1".into(), NodeAddr("192.0.2.1".parse().unwrap()));
    Change::Node("node1".into(), Some(Node { pod_cidrs, ..node }))
}

/// In either order.
fn in_flannels_mode(pod_cidrs: &[&str]) -> [NodeIpam; 2] {
    [[conf("10.244.0.0/16"), node1(pod_cidrs)], [node1(pod_cidrs), conf("10.244.0.0/16")]].map(|changes| {
        let mut ipam = with_pools(&[pool("default", "10.244.0.0/16")]);
        changes.iter().for_each(|change| ipam.apply(change));
        ipam
    })
}

#[test]
fn pods_have_addresses_of_the_nodes_part_but_its_ends_and_of_no_other_pool() {
    for mut ipam in in_flannels_mode(&["fd00::/64", "10.244.1.0/29"]) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let given: Vec<_> = names.iter().map(|name| assigned(&mut ipam, name, &Wish::default(), START)).collect();
        let addrs: Vec<_> = given.iter().flatten().map(String::as_str).collect();
        assert_eq!(addrs, ["10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.1.5", "10.244.1.6"]);
        assert!(given[5].is_err(), "the part is full, and nobody else's is touched");
        assert_eq!(ipam.blocks().collect::<Vec<_>>(), [cidr("10.244.1.0/29")]);
    }
}

#[test]
fn without_the_configuration_or_a_part_in_its_range_pools_serve_as_ever() {
    for mut ipam in in_flannels_mode(&["10.99.1.0/24"]) {
        assert_eq!(assigned(&mut ipam, "a", &Wish::default(), START).unwrap(), "10.244.0.0");
    }
    for mut ipam in in_flannels_mode(&["10.244.1.0/24"]) {
        ipam.apply(&Change::NetConf("kube-flannel".into(), None));
        assert_eq!(assigned(&mut ipam, "a", &Wish::default(), START).unwrap(), "10.244.0.0");
    }
}

#[test]
fn pods_have_ipv6_of_the_nodes_part_too_in_blocks_that_are_kept_account_of() {
    let mut ipam = with_pools(&[pool("six", "fd00:10:233::/64")]);
    ipam.apply(&conf_of("10.244.0.0/16", "fd00:10:244::/56"));
    ipam.apply(&node1(&["10.244.1.0/24", "fd00:10:244:1::/64"]));
    // Others do not spread over a part.
    ipam.apply(&Change::Node("node0".into(), Some(Node::new("node0".into(), NodeAddr("192.0.2.2".parse().unwrap())))));
    assert_eq!(ipam.families(&Wish::default()), Family::ALL);
    let wish = Wish::default();
    let mut six = |name: &str| {
        let request = AllocationRequest {
            handle: Handle::new(name, "eth0"),
            pod: PodKey::new("default", name),
            uid: "".into(),
            wish: &wish,
        };
        loop {
            match ipam.allocate(&request, Family::V6, START).unwrap() {
                Decision::NeedBlock(candidate) => drop(ipam.block_claimed(candidate.cidr)),
                Decision::Assigned(assignment) => return assignment.addr.0.to_string(),
                Decision::Borrow(_) => panic!("a node's part is its own"),
            }
        }
    };
    assert_eq!(["a", "b"].map(&mut six), ["fd00:10:244:1::2", "fd00:10:244:1::3"]);
    let many: std::collections::BTreeSet<_> = (0..100).map(|number| six(&format!("p{number}"))).collect();
    assert_eq!(many.len(), 100);
    assert!(many.iter().all(|addr| addr.starts_with("fd00:10:244:1::")));
    assert_eq!(ipam.blocks().map(|block| block.0.prefix_len()).collect::<Vec<_>>(), [122, 122]);
}
