//! Addresses of both families.

use podnet_model::{IpamSettings, PodKey, Reservation};

use super::*;

/// One IPv4 pool and one of the size that people make IPv6 pools: with more blocks than can be counted in 64 bits.
fn dual() -> NodeIpam {
    with_pools(&[pool("four", "10.0.0.0/28"), Pool { block_size: 122, ..pool("six", "fd00:10:244::/48") }])
}

fn given(ipam: &mut NodeIpam, handle: &str, wish: &Wish, family: Family) -> Result<String, IpamError> {
    let pod = PodKey::new("test", handle);
    let asked = AllocationRequest { handle: Handle::new(handle, "eth0"), pod, uid: Arc::from("u"), wish };
    loop {
        match ipam.allocate(&asked, family, START)? {
            Decision::Assigned(assignment) => return Ok(assignment.addr.to_string()),
            Decision::NeedBlock(candidate) => drop(ipam.block_claimed(candidate.cidr)),
            Decision::Borrow(candidate) => panic!("nobody lends here: {candidate:?}"),
        }
    }
}

fn six(ipam: &mut NodeIpam, handle: &str) -> Result<String, IpamError> {
    given(ipam, handle, &Wish::default(), Family::V6)
}

#[test]
fn a_handle_holds_an_address_of_each_family_and_both_are_freed_together_or_alone() {
    let mut ipam = dual();
    assert_eq!(any(&mut ipam, "a", START).unwrap(), "10.0.0.0");
    assert_eq!(six(&mut ipam, "a").unwrap(), "fd00:10:244::");
    assert_eq!(six(&mut ipam, "a").unwrap(), "fd00:10:244::", "the same handle");
    assert_eq!(six(&mut ipam, "b").unwrap(), "fd00:10:244::1");
    let handle = Handle::new("a", "eth0");
    let addrs = ["10.0.0.0", "fd00:10:244::"].map(|addr| addr.parse().unwrap());
    assert_eq!(ipam.addresses_of(&handle), addrs);
    assert_eq!(ipam.blocks().collect::<Vec<_>>(), [cidr("10.0.0.0/30"), cidr("fd00:10:244::/122")]);

    let one = ipam.release_one(&handle, Family::V6, START).unwrap();
    assert_eq!((one.addr, one.block), (addrs[1], Some(cidr("fd00:10:244::/122"))));
    assert_eq!(ipam.addresses_of(&handle), addrs[..1]);
    assert_eq!(six(&mut ipam, "a").unwrap(), "fd00:10:244::2", "what was freed rests");
    let freed: Vec<String> = ipam.release(&handle, START).iter().map(|release| release.addr.to_string()).collect();
    assert_eq!(freed, ["10.0.0.0", "fd00:10:244::2"]);
    assert_eq!(ipam.release(&handle, START), []);
}

#[test]
fn both_are_known_after_a_restart_and_published_and_read_back() {
    let mut ipam = dual();
    any(&mut ipam, "a", START).unwrap();
    six(&mut ipam, "b").unwrap();
    six(&mut ipam, "a").unwrap();
    let lines: Vec<_> = ipam.snapshot().iter().map(JournalRecord::to_line).collect();
    let mut restarted = dual();
    assert_eq!(restarted.replay(lines.iter().map(String::as_str)).records, 5);
    assert_eq!(restarted.holders().collect::<Vec<_>>(), ipam.holders().collect::<Vec<_>>());
    assert_eq!(restarted.addresses_of(&Handle::new("a", "eth0")), ipam.addresses_of(&Handle::new("a", "eth0")));

    let block = cidr("fd00:10:244::/122");
    let occupancy = ipam.occupancy_of(block).unwrap();
    let mut spec = crd::IPAMBlock::claim(block, 64, &"node1".into()).spec;
    assert!(occupancy.publish(&"node1".into(), &mut spec));
    assert_eq!((spec.allocations.len(), &spec.allocations[..3]), (64, &[Some(0), Some(1), None][..]));
    assert_eq!((spec.unallocated.len(), spec.unallocated[0]), (62, 2));
    assert_eq!(Occupancy::from_spec(&spec).unwrap().held, occupancy.held);
    let mut lost = dual();
    any(&mut lost, "a", START).unwrap();
    assert_eq!(lost.adopt(&occupancy).len(), 3, "an IPv4 address does not keep the handle from its IPv6 one");
}

