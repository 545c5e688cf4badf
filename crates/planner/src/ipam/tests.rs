use std::sync::Arc;

use podnet_model::{Block, Dual, Node, NodeAddr, PodKey, crd};

use super::*;

mod deciders;
mod dual;
mod durability;
mod flannel;
mod lending;

const START: Moment = Moment(1_000_000);

fn pool(name: &str, cidr: &str) -> Pool {
    Pool { block_size: 30, ..Pool::new(name.into(), cidr.parse().unwrap()) }
}

fn with_pools(pools: &[Pool]) -> NodeIpam {
    let mut ipam = NodeIpam::new("node1".into(), IpamConfig::default());
    for pool in pools {
        ipam.apply(&Change::Pool(pool.name.clone(), Some(pool.clone())));
    }
    ipam
}

/// Blocks of four addresses, four blocks.
fn small() -> NodeIpam {
    with_pools(&[pool("default", "10.0.0.0/28")])
}

fn cidr(text: &str) -> BlockCidr {
    BlockCidr(text.parse().unwrap())
}

fn block_of_other(text: &str, owner: Option<&str>) -> Change {
    Change::Block(cidr(text), Some(Block::new(cidr(text), owner.map(Into::into))))
}

fn ask(ipam: &mut NodeIpam, handle: &str, wish: &Wish, now: Moment) -> Result<Decision, IpamError> {
    let pod = PodKey::new("test", handle);
    let family = wish.addrs.iter().chain(&wish.addrs_no_ipam).map(Family::of).next().unwrap_or(Family::V4);
    let asked = AllocationRequest { handle: Handle::new(handle, "eth0"), pod, uid: Arc::from("u"), wish };
    ipam.allocate(&asked, family, now)
}

/// Asks until there is an address, claiming what is asked for.
fn assigned(ipam: &mut NodeIpam, handle: &str, wish: &Wish, now: Moment) -> Result<String, IpamError> {
    loop {
        match ask(ipam, handle, wish, now)? {
            Decision::Assigned(assignment) => return Ok(assignment.addr.to_string()),
            Decision::NeedBlock(candidate) => drop(ipam.block_claimed(candidate.cidr)),
            Decision::Borrow(candidate) => panic!("nobody lends here: {candidate:?}"),
        }
    }
}

fn any(ipam: &mut NodeIpam, handle: &str, now: Moment) -> Result<String, IpamError> {
    assigned(ipam, handle, &Wish::default(), now)
}

fn exactly(addr: &str) -> Wish {
    Wish { addrs: vec![addr.parse().unwrap()], ..Wish::default() }
}

fn from_pools(names: &[&str]) -> Wish {
    let names = names.iter().map(|name| Arc::from(*name)).collect();
    let list = PoolList { source: PoolSource::Pod(Family::V4), names };
    Wish { pools: Dual { v4: Some(list), v6: None }, ..Wish::default() }
}

fn later(seconds: u64) -> Moment {
    Moment(START.0 + seconds * 1000)
}

fn release(ipam: &mut NodeIpam, handle: &str, now: Moment) -> Option<Release> {
    ipam.release(&Handle::new(handle, "eth0"), now).pop()
}

#[test]
fn the_first_address_of_a_block_is_given_after_the_block_is_claimed() {
    let mut ipam = small();
    let decision = ask(&mut ipam, "a", &Wish::default(), START).unwrap();
    assert_eq!(decision, Decision::NeedBlock(ClaimCandidate { cidr: cidr("10.0.0.0/30"), pool: "default".into() }));
    let records = ipam.block_claimed(cidr("10.0.0.0/30"));
    assert_eq!(records, [JournalRecord::Claimed { block: "10.0.0.0/30".parse().unwrap() }]);
    let Decision::Assigned(assignment) = ask(&mut ipam, "a", &Wish::default(), START).unwrap() else {
        panic!("the block has room")
    };
    assert_eq!((assignment.addr.to_string().as_str(), assignment.records.len()), ("10.0.0.0", 1));
    assert_eq!(assignment.block, Some(cidr("10.0.0.0/30")));
}

#[test]
fn a_handle_that_asks_again_gets_the_same_address_and_nothing_to_write() {
    let mut ipam = small();
    let first = any(&mut ipam, "a", START).unwrap();
    let Decision::Assigned(again) = ask(&mut ipam, "a", &Wish::default(), START).unwrap() else {
        panic!("it has an address")
    };
    assert_eq!((again.addr.to_string(), again.records), (first, vec![]));
}

