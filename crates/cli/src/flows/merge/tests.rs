//! What is told of what several agents told.

use std::slice;

use podnet_flow::{Cause, Reporter, Verdict, record::Asked};
use podnet_model::ServiceKey;
use serde_json::json;

use super::*;

fn flow(id: u8, second: u8, report: &str, reporter: &str, class: &str) -> Item {
    let time = format!("2026-01-01T00:00:{second:02}Z");
    let pod = |node: &str| {
        json!({"ip": "10.0.0.1", "port": 1,
            "pod": {"namespace": "a", "name": "b", "uid": "c", "node": node, "labels": {}}})
    };
    let way = json!({"packets": 1, "bytes": 1});
    serde_json::from_value(json!({
        "type": "flow", "id": format!("00000000-0000-0000-0000-0000000000{id:02}"), "report": report, "start": time,
        "end": time, "protocol": "TCP", "source": pod("node1"), "destination": pod("node2"), "class": class,
        "verdict": "forwarded", "node": "node1", "reporter": reporter, "sent": way, "received": way,
    }))
    .unwrap()
}

fn merge(agents: &[&str], ends_only: bool) -> Merge {
    Merge::new(agents.iter().map(|agent| (*agent).to_owned()).collect(), ends_only)
}

#[test]
fn each_flow_is_there_once_in_the_order_of_time() {
    let mut merge = merge(&["node1"], false);
    let mut held = Held::default();
    let records = [(1, 9, "start"), (2, 3, "end"), (1, 9, "end"), (3, 1, "end")];
    for (id, second, report) in records {
        held.add(Some(flow(id, second, report, "source", "pod-pod-other-node")), Timestamp::UNIX_EPOCH);
    }
    let expected = [(3, 1), (2, 3), (1, 9)].map(|(id, at)| flow(id, at, "end", "source", "pod-pod-other-node"));
    assert_eq!(merge.whole(held.clone(), None), expected);
    assert_eq!(merge.whole(held, Some(2)), expected[1..]);
}

#[test]
fn who_follows_behind_the_last_ones_is_told_so_many_of_those_that_are_wanted_and_then_what_comes() {
    let told = |term: &str, number| {
        let outcome = Filter { wanted: vec![term.parse().unwrap()], ..Filter::default() };
        let mut merge = merge(&["node1", "node2"], true).picking(outcome);
        let mut held = Held::default();
        let mut hear = |held: &mut Held, id, second, reporter| {
            let heard = Heard::Item(flow(id, second, "end", reporter, "pod-pod-other-node"));
            held.add(merge.hear(heard, Timestamp::UNIX_EPOCH), Timestamp::UNIX_EPOCH);
        };
        [(1, 9), (2, 3), (3, 6)].into_iter().for_each(|(id, second)| hear(&mut held, id, second, "source"));
        // It is told by the source's node already.
        hear(&mut held, 4, 9, "destination");
        let mut held = merge.latest(held, number);
        let heard = Heard::Item(flow(5, 12, "end", "source", "pod-pod-other-node"));
        held.add(merge.hear(heard, Timestamp::UNIX_EPOCH), Timestamp::UNIX_EPOCH);
        held.all().iter().map(|item| item.at().strftime("%S").to_string()).collect::<Vec<_>>()
    };
    assert_eq!(told("verdict=forwarded", 2), ["06", "09", "12"]);
    assert_eq!(told("verdict=forwarded", 9), ["03", "06", "09", "12"]);
    assert_eq!(told("verdict=dropped", 2), ["12"], "what comes is asked about as it is told");
}