#[test]
fn a_pod_gets_ipv6_where_a_pool_serves_it_or_somebody_asks_for_it() {
    use Family::{V4, V6};
    let (four, six) = (pool("four", "10.0.0.0/28"), Pool { block_size: 126, ..pool("six", "fd00::/120") });
    let ask = |assign: Dual<Option<bool>>| Wish { assign, ..Wish::default() };
    let named = |name: &str| {
        let list = PoolList { source: PoolSource::Pod(V6), names: vec![name.into()] };
        Wish { pools: Dual { v4: None, v6: Some(list) }, ..ask(Dual { v4: None, v6: Some(false) }) }
    };
    let families = |pools: &[Pool], wish: &Wish| with_pools(pools).families(wish);
    let any = Wish::default();

    assert_eq!(families(&[], &any), [V4], "nothing says that there should be IPv6");
    assert_eq!(families(std::slice::from_ref(&four), &any), [V4]);
    assert_eq!(families(&[four.clone(), six.clone()], &any), [V4, V6]);
    assert_eq!(families(std::slice::from_ref(&six), &any), [V6]);
    for silent in [
        Pool { disabled: true, ..six.clone() },
        Pool { manual: true, ..six.clone() },
        Pool { node_selector: "zone == 'b'".parse().unwrap(), ..six.clone() },
        Pool { namespace_selector: "team == 'b'".parse().unwrap(), ..six.clone() },
    ] {
        let pools = [four.clone(), silent];
        assert_eq!(families(&pools, &any), [V4]);
        assert_eq!(families(&pools, &named("six")), [V4, V6], "the pod counts before the configuration");
        assert_eq!(families(&pools, &ask(Dual { v4: Some(false), v6: Some(true) })), [V6]);
    }
    let both = [four, six];
    assert_eq!(families(&both, &ask(Dual { v4: None, v6: Some(false) })), [V4]);
    assert_eq!(families(&both, &ask(Dual { v4: Some(false), v6: None })), [V6]);
    assert_eq!(families(&both, &exactly("10.0.0.1")), [V4], "what is asked for is all");
    assert_eq!(families(&both, &exactly("fd00::1")), [V6]);

    // A kernel without IPv6 would refuse the address, and the pod would have none at all.
    let mut without = with_pools(&both);
    without.config.ipv6 = false;
    assert_eq!(without.families(&any), [V4]);
    assert_eq!(without.families(&named("six")), [V4, V6], "who asks for it is told");
}

#[test]
fn what_cannot_be_had_says_of_which_family_it_is() {
    let mut ipam = with_pools(&[pool("four", "10.0.0.0/28")]);
    let error = six(&mut ipam, "a").unwrap_err().to_string();
    assert_eq!(error, "no IPv6 pool gives addresses on node node1: there is none");
    let list = PoolList { source: PoolSource::Pod(Family::V6), names: vec!["four".into()] };
    let wish = Wish { pools: Dual { v4: None, v6: Some(list) }, ..Wish::default() };
    let error = given(&mut ipam, "a", &wish, Family::V6).unwrap_err().to_string();
    let expected =
        "pool four (10.0.0.0/28, annotation cni.projectcalico.org/ipv6pools) is no IPv6 pool, and one is needed";
    assert_eq!(error, expected);
}

#[test]
fn exact_sticky_and_reserved_addresses_are_of_both_families() {
    let mut ipam = dual();
    assert_eq!(assigned(&mut ipam, "a", &exactly("fd00:10:244:ffff::17"), START).unwrap(), "fd00:10:244:ffff::17");
    assert!(ipam.blocks().any(|block| block == cidr("fd00:10:244:ffff::/122")));
    // Half of the pool: it is stepped over at once.
    let mut fresh = dual();
    let ranges = vec!["fd00:10:244::/49".parse().unwrap(), "fd00:10:244:8000::/128".parse().unwrap()];
    fresh.apply(&Change::Reservation("r".into(), Some(Reservation { ranges })));
    assert_eq!(six(&mut fresh, "a").unwrap(), "fd00:10:244:8000::1");

    let db = PodKey::new("test", "db-0");
    let kept = ["10.0.0.2", "fd00:10:244:8000::2"].map(|addr| addr.parse().unwrap());
    fresh.apply(&Change::Sticky(db.clone(), kept.to_vec()));
    assert_eq!(six(&mut fresh, "b").unwrap(), "fd00:10:244:8000::3");
    let owner = podnet_model::pod::StickyOwner { name: "db".into(), uid: "s".into() };
    let wish = Wish { sticky: Some(owner), ..Wish::default() };
    for (family, addr) in Family::ALL.into_iter().zip(kept) {
        assert_eq!(fresh.sticky_address(&db, family), Some(addr));
        assert_eq!(given(&mut fresh, "db-0", &wish, family).unwrap(), addr.to_string());
    }
    let other = "fd00:10:244:8000::9".parse().unwrap();
    assert_eq!(fresh.kept(&db, &[kept[0], other], false), kept);
    // A life with one family costs nothing of the other one, but where no pool has it.
    assert_eq!([0, 1].map(|one| fresh.kept(&db, &kept[one..=one], false)), [kept, kept]);
    assert_eq!(fresh.kept(&db, &kept[..1], true), kept);
    fresh.apply(&Change::Pool("six".into(), None));
    assert_eq!(fresh.kept(&db, &kept[..1], false), kept[..1]);
}

