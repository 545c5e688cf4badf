//! What became of a probe, beside the hops of its way.

use std::{fmt::Write, net::SocketAddr};

use podnet_flow::probe::{Kind, ProbeProtocol};
use podnet_planner::trace::{Path, Place, Trace};
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
        let is_outside = path.hops.first().is_some_and(|hop| hop.place == Place::Underlay);
        let _ = writeln!(text, "answer: {}", told(live.protocol, answer, is_outside));
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
    Some(format!("seen {} → {}{within}", at(*source), at(*destination)))
}

/// Without its port where it has none.
fn at(addr: SocketAddr) -> String {
    if addr.port() == 0 { addr.ip().to_string() } else { addr.to_string() }
}

fn micros(nanoseconds: i64) -> String {
    format!("{:.1} µs", nanoseconds as f64 / 1000.0)
}

fn outcome(path: &Path, live: &Live) -> String {
    let from = at(live.sent.source);
    match live.died(&path.hops) {
        Some(died) => format!("sent from {from}; it died: {died}"),
        None => format!("sent from {from}; it was seen to the last hop at a device"),
    }
}

fn told(protocol: ProbeProtocol, answer: &Answer, is_outside: bool) -> String {
    let what = match (answer.kind, protocol) {
        (Kind::Accepted, ProbeProtocol::Icmp) => "echoed",
        (Kind::Accepted, ProbeProtocol::Sctp) => "accepted (INIT ACK)",
        (Kind::Accepted, _) => "accepted (SYN and ACK)",
        (Kind::Refused, ProbeProtocol::Sctp) => "refused (ABORT)",
        (Kind::Refused, _) => "refused (RST)",
        (Kind::Error | Kind::Probe, _) => "refused (an error of ICMP)",
    };
    let (node, device) = &answer.first;
    // Outside nobody watches: it is seen until it leaves.
    let back = match (answer.back, is_outside) {
        (Some(back), false) => format!("back after {}", micros(back)),
        (Some(back), true) => format!("out of the cluster after {}", micros(back)),
        (None, false) => "it did not come back".to_owned(),
        (None, true) => "it did not leave the cluster".to_owned(),
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
        "source": at(live.sent.source),
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
            "source": at(passing.source),
            "destination": at(passing.destination),
            "within": passing.within.map(podnet_flow::probe::Tunnel::name),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of an answer that somebody gave, and that came back or not.
    fn said(kind: Kind, protocol: ProbeProtocol, is_outside: bool, back: Option<i64>) -> String {
        let by = [10, 1, 2, 5].into();
        told(protocol, &Answer { kind, by, first: ("node2".into(), "pn1".to_owned()), back }, is_outside)
    }

    #[test]
    fn an_answer_is_named_by_what_it_is_and_how_far_it_came() {
        let first = "by 10.1.2.5, first seen at pn1 on node node2";
        let (tcp, icmp) = (ProbeProtocol::Tcp, ProbeProtocol::Icmp);
        for (told, what, end) in [
            (said(Kind::Accepted, icmp, false, Some(1500)), "echoed", "back after 1.5 µs"),
            (said(Kind::Accepted, icmp, false, None), "echoed", "it did not come back"),
            (said(Kind::Refused, tcp, true, Some(1500)), "refused (RST)", "out of the cluster after 1.5 µs"),
            (said(Kind::Accepted, tcp, true, None), "accepted (SYN and ACK)", "it did not leave the cluster"),
        ] {
            assert_eq!(told, format!("{what} {first}; {end}"));
        }
    }

    #[test]
    fn what_has_no_port_is_shown_without() {
        let [echo, other] = ["[fd00::5]:0", "10.1.2.5:80"].map(|text| at(text.parse().unwrap()));
        assert_eq!([echo, other], ["fd00::5", "10.1.2.5:80"]);
    }
}
