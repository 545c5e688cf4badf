//! The life of blocks, restarts, and what is published.

use super::*;

#[test]
fn an_empty_block_is_given_back_when_another_has_room_and_its_addresses_have_rested() {
    let mut ipam = small();
    for pod in 0..5 {
        any(&mut ipam, &format!("p{pod}"), START).unwrap();
    }
    release(&mut ipam, "p4", START);
    assert_eq!(ipam.surplus_blocks(later(60)), [], "the other block is full");
    release(&mut ipam, "p3", START);
    assert_eq!(ipam.surplus_blocks(later(29)), [], "an address still rests");
    assert_eq!(ipam.surplus_blocks(later(30)), [cidr("10.0.0.4/30")]);
    assert_eq!(ipam.give_up(cidr("10.0.0.0/30"), later(30)), None, "it is in use");
    assert!(ipam.give_up(cidr("10.0.0.4/30"), later(30)).is_some());
    // While its object is being deleted the block is not claimed again.
    ipam.apply(&block_of_other("10.0.0.4/30", Some("node1")));
    for pod in 5..6 {
        assert_eq!(any(&mut ipam, &format!("p{pod}"), later(40)).unwrap(), "10.0.0.3");
    }
    assert_eq!(any(&mut ipam, "p6", later(40)).unwrap(), "10.0.0.8");
    ipam.block_deleted(cidr("10.0.0.4/30"));
    assert_eq!(assigned(&mut ipam, "p7", &exactly("10.0.0.4"), later(40)).unwrap(), "10.0.0.4");
}

#[test]
fn every_idle_block_of_a_pool_that_serves_the_node_no_more_is_given_back() {
    let mut ipam = small();
    any(&mut ipam, "a", START).unwrap();
    release(&mut ipam, "a", START);
    assert_eq!(ipam.surplus_blocks(later(60)), []);
    ipam.apply(&Change::Pool("default".into(), None));
    assert_eq!(ipam.surplus_blocks(later(60)), [cidr("10.0.0.0/30")]);
}

#[test]
fn a_block_that_the_api_gives_to_another_keeps_its_pods_and_gives_no_more() {
    let mut ipam = small();
    assert_eq!(any(&mut ipam, "a", START).unwrap(), "10.0.0.0");
    ipam.apply(&block_of_other("10.0.0.0/30", Some("node2")));
    assert_eq!(ipam.disputed().collect::<Vec<_>>(), [(cidr("10.0.0.0/30"), Some(&NodeName::from("node2")))]);
    assert_eq!(any(&mut ipam, "a", START).unwrap(), "10.0.0.0");
    assert_eq!(any(&mut ipam, "b", START).unwrap(), "10.0.0.4");
}

#[test]
fn a_block_that_is_ours_and_not_in_the_journal_is_claimed_first() {
    let mut ipam = small();
    ipam.apply(&block_of_other("10.0.0.12/30", Some("node1")));
    assert_eq!(ipam.strays().collect::<Vec<_>>(), [cidr("10.0.0.12/30")]);
    assert_eq!(any(&mut ipam, "a", START).unwrap(), "10.0.0.12");
}

#[test]
fn a_restarted_node_knows_what_its_journal_says() {
    let mut ipam = small();
    for name in ["a", "b"] {
        any(&mut ipam, name, START).unwrap();
    }
    release(&mut ipam, "a", START);
    let lines: Vec<_> = ipam.snapshot().iter().map(JournalRecord::to_line).collect();
    let mut restarted = small();
    let replayed = restarted.replay(lines.iter().map(String::as_str));
    assert_eq!(replayed, Replayed { records: 3, torn: None, damaged: Vec::new() });
    assert_eq!(restarted.holders().collect::<Vec<_>>(), ipam.holders().collect::<Vec<_>>());
    assert_eq!(any(&mut restarted, "b", START).unwrap(), "10.0.0.1");
    assert_eq!(any(&mut restarted, "c", later(1)).unwrap(), "10.0.0.2", "10.0.0.0 still rests");
}

#[test]
fn occupancy_is_published_as_calico_does_and_reads_back() {
    let mut ipam = small();
    for name in ["a", "b"] {
        any(&mut ipam, name, START).unwrap();
    }
    release(&mut ipam, "a", START);
    let occupancy = ipam.occupancy_of(cidr("10.0.0.0/30")).unwrap();
    let mut spec = crd::IPAMBlock::claim(cidr("10.0.0.0/30"), 4, &"node1".into()).spec;
    assert!(occupancy.publish(&"node1".into(), &mut spec));
    assert_eq!(spec.allocations, [None, Some(0), None, None]);
    assert_eq!(spec.unallocated, [2, 3, 0]);
    assert_eq!(spec.attributes[0].handle_id.as_deref(), Some("b/eth0"));
    assert_eq!(spec.attributes[0].secondary["pod"], "b");
    assert_eq!(spec.sequence_number, 1);
    assert!(!occupancy.publish(&"node1".into(), &mut spec));
    assert_eq!(spec.sequence_number, 1);
    assert_eq!(Occupancy::from_spec(&spec).unwrap().held, occupancy.held);
}

#[test]
fn a_node_that_lost_its_journal_takes_over_what_the_api_says() {
    let mut ipam = small();
    any(&mut ipam, "a", START).unwrap();
    let occupancy = ipam.occupancy_of(cidr("10.0.0.0/30")).unwrap();
    let mut restarted = small();
    assert_eq!(restarted.adopt(&occupancy).len(), 2);
    assert_eq!(any(&mut restarted, "a", START).unwrap(), "10.0.0.0");
    assert_eq!(any(&mut restarted, "b", START).unwrap(), "10.0.0.1");
    assert_eq!(restarted.adopt(&occupancy), []);
}

#[test]
fn a_block_object_that_contradicts_itself_is_refused() {
    let wrong = |change: fn(&mut crd::IPAMBlockSpec)| {
        let mut spec = crd::IPAMBlock::claim(cidr("10.0.0.0/30"), 4, &"node1".into()).spec;
        change(&mut spec);
        Occupancy::from_spec(&spec).unwrap_err().to_string()
    };
    assert!(wrong(|spec| spec.cidr = "10.0.0.0/8".into()).contains("prefix length 20 to 32"));
    assert!(wrong(|spec| spec.allocations[1] = Some(7)).contains("spec.allocations[1] is 7"));
    assert!(
        wrong(|spec| {
            spec.attributes.push(Default::default());
            spec.allocations.push(Some(0));
        })
        .contains("spec.allocations[4]")
    );
}