#[test]
fn a_freed_address_rests_while_there_is_another() {
    let mut ipam = small();
    assert_eq!(any(&mut ipam, "a", START).unwrap(), "10.0.0.0");
    assert!(release(&mut ipam, "a", START).is_some());
    assert!(release(&mut ipam, "a", START).is_none());
    assert_eq!(any(&mut ipam, "b", later(29)).unwrap(), "10.0.0.1");
    assert_eq!(any(&mut ipam, "c", later(30)).unwrap(), "10.0.0.0");
}

#[test]
fn in_a_full_pool_the_address_that_rested_longest_is_given_at_once() {
    let mut ipam = with_pools(&[pool("tiny", "10.0.0.0/30")]);
    for (index, name) in ["a", "b", "c", "d"].iter().enumerate() {
        assert_eq!(any(&mut ipam, name, START).unwrap(), format!("10.0.0.{index}"));
    }
    release(&mut ipam, "c", later(1));
    release(&mut ipam, "a", later(2));
    assert_eq!(any(&mut ipam, "e", later(3)).unwrap(), "10.0.0.2");
    assert_eq!(any(&mut ipam, "f", later(3)).unwrap(), "10.0.0.0");
}

#[test]
fn a_full_pool_says_how_full() {
    let mut ipam = with_pools(&[pool("tiny", "10.0.0.0/29")]);
    ipam.apply(&block_of_other("10.0.0.4/30", Some("node2")));
    for name in ["a", "b", "c", "d"] {
        any(&mut ipam, name, START).unwrap();
    }
    assert_eq!(
        any(&mut ipam, "e", START).unwrap_err().to_string(),
        "no address is left in tiny (10.0.0.0/29): node node1 uses 4 of the 4 addresses of its 1 blocks, and no block is free \
         (1 belong to other nodes and have no address to lend)"
    );
}

#[test]
fn nodes_that_start_together_try_different_low_blocks() {
    let nodes = ["node1", "node2", "node3"];
    let mut first: Vec<String> = Vec::new();
    for name in nodes {
        let mut ipam = NodeIpam::new(name.into(), IpamConfig::default());
        ipam.apply(&Change::Pool("default".into(), Some(pool("default", "10.0.0.0/24"))));
        for node in nodes {
            let addr = NodeAddr("192.0.2.1".parse().unwrap());
            let node = Node::new(node.into(), addr);
            ipam.apply(&Change::Node(node.name.clone(), Some(node)));
        }
        let Ok(Decision::NeedBlock(candidate)) = ask(&mut ipam, "a", &Wish::default(), START) else {
            panic!("it owns nothing")
        };
        first.push(candidate.cidr.to_string());
        ipam.block_claimed(candidate.cidr);
        let second = (0..5).map(|pod| ask(&mut ipam, &format!("p{pod}"), &Wish::default(), START).unwrap()).last();
        let Some(Decision::NeedBlock(candidate)) = second else { panic!("the first block is full") };
        first.push(candidate.cidr.to_string());
    }
    first.sort();
    assert_eq!(first, ["10.0.0.0/30", "10.0.0.12/30", "10.0.0.16/30", "10.0.0.20/30", "10.0.0.4/30", "10.0.0.8/30"]);
}

#[test]
fn a_lost_race_leads_to_the_next_block() {
    let mut ipam = small();
    ipam.block_lost(cidr("10.0.0.0/30"), Some("node2".into()));
    assert_eq!(any(&mut ipam, "a", START).unwrap(), "10.0.0.4");
}

#[test]
fn a_block_of_another_size_is_stepped_around() {
    let mut ipam = small();
    ipam.apply(&block_of_other("10.0.0.0/29", Some("node2")));
    ipam.apply(&block_of_other("10.0.0.9/32", Some("node2")));
    assert_eq!(any(&mut ipam, "a", START).unwrap(), "10.0.0.12");
    assert_eq!(
        assigned(&mut ipam, "b", &exactly("10.0.0.8"), START).unwrap_err().to_string(),
        "address 10.0.0.8 cannot be given: its block 10.0.0.8/30 overlaps block 10.0.0.9/32, which was made with another blockSize"
    );
}