#[test]
fn what_the_sources_node_tells_is_left_out_of_what_the_others_does_unless_that_node_is_silent() {
    let mut merge = merge(&["node1", "node2"], true);
    let secondary = || flow(1, 1, "end", "destination", "pod-pod-other-node");
    let now = |second: u8| format!("2026-01-01T00:01:{second:02}Z").parse().unwrap();
    let mut hear = |item| merge.hear(Heard::Item(item), now(0)).is_some();
    assert!(!hear(secondary()) && !hear(flow(1, 1, "start", "source", "pod-pod-other-node")));
    assert!(hear(flow(1, 1, "end", "source", "pod-pod-other-node")));
    assert!(hear(flow(1, 1, "end", "destination", "world-pod")));
    assert!(!hear(flow(2, 40, "end", "destination", "pod-pod-other-node")));
    let lost = |agent: &str| Heard::Lost { agent: agent.to_owned(), why: String::new() };
    merge.hear(lost("node1"), now(0));
    assert!(merge.overdue(now(14)).is_empty(), "it may come back");
    // What it had not told by then is told for it, and what it had is not told again.
    assert_eq!(merge.overdue(now(15)), [flow(2, 40, "end", "destination", "pod-pod-other-node")]);
    assert!(merge.overdue(now(16)).is_empty());
    let mut hear = |item| merge.hear(Heard::Item(item), now(16)).is_some();
    assert!(!hear(secondary()));
    assert!(hear(flow(3, 50, "end", "destination", "pod-pod-other-node")));
    merge.hear(Heard::Back { agent: "node1".into(), resumes: true }, now(17));
    let mut hear = |item| merge.hear(Heard::Item(item), now(18)).is_some();
    assert!(!hear(flow(4, 40, "end", "source", "pod-pod-other-node")), "it was told for it");
    assert!(hear(flow(5, 58, "end", "source", "pod-pod-other-node")) && merge.failure().is_none());
    ["node1", "node2"].into_iter().for_each(|agent| drop(merge.hear(lost(agent), now(20))));
    assert!(merge.failure().is_some());
}

#[test]
fn an_item_waits_for_those_that_were_earlier() {
    let mut held = Held::default();
    let at = |second| flow(second, second, "end", "source", "pod-pod-other-node");
    let now = |second: u8| format!("2026-01-01T00:00:{second:02}Z").parse().unwrap();
    [at(5), at(3)].into_iter().for_each(|item| held.add(Some(item), now(3)));
    assert_eq!(held.due(now(5), |_| HOLD), [at(3)]);
    held.add(Some(at(4)), now(6));
    assert_eq!(held.due(now(7), |_| HOLD), [at(5)], "what was heard late waits for what is told of its other end");
    assert_eq!(held.due(now(8), |_| HOLD), [at(4)]);
}

#[test]
fn what_no_other_node_tells_more_of_is_held_for_a_moment_only() {
    let other_node = || flow(1, 1, "end", "source", "pod-pod-other-node");
    let mut two = merge(&["node1", "node2"], false);
    for class in ["pod-pod-same-node", "pod-node", "pod-world"] {
        assert_eq!(two.hold(&flow(1, 1, "end", "source", class)), SOON, "{class}");
    }
    for class in ["world-pod", "node-pod"] {
        let item = flow(1, 1, "end", "destination", class);
        assert_eq!([two.hold(&item), merge(&["node2"], false).hold(&item)], [HOLD, SOON], "{class}");
    }
    // Until the destination's node told its end as well.
    let now = "2026-01-01T00:00:02Z".parse().unwrap();
    for (report, expected) in [("start", HOLD), ("end", SOON)] {
        assert_eq!(two.hold(&other_node()), HOLD);
        two.hear(Heard::Item(flow(2, 1, report, "destination", "pod-pod-other-node")), now);
        assert_eq!(two.hold(&other_node()), expected, "{report}");
    }
    let mut held = Held::default();
    held.add([other_node(), flow(3, 1, "end", "destination", "node-pod")], now);
    let later = "2026-01-01T00:00:02.4Z".parse().unwrap();
    assert_eq!(held.due(later, |item| two.hold(item)), [other_node()]);
    // Or where it does not answer.
    assert_eq!(merge(&["node1", "node3"], false).hold(&other_node()), SOON);
}

