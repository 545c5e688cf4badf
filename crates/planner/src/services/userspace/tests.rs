use std::time::{Duration, Instant};

use podnet_model::ServiceKey;

use super::*;
use crate::{
    ruleset::{BackendAddress, walk::Direction},
    services::{
        Backend, FrontendChange,
        packet_table::{self, Fate, NODES, NodeRules, Row, six},
    },
};

fn at(addr: &str, port: u16) -> BackendAddress {
    BackendAddress { addr: addr.parse().unwrap(), port }
}

fn serving(backends: &[BackendAddress], affinity: Option<u32>) -> Arc<Serving> {
    let backend = |at: &BackendAddress| Backend { at: *at, local: false, terminating: false };
    let backends = Backends::Of(backends.iter().map(backend).collect());
    Arc::new(Serving {
        service: ServiceKey::new("default", "web"),
        port: "http".into(),
        kind: FrontendKind::ClusterIp,
        inside: backends.clone(),
        outside: backends,
        keeps_source: false,
        affinity,
        lasting: Arc::default(),
        sources: None,
    })
}

/// What becomes of a row's packet: by which way it goes, who is let in and what is chosen.
fn fate(work: &Work, insiders: &BTreeSet<IpAddr>, row: &Row) -> Option<Fate> {
    let packet = &row.packet;
    let key = FrontendKey { addr: packet.dst, protocol: packet.protocol, port: packet.dport };
    let port = Led::Port { addr: key.addr, protocol: key.protocol, port: key.port };
    let is_led = work.more.contains(&port) || work.more.contains(&Led::Address(key.addr));
    if packet.is_echo {
        return is_led.then_some(Fate::Answered);
    }
    let Some(front) = work.fronts.iter().find(|(known, _)| *known == key).and_then(|(_, front)| front.as_ref()) else {
        return is_led.then_some(Fate::Rejected);
    };
    assert_eq!(is_led, front.place == Place::Apart, "{row}");
    let Some(guard) = &front.guard else { return Some(Fate::Rejected) };
    let inside = insiders.contains(&packet.src);
    if front.serving.differs_outside() {
        assert_eq!(inside, row.direction != Direction::FromOutside, "{row}");
    }
    let let_in = guard.lists(insiders).iter().all(|list| list.iter().any(|range| range.contains(&packet.src)));
    assert_eq!(let_in, guard.lets_in(packet.src, inside), "{row}");
    if !let_in {
        return Some(Fate::Dropped);
    }
    let mut chooser = Chooser::new(Arc::new(Serving { affinity: None, ..(*front.serving).clone() }));
    let asked = Asked { client: packet.src, inside, without: &[] };
    let now = Instant::now();
    let arrivals = (0..12).map(|random| match chooser.choose(&asked, random, now) {
        Choice::To(at) => (at, true),
        other => panic!("{row}: {other:?}, but it was let in"),
    });
    Some(Fate::Arrives(arrivals.collect()))
}

/// Every row that speaks of Services, less the question of the source, which is always the node's.
#[test]
fn the_packet_table_holds() {
    let clusters = [
        (packet_table::rows(), packet_table::config as fn(&str) -> _, packet_table::changes()),
        (six::rows(), six::config, six::changes()),
    ];
    let mut held = 0;
    for (rows, config, changes) in clusters {
        for node in NODES {
            let mut rules = NodeRules::new(config(node));
            changes.iter().for_each(|change| drop(rules.apply(change)));
            let work = Userspace::new(&rules.services).work(&rules.services);
            let insiders = work.insiders.clone().unwrap();
            for row in rows.iter().filter(|row| row.node == node && row.packet.protocol != Protocol::Sctp) {
                let to = BackendAddress { addr: row.packet.dst, port: row.packet.dport };
                let expected = match &row.fate {
                    Fate::Arrives(arrivals) if arrivals.len() == 1 && arrivals.contains_key(&to) => None,
                    Fate::Arrives(arrivals) => Some(Fate::Arrives(arrivals.keys().map(|at| (*at, true)).collect())),
                    Fate::Answered if !rules.services.cluster_ips().any(|ip| ip == to.addr) => None,
                    other => Some(other.clone()),
                };
                assert_eq!(fate(&work, &insiders, row), expected, "{row}");
                held += 1;
            }
        }
    }
    assert!(held > 500, "{held}");
}