#[test]
fn an_ipv6_address_is_lent_to_a_handle_that_was_lent_an_ipv4_one() {
    let mut owner = dual();
    any(&mut owner, "own", START).unwrap();
    six(&mut owner, "own").unwrap();
    let asked = LoanRequest {
        node: "node2".into(),
        handle: Handle::new("far", "eth0"),
        pod: PodKey::new("test", "far"),
        uid: Arc::from("u"),
        addr: None,
    };
    let lent = ["10.0.0.0/30", "fd00:10:244::/122"].map(|block| owner.lend(cidr(block), &asked, START).unwrap().0);
    assert_eq!(lent.map(|addr| addr.to_string()), ["10.0.0.1", "fd00:10:244::1"]);
    assert_eq!(owner.take_back(&asked.handle, lent[1], START).unwrap().len(), 1);
    assert_eq!(owner.addresses_of(&asked.handle), [PodAddr(lent[0])]);
}

#[test]
fn the_limit_of_blocks_is_for_each_family() {
    let mut ipam = dual();
    ipam.apply(&Change::IpamSettings(Some(IpamSettings { strict_affinity: true, max_blocks_per_host: Some(1) })));
    assert_eq!(any(&mut ipam, "a", START).unwrap(), "10.0.0.0");
    assert_eq!(six(&mut ipam, "a").unwrap(), "fd00:10:244::");
    for pod in ["b", "c", "d"] {
        any(&mut ipam, pod, START).unwrap();
    }
    let error = any(&mut ipam, "e", START).unwrap_err().to_string();
    assert!(error.ends_with("it may have no further one (maxBlocksPerHost of the IPAMConfig is 1)"), "{error}");
    let error = assigned(&mut ipam, "e", &exactly("fd00:10:244:1::"), START).unwrap_err().to_string();
    assert!(error.contains("has 1 blocks already"), "{error}");
}

#[test]
fn where_packets_have_no_room_for_ipv6_pods_have_ipv4_alone_or_are_told_why_not() {
    let mut ipam = dual();
    let six_named = PoolList { source: PoolSource::Pod(Family::V6), names: vec!["six".into()] };
    let named = Wish { pools: Dual { v4: None, v6: Some(six_named) }, ..Wish::default() };
    let handle = Handle::new("a", "eth0");
    let asked =
        |wish| AllocationRequest { handle: handle.clone(), pod: PodKey::new("test", "a"), uid: Arc::from("u"), wish };
    ipam.set_room_for_ipv6(1280);
    assert_eq!(ipam.families(&Wish::default()), Family::ALL);
    ipam.set_room_for_ipv6(1230);
    assert_eq!(ipam.families(&Wish::default()), [Family::V4]);
    let (exact, nothing) = (exactly("fd00:10:244::7"), Wish::default());
    for wish in [&named, &exact] {
        assert!(ipam.families(wish).contains(&Family::V6));
        let error = ipam.foresee(&asked(wish), Family::V6).unwrap_err().to_string();
        let expected = "no IPv6 address is given on node node1 (pools of IPv6: six): packets have room for 1230 bytes there, and IPv6 needs \
                        1280; raise the MTU of the underlay's device (or the --mtu of the agent), or let the pod have IPv4 alone";
        assert_eq!(error, expected);
    }
    // With pools of IPv6 only there is nothing else to have: that is an error too, and no pod without addresses.
    ipam.apply(&Change::Pool("four".into(), None));
    assert_eq!(ipam.families(&Wish::default()), [Family::V6]);
    ipam.foresee(&asked(&nothing), Family::V6).unwrap_err();
    // Who has an address has it.
    ipam.set_room_for_ipv6(1450);
    six(&mut ipam, "a").unwrap();
    ipam.set_room_for_ipv6(1230);
    ipam.foresee(&asked(&nothing), Family::V6).unwrap();
}

#[test]
fn an_address_that_nobody_was_told_does_not_rest() {
    let mut ipam = dual();
    let list = PoolList { source: PoolSource::Pod(Family::V6), names: vec!["sixx".into()] };
    let wish = Wish { pools: Dual { v4: None, v6: Some(list) }, ..Wish::default() };
    for retry in 0..20 {
        let name = format!("try{retry}");
        let handle = Handle::new(&name, "eth0");
        assert_eq!(given(&mut ipam, &name, &wish, Family::V4).unwrap(), "10.0.0.0");
        given(&mut ipam, &name, &wish, Family::V6).unwrap_err();
        let lines: Vec<_> = ipam.take_untold(&handle, Family::V4).unwrap().records;
        // Neither after a restart.
        let mut restarted = dual();
        let before = ipam.snapshot();
        restarted.replay(
            before.iter().chain(&lines).map(JournalRecord::to_line).collect::<Vec<_>>().iter().map(String::as_str),
        );
        assert_eq!(any(&mut restarted, "next", START).unwrap(), "10.0.0.0");
    }
    assert_eq!(ipam.blocks().count(), 1);
    // What is wrong for one family is known before the other one has an address.
    let asked = AllocationRequest {
        handle: Handle::new("a", "eth0"),
        pod: PodKey::new("test", "a"),
        uid: Arc::from("u"),
        wish: &wish,
    };
    assert_eq!(ipam.foresee(&asked, Family::V4), Ok(()));
    assert!(matches!(ipam.foresee(&asked, Family::V6), Err(IpamError::UnknownPool { .. })));
}
