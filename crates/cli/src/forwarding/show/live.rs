//! What became of a probe, beside the hops of its way.

use std::fmt::Write;

use podnet_flow::probe::Kind;
use podnet_model::Protocol;
use podnet_planner::trace::{Path, Trace};
use serde_json::{Value, json};

use super::{percent, write_hop};
use crate::forwarding::{
    compare::Compared,
    live::{Answer, Live, Passing, Watched},
};

/// The way that it went, each hop with what was seen there.
pub(super) fn write(text: &mut String, trace: &Trace, live: &Live, compared: Option<&Compared>) {
    let Some(path) = trace.paths.get(live.course.way) else { return };
    let many = trace.paths.len();
    if many > 1 {
        let number = live.course.way + 1;
        let _ = writeln!(text, "the probe's way is {number} of {many}, {} of all connections:", percent(path.share));
    }
    for (number, hop) in path.hops.iter().enumerate() {
        write_hop(text, number + 1, hop, compared, live.course.hops.get(number));
    }
    let _ = writeln!(text, "⇒ {}: {}", path.end.verdict.name(), path.end.why);
    let _ = writeln!(text, "probe: {}", outcome(path, live));
    if let Some(answer) = &live.course.answer {
        let _ = writeln!(text, "answer: {}", told(live.protocol, answer));
    }
    for number in live.course.passed_by() {
        let _ = writeln!(text, "it was not seen at hop {}, and came all the same by another way", number + 1);
    }
    if live.clocks_differ {
        text.push_str("times of several nodes are as exact as their clocks are the same\n");
    }
    for agent in &live.lost {
        let _ = writeln!(text, "not all was heard: {agent}");
    }
}

/// Of a hop, in the table: when it was passed.
pub(super) fn column(watched: Option<&Watched>) -> String {
    match watched {
        None => String::new(),
        Some(Watched::Unseen) => format!("{:>13} ", ""),
        Some(Watched::Missed) => format!("{:>13} ", "not seen"),
        Some(Watched::Passed(passing)) => format!("{:>13} ", micros(passing.after)),
    }
}

/// Of a hop, in words: with which addresses it was passed.
pub(super) fn addresses(watched: Option<&Watched>) -> Option<String> {
    let Some(Watched::Passed(Passing { source, destination, within, .. })) = watched else { return None };
    let within = within.map_or_else(String::new, |within| format!(" in {}", within.name()));
    Some(format!("seen {source} → {destination}{within}"))
}

fn micros(nanoseconds: i64) -> String {
    format!("{:.1} µs", nanoseconds as f64 / 1000.0)
}

fn outcome(path: &Path, live: &Live) -> String {
    let from = live.sent.source;
    match live.died(&path.hops) {
        Some(died) => format!("sent from {from}; it died: {died}"),
        None => format!("sent from {from}; it was seen to the last hop at a device"),
    }
}

fn told(protocol: Protocol, answer: &Answer) -> String {
    let what = match (answer.kind, protocol) {
        (Kind::Accepted, Protocol::Sctp) => "accepted (INIT ACK)",
        (Kind::Accepted, _) => "accepted (SYN and ACK)",
        (Kind::Refused, Protocol::Sctp) => "refused (ABORT)",
        (Kind::Refused, _) => "refused (RST)",
        (Kind::Error | Kind::Probe, _) => "refused (an error of ICMP)",
    };
    let (node, device) = &answer.first;
    let back = match answer.back {
        Some(back) => format!("back after {}", micros(back)),
        None => "it did not come back".to_owned(),
    };
    format!("{what} by {}, first seen at {device} on node {node}; {back}", answer.by)
}

/// For programs: an interface.
pub(super) fn json(trace: &Trace, live: &Live) -> Value {
    let path = trace.paths.get(live.course.way);
    let died = live.course.died();
    json!({
        "path": live.course.way,
        "sentAt": live.sent.at,
        "source": live.sent.source.to_string(),
        "arrived": died.is_none() && path.is_some_and(|path| path.end.verdict.is_well()),
        "diedAt": died.map(|(lost, _)| lost),
        "lastSeenAt": died.and_then(|(_, last)| last),
        "died": path.and_then(|path| live.died(&path.hops)),
        "hops": live.course.hops.iter().map(hop).collect::<Vec<_>>(),
        "answer": live.course.answer.as_ref().map(|answer| json!({
            "kind": answer.kind,
            "by": answer.by.to_string(),
            "firstNode": answer.first.0.to_string(),
            "firstDevice": answer.first.1,
            "backAfterNanoseconds": answer.back,
        })),
        "unheard": live.lost,
    })
}

fn hop(watched: &Watched) -> Value {
    match watched {
        Watched::Unseen => Value::Null,
        Watched::Missed => json!({"seen": false}),
        Watched::Passed(passing) => json!({
            "seen": true,
            "device": passing.device,
            "afterNanoseconds": passing.after,
            "source": passing.source.to_string(),
            "destination": passing.destination.to_string(),
            "within": passing.within.map(podnet_flow::probe::Tunnel::name),
        }),
    }
}
