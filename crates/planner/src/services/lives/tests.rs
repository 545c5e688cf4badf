//! Who is there, by what the cluster tells.

use podnet_model::{BlockCidr, Held, Loan, Node, NodeAddr};

use super::*;
use crate::services::packet_table::{self, address};

/// Node 1 among the nodes, pods and pools of the packet table. Services, and with them slices, are not there.
fn services() -> Services {
    let mut services = Services::new(packet_table::config("node1").0);
    let is_service = |change: &Change| matches!(change, Change::Service(..) | Change::Slice(..));
    packet_table::changes().iter().filter(|change| !is_service(change)).for_each(|change| drop(services.apply(change)));
    services
}

/// A block of 64 addresses from this one on, of which those with these numbers are held.
fn block(first: &str, owner: Option<&str>, held: &[usize]) -> (BlockCidr, Block) {
    let cidr = BlockCidr(format!("{first}/26").parse().unwrap());
    let held: Held = (0..64).map(|place| held.contains(&place)).collect();
    (cidr, Block { held, ..Block::new(cidr, owner.map(NodeName::from)) })
}

fn tell((cidr, block): (BlockCidr, Block), services: &mut Services) {
    services.apply(&Change::Block(cidr, Some(block)));
}

fn lives(services: &Services, addrs: &[&str]) -> Vec<Life> {
    addrs.iter().map(|addr| services.life(addr.parse().unwrap())).collect()
}

use Life::{Lives as Alive, Over, Unknown};

#[test]
fn pods_of_other_nodes_live_as_long_as_their_node_says_that_they_hold_their_address() {
    let mut services = services();
    let asked = ["10.233.65.2", "10.233.65.3", "10.233.65.70"];
    assert_eq!(lives(&services, &asked), [Unknown; 3]);
    tell(block("10.233.65.0", Some("node2"), &[2]), &mut services);
    assert_eq!(lives(&services, &asked), [Alive, Over, Unknown], "nobody keeps account of the last one");
    tell(block("10.233.65.0", Some("node2"), &[3]), &mut services);
    assert_eq!(lives(&services, &asked), [Over, Alive, Unknown]);
    tell(block("10.233.65.0", None, &[3]), &mut services);
    assert_eq!(lives(&services, &asked), [Over, Over, Unknown], "the block is given up");
    services.apply(&Change::Block(block("10.233.65.0", None, &[]).0, None));
    assert_eq!(lives(&services, &asked), [Unknown; 3]);
}

#[test]
fn the_account_of_a_node_that_is_not_heard_of_counts_for_nothing() {
    let mut services = services();
    let node = Node::new("node2".into(), NodeAddr(address("node2").unwrap()));
    let own_of_node2 = address("node2").unwrap();
    tell(block("10.233.65.0", Some("node2"), &[2]), &mut services);
    let both = |services: &Services| [services.life("10.233.65.2".parse().unwrap()), services.life(own_of_node2)];
    assert_eq!(both(&services), [Alive, Alive]);
    services.apply(&Change::Node("node2".into(), Some(Node { lost: true, ..node.clone() })));
    assert_eq!(both(&services), [Over, Over]);
    services.apply(&Change::Node("node2".into(), Some(node)));
    assert_eq!(both(&services), [Alive, Alive]);
    services.apply(&Change::Node("node2".into(), None));
    assert_eq!(both(&services), [Over, Alive], "nobody knows whose address that is now");
}

#[test]
fn of_its_own_pods_a_node_knows_itself() {
    let mut services = services();
    let (web1, nobody) = (address("web1").unwrap().to_string(), "10.233.64.63");
    // What is published comes later than what happens.
    tell(block("10.233.64.0", Some("node1"), &[63]), &mut services);
    assert_eq!(lives(&services, &[&web1, nobody]), [Alive, Over]);
    services.apply(&Change::Pod(podnet_model::PodKey::new("default", "web1"), None));
    assert_eq!(lives(&services, &[&web1, nobody]), [Over, Over]);
}

#[test]
fn a_lent_address_lives_by_the_node_that_has_it() {
    let mut services = services();
    let lent = |to: &str| {
        let (cidr, block) = block("10.233.65.0", Some("node2"), &[9]);
        let loan = Loan { addr: cidr.nth(9).unwrap(), node: to.into(), handle: "".into() };
        (cidr, Block { loans: vec![loan], ..block })
    };
    for (to, life) in [("node3", Alive), ("gone", Over), ("node1", Over)] {
        tell(lent(to), &mut services);
        assert_eq!(lives(&services, &["10.233.65.9"]), [life], "lent to {to}");
    }
}

#[test]
fn where_nobody_keeps_account_other_services_tell_and_outside_of_the_cluster_nobody_does() {
    let mut services = services();
    let shop2 = address("shop2").unwrap().to_string();
    let asked = [shop2.as_str(), "10.233.65.9", "198.51.100.7"];
    assert_eq!(lives(&services, &asked), [Unknown, Unknown, Alive]);
    let slice = packet_table::changes()
        .into_iter()
        .filter(|change| matches!(change, Change::Slice(key, _) if &*key.name == "shop-1"));
    slice.for_each(|change| drop(services.apply(&change)));
    assert_eq!(lives(&services, &asked), [Alive, Unknown, Alive]);
}