#[test]
fn a_pod_gets_exactly_the_address_that_it_asks_for() {
    let mut ipam = small();
    assert_eq!(assigned(&mut ipam, "a", &exactly("10.0.0.13"), START).unwrap(), "10.0.0.13");
    assert_eq!(ipam.blocks().collect::<Vec<_>>(), [cidr("10.0.0.12/30")]);
    release(&mut ipam, "a", START);
    assert_eq!(assigned(&mut ipam, "b", &exactly("10.0.0.13"), later(1)).unwrap(), "10.0.0.13");
}

#[test]
fn an_address_that_cannot_be_given_says_why() {
    let mut ipam = with_pools(&[pool("default", "10.0.0.0/28"), Pool { disabled: true, ..pool("old", "10.1.0.0/28") }]);
    assigned(&mut ipam, "holder", &exactly("10.0.0.1"), START).unwrap();
    ipam.apply(&block_of_other("10.0.0.4/30", Some("node2")));
    ipam.apply(&block_of_other("10.0.0.8/30", None));
    for (addr, message) in [
        ("192.0.2.7", "address 192.0.2.7 is in no pool; the pools are: default (10.0.0.0/28), old (10.1.0.0/28)"),
        ("10.0.0.1", "address 10.0.0.1 is held by pod test/holder"),
        (
            "10.0.0.5",
            "address 10.0.0.5 is in block 10.0.0.4/30, which belongs to node node2: only pods on that node can have it",
        ),
        ("10.0.0.9", "address 10.0.0.9 cannot be given yet: block 10.0.0.8/30 is being given up"),
        ("10.1.0.1", "pool old is disabled: it gives no new addresses to pods"),
        ("fd00::1", "address fd00::1 is in no pool; the pools are: default (10.0.0.0/28), old (10.1.0.0/28)"),
    ] {
        assert_eq!(assigned(&mut ipam, "a", &exactly(addr), START).unwrap_err().to_string(), message);
    }
}

#[test]
fn pools_are_taken_by_name_or_range_in_the_order_asked_for() {
    let mut ipam = with_pools(&[pool("a", "10.0.0.0/30"), pool("b", "10.1.0.0/30")]);
    for pod in 0..4 {
        assert!(
            assigned(&mut ipam, &format!("p{pod}"), &from_pools(&["10.1.0.0/30", "a"]), START)
                .unwrap()
                .starts_with("10.1.")
        );
    }
    assert_eq!(assigned(&mut ipam, "p4", &from_pools(&["10.1.0.0/30", "a"]), START).unwrap(), "10.0.0.0");
    assert_eq!(
        assigned(&mut ipam, "p5", &from_pools(&["nowhere"]), START).unwrap_err().to_string(),
        "pool nowhere (annotation cni.projectcalico.org/ipv4pools) does not exist; the pools are: a (10.0.0.0/30), b (10.1.0.0/30)"
    );
}

#[test]
fn a_named_pool_need_not_select_the_node_but_must_be_enabled() {
    let elsewhere = Pool { node_selector: "zone == 'b'".parse().unwrap(), ..pool("elsewhere", "10.0.0.0/28") };
    let off = Pool { disabled: true, ..pool("off", "10.1.0.0/28") };
    let mut ipam = with_pools(&[elsewhere, off]);
    assert_eq!(
        any(&mut ipam, "a", START).unwrap_err().to_string(),
        "no IPv4 pool gives addresses on node node1: elsewhere selects nodes zone == 'b', off is disabled"
    );
    assert_eq!(assigned(&mut ipam, "a", &from_pools(&["elsewhere"]), START).unwrap(), "10.0.0.0");
    assert_eq!(
        assigned(&mut ipam, "b", &from_pools(&["off"]), START).unwrap_err(),
        IpamError::DisabledPool { pool: "off".into() }
    );
}

#[test]
fn the_labels_of_the_node_choose_its_pools() {
    let mut ipam =
        with_pools(&[Pool { node_selector: "zone == 'b'".parse().unwrap(), ..pool("zone-b", "10.0.0.0/28") }]);
    assert!(any(&mut ipam, "a", START).is_err());
    let labels = Arc::new([("zone".to_owned(), "b".to_owned())].into());
    let addr = NodeAddr("192.0.2.1".parse().unwrap());
    ipam.apply(&Change::Node("node1".into(), Some(Node { labels, ..Node::new("node1".into(), addr) })));
    assert_eq!(any(&mut ipam, "a", START).unwrap(), "10.0.0.0");
}