#[test]
fn what_the_destinations_node_tells_becomes_part_of_what_the_sources_does() {
    let mut merge = merge(&["node1", "node2"], true);
    let mut held = Held::default();
    for (id, reporter) in [(1, "source"), (2, "destination")] {
        let heard = Heard::Item(flow(id, 1, "end", reporter, "pod-pod-other-node"));
        held.add(merge.hear(heard, Timestamp::UNIX_EPOCH), Timestamp::UNIX_EPOCH);
    }
    let told = merge.joined(held.all());
    let [Item::Flow(record)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((record.reporter, record.destination_counts.is_some()), (Reporter::Both, true));
    let is_known = |time: &str| {
        merge.forget(format!("2026-01-01T{time}Z").parse().unwrap());
        let Item::Flow(later) = &merge.joined(vec![flow(1, 1, "end", "source", "pod-pod-other-node")])[0] else {
            panic!()
        };
        later.destination_counts.is_some()
    };
    // That is looked at each 10 s.
    assert_eq!(["00:02:56", "00:03:05", "00:03:06"].map(is_known), [true, true, false]);
}

#[test]
fn of_what_one_node_counted_at_both_ends_nothing_is_remembered() {
    let mut merge = merge(&["node1", "node2"], true);
    let is_remembered = |reporter| {
        let heard = Heard::Item(flow(1, 1, "end", reporter, "pod-pod-same-node"));
        assert!(merge.hear(heard, Timestamp::UNIX_EPOCH).is_some());
        format!("{:?}", merge.lately) != format!("{:?}", Lately::default())
    };
    assert_eq!(["both", "source"].map(is_remembered), [false, true]);
}

/// node1 masqueraded what its pod sent, and a flow of node1's own.
#[test]
fn what_a_node_sees_of_a_pod_behind_another_node_is_told_once_with_the_pod() {
    let of_node = |id: u8, port: u16| {
        let Item::Flow(mut record) = flow(id, 1, "end", "destination", "node-pod") else { panic!("no flow") };
        let told = Arc::make_mut(&mut record);
        (told.source.ip, told.source.port, told.source.pod) = ("172.16.0.1".parse().unwrap(), port, None);
        (told.source.node, told.node) = (Some("node1".into()), "node2".into());
        Item::Flow(record)
    };
    let of_pod = || {
        let Item::Flow(mut record) = flow(1, 1, "end", "source", "pod-service") else { panic!("no flow") };
        Arc::make_mut(&mut record).seen_as = Some("172.16.0.1:4000".parse().unwrap());
        Item::Flow(record)
    };
    let told = |items: &[Item]| {
        let mut merge = merge(&["node1", "node2"], true);
        let mut held = Held::default();
        for item in items {
            held.add(merge.hear(Heard::Item(item.clone()), Timestamp::UNIX_EPOCH), Timestamp::UNIX_EPOCH);
        }
        merge.whole(held, None)
    };
    let [behind, own] = [of_node(2, 4000), of_node(3, 4001)];
    // The destination's node may ask for a while who began it.
    let mut following = merge(&["node1", "node2"], true);
    assert_eq!(following.hold(&of_pod()), ASKED);
    following.hear(Heard::Item(behind.clone()), Timestamp::UNIX_EPOCH);
    assert_eq!(following.hold(&of_pod()), SOON);
    for items in [[behind.clone(), own.clone(), of_pod()], [of_pod(), own.clone(), behind.clone()]] {
        let found = told(&items);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.contains(&own), "{found:?}");
        let joined = found.iter().find_map(|item| match item {
            Item::Flow(record) if record.source.pod.is_some() => Some(record),
            _ => None,
        });
        let joined = joined.unwrap();
        let counts = joined.destination_counts.as_ref().unwrap();
        assert_eq!((joined.reporter, counts.node.as_str()), (Reporter::Both, "node2"));
    }
    // Nobody else tells it.
    assert_eq!(told(std::slice::from_ref(&behind)), [behind]);
}

/// A pod of node1 asked a port of node3, which led to a pod of node2.
#[test]
fn what_was_asked_by_a_third_nodes_port_is_told_once_also_where_only_one_of_both_nodes_tells_it() {
    let asked = |id: u8, reporter: &str| {
        let Item::Flow(mut record) = flow(id, 1, "end", reporter, "pod-service") else { panic!("no flow") };
        let told = Arc::make_mut(&mut record);
        let service = Asked { service: ServiceKey::new("a", "s"), ip: "172.16.0.3".parse().unwrap(), port: 30080 };
        if reporter == "source" {
            (told.destination.ip, told.destination.port, told.destination.pod) = (service.ip, service.port, None);
            told.destination.node = Some("node3".into());
        } else {
            told.node = "node2".into();
        }
        told.service = Some(service);
        Item::Flow(record)
    };
    let [source, destination] = [asked(1, "source"), asked(2, "destination")];
    let new = || merge(&["node1", "node2", "node3"], true);
    let hear = |merge: &mut Merge, item: &Item| merge.hear(Heard::Item(item.clone()), Timestamp::UNIX_EPOCH);
    let whole = |items: &[&Item]| {
        let (mut merge, mut held) = (new(), Held::default());
        items.iter().for_each(|item| held.add(hear(&mut merge, item), Timestamp::UNIX_EPOCH));
        merge.whole(held, None)
    };
    for items in [[&source, &destination], [&destination, &source]] {
        let told = whole(&items);
        let [Item::Flow(record)] = &told[..] else { panic!("{told:?}") };
        let counts = record.destination_counts.as_ref().unwrap();
        assert_eq!((record.reporter, counts.node.as_str()), (Reporter::Both, "node2"));
        assert!(record.is_pod_to_pod() && record.service.is_some(), "{record:?}");
    }
    // What is asked for only one of them may tell, or to whom that asks.
    assert_eq!(whole(&[&source]), slice::from_ref(&source));
    assert_eq!(whole(&[&destination]), slice::from_ref(&destination));
    let Item::Flow(mut nameless) = destination.clone() else { panic!("no flow") };
    Arc::make_mut(&mut nameless).source.pod = None;
    assert_eq!(whole(&[&Item::Flow(nameless.clone())]), [Item::Flow(nameless)]);
    // Who follows is told what was heard in time, and then nothing more of the flow.
    let mut following = new();
    assert_eq!(following.hold(&source), ASKED);
    assert!(hear(&mut following, &destination).is_some());
    assert_eq!([&source, &destination].map(|item| following.hold(item)), [SOON, HOLD]);
    assert_eq!(following.told(vec![destination.clone()]), slice::from_ref(&destination));
    assert!(hear(&mut following, &source).is_none());
    let mut following = new();
    assert!(hear(&mut following, &source).is_some());
    assert_eq!(following.told(vec![source.clone()]), [source]);
    assert!(hear(&mut following, &destination).is_some());
    assert!(following.told(vec![destination]).is_empty());
}

