//! Borrowing from other nodes' blocks.

use podnet_model::{IpamSettings, Loan};

use super::*;

/// node1 in a pool of two blocks, the second of which is node2's, with room.
fn beside_a_neighbour() -> NodeIpam {
    let mut ipam = with_pools(&[pool("default", "10.0.0.0/29")]);
    for (name, last) in [("node1", 1), ("node2", 2)] {
        let addr = NodeAddr(IpAddr::from([172, 16, 0, last]));
        let node = Node::new(name.into(), addr);
        ipam.apply(&Change::Node(name.into(), Some(node)));
    }
    ipam.apply(&block_of_other("10.0.0.4/30", Some("node2")));
    for pod in 0..4 {
        any(&mut ipam, &format!("p{pod}"), START).unwrap();
    }
    ipam
}

fn set_strict(ipam: &mut NodeIpam, strict: bool) {
    ipam.apply(&Change::IpamSettings(Some(IpamSettings { strict_affinity: strict, max_blocks_per_host: None })));
}

fn asking(handle: &str, addr: Option<&str>) -> LoanRequest {
    LoanRequest {
        node: "node2".into(),
        handle: Handle::new(handle, "eth0"),
        pod: PodKey::new("test", handle),
        uid: Arc::from("u"),
        addr: addr.map(|addr| addr.parse().unwrap()),
    }
}

#[test]
fn a_node_whose_blocks_are_full_borrows_unless_that_is_forbidden() {
    let mut ipam = beside_a_neighbour();
    let Decision::Borrow(from) = ask(&mut ipam, "e", &Wish::default(), START).unwrap() else { panic!("not borrowed") };
    assert_eq!((from.block, from.owner.as_str(), from.addr), (cidr("10.0.0.4/30"), "node2", None));
    // An address that it freed itself comes first, rested or not.
    release(&mut ipam, "p1", START).unwrap();
    assert_eq!(any(&mut ipam, "e", START).unwrap(), "10.0.0.1");
    set_strict(&mut ipam, true);
    let error = any(&mut ipam, "f", START).unwrap_err().to_string();
    assert!(error.ends_with("(1 belong to other nodes, from which strictAffinity forbids to borrow)"), "{error}");
    set_strict(&mut ipam, false);
    ipam.not_lent(cidr("10.0.0.4/30"));
    let error = any(&mut ipam, "f", START).unwrap_err().to_string();
    assert!(error.ends_with("(1 belong to other nodes and have no address to lend)"), "{error}");
}

#[test]
fn a_node_that_does_not_answer_is_passed_by_for_a_while_and_asked_for_what_only_it_has() {
    let mut ipam = beside_a_neighbour();
    ipam.not_answered(&"node2".into(), START);
    assert!(matches!(ask(&mut ipam, "e", &Wish::default(), later(29)), Err(IpamError::Full { .. })));
    assert!(matches!(ask(&mut ipam, "e", &exactly("10.0.0.6"), START), Ok(Decision::Borrow(_))));
    assert!(matches!(ask(&mut ipam, "e", &Wish::default(), later(30)), Ok(Decision::Borrow(_))));
    // Another node that has room is asked meanwhile, though it has less.
    ipam.not_answered(&"node2".into(), later(30));
    let addr = NodeAddr([172, 16, 0, 3].into());
    ipam.apply(&Change::Pool("more".into(), Some(pool("more", "10.0.1.0/30"))));
    ipam.apply(&Change::Node("node3".into(), Some(Node::new("node3".into(), addr))));
    let block = Block { free: 1, ..Block::new(cidr("10.0.1.0/30"), Some("node3".into())) };
    ipam.apply(&Change::Block(block.cidr, Some(block)));
    let Ok(Decision::Borrow(from)) = ask(&mut ipam, "e", &Wish::default(), later(31)) else { panic!("not borrowed") };
    assert_eq!(from.owner.as_str(), "node3");
}

#[test]
fn an_address_of_another_nodes_block_is_borrowed_from_a_node_that_exists() {
    let mut ipam = beside_a_neighbour();
    let wish = exactly("10.0.0.6");
    let Decision::Borrow(from) = ask(&mut ipam, "e", &wish, START).unwrap() else { panic!("not borrowed") };
    assert_eq!(from.addr, Some([10, 0, 0, 6].into()));
    ipam.apply(&Change::Node("node2".into(), None));
    assert!(matches!(ask(&mut ipam, "e", &wish, START), Err(IpamError::OwnedElsewhere { .. })));
}

