//! What is told of the tables of pods and of limits beside what is planned.

use podnet_model::{
    Mac,
    limits::{Bandwidth, InvalidLimit, Limits, PacketRate},
};
use podnet_planner::{
    limits::{Bucket, Found},
    ruleset::Set,
};

use super::*;
use crate::forwarding::{compare as whole, kernels::Kernels, lab, state::State};

const NOTHING: [&str; 0] = [];
const SENDERS: &str = "senders of table podnet-pods";

/// Both directions alike.
fn limits(rate: u32, connections: u32) -> PodLimits {
    let packets = Some(PacketRate { rate, burst: 5 });
    let limits = Limits { packets, connections: Some(connections), ..Limits::default() };
    PodLimits { egress: limits.clone(), ingress: limits }
}

fn addr(node: u8) -> IpAddr {
    [10, 1, node, 5].into()
}

fn planned(state: &State) -> &Planned {
    state.cluster.planned(&lab::node(1)).unwrap()
}

/// What is found where the pods are limited so and the first node has these tables.
fn found(state: &State, tables: &[(&str, &RuleSet)]) -> Findings {
    let mut told = lab::told(1);
    told.kernel.rules = Some(Rules::of(tables.iter().copied()));
    compare(&told, planned(state), &[Entry::Sender(addr(1)), Entry::Limits(addr(1))].into())
}

/// The table of pods where these may send.
fn senders(state: &State, senders: &[(&str, u8, u8)]) -> RuleSet {
    let mut rules = planned(state).attached(Family::V4);
    let sender =
        |(device, mac, pod): &(&str, u8, u8)| ((*device).into(), Mac([2, 0, 0, 0, 0, *mac]), [10, 1, 1, *pod].into());
    rules.sets.insert("senders".into(), Set::Senders(senders.iter().map(sender).collect()));
    rules
}

#[test]
fn who_may_not_send_is_named_and_who_may_as_well_loses_nothing() {
    let state = lab::limited(&Ok(PodLimits::default()));
    let own = ("pn-node1", 1, 5);
    let table: [(&[_], &[&str], &[&str]); 4] = [
        (&[own, ("pn-other", 7, 6)], &[], &[]),
        (&[], &["lacks pn-node1 . 02:00:00:00:00:01 . 10.1.1.5"], &[]),
        (
            &[("pn-node1", 2, 5)],
            &["lacks pn-node1 . 02:00:00:00:00:01 . 10.1.1.5"],
            &["has pn-node1 . 02:00:00:00:00:02 . 10.1.1.5, which is none of podnet's"],
        ),
        (&[own, ("pn-thief", 7, 5)], &[], &["has pn-thief . 02:00:00:00:00:07 . 10.1.1.5, which is none of podnet's"]),
    ];
    for (there, wrong, detours) in table {
        let rules = senders(&state, there);
        let told = |all: &[&str]| all.iter().map(|what| format!("{SENDERS} {what}")).collect::<Vec<_>>();
        let expected = Findings { found: told(wrong), detours: told(detours), left_out: Vec::new() };
        assert_eq!(found(&state, &[(attachments::TABLE, &rules)]), expected, "{there:?}");
    }
    let without = found(&state, &[]);
    assert_eq!(without.found, ["there is no table podnet-pods that does anything"]);
    let mut rules = senders(&state, &[own]);
    rules.chains.remove("senders-checked");
    let unchecked = found(&state, &[(attachments::TABLE, &rules)]);
    assert_eq!(unchecked.found, ["chain senders-checked of table podnet-pods is missing"]);
}