#[test]
fn what_limits_dropped_is_told_unless_what_is_asked_for_was_done_by_something_else() {
    let drops: Item = serde_json::from_value(json!({
        "type": "drops", "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:10Z", "node": "node1",
        "cause": "limit", "direction": "egress", "device": 7, "interface": "pn0", "packets": 12,
    }))
    .unwrap();
    let told = |term: &str| {
        let outcome = Filter { wanted: vec![term.parse().unwrap()], ..Filter::default() };
        let mut merge = merge(&["node1"], true).picking(outcome);
        let mut held = Held::default();
        held.add(merge.hear(Heard::Item(drops.clone()), Timestamp::UNIX_EPOCH), Timestamp::UNIX_EPOCH);
        merge.whole(held, None).len()
    };
    assert_eq!(["cause=limit", "verdict=dropped", "cause=no-route"].map(told), [1, 1, 0]);
}

#[test]
fn that_more_comes_than_can_be_joined_is_seen_by_what_comes_while_it_is_waited_for() {
    let mut merge = merge(&["node1", "node2"], true);
    let now = |second: u8| format!("2026-01-01T00:00:{second:02}Z").parse().unwrap();
    let too_many = |merge: &mut Merge, second| (0..=HELD).any(|_| merge.came_too_many(now(second)));
    assert!((0..HELD).all(|_| !merge.came_too_many(now(1))));
    assert!((0..HELD).all(|_| !merge.came_too_many(now(3))), "those before were waited for long enough");
    assert!(merge.came_too_many(now(4)));
    assert!(too_many(&mut merge, 6));
}

#[test]
fn what_became_of_a_flow_is_asked_of_what_both_ends_know() {
    let closed = |id: u8, reporter: &str| {
        let Item::Flow(mut record) = flow(id, 1, "end", reporter, "pod-pod-other-node") else { panic!("no flow") };
        let told = Arc::make_mut(&mut record);
        told.received = podnet_flow::Way::default();
        if reporter == "destination" {
            (told.verdict, told.cause) = (Verdict::Refused, Some(Cause::PortClosed));
        }
        Item::Flow(record)
    };
    let told = |wanted: &[&str], unwanted: &[&str]| {
        let terms = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let outcome = Filter { wanted: terms(wanted), unwanted: terms(unwanted), pod_to_pod: false };
        let mut merge = merge(&["node1", "node2"], true).picking(outcome);
        let mut held = Held::default();
        for (id, reporter) in [(1, "source"), (2, "destination")] {
            held.add(merge.hear(Heard::Item(closed(id, reporter)), Timestamp::UNIX_EPOCH), Timestamp::UNIX_EPOCH);
        }
        merge.whole(held, Some(1)).len()
    };
    for term in ["cause=port-closed", "verdict=refused"] {
        assert_eq!((told(&[term], &[]), told(&[], &[term])), (1, 0), "{term}");
    }
    for term in ["cause=no-route", "verdict=forwarded"] {
        assert_eq!((told(&[term], &[]), told(&[], &[term])), (0, 1), "{term}");
    }
}