/// The work of each change leads from what was there to what a fresh start asks for.
#[test]
fn changes_one_by_one_end_where_a_fresh_start_does() {
    let (services, border) = packet_table::config("node1");
    let mut rules = NodeRules::new((services, border));
    let mut userspace = Userspace::new(&rules.services);
    let (mut fronts, mut led) = (HashMap::new(), BTreeSet::new());
    let mut insiders = BTreeSet::new();
    let forth = packet_table::changes();
    let back = packet_table::removals(&forth);
    for (place, change) in forth.iter().chain(&back).enumerate() {
        let (plan, _) = rules.apply(change);
        userspace.learn(&plan);
        if place == forth.len() / 2 {
            // The node has another address for a while.
            let addrs = rules.services.config().node_addrs.clone();
            for addrs in [vec![NodeAddr("203.0.113.51".parse().unwrap())], addrs] {
                userspace.learn(&rules.services.set_node_addrs(addrs));
                take(userspace.work(&rules.services), &mut fronts, &mut led, &mut insiders);
            }
        }
        take(userspace.work(&rules.services), &mut fronts, &mut led, &mut insiders);
        if place % 50 == 0 || place + 1 == forth.len() {
            let (mut afresh, mut led_afresh, mut inside) = (HashMap::new(), BTreeSet::new(), BTreeSet::new());
            let whole = Userspace::new(&rules.services).work(&rules.services);
            take(whole, &mut afresh, &mut led_afresh, &mut inside);
            // Slots are nobody's business here.
            assert_eq!(without_order(&fronts), without_order(&afresh));
            assert_eq!((&led, &insiders), (&led_afresh, &inside));
            assert_eq!(userspace.whole(&rules.services).fronts.len(), fronts.len());
        }
    }
    assert!(fronts.is_empty() && led.is_empty());
}

fn take(
    work: Work,
    fronts: &mut HashMap<FrontendKey, Front>,
    led: &mut BTreeSet<Led>,
    insiders: &mut BTreeSet<IpAddr>,
) {
    for (key, front) in work.fronts {
        match front {
            Some(front) => drop(fronts.insert(key, front)),
            None => assert!(fronts.remove(&key).is_some(), "{key}"),
        }
    }
    assert!(work.more.into_iter().all(|more| led.insert(more)), "nothing is led twice");
    assert!(work.fewer.iter().all(|fewer| led.remove(fewer)), "nothing is left twice");
    *insiders = work.insiders.unwrap_or_else(|| std::mem::take(insiders));
}

fn without_order(fronts: &HashMap<FrontendKey, Front>) -> HashMap<FrontendKey, String> {
    let text = |front: &Front| {
        let side = |backends: &Backends| {
            let mut all = backends.slots().to_vec();
            all.sort();
            format!("{all:?}")
        };
        let Front { place, guard, serving } = front;
        format!("{place:?} {guard:?} {} {}", side(&serving.inside), side(&serving.outside))
    };
    fronts.iter().map(|(key, front)| (*key, text(front))).collect()
}

