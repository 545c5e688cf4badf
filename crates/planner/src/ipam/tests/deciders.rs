//! Which pools a pod may draw from, and what IPAM leaves alone.

use podnet_model::{IpamSettings, Reservation};

use super::*;

fn reserve(ipam: &mut NodeIpam, ranges: &[&str]) {
    let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    ipam.apply(&Change::Reservation("r".into(), Some(Reservation { ranges })));
}

fn limit(ipam: &mut NodeIpam, blocks: usize) {
    let settings = IpamSettings { strict_affinity: true, max_blocks_per_host: Some(blocks) };
    ipam.apply(&Change::IpamSettings(Some(settings)));
}

#[test]
fn a_manual_pool_gives_addresses_only_to_pods_that_name_it_or_an_address_of_it() {
    let manual = Pool { manual: true, ..pool("a-manual", "10.0.1.0/28") };
    let mut ipam = with_pools(&[manual, pool("b", "10.0.2.0/28")]);
    assert_eq!(any(&mut ipam, "a", START).unwrap(), "10.0.2.0");
    assert_eq!(assigned(&mut ipam, "b", &from_pools(&["a-manual"]), START).unwrap(), "10.0.1.0");
    assert_eq!(assigned(&mut ipam, "c", &exactly("10.0.1.9"), START).unwrap(), "10.0.1.9");

    let mut ipam = with_pools(&[Pool { manual: true, ..pool("a", "10.0.1.0/28") }]);
    let error = any(&mut ipam, "a", START).unwrap_err().to_string();
    assert_eq!(error, "no IPv4 pool gives addresses on node node1: a is for pods that name it");
}

#[test]
fn a_pool_serves_the_namespaces_that_it_selects_and_whoever_names_it() {
    let shop = Pool { namespace_selector: "team == 'shop'".parse().unwrap(), ..pool("a", "10.0.1.0/28") };
    let mut ipam = with_pools(&[shop.clone(), pool("b", "10.0.2.0/28")]);
    let of = |team: &str| Wish { namespace_labels: Arc::new([("team".into(), team.into())].into()), ..Wish::default() };
    assert_eq!(assigned(&mut ipam, "a", &of("shop"), START).unwrap(), "10.0.1.0");
    assert_eq!(assigned(&mut ipam, "b", &of("lab"), START).unwrap(), "10.0.2.0");
    assert_eq!(assigned(&mut ipam, "c", &from_pools(&["a"]), START).unwrap(), "10.0.1.1");

    let mut ipam = with_pools(&[shop]);
    let error = assigned(&mut ipam, "a", &of("lab"), START).unwrap_err().to_string();
    assert_eq!(error, "no IPv4 pool gives addresses on node node1: a selects namespaces team == 'shop'");
}

#[test]
fn addresses_without_ipam_need_no_pool_and_are_given_once_on_a_node() {
    let mut ipam = small();
    let wish = Wish { addrs_no_ipam: vec!["192.0.2.7".parse().unwrap()], ..Wish::default() };
    assert_eq!(assigned(&mut ipam, "a", &wish, START).unwrap(), "192.0.2.7");
    let error = assigned(&mut ipam, "b", &wish, START).unwrap_err().to_string();
    assert_eq!(error, "address 192.0.2.7 is held by pod test/a");
    assert_eq!(ipam.blocks().count(), 0);
    release(&mut ipam, "a", START).unwrap();
    assert_eq!(assigned(&mut ipam, "b", &wish, START).unwrap(), "192.0.2.7");
}

#[test]
fn reserved_addresses_are_for_those_who_ask_for_them() {
    let mut ipam = small();
    reserve(&mut ipam, &["10.0.0.0/30", "10.0.0.4/32", "10.0.0.6/31"]);
    // The first block is reserved as a whole: it is not even claimed.
    assert_eq!(any(&mut ipam, "a", START).unwrap(), "10.0.0.5");
    assert_eq!(any(&mut ipam, "b", START).unwrap(), "10.0.0.8");
    assert_eq!(assigned(&mut ipam, "c", &exactly("10.0.0.1"), START).unwrap(), "10.0.0.1");
    // Nor is a reserved address given when it is all that is left and has rested.
    release(&mut ipam, "c", START).unwrap();
    for pod in 0..7 {
        any(&mut ipam, &format!("p{pod}"), later(60)).unwrap();
    }
    assert!(matches!(any(&mut ipam, "d", later(120)), Err(IpamError::Full { .. })));
    ipam.apply(&Change::Reservation("r".into(), None));
    assert_eq!(any(&mut ipam, "d", later(120)).unwrap(), "10.0.0.0");
}

