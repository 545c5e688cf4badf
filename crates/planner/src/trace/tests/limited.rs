//! Who may send, and what limits pods, on their ways.

use podnet_model::{
    Change, EncapMode, Family, LinkName,
    limits::{Bandwidth, InvalidLimit, Limits, PacketRate, PodLimits},
};

use super::{super::*, Lab, pool};
use crate::{limits::rules, ruleset::Set};

const P1: &str = "10.1.1.5";
const P2: &str = "10.1.2.5";

/// So many packets, connections and bits each second.
fn limits(packets: u32, connections: u32, rate: u64) -> Limits {
    Limits {
        bandwidth: Some(Bandwidth { rate, burst: None, peak: None }),
        packets: Some(PacketRate { rate: packets, burst: 5 }),
        connections: Some(connections),
    }
}

/// The lab, where the pod of node1 is limited so.
fn lab(limits: Result<PodLimits, InvalidLimit>) -> Lab {
    let mut lab = Lab::new(pool(EncapMode::Never, EncapMode::Never));
    let Change::Pod(key, Some(mut limited)) = super::pod("p1", "node1", P1) else { panic!("a pod") };
    limited.limits = limits;
    lab.more.push(Change::Pod(key, Some(limited)));
    lab
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What is said of limits on the only way, each with what it is of and its device.
fn told(cluster: &Cluster, from: &Source, to: &str) -> Vec<(String, String, Option<LinkName>)> {
    let target = Target { addr: addr(to), protocol: Protocol::Tcp, port: 80 };
    let trace = cluster.trace(from, target).unwrap();
    assert_eq!((trace.paths.len(), trace.paths[0].end.verdict), (1, Verdict::Arrives));
    let limits = trace.paths[0].hops.iter().filter(|hop| hop.kind == Kind::Judged);
    let pod = Some(Object::namespaced("pod", "default", "p1"));
    limits
        .map(|hop| {
            assert_eq!(hop.object, pod, "{}", hop.what);
            (hop.what.clone(), hop.rule.clone().unwrap(), hop.device.clone())
        })
        .collect()
}

#[test]
fn the_limits_of_each_direction_are_hops_with_rule_device_and_what_asks_for_them() {
    let limits = PodLimits { egress: limits(100, 3, 10_000_000), ingress: limits(200, 4, 20_000_000) };
    let cluster = lab(Ok(limits)).cluster();
    let (own, pod) = (LinkName::from("pn-node1"), |name: &str| Source::Pod(PodKey::new("default", name)));
    let from = |limit: &str, by: &str| format!("at most {limit} (annotation {by})");
    let bandwidth = |way: &str| format!("kubernetes.io/{way}-bandwidth or qos.projectcalico.org/{way}Bandwidth");
    let rule =
        |chain: &str, what: &str| format!("nftables, table podnet-limits, {chain}: more {what} than the pod may have");
    let sent = from("10000000 bits/s from the pod: what finds no room to wait is dropped", &bandwidth("egress"));
    let packets = "100 packets/s from the pod, 5 at once: more are dropped";
    let connections = "3 connections from the pod at once: more are refused";
    let through = "qdisc tbf, handle 88:, of a device that all of it is led through".to_owned();
    let expected = [
        (sent, through, Some("pb-node1".into())),
        (
            from(packets, "qos.projectcalico.org/egressPacketRate"),
            rule("prerouting from-pods", "packets"),
            Some(own.clone()),
        ),
        (
            from(connections, "qos.projectcalico.org/egressMaxConnections"),
            rule("prerouting from-pods", "connections"),
            Some(own.clone()),
        ),
    ];
    assert_eq!(told(&cluster, &pod("p1"), P2), expected);
    let to = |chain: &str| {
        let got = from("20000000 bits/s to the pod: what finds no room to wait is dropped", &bandwidth("ingress"));
        let packets = "200 packets/s to the pod, 5 at once: more are dropped";
        let connections = "4 connections to the pod at once: more are refused";
        [
            (from(packets, "qos.projectcalico.org/ingressPacketRate"), rule(chain, "packets"), Some(own.clone())),
            (
                from(connections, "qos.projectcalico.org/ingressMaxConnections"),
                rule(chain, "connections"),
                Some(own.clone()),
            ),
            (got, "qdisc tbf, handle 88:".to_owned(), Some(own.clone())),
        ]
    };
    assert_eq!(told(&cluster, &pod("p2"), P1), to("forward forwarded → to-pods"));
    assert_eq!(told(&cluster, &Source::Node("node1".into()), P1), to("output of-the-node → to-pods"));
    assert!(told(&cluster, &Source::Node("node2".into()), P2).is_empty());
}

#[test]
fn what_is_asked_of_pods_is_known_by_their_addresses_whether_they_are_limited_or_not() {
    let asked = |lab: Lab| {
        let path = lab.to(P2);
        let rule = "sender 10.1.1.5 of pn-node1 alone, all else is dropped (table podnet-pods, set senders)";
        assert_eq!((path.hops[1].rule.as_deref(), path.hops[1].entries.len()), (Some(rule), 2));
        path.hops.iter().flat_map(|hop| hop.entries.clone()).collect::<Vec<Entry>>()
    };
    let expected = [Entry::Sender(addr(P1)), Entry::Limits(addr(P1)), Entry::Limits(addr(P2))];
    assert_eq!(asked(lab(Ok(PodLimits::default()))), expected);
    let limits = PodLimits { egress: limits(100, 3, 10_000_000), ..PodLimits::default() };
    assert_eq!(asked(lab(Ok(limits))), expected);
}

#[test]
fn annotations_that_are_refused_limit_nothing_that_is_known() {
    let alone = InvalidLimit::Alone { place: "here".to_owned(), needed: "that".to_owned() };
    let cluster = lab(Err(alone.clone())).cluster();
    assert_eq!(told(&cluster, &Source::Pod(PodKey::new("default", "p1")), P2).len(), 0);
    assert_eq!(cluster.planned(&"node1".into()).unwrap().limits(addr(P1)), Some(&Err(alone)));
    assert_eq!(cluster.planned(&"node2".into()).unwrap().limits(addr(P2)), None);
}

#[test]
fn the_table_of_pods_has_the_senders_whose_ethernet_addresses_are_told() {
    let cluster = lab(Ok(PodLimits::default())).cluster();
    let planned = cluster.planned(&"node1".into()).unwrap();
    let expected = Set::Senders([("pn-node1".into(), podnet_model::Mac([2; 6]), addr(P1))].into());
    assert_eq!(planned.attached(Family::V4).sets["senders"], expected);
    assert!(planned.attached(Family::V6).sets["senders"].is_empty());
    let mut facts = planned.facts.clone();
    let mut unknown = |change: fn(&mut Link)| {
        facts.links.values_mut().for_each(change);
        let planned = Planned::new(&planned.node, facts.clone(), &podnet_model::ProxyConfig::default(), &[]);
        planned.attached(Family::V4).sets["senders"].is_empty()
    };
    assert!(unknown(|link| link.mac = None));
    assert!(unknown(|link| (link.mac, link.bridge) = (Some(podnet_model::Mac([2; 6])), Some("br".into()))));
    assert_eq!(rules::part(Family::V4, []).sets.len(), 9);
}
