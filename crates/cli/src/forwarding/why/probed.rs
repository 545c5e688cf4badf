//! A probe in place of a connection, where the sender is not on this machine: agents send it, and tell where it passes.

use podnet_flow::probe::Kind;
use podnet_model::Protocol;
use podnet_planner::trace::{Path, Trace, Verdict};

use crate::{
    forwarding::{
        access::Access,
        live::{self, Answer, Live},
        operand::{self, Question},
        state::State,
    },
    report::Failure,
};

/// Sends one of TCP, which nobody takes for something of their own. What kept it from being sent is told in words, as whoever asks why need not
/// be allowed to send.
pub(super) fn along(state: &State, question: &mut Question, access: &Access) -> Result<Option<String>, Failure> {
    let trace = to_one(state, question)?;
    let is_of_tcp = question.targets.first().is_some_and(|(target, _)| target.protocol == Protocol::Tcp);
    // Who is outside of the cluster is not known, and need not answer.
    if !is_of_tcp || trace.paths.iter().any(|path| path.end.verdict != Verdict::Arrives) {
        return Ok(None);
    }
    let live = match live::follow(state, question, &trace, access) {
        Ok(live) => live,
        Err(failure) => return Ok(Some(format!("no probe was sent: {}", failure.sentence()))),
    };
    if let Some(failure) = live.failure(&trace) {
        return Err(failure);
    }
    match trace.paths.get(live.course.way).and_then(|path| unanswered(path, &live)) {
        // Who was not heard may have seen it.
        Some(why) if live.lost.is_empty() => Err(why),
        Some(why) => Ok(Some(format!("{}; not all was heard: {}", why.sentence(), live.lost.join("; ")))),
        None => Ok(None),
    }
}

/// The ways to the first of several addresses, and no other agents need to watch: there is one probe.
fn to_one(state: &State, question: &mut Question) -> Result<Trace, Failure> {
    question.targets.truncate(1);
    operand::follow(state, question)
}

/// What is wrong with the answer to a probe that arrived.
fn unanswered(path: &Path, live: &Live) -> Option<Failure> {
    let to = path.destination;
    let Some(Answer { kind, by, first: (node, device), back }) = &live.course.answer else {
        let remedy = "rules in its own network may drop it, or its program takes no more connections";
        return Some(Failure::new(format!("a probe came to {to}, and nothing answered it")).remedy(remedy));
    };
    match kind {
        Kind::Refused | Kind::Error if *by == to.addr => {
            let remedy = "start the program, or ask for the port that it listens on; 127.0.0.1 alone does not count";
            Some(Failure::new(format!("nothing at {} listens on port {}/TCP", path.end.why, to.port)).remedy(remedy))
        }
        Kind::Refused | Kind::Error => {
            let remedy = "somebody else's rules may reject it: nft list ruleset, iptables-save on that node";
            let what = format!("a probe to {to} is refused by {by}, first seen at {device} of node {node}");
            Some(Failure::new(what).remedy(remedy))
        }
        Kind::Accepted | Kind::Probe if back.is_none() => {
            let remedy = "podnet trace shows the way back from there; somebody else's rules may drop it";
            let what =
                format!("{to} answered a probe, first seen at {device} of node {node}, and that did not come back");
            Some(Failure::new(what).remedy(remedy))
        }
        Kind::Accepted | Kind::Probe => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use podnet_flow::probe::Sent;
    use podnet_model::PodKey;
    use podnet_planner::{
        ruleset::BackendAddress,
        trace::{End, Source, Target},
    };

    use super::*;
    use crate::forwarding::{lab, live::Course};

    const OWN: &str = "10.1.2.5";

    #[test]
    fn of_several_addresses_the_probe_goes_to_the_first_and_nothing_of_the_others_is_watched() {
        let target = |addr: [u8; 4]| Target { addr: addr.into(), protocol: Protocol::Tcp, port: 80 };
        let [pod, outside] = [[10, 1, 2, 5], [203, 0, 113, 9]].map(target);
        let mut question = Question {
            from: Source::Pod(PodKey::new("default", "p1")),
            targets: vec![(pod, 0.5), (outside, 0.5)],
            title: String::new(),
            names: Vec::new(),
            object: None,
        };
        let state = lab::state();
        assert!(operand::follow(&state, &question).unwrap().paths.len() > 1);
        let trace = to_one(&state, &mut question).unwrap();
        let ends: Vec<_> = trace.paths.iter().map(|path| path.destination.addr).collect();
        assert_eq!(ends, [pod.addr]);
    }

    /// What is said of an answer of this kind, by somebody, that came back or not.
    fn said(answer: Option<(Kind, &str, bool)>) -> Option<String> {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let answer = answer.map(|(kind, by, is_back)| Answer {
            kind,
            by: addr(by),
            first: ("node2".into(), "pn1".to_owned()),
            back: is_back.then_some(1000),
        });
        let live = Live {
            protocol: Protocol::Tcp,
            sent: Sent { at: 0, source: SocketAddr::new(addr("10.1.1.5"), 40_000) },
            course: Course { way: 0, hops: Vec::new(), answer },
            lost: Vec::new(),
            clocks_differ: false,
        };
        let end = End { verdict: Verdict::Arrives, why: "pod default/web on node node2".to_owned() };
        let destination = BackendAddress { addr: addr(OWN), port: 80 };
        let path = Path { share: 1.0, hops: Vec::new(), end, destination, source: addr("10.1.1.5") };
        unanswered(&path, &live).map(|failure| failure.sentence())
    }

    #[test]
    fn what_is_wrong_with_an_answer_is_named_by_who_gave_it_and_how_far_it_came() {
        assert_eq!(said(Some((Kind::Accepted, OWN, true))), None);
        let nothing = "nothing at pod default/web on node node2 listens on port 80/TCP";
        for (answer, expected) in [
            (None, "a probe came to 10.1.2.5:80, and nothing answered it"),
            (Some((Kind::Refused, OWN, true)), nothing),
            (Some((Kind::Error, OWN, false)), nothing),
            (
                Some((Kind::Error, "192.0.2.12", true)),
                "a probe to 10.1.2.5:80 is refused by 192.0.2.12, first seen at pn1 of node node2",
            ),
            (
                Some((Kind::Accepted, OWN, false)),
                "10.1.2.5:80 answered a probe, first seen at pn1 of node node2, and that did not come back",
            ),
        ] {
            assert_eq!(said(answer).as_deref(), Some(expected));
        }
    }
}