#[test]
fn a_loan_is_kept_by_both_over_restarts_and_rests_with_its_owner() {
    let mut owner = small();
    any(&mut owner, "own", START).unwrap();
    let block = cidr("10.0.0.0/30");
    let (addr, mut journal) = owner.lend(block, &asking("far", None), START).unwrap();
    assert_eq!(addr, IpAddr::from([10, 0, 0, 1]));
    assert_eq!(
        owner.lend(block, &asking("far", None), START).unwrap(),
        (addr, Vec::new()),
        "the same request read twice"
    );
    assert_eq!(
        owner.lend(block, &asking("other", Some("10.0.0.1")), START).unwrap_err().to_string(),
        "address 10.0.0.1 is held by pod test/far"
    );
    journal.insert(0, JournalRecord::Claimed { block: "10.0.0.0/30".parse().unwrap() });
    let lines: Vec<_> = journal.iter().map(JournalRecord::to_line).collect();
    let mut restarted = small();
    restarted.replay(lines.iter().map(String::as_str));
    assert_eq!(restarted.holder(PodAddr(addr)).unwrap().node, Some("node2".into()));
    assert_eq!(restarted.snapshot(), journal);

    let handle = Handle::new("far", "eth0");
    assert_eq!(restarted.take_back(&Handle::new("another", "eth0"), addr, START), None);
    assert_eq!(restarted.take_back(&handle, addr, START).unwrap().len(), 1);
    // It rests as any other.
    assert_eq!(any(&mut restarted, "next", START).unwrap(), "10.0.0.0");
    assert_eq!(any(&mut restarted, "after", START).unwrap(), "10.0.0.2");
}

#[test]
fn what_a_borrower_does_not_use_is_to_be_returned_and_what_a_gone_node_had_is_taken_back() {
    let mut ipam = beside_a_neighbour();
    let loan =
        |addr: &str, node: &str| Loan { addr: addr.parse().unwrap(), node: node.into(), handle: "far/eth0".into() };
    let told = Block {
        loans: vec![loan("10.0.0.5", "node1"), loan("10.0.0.6", "node3")],
        ..Block::new(cidr("10.0.0.4/30"), Some("node2".into()))
    };
    ipam.apply(&Change::Block(told.cidr, Some(told)));
    let unused: Vec<_> = ipam.unused_loans().into_iter().map(|(_, loan)| loan.addr.to_string()).collect();
    assert_eq!(unused, ["10.0.0.5"]);
    let wish = exactly("10.0.0.5");
    let pod = PodKey::new("test", "far");
    let request = AllocationRequest { handle: Handle::new("far", "eth0"), pod, uid: Arc::from("u"), wish: &wish };
    let assignment = ipam.borrowed([10, 0, 0, 5].into(), &request);
    assert_eq!((assignment.block, assignment.records.len()), (None, 1));
    assert!(ipam.unused_loans().is_empty());

    release(&mut ipam, "p0", START).unwrap();
    let (addr, _) = ipam.lend(cidr("10.0.0.0/30"), &asking("lent", None), START).unwrap();
    assert!(ipam.orphaned_loans().is_empty());
    ipam.apply(&Change::Node("node2".into(), None));
    assert_eq!(ipam.orphaned_loans(), [(addr, Handle::new("lent", "eth0"), "node2".into())]);
}

#[test]
fn a_node_lends_nothing_when_it_may_not_or_has_nothing() {
    let mut owner = small();
    any(&mut owner, "own", START).unwrap();
    set_strict(&mut owner, true);
    let why = |owner: &mut NodeIpam, block: &str| {
        owner.lend(cidr(block), &asking("far", None), START).unwrap_err().to_string()
    };
    let refusal = "node node1 lends no address of block";
    assert_eq!(
        why(&mut owner, "10.0.0.0/30"),
        format!("{refusal} 10.0.0.0/30: strictAffinity of the IPAMConfig is set")
    );
    set_strict(&mut owner, false);
    assert_eq!(why(&mut owner, "10.0.0.4/30"), format!("{refusal} 10.0.0.4/30: the block is not its own any more"));
    for pod in 0..3 {
        any(&mut owner, &format!("p{pod}"), START).unwrap();
    }
    assert_eq!(why(&mut owner, "10.0.0.0/30"), format!("{refusal} 10.0.0.0/30: no address of it is free"));
}

#[test]
fn the_nodes_take_turns_to_take_away_the_blocks_of_those_that_are_gone() {
    let mut ipam = beside_a_neighbour();
    assert!(ipam.abandoned().is_empty());
    ipam.apply(&Change::Node("node2".into(), None));
    assert_eq!(ipam.abandoned(), [cidr("10.0.0.4/30")]);
    let first = Node::new("a-node".into(), NodeAddr([172, 16, 0, 9].into()));
    ipam.apply(&Change::Node(first.name.clone(), Some(first)));
    assert_eq!(ipam.abandoned(), [cidr("10.0.0.4/30")], "the first may be down");
    let turns: Vec<bool> = (0..4).map(|looks| ipam.reclaims(looks)).collect();
    assert_eq!(turns, [false, true, false, true]);
    ipam.apply(&Change::Node("a-node".into(), None));
    assert!(ipam.reclaims(0) && ipam.reclaims(1), "alone it always has the turn");
    ipam.apply(&Change::Node("node1".into(), None));
    assert!(!ipam.reclaims(0), "its own object is not seen");
}