#[test]
fn a_missing_limit_is_told_and_loses_nothing_and_another_one_is_wrong() {
    let (asked, other) = (limits(100, 3), limits(7, 9));
    let state = lab::limited(&Ok(asked.clone()));
    let pods = planned(&state).attached(Family::V4);
    let with = |all: &[(IpAddr, &PodLimits)]| {
        let rules = limits::rules(Family::V4, all.iter().copied());
        let mut tables = vec![(attachments::TABLE, &pods)];
        tables.extend(rules.as_ref().map(|rules| (limits::TABLE, rules)));
        found(&state, &tables)
    };
    // Others' limits are no business of this way.
    assert_eq!(with(&[(addr(1), &asked), ([10, 1, 1, 9].into(), &other)]), Findings::default());
    assert_eq!(with(&[]).detours, ["there is no table podnet-limits that does anything"]);
    let removed = with(&[([10, 1, 1, 9].into(), &other)]);
    assert_eq!(removed.found, NOTHING);
    for what in ["packets-from", "limited-to"] {
        let what = format!("{what} of table podnet-limits lacks 10.1.1.5");
        assert!(removed.detours.contains(&what), "{what}: {removed:?}");
    }
    let slower = with(&[(addr(1), &limits(50, 3))]);
    let words = "has 10.1.1.5 with 50 packets/s, 5 at once and not with 100 packets/s, 5 at once";
    let sets = ["packets-from", "packets-to"];
    assert_eq!(slower.found, sets.map(|set| format!("{set} of table podnet-limits {words}")));
    let fewer = with(&[(addr(1), &limits(100, 2))]);
    let chain = "chain from-10.1.1.5 of table podnet-limits has a rule that is none of podnet's: handle ";
    assert!(fewer.found.iter().any(|what| what.starts_with(chain)), "{fewer:?}");
}

#[test]
fn a_limit_that_nobody_asks_for_is_wrong_and_one_that_is_refused_is_not_compared() {
    let left = limits(100, 3);
    let there = limits::rules(Family::V4, [(addr(1), &left)]).unwrap();
    let with = |state: &State| {
        let pods = planned(state).attached(Family::V4);
        found(state, &[(attachments::TABLE, &pods), (limits::TABLE, &there)])
    };
    let unlimited = with(&lab::limited(&Ok(PodLimits::default())));
    let words = "packets-to of table podnet-limits has 10.1.1.5, which is none of podnet's".to_owned();
    assert!(unlimited.found.contains(&words) && unlimited.detours.is_empty(), "{unlimited:?}");
    let alone = InvalidLimit::Alone { place: "here".to_owned(), needed: "that".to_owned() };
    let refused = with(&lab::limited(&Err(alone)));
    assert_eq!(refused.found, NOTHING);
    assert_eq!(refused.left_out, ["what limits the pod with the address 10.1.1.5: here needs that beside it"]);
}

#[test]
fn a_bandwidth_is_compared_with_the_token_buckets_of_the_pods_link() {
    let bandwidth = Some(Bandwidth { rate: 10_000_000, burst: None, peak: None });
    let limits = Limits { bandwidth, ..Limits::default() };
    let state = lab::limited(&Ok(PodLimits { egress: limits.clone(), ingress: limits }));
    let asked = planned(&state).limits(addr(1)).unwrap().as_ref().unwrap();
    let right = shaping(asked, planned(&state).overlay.pod_mtu());
    let whole = Found { ingress: right.ingress, egress: right.egress, diverted: true };
    let with = |shaped: Option<Found>| {
        let mut told = lab::told(1);
        told.kernel.shaped = shaped.map(|found| vec![("pn-node1".into(), found)]);
        compare(&told, planned(&state), &[Entry::Limits(addr(1))].into())
    };
    let bucket = right.egress.unwrap();
    let words = |way: &str, is: &str| {
        format!("the limit {way} the pod of pn-node1 should be {} bytes/s with headers: {is}", bucket.rate)
    };
    assert_eq!(with(Some(whole)), Findings::default());
    assert_eq!(with(None).left_out, ["what shapes the traffic of pn-node1, of which nothing was told"]);
    let free = with(Some(Found::default()));
    assert_eq!((free.detours, free.found.len()), (["to", "from"].map(|way| words(way, "there is none")).to_vec(), 0));
    let slower = Bucket { rate: 1000, ..bucket };
    let slow = with(Some(Found { ingress: Some(slower), ..whole }));
    assert_eq!((slow.found, slow.detours.len()), (vec![words("to", "it is 1000")], 0));
    let astray = with(Some(Found { egress: None, ..whole }));
    assert_eq!(astray.found, [words("from", "what leads there is not in order")]);
}