#[test]
fn a_client_stays_for_its_time_and_goes_elsewhere_when_its_backend_does() {
    let [one, two] = [at("10.0.0.1", 80), at("10.0.0.2", 80)];
    let mut chooser = Chooser::new(serving(&[one, two], Some(60)));
    let client: IpAddr = "10.0.9.9".parse().unwrap();
    let start = Instant::now();
    let choose = |chooser: &mut Chooser, random, seconds, without: &[BackendAddress]| {
        let asked = Asked { client, inside: true, without };
        chooser.choose(&asked, random, start + Duration::from_secs(seconds))
    };
    assert_eq!(choose(&mut chooser, 1, 0, &[]), Choice::To(two));
    assert_eq!(choose(&mut chooser, 0, 59, &[]), Choice::To(two), "it is remembered");
    assert_eq!(choose(&mut chooser, 0, 118, &[]), Choice::To(two), "from the last time on");
    assert_eq!(choose(&mut chooser, 0, 178, &[]), Choice::To(one), "for so long");
    assert_eq!(choose(&mut chooser, 0, 179, &[one]), Choice::To(two), "one does not answer");
    assert_eq!(choose(&mut chooser, 0, 179, &[one, two]), Choice::Refused);
    chooser.serve(serving(&[one], Some(60)));
    assert_eq!(choose(&mut chooser, 0, 180, &[]), Choice::To(one), "its backend is gone");
    chooser.serve(serving(&[one, two], Some(60)));
    assert_eq!(choose(&mut chooser, 1, 181, &[]), Choice::To(one));
    chooser.serve(serving(&[one, two], None));
    assert_eq!(choose(&mut chooser, 1, 182, &[]), Choice::To(two), "nobody stays any more");
}

#[test]
fn a_client_has_one_backend_at_all_frontends_of_a_services_port() {
    let backends = [at("10.0.0.1", 80), at("10.0.0.2", 80)];
    let memories = Memories::default();
    let of = |serving, protocol| Chooser::new(serving).remembering(protocol, &memories);
    let sticky = || serving(&backends, Some(60));
    let now = Instant::now();
    let client: IpAddr = "10.0.9.9".parse().unwrap();
    let come =
        |chooser: &mut Chooser, random| chooser.choose(&Asked { client, inside: true, without: &[] }, random, now);
    let (mut one, mut other) = (of(sticky(), Protocol::Tcp), of(sticky(), Protocol::Tcp));
    assert_eq!(come(&mut one, 1), Choice::To(backends[1]));
    assert_eq!(come(&mut other, 0), Choice::To(backends[1]), "another address of the same port");
    let mut datagrams = of(sticky(), Protocol::Udp);
    assert_eq!(come(&mut datagrams, 0), Choice::To(backends[0]), "another protocol is another port");
    // The frontend becomes another Service's, and comes back.
    let elsewhere = Serving { service: ServiceKey::new("default", "another"), ..(*sticky()).clone() };
    other.serve(Arc::new(elsewhere));
    assert_eq!(come(&mut other, 0), Choice::To(backends[0]));
    other.serve(sticky());
    assert_eq!(come(&mut other, 0), Choice::To(backends[1]));
}

#[test]
fn so_many_clients_are_remembered_and_no_more() {
    let backends = [at("10.0.0.1", 80), at("10.0.0.2", 80)];
    let mut chooser = Chooser::new(serving(&backends, Some(60)));
    let now = Instant::now();
    let mut come = |number: u32, random, now| {
        let asked = Asked { client: std::net::Ipv4Addr::from_bits(number).into(), inside: false, without: &[] };
        chooser.choose(&asked, random, now)
    };
    for number in 0..70_000 {
        come(number, 0, now);
    }
    assert_eq!(come(7, 1, now), Choice::To(backends[0]), "it was among the first");
    assert_eq!(come(69_999, 1, now), Choice::To(backends[1]), "it came when memory was full");
    let later = now + Duration::from_secs(61);
    assert_eq!(come(69_999, 0, later), Choice::To(backends[0]));
    assert_eq!(come(69_999, 1, later), Choice::To(backends[0]), "others have made room");
    assert_eq!(chooser.remembered(), 1);
}

