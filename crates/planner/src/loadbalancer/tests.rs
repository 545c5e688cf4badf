#![allow(clippy::needless_pass_by_value, reason = "literals at the call read best by value")]

use podnet_model::{balancer::Reserved, labels::NodeSelector};

use super::*;

fn pool(name: &str, spans: &[&str]) -> AddressPool {
    AddressPool {
        name: name.into(),
        labels: Labels::default(),
        spans: spans.iter().map(|span| span.parse().unwrap()).collect(),
        auto_assign: true,
        avoid_buggy: false,
        reserved: None,
    }
}

fn balancers(pools: Vec<AddressPool>) -> Balancers {
    let mut balancers = Balancers::default();
    balancers.set_pools(pools, false);
    balancers
}

fn request(name: &str) -> Request {
    Request {
        key: ServiceKey::new("shop", name),
        labels: Labels::default(),
        namespace_labels: Labels::default(),
        families: vec![Family::V4],
        needs_all: false,
        asked: Vec::new(),
        pool: None,
        ports: [(Protocol::Tcp, 80)].into(),
        sharing: None,
    }
}

fn asking(name: &str, addresses: &[&str]) -> Request {
    Request { asked: addresses.iter().map(|addr| addr.parse().unwrap()).collect(), ..request(name) }
}

fn sharing(name: &str, port: u16, backends: Option<&str>) -> Request {
    let sharing = Some(Sharing { key: "dns".into(), backends: backends.map(Into::into) });
    Request { sharing, ports: [(Protocol::Tcp, port)].into(), ..request(name) }
}