#[test]
fn where_rules_are_not_passed_of_limits_bandwidth_alone_is_compared() {
    let bandwidth = Some(Bandwidth { rate: 10_000_000, burst: None, peak: None });
    let PodLimits { egress, ingress } = limits(100, 3);
    let state = lab::limited(&Ok(PodLimits { egress: Limits { bandwidth, ..egress }, ingress }));
    let mut told = lab::told(1);
    told.kernel.shaped = Some(Vec::new());
    let findings = compare(&told, planned(&state), &[Entry::Bandwidth(addr(1))].into());
    let words = "the limit from the pod of pn-node1 should be ";
    assert!(matches!(&findings.detours[..], [what] if what.starts_with(words)), "{findings:?}");
    assert_eq!((findings.found.len(), findings.left_out.len()), (0, 0), "{findings:?}");
}

#[test]
fn where_the_device_of_a_missing_bandwidth_is_gone_too_nothing_is_lost() {
    let bandwidth = Some(Bandwidth { rate: 10_000_000, burst: None, peak: None });
    let egress = Limits { bandwidth, ..Limits::default() };
    let state = lab::limited(&Ok(PodLimits { egress, ..PodLimits::default() }));
    let mut told = [1, 2].map(|number| Ok(lab::told(number)));
    if let Ok(first) = &mut told[0] {
        first.kernel.shaped = Some(Vec::new());
    }
    let kernels = Kernels::told((1..).map(lab::node).zip(told)).with([1, 2].map(lab::inside));
    let trace = lab::follow(&state).unwrap();
    let mut devices = trace.paths[0].hops.iter().filter_map(|hop| hop.device.as_ref());
    assert!(devices.any(|device| device.as_str() == "pb-node1"), "{trace:?}");
    let compared = whole::compare(&state, &trace, &kernels);
    assert!(!compared.found.iter().any(|one| one.what.contains("pb-node1")), "{:?}", compared.found);
    let detours: Vec<&str> = compared.detours.iter().map(|one| one.what.as_str()).collect();
    assert!(matches!(detours[..], [what] if what.contains("from the pod of pn-node1")), "{detours:?}");
}

#[test]
fn who_may_send_by_a_bridge_is_not_compared_and_that_is_said() {
    let state = lab::limited(&Ok(PodLimits::default()));
    let findings = compare(&lab::told(1), planned(&state), &[Entry::Port(addr(1))].into());
    let words = "who may send with the address 10.1.1.5: it is on a bridge";
    assert_eq!(findings, Findings { left_out: vec![words.to_owned()], ..Findings::default() });
}

#[test]
fn of_a_pod_whose_ethernet_address_is_not_told_it_is_said_that_it_was_not_compared() {
    let state = lab::state();
    let findings = compare(&lab::told(1), planned(&state), &[Entry::Sender(addr(1))].into());
    let words = "who may send with the address 10.1.1.5: who tells of the node knows no Ethernet address of it";
    assert_eq!(findings, Findings { left_out: vec![words.to_owned()], ..Findings::default() });
}

#[test]
fn what_differs_is_named_of_the_node_that_the_pod_is_on() {
    let state = lab::limited(&Ok(PodLimits::default()));
    let mut told = [1, 2].map(|number| Ok(lab::told(number)));
    if let Ok(first) = &mut told[0] {
        first.kernel.rules = Some(Rules::of([(attachments::TABLE, &senders(&state, &[]))]));
    }
    let pods = [1, 2].map(lab::inside);
    let kernels = Kernels::told((1..).map(lab::node).zip(told)).with(pods);
    let compared = whole::compare(&state, &lab::follow(&state).unwrap(), &kernels);
    let words = format!("{SENDERS} lacks pn-node1 . 02:00:00:00:00:01 . 10.1.1.5");
    let named = compared.found.iter().filter(|one| one.what == words);
    assert_eq!(named.map(|one| &one.node).collect::<Vec<_>>(), [&lab::node(1)]);
    assert!(!compared.found.iter().any(|one| one.node == lab::node(2) && one.what.contains("podnet-pods")));
}
