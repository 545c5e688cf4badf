//! What the answer to a probe says, where it is none that is well.

use podnet_flow::probe::{Kind, ProbeProtocol};
use podnet_planner::trace::Path;

use crate::{
    forwarding::live::{Answer, Live},
    report::Failure,
};

/// What is wrong with the answer to a probe that arrived.
pub(super) fn unanswered(path: &Path, live: &Live) -> Option<Failure> {
    let (to, is_echo) = (path.destination, live.protocol == ProbeProtocol::Icmp);
    let asked = if is_echo { to.addr.to_string() } else { to.to_string() };
    let Some(Answer { kind, by, first: (node, device), back }) = &live.course.answer else {
        // A program need not answer a datagram, and least of all one that it does not understand.
        if live.protocol == ProbeProtocol::Udp {
            return None;
        }
        let remedy = match is_echo {
            true => "rules in its own network may drop it, or its kernel answers none (net.ipv4.icmp_echo_ignore_all)",
            false => "rules in its own network may drop it, or its program takes no more connections",
        };
        return Some(Failure::new(format!("a probe came to {asked}, and nothing answered it")).remedy(remedy));
    };
    match kind {
        Kind::Refused | Kind::Error if *by == to.addr && !is_echo => {
            let remedy = "start the program, or ask for the port that it listens on; 127.0.0.1 alone does not count";
            let what = format!("nothing at {} listens on port {}/{}", path.end.why, to.port, live.protocol);
            Some(Failure::new(what).remedy(remedy))
        }
        Kind::Refused | Kind::Error => {
            let remedy = "somebody else's rules may reject it: nft list ruleset, iptables-save on that node";
            let what = format!("a probe to {asked} is refused by {by}, first seen at {device} of node {node}");
            Some(Failure::new(what).remedy(remedy))
        }
        Kind::Accepted | Kind::Probe if back.is_none() => {
            let remedy = "podnet trace shows the way back from there; somebody else's rules may drop it";
            let what =
                format!("{asked} answered a probe, first seen at {device} of node {node}, and that did not come back");
            Some(Failure::new(what).remedy(remedy))
        }
        Kind::Accepted | Kind::Probe => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use podnet_flow::probe::Sent;
    use podnet_planner::{
        ruleset::BackendAddress,
        trace::{End, Verdict},
    };

    use super::*;
    use crate::forwarding::live::Course;

    const OWN: &str = "10.1.2.5";

    /// What is said of an answer of this kind, by somebody, that came back or not.
    fn said(answer: Option<(Kind, &str, bool)>) -> Option<String> {
        said_of(ProbeProtocol::Tcp, answer)
    }

    fn said_of(protocol: ProbeProtocol, answer: Option<(Kind, &str, bool)>) -> Option<String> {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let answer = answer.map(|(kind, by, is_back)| Answer {
            kind,
            by: addr(by),
            first: ("node2".into(), "pn1".to_owned()),
            back: is_back.then_some(1000),
        });
        let live = Live {
            protocol,
            sent: Sent { at: 0, source: SocketAddr::new(addr("10.1.1.5"), 40_000) },
            course: Course { way: 0, hops: Vec::new(), answer },
            entries: 1,
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
        assert_eq!(said_of(ProbeProtocol::Udp, None), None, "programs need not answer a datagram");
        let refused = said_of(ProbeProtocol::Udp, Some((Kind::Error, OWN, true)));
        assert_eq!(refused.as_deref(), Some("nothing at pod default/web on node node2 listens on port 80/UDP"));
        let silent = said_of(ProbeProtocol::Icmp, None);
        assert_eq!(silent.as_deref(), Some("a probe came to 10.1.2.5, and nothing answered it"));
        let refused = said_of(ProbeProtocol::Icmp, Some((Kind::Error, OWN, true)));
        let words = "a probe to 10.1.2.5 is refused by 10.1.2.5, first seen at pn1 of node node2";
        assert_eq!(refused.as_deref(), Some(words), "nobody listens for echoes");
        assert_eq!(said_of(ProbeProtocol::Icmp, Some((Kind::Accepted, OWN, true))), None);
    }
}