#[test]
fn a_node_has_no_more_blocks_than_the_limit() {
    let mut ipam = small();
    limit(&mut ipam, 1);
    for pod in 0..4 {
        any(&mut ipam, &format!("p{pod}"), START).unwrap();
    }
    let error = any(&mut ipam, "e", START).unwrap_err().to_string();
    assert!(error.ends_with("it may have no further one (maxBlocksPerHost of the IPAMConfig is 1)"), "{error}");
    let error = assigned(&mut ipam, "e", &exactly("10.0.0.9"), START).unwrap_err().to_string();
    let expected = "address 10.0.0.9 cannot be given: node has 1 blocks already, as many as maxBlocksPerHost of the IPAMConfig \
                    allows, and block 10.0.0.8/30 would be one more";
    assert_eq!(error, expected);
    limit(&mut ipam, 2);
    assert_eq!(any(&mut ipam, "e", START).unwrap(), "10.0.0.4");
}

#[test]
fn a_sticky_address_is_for_the_pod_of_that_name_and_for_who_asks_for_it() {
    let mut ipam = small();
    ipam.apply(&Change::Sticky(PodKey::new("test", "db-0"), vec!["10.0.0.1".parse().unwrap()]));
    let owner = podnet_model::pod::StickyOwner { name: "db".into(), uid: "s".into() };
    let sticky = Wish { sticky: Some(owner), ..Wish::default() };
    assert_eq!(any(&mut ipam, "a", START).unwrap(), "10.0.0.0");
    assert_eq!(any(&mut ipam, "b", START).unwrap(), "10.0.0.2");
    assert_eq!(assigned(&mut ipam, "db-1", &sticky, START).unwrap(), "10.0.0.3", "it had none before");
    assert_eq!(assigned(&mut ipam, "db-0", &sticky, START).unwrap(), "10.0.0.1");
    release(&mut ipam, "db-0", START).unwrap();
    assert_eq!(any(&mut ipam, "c", later(120)).unwrap(), "10.0.0.4", "not even when it has rested");
    assert_eq!(assigned(&mut ipam, "db-0", &sticky, later(120)).unwrap(), "10.0.0.1");
    ipam.apply(&Change::Sticky(PodKey::new("test", "db-0"), Vec::new()));
    release(&mut ipam, "db-0", later(120)).unwrap();
    assert_eq!(any(&mut ipam, "d", later(240)).unwrap(), "10.0.0.1");
}

#[test]
fn an_address_that_a_pod_got_instead_of_its_own_is_kept_only_when_its_own_cannot_come_back() {
    let mut ipam = with_pools(&[pool("a", "10.0.0.0/29"), pool("b", "10.0.1.0/29")]);
    let pod = PodKey::new("test", "db-0");
    let keeps = |ipam: &NodeIpam, addr: &str| {
        let addr = addr.parse().unwrap();
        assert_eq!(ipam.kept(&pod, &[addr], true), [addr], "what was asked for");
        ipam.kept(&pod, &[addr], false) == [addr]
    };
    assert!(keeps(&ipam, "10.0.1.1"), "it had none before");
    ipam.apply(&Change::Sticky(pod.clone(), vec!["10.0.0.1".parse().unwrap()]));
    assert!(keeps(&ipam, "10.0.0.1"));
    assert!(!keeps(&ipam, "10.0.1.1"), "its own is held by somebody just now");
    ipam.apply(&Change::Pool("a".into(), Some(Pool { disabled: true, ..pool("a", "10.0.0.0/29") })));
    assert!(keeps(&ipam, "10.0.1.1"), "the pool gives nothing any more");
    ipam.apply(&Change::Pool("a".into(), None));
    assert!(keeps(&ipam, "10.0.1.1"), "no pool has it");
}
