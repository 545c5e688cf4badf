use super::{
    super::{IpamConfig, JournalRecord},
    *,
};

const BLOCK: &str = "10.0.0.0/30";

fn link_of(handle: &Handle) -> LinkName {
    LinkName::from(format!("pn-{}", handle.sandbox()))
}

fn given(addr: u8, sandbox: &str, node: Option<&str>) -> JournalRecord {
    let (addr, handle) = (IpAddr::from([10, 0, 0, addr]), Handle::new(sandbox, "eth0"));
    let (pod, uid) = (PodKey::new("test", sandbox), Arc::from(sandbox));
    match node {
        Some(node) => JournalRecord::Lent { addr, handle, pod, uid, node: node.into() },
        None => JournalRecord::Assigned { addr, handle, pod, uid },
    }
}

fn local(node: &str, block: Option<&str>, records: &[JournalRecord], links: &[&str]) -> LocalFacts {
    let claimed = block.map(|block| JournalRecord::Claimed { block: block.parse().unwrap() });
    let lines: Vec<_> = claimed.iter().chain(records).map(JournalRecord::to_line).collect();
    let mut ipam = NodeIpam::new(node.into(), IpamConfig::default());
    ipam.replay(lines.iter().map(String::as_str));
    let links = links.iter().map(|link| LinkName::from(*link)).collect();
    LocalFacts { ipam, damaged: Some(0), links, recorded: BTreeSet::new() }
}

fn pod(name: &str, addr: u8) -> PodFacts {
    PodFacts { key: PodKey::new("test", name), uid: Arc::from(name), addrs: vec![[10, 0, 0, addr].into()] }
}

/// One node with one block, of which two pods have addresses; all is well.
fn healthy() -> Facts {
    let records = [given(0, "a", None), given(1, "b", None)];
    let local = local("node1", Some(BLOCK), &records, &["pn-a", "pn-b"]);
    let occupancy = local.ipam.occupancy().next().unwrap();
    Facts {
        pools: vec!["10.0.0.0/24".parse().unwrap()],
        blocks: vec![PublishedBlock { cidr: occupancy.cidr(), owner: Some("node1".into()), occupancy: Ok(occupancy) }],
        nodes: ["node1", "node2"].map(NodeName::from).into(),
        pods: vec![pod("a", 0), pod("b", 1)],
        local: [("node1".into(), local)].into(),
    }
}

fn found(facts: &Facts) -> Vec<String> {
    facts.findings(link_of).iter().map(|one| format!("{} {}: {}", one.kind, one.subject, one.text)).collect()
}

#[test]
fn what_agrees_is_no_finding() {
    assert_eq!(found(&healthy()), Vec::<String>::new());
}

#[test]
fn a_pod_with_an_address_of_each_family_is_one_interface() {
    let mut facts = healthy();
    let (addr, handle, pod) = ("fd00::5".parse().unwrap(), Handle::new("a", "eth0"), PodKey::new("test", "a"));
    let six = JournalRecord::Assigned { addr, handle, pod, uid: Arc::from("a") };
    let claimed = JournalRecord::Claimed { block: "fd00::4/126".parse().unwrap() };
    let records = [given(0, "a", None), given(1, "b", None), claimed, six];
    let local = local("node1", Some(BLOCK), &records, &["pn-a", "pn-b"]);
    let occupancy = local.ipam.occupancy().last().unwrap();
    let block = PublishedBlock { cidr: occupancy.cidr(), owner: Some("node1".into()), occupancy: Ok(occupancy) };
    facts.pools.push("fd00::/120".parse().unwrap());
    facts.blocks.push(block);
    facts.pods[0].addrs.push(addr);
    facts.local.insert("node1".into(), local);
    assert_eq!(found(&facts), Vec::<String>::new());
    facts.pods[1].addrs.push("fd00::6".parse().unwrap());
    facts.local.get_mut(&NodeName::from("node1")).unwrap().links.remove(&LinkName::from("pn-a"));
    assert_eq!(
        found(&facts),
        [
            "unknown fd00::6: pod test/b runs with it, and nobody gave it: delete the pod",
            "leak 10.0.0.0: node node1 gave it to pod test/a, whose interface is not there",
            "leak fd00::5: node node1 gave it to pod test/a, whose interface is not there",
        ]
    );
}

#[test]
fn an_address_whose_interface_or_pod_is_gone_is_a_leak_that_the_agent_frees() {
    let mut facts = healthy();
    facts.local.get_mut(&NodeName::from("node1")).unwrap().links.remove(&LinkName::from("pn-a"));
    facts.pods.pop();
    assert_eq!(
        found(&facts),
        [
            "leak 10.0.0.0: node node1 gave it to pod test/a, whose interface is not there",
            "leak 10.0.0.1: node node1 gave it to pod test/b, which is gone",
        ]
    );
    let repair = facts.findings(link_of)[0].repair.clone();
    assert_eq!(repair, Some(Repair::Bury { node: "node1".into(), handle: Handle::new("a", "eth0") }));
}

#[test]
fn a_later_pod_of_the_same_name_does_not_hide_a_leak() {
    let mut facts = healthy();
    facts.pods[1].uid = Arc::from("another");
    assert_eq!(found(&facts), ["leak 10.0.0.1: node node1 gave it to pod test/b, which is gone"]);
}

#[test]
fn an_interface_of_no_sandbox_is_a_stray() {
    let mut facts = healthy();
    facts.local.get_mut(&NodeName::from("node1")).unwrap().links.insert("pn-old".into());
    assert_eq!(found(&facts), ["stray pn-old: an interface on node node1 that belongs to no sandbox"]);
    assert_eq!(removed(&facts), ["pn-old"]);
}

