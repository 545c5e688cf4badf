//! What is missing, or there twice, is found.

use serde_json::{Value, json};

use super::*;

const PORTS: Range<u16> = 80..81;

/// What `podnet flows` told of three connections of ten packets each.
fn account(lines: &[Value]) -> Account {
    let mut account = Account { are_connections: true, packets: 30, ..Account::of(3) };
    for line in lines {
        match serde_json::from_value(line.clone()) {
            Ok(told) => account.add(told, &PORTS),
            Err(error) => panic!("{line}: {error}"),
        }
    }
    account
}

fn record(node: &str) -> Value {
    let (sent, received) = (json!({"packets": 6}), json!({"packets": 4}));
    json!({"type": "flow", "node": node, "destination": {"port": 80}, "sent": sent, "received": received})
}

fn gap(pod: Option<&str>) -> Value {
    let pod = pod.map(|name| json!({"name": name}));
    json!({"type": "gap", "node": NODE, "pod": pod, "packets": 10, "flows": 1})
}

#[test]
fn a_record_that_is_missing_is_found_unless_a_gap_tells_of_it() {
    let (one, client) = (record(NODE), PODS[0].0);
    let mut other_port = one.clone();
    other_port["destination"]["port"] = json!(81);
    let dropped = json!({"type": "drops", "node": NODE, "pod": {"name": client}, "packets": 3});
    let whole = [one.clone(), one.clone(), one.clone(), other_port, dropped];
    assert!(account(&whole).faults("connections").is_empty());
    assert_eq!(
        account(&whole[1..]).faults("connections"),
        [
            "of 30 packets of connections 10 are in no record and in no gap",
            "of 3 connections 1 are in no record and in no gap"
        ]
    );
    for pod in [Some(client), None] {
        assert!(account(&[one.clone(), one.clone(), gap(pod)]).faults("connections").is_empty(), "{pod:?}");
    }
    assert_eq!(account(&[one.clone(), one.clone(), gap(Some("another"))]).faults("connections").len(), 2);
    // What never was on its way is missing nowhere.
    let lost = Account { packets: 20, lost: 10, ..account(&[one.clone(), one.clone()]) };
    assert!(lost.faults("connections").is_empty());
    // One packet of a connection.
    let mut short = one.clone();
    short["sent"]["packets"] = json!(5);
    assert_eq!(
        account(&[one.clone(), one, short]).faults("connections"),
        ["of 30 packets of connections 1 are in no record and in no gap"]
    );
}

#[test]
fn gaps_may_tell_of_somewhat_more_or_fewer_flows_of_datagrams_than_there_were() {
    let faults = |missing_flows| {
        let sent = Account { packets: 1000, recorded_packets: 100, recorded_flows: 100, ..Account::of(1000) };
        Account { missing_packets: 900, missing_flows, ..sent }.faults("flows")
    };
    for near in [880, 900, 920] {
        assert!(faults(near).is_empty(), "{near}");
    }
    assert_eq!(faults(800), ["of 1000 flows 100 are in no record and in no gap"]);
    assert_eq!(faults(1000), ["of 1000 flows records and gaps tell of 1100"]);
}

#[test]
fn connections_that_were_made_too_slowly_show_nothing_where_a_rate_is_asked_for() {
    let one = record(NODE);
    let whole = account(&[one.clone(), one.clone(), one]);
    let faults = |rate, wanted_rate| Account { rate, wanted_rate, ..whole.clone() }.faults("connections");
    assert_eq!(faults(19_400.0, RATE), ["connections: 19400 of a second and not 20000"]);
    assert!(faults(19_700.0, RATE).is_empty());
    assert!(faults(19_400.0, 0).is_empty(), "as many as the machine sends");
}

#[test]
fn what_is_there_twice_is_found_as_well_and_ends_the_run() {
    let one = record(NODE);
    let twice = account(&[one.clone(), one.clone(), one.clone(), one.clone()]);
    assert_eq!(
        twice.faults("connections"),
        [
            "of 30 packets of connections 10 more than these are in records and gaps",
            "of 3 connections there are 4 records"
        ]
    );
    let by_both = account(&[one.clone(), one.clone(), one.clone(), record("node2")]);
    assert_eq!(by_both.faults("connections"), ["1 connections are told by the other node as well"]);
    let whole = account(&[one.clone(), one.clone(), one]);
    let check = |connections: &Account| {
        let [connections, connections_between, datagrams] = [connections, &whole, &whole].map(Account::clone);
        Accounts { connections, connections_between, datagrams, datagrams_with_room: None }.check()
    };
    assert!(check(&whole).is_ok());
    let Err(error) = check(&twice) else { panic!("nothing was found") };
    assert!(error.to_string().starts_with("what was recorded is not what was sent: of 30 packets"), "{error}");
}