#[test]
fn what_the_node_alone_may_reach_is_nobodys_backend() {
    let chosen = |backends: &[BackendAddress]| {
        let mut chooser = Chooser::new(serving(backends, None));
        let asked = Asked { client: "10.244.0.9".parse().unwrap(), inside: true, without: &[] };
        (0..12).map(|random| chooser.choose(&asked, random, Instant::now())).collect::<Vec<_>>()
    };
    let pod = at("10.244.0.7", 80);
    for own in ["127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "::1", "::", "fe80::1", "::ffff:127.0.0.1"] {
        assert!(chosen(&[at(own, 80)]).iter().all(|choice| *choice == Choice::Refused), "{own}");
        assert!(chosen(&[at(own, 80), pod]).iter().all(|choice| *choice == Choice::To(pod)), "{own}");
    }
}

/// A Service with an external address, and these backends of UDP.
fn external(backends: &[BackendAddress]) -> Plan {
    let key = FrontendKey { addr: "203.0.113.7".parse().unwrap(), protocol: Protocol::Udp, port: 53 };
    let serving = Serving { kind: FrontendKind::ExternalIp, ..(*serving(backends, None)).clone() };
    Plan { frontends: vec![FrontendChange { key, before: None, after: Some(Arc::new(serving)) }], ..Plan::default() }
}

#[test]
fn what_is_at_an_address_of_the_nodes_own_is_listened_for_there() {
    let (services, border) = packet_table::config("node1");
    let rules = NodeRules::new((services, border));
    let mut userspace = Userspace::new(&rules.services);
    userspace.learn(&external(&[at("10.244.0.7", 53)]));
    let own: IpAddr = "203.0.113.7".parse().unwrap();
    let mut work = |own: &[IpAddr]| {
        userspace.set_own(own.iter().copied().collect());
        let work = userspace.work(&rules.services);
        let place = work.fronts.first().and_then(|(_, front)| front.as_ref()).map(|front| front.place);
        let inside = work.insiders.map(|insiders| own.iter().all(|own| insiders.contains(own)));
        (place, work.more.len(), work.fewer.len(), inside)
    };
    assert_eq!(work(&[]), (Some(Place::Apart), 1, 0, Some(true)));
    assert_eq!(work(&[own]), (Some(Place::Node), 0, 1, Some(true)));
    assert_eq!(work(&[own]), (None, 0, 0, None));
    assert_eq!(work(&[]), (Some(Place::Apart), 1, 0, Some(true)));
}

#[test]
fn nodes_tunnels_are_nobodys_backends() {
    let mut rules = NodeRules::new(packet_table::config("node1"));
    packet_table::changes().iter().for_each(|change| drop(rules.apply(change)));
    let mut userspace = Userspace::new(&rules.services);
    userspace.work(&rules.services);
    let [node, pod] = [at("192.0.2.9", 8285), at("10.233.64.7", 8285)];
    userspace.learn(&external(&[node, pod]));
    let mut work = |rules: &NodeRules| {
        let work = userspace.work(&rules.services);
        let told: Vec<String> = userspace.unserved().map(|(key, lack, _)| format!("{key} {lack}")).collect();
        let of = work.fronts.into_iter().find(|(key, _)| key.addr.to_string() == "203.0.113.7");
        let front = of.and_then(|(_, front)| front);
        let backends = front.map(|front| front.serving.backends().map(|backend| backend.at).collect::<Vec<_>>());
        (backends, told.iter().any(|told| told.starts_with("203.0.113.7:53/UDP is not served by 192.0.2.9:8285")))
    };
    assert_eq!(work(&rules), (Some(vec![node, pod]), false));
    let udp = podnet_model::flannel::Backend::Udp { port: 8285 };
    let networks = podnet_model::Dual { v4: packet_table::POD_CIDR.parse().ok(), v6: None };
    let conf = podnet_model::NetConf { networks, subnet_len: 24, backend: udp };
    rules.apply(&podnet_model::Change::NetConf("kube-flannel".into(), Some(conf)));
    assert_eq!(work(&rules), (Some(vec![pod]), true));
    rules.apply(&podnet_model::Change::NetConf("kube-flannel".into(), None));
    assert_eq!(work(&rules), (Some(vec![node, pod]), false));
}