/// The interfaces that the repair would remove.
fn removed(facts: &Facts) -> Vec<String> {
    let removed = |finding: Finding| match finding.repair {
        Some(Repair::RemoveLink { link, .. }) => Some(link.to_string()),
        _ => None,
    };
    facts.findings(link_of).into_iter().filter_map(removed).collect()
}

#[test]
fn no_interface_is_removed_when_the_journal_is_missing_or_damaged_or_the_agent_recorded_it() {
    let facts = |damaged, recorded: &[&str]| {
        let mut facts = healthy();
        let local = facts.local.get_mut(&NodeName::from("node1")).unwrap();
        local.links.extend(["pn-old", "pn-lost"].map(LinkName::from));
        local.damaged = damaged;
        local.recorded = recorded.iter().map(|link| LinkName::from(*link)).collect();
        facts
    };
    assert_eq!(removed(&facts(Some(0), &["pn-old"])), ["pn-lost"]);
    for (damaged, said) in [
        (Some(1), "damage node1: 1 lines of the address journal of node node1 cannot be read"),
        (None, "damage node1: node node1 has no address journal"),
    ] {
        let facts = facts(damaged, &["pn-old"]);
        assert_eq!(removed(&facts), Vec::<String>::new());
        let found = found(&facts);
        assert_eq!(found.last().map(String::as_str), Some(said));
        let recorded = "stray pn-old: an interface on node node1 that the agent recorded, and whose address the journal does not know";
        assert!(found.iter().any(|one| one == recorded), "{found:?}");
    }
}

#[test]
fn a_block_that_says_other_than_the_journal_is_stale_and_written_anew() {
    let mut facts = healthy();
    let occupancy = facts.blocks[0].occupancy.as_mut().unwrap();
    occupancy.held.remove(&IpAddr::from([10, 0, 0, 0]));
    let left = occupancy.held[&IpAddr::from([10, 0, 0, 1])].clone();
    occupancy.held.insert([10, 0, 0, 3].into(), left);
    assert_eq!(
        found(&facts),
        [
            "stale 10.0.0.0: block 10.0.0.0/30 says that nobody has it, and by the journal of node node1 it is pod test/a",
            "stale 10.0.0.3: block 10.0.0.0/30 says that pod test/b has it, and by the journal of node node1 it is nobody",
        ]
    );
    let publish = Repair::Publish { node: "node1".into(), block: facts.blocks[0].cidr };
    assert!(facts.findings(link_of).iter().all(|finding| finding.repair.as_ref() == Some(&publish)));
}

#[test]
fn one_address_of_two_pods_and_one_block_of_two_nodes_are_duplicates() {
    let mut facts = healthy();
    facts.local.insert("node2".into(), local("node2", Some(BLOCK), &[given(1, "c", None)], &["pn-c"]));
    facts.pods.push(pod("c", 1));
    let found = found(&facts);
    assert!(
        found.contains(&"duplicate 10.0.0.1: the pods test/b and test/c run with it: delete all but one".to_owned()),
        "{found:?}"
    );
    assert!(
        found.contains(
            &"duplicate 10.0.0.1: node node1 gave it to pod test/b and node node2 to pod test/c: delete one of them"
                .to_owned()
        )
    );
    assert!(
        found.contains(&"duplicate 10.0.0.0/30: the journals of nodes node1 and node2 both have this block".to_owned())
    );
}

#[test]
fn a_loan_that_both_nodes_know_is_fine_and_one_that_the_owner_does_not_know_is_not() {
    let mut facts = healthy();
    facts.local.insert("node2".into(), local("node2", None, &[given(2, "far", None)], &["pn-far"]));
    facts.pods.push(pod("far", 2));
    let unknown =
        "unknown 10.0.0.2: node node2 gave it to pod test/far, and its block is node node1's, which did not lend it";
    assert_eq!(found(&facts), [unknown]);
    let records = [given(0, "a", None), given(1, "b", None), given(2, "far", Some("node2"))];
    let lender = local("node1", Some(BLOCK), &records, &["pn-a", "pn-b"]);
    facts.blocks[0].occupancy = Ok(lender.ipam.occupancy().next().unwrap());
    facts.local.insert("node1".into(), lender);
    assert_eq!(found(&facts), Vec::<String>::new());
}

#[test]
fn a_pod_with_an_address_that_nobody_gave_is_named() {
    let mut facts = healthy();
    facts.pods.push(pod("c", 3));
    assert_eq!(found(&facts), ["unknown 10.0.0.3: pod test/c runs with it, and nobody gave it: delete the pod"]);
}

#[test]
fn of_a_node_that_is_elsewhere_the_object_is_all_that_is_known() {
    let mut facts = healthy();
    facts.local.clear();
    assert_eq!(found(&facts), Vec::<String>::new());
    facts.pods.remove(0);
    assert_eq!(
        found(&facts),
        ["leak 10.0.0.0: pod test/a is gone and holds it; run `podnet ipam check --repair` on node node1"]
    );
    facts.nodes.remove(&NodeName::from("node1"));
    facts.pools.clear();
    let found = found(&facts);
    assert_eq!(
        found[0],
        "stray 10.0.0.0/30: the block belongs to node node1, which the cluster does not have; the agents take it away when its pods are gone"
    );
    assert_eq!(found[1], "stray 10.0.0.0/30: the block is in no pool");
}