/// Settles a Service that has nothing; what it got, or why not.
fn settle(balancers: &mut Balancers, request: &Request) -> String {
    match balancers.settle(request, &[]) {
        Ok(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn services_get_addresses_in_order_and_free_ones_are_given_again() {
    let mut balancers = balancers(vec![pool("a", &["192.0.2.1-192.0.2.2", "198.51.100.0/32"])]);
    for (name, wanted) in [("a", "192.0.2.1"), ("b", "192.0.2.2"), ("c", "198.51.100.0"), ("d", "no available IPs")] {
        assert_eq!(settle(&mut balancers, &request(name)), wanted);
    }
    assert!(balancers.release(&ServiceKey::new("shop", "b")) && !balancers.release(&ServiceKey::new("shop", "b")));
    assert_eq!(settle(&mut balancers, &request("d")), "192.0.2.2");
}

#[test]
fn a_service_keeps_what_its_status_says_while_it_may() {
    let mut balancers = balancers(vec![pool("a", &["192.0.2.0/29"])]);
    let five = ["192.0.2.5".parse().unwrap()];
    balancers.restore(&request("a"), &five);
    assert_eq!(
        settle(&mut balancers, &asking("thief", &["192.0.2.5"])).split(';').next(),
        Some("192.0.2.5 is Service shop/a's")
    );
    assert_eq!(balancers.settle(&request("a"), &five).unwrap(), five);
    // It asks for another one, or its pool goes.
    assert_eq!(balancers.settle(&asking("a", &["192.0.2.6"]), &five).unwrap()[0].to_string(), "192.0.2.6");
    balancers.set_pools(vec![pool("b", &["198.51.100.7/32"])], false);
    assert_eq!(balancers.settle(&request("a"), &five).unwrap()[0].to_string(), "198.51.100.7");
    balancers.set_pools(Vec::new(), false);
    assert_eq!(balancers.settle(&request("a"), &five), Err(Refusal::NoPool));
    balancers.set_pools(vec![pool("b", &["198.51.100.7/32"])], false);
    assert_eq!(settle(&mut balancers, &request("b")), "198.51.100.7", "what cannot be kept is free");
}

#[test]
fn addresses_and_pools_are_asked_for() {
    let mut by_name = pool("named", &["198.51.100.0/30"]);
    by_name.auto_assign = false;
    let mut balancers = balancers(vec![pool("a", &["192.0.2.0/30"]), by_name]);
    let of = |name: &str, pool: &str| Request { pool: Some(pool.into()), ..request(name) };
    assert_eq!(settle(&mut balancers, &of("a", "named")), "198.51.100.0");
    assert_eq!(settle(&mut balancers, &of("b", "none")), "there is no IPAddressPool none");
    assert_eq!(settle(&mut balancers, &asking("c", &["198.51.100.3"])), "198.51.100.3");
    assert_eq!(settle(&mut balancers, &asking("d", &["203.0.113.1"])), "203.0.113.1 is in no IPAddressPool");
    let both = Request { asked: vec!["192.0.2.1".parse().unwrap()], ..of("e", "named") };
    assert_eq!(settle(&mut balancers, &both), "192.0.2.1 is in IPAddressPool a, which is not for this Service");
    let second = asking("f", &["192.0.2.1", "192.0.2.2"]);
    assert_eq!(settle(&mut balancers, &second), "192.0.2.2 does not fit the Service's ipFamilies: one address of each");
}

#[test]
fn buggy_addresses_are_avoided_where_that_is_asked_for() {
    let mut careful = pool("a", &["192.0.2.254-192.0.3.1"]);
    careful.avoid_buggy = true;
    let mut balancers = balancers(vec![careful]);
    assert_eq!(settle(&mut balancers, &request("a")), "192.0.2.254");
    assert_eq!(settle(&mut balancers, &request("b")), "192.0.3.1");
    assert_eq!(settle(&mut balancers, &request("c")), "no available IPs");
    assert_eq!(settle(&mut balancers, &asking("d", &["192.0.2.255"])), "192.0.2.255 is in no IPAddressPool");
}

#[test]
fn an_address_is_shared_by_who_agrees_on_it_port_by_port() {
    let mut balancers = balancers(vec![pool("a", &["192.0.2.0/29"])]);
    assert_eq!(settle(&mut balancers, &request("alone")), "192.0.2.0");
    assert_eq!(settle(&mut balancers, &sharing("a", 53, None)), "192.0.2.1");
    assert_eq!(settle(&mut balancers, &sharing("b", 54, None)), "192.0.2.1");
    assert_eq!(settle(&mut balancers, &sharing("c", 53, None)), "192.0.2.2", "its port is taken at the shared one");
    assert_eq!(settle(&mut balancers, &sharing("d", 55, Some("app=x"))), "192.0.2.3", "other nodes announce it");
    let asked = Request { asked: vec!["192.0.2.1".parse().unwrap()], ..sharing("e", 53, None) };
    assert_eq!(settle(&mut balancers, &asked), "port 53/TCP of 192.0.2.1 is Service shop/a's");
    balancers.release(&ServiceKey::new("shop", "a"));
    assert_eq!(settle(&mut balancers, &asked), "192.0.2.1");
}

#[test]
fn pools_that_are_reserved_come_first_by_priority() {
    let reserved =
        |name: &str, span: &str, reserved: Reserved| AddressPool { reserved: Some(reserved), ..pool(name, &[span]) };
    let shop = |priority| Reserved { priority, namespaces: ["shop".to_owned()].into(), ..Reserved::default() };
    let selector: NodeSelector = "tier == 'gold'".parse().unwrap();
    let gold = Reserved { priority: 1, service_selectors: vec![selector], ..Reserved::default() };
    let mut balancers = balancers(vec![
        pool("open", &["192.0.2.0/32"]),
        reserved("last", "192.0.2.1/32", shop(0)),
        reserved("first", "192.0.2.2/32", shop(5)),
        reserved("gold", "192.0.2.3/32", gold),
    ]);
    let labels = Labels::new([("tier".to_owned(), "gold".to_owned())].into());
    assert_eq!(settle(&mut balancers, &Request { labels, ..request("gold") }), "192.0.2.3");
    for (name, wanted) in [("a", "192.0.2.2"), ("b", "192.0.2.1"), ("c", "192.0.2.0"), ("d", "no available IPs")] {
        assert_eq!(settle(&mut balancers, &request(name)), wanted);
    }
    let elsewhere = Request { key: ServiceKey::new("other", "x"), ..asking("x", &["192.0.2.2"]) };
    assert_eq!(
        settle(&mut balancers, &elsewhere),
        "192.0.2.2 is in IPAddressPool first, which is not for this Service"
    );
}

#[test]
fn a_service_of_two_families_gets_two_addresses_of_one_pool() {
    let dual = |name: &str, needs_all| Request { families: vec![Family::V6, Family::V4], needs_all, ..request(name) };
    let mut balancers =
        balancers(vec![pool("four", &["192.0.2.0/32"]), pool("two", &["198.51.100.0/32", "2001:db8::/64"])]);
    assert_eq!(settle(&mut balancers, &dual("a", true)), "2001:db8:: 198.51.100.0");
    assert_eq!(settle(&mut balancers, &dual("b", true)), "no available IPs");
    assert_eq!(settle(&mut balancers, &dual("c", false)), "192.0.2.0", "what there is");
    balancers.release(&ServiceKey::new("shop", "a"));
    let had = ["198.51.100.0".parse().unwrap()];
    let more = balancers.settle(&dual("b", true), &had).unwrap();
    assert_eq!(more[1], had[0], "a Service that gets a second family keeps its first address");
    let one = Request { asked: vec!["2001:db8::7".parse().unwrap()], ..dual("d", true) };
    assert_eq!(settle(&mut balancers, &one), "no IPv4 address was asked for, and the Service requires both families");
    assert_eq!(settle(&mut balancers, &Request { needs_all: false, ..one }), "2001:db8::7");
}

#[test]
fn a_large_range_is_not_looked_through() {
    let mut balancers = balancers(vec![pool("a", &["2001:db8::/32"])]);
    for number in 0..1000u32 {
        let request = Request { families: vec![Family::V6], ..request(&number.to_string()) };
        balancers.settle(&request, &[]).unwrap();
    }
    assert_eq!(balancers.holders.len(), 1000);
}

#[test]
fn what_was_given_stays_given_while_the_status_does_not_show_it() {
    let mut balancers = balancers(vec![pool("a", &["192.0.2.0/30"])]);
    for name in ["a", "b"] {
        settle(&mut balancers, &request(name));
    }
    balancers.release(&ServiceKey::new("shop", "a"));
    assert_eq!(settle(&mut balancers, &request("b")), "192.0.2.1", "and not the one that became free");
}

#[test]
fn while_a_pool_cannot_be_understood_services_keep_what_is_in_no_pool() {
    let mut balancers = balancers(Vec::new());
    let had: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap()];
    balancers.set_pools(vec![pool("a", &["198.51.100.0/24"])], true);
    assert_eq!(balancers.settle(&request("one"), &had), Ok(had.clone()));
    assert!(balancers.settle(&request("other"), &had) != Ok(had.clone()), "it is the first one's");
    assert_eq!(settle(&mut balancers, &asking("third", &["192.0.2.8"])), "192.0.2.8 is in no IPAddressPool");
    balancers.set_pools(vec![pool("a", &["198.51.100.0/24"])], false);
    assert_ne!(balancers.settle(&request("one"), &had), Ok(had));
}

#[test]
fn a_pool_counts_what_is_given_of_it() {
    let both = AddressPool { avoid_buggy: true, ..pool("a", &["192.0.2.0/29", "2001:db8::/126"]) };
    let mut balancers = balancers(vec![both.clone(), pool("b", &["198.51.100.0/24"])]);
    let dual = Request { families: vec![Family::V4, Family::V6], ..request("one") };
    balancers.settle(&dual, &[]).unwrap();
    let Usage { assigned, available } = balancers.usage(&both);
    assert_eq!((assigned.v4, assigned.v6, available.v4, available.v6), (1, 1, 6, 3));
    for port in [1, 2] {
        settle(&mut balancers, &sharing(&port.to_string(), port, None));
    }
    let Usage { assigned, available } = balancers.usage(&both);
    assert_eq!((assigned.v4, available.v4), (2, 5), "a shared one counts once");
    let other = balancers.usage(&pool("b", &["198.51.100.0/24"]));
    assert_eq!((other.assigned.v4, other.available.v4), (0, 256));
}
