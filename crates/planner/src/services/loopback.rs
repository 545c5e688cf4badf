//! NodePorts at the node's loopback addresses, which the node itself alone reaches.
//!
//! Where rules lead a connection from there to a backend, it leaves with another source, and its answers come in by a link for a loopback
//! address once they are translated back. A kernel that takes such answers (`route_localnet` of IPv4) takes whatever neighbours send to
//! 127.0.0.0/8, too (CVE-2020-8558): so [`guard`] is in force first. Of IPv6 the kernel itself takes nothing for ::1 that comes by a link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use podnet_model::Family;

use crate::ruleset::{Action, Chain, ChainKind, Field, Hook, HookPoint, Match, Rule, RuleSet};

/// The name of the table that [`guard`] is.
pub const TABLE: &str = "podnet-loopback";

/// The name of an empty chain of [`guard`], which says that it was podnet that had the kernel take answers: nothing else tells a later
/// agent whose that is.
pub const OPENED: &str = "opened-by-podnet";

/// 127.0.0.1 and ::1.
pub const LOCALHOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// The loopback addresses that ranges allow NodePorts at: 127.0.0.1 and ::1 where they contain these, and what they name as a single
/// address of the loopback. The others of 127.0.0.0/8 are too many to have frontends.
#[must_use]
pub fn within(ranges: &[IpNet]) -> Vec<IpAddr> {
    let contained = LOCALHOSTS.into_iter().filter(|addr| ranges.iter().any(|range| range.contains(addr)));
    let named = ranges.iter().filter(|range| range.prefix_len() == range.max_prefix_len()).map(IpNet::addr);
    let named = named.filter(|addr| addr.is_loopback() && !LOCALHOSTS.contains(addr));
    contained.chain(named).collect()
}

/// Drops what others send to the node's loopback, before connection tracking: answers, which are translated back after that, are not
/// yet for a loopback address there. Also what they send as if from there, which such a kernel does not take for wrong by itself.
/// It is noted whether podnet `opened` what it guards.
#[must_use]
pub fn guard(opened: bool) -> RuleSet {
    /// `NF_IP_PRI_RAW`.
    const RAW: i32 = -300;
    let drop = |field, comment| Rule {
        matches: vec![Match::Loopback(field), Match::FromElsewhere],
        action: Action::Drop,
        comment,
    };
    let rules = vec![
        drop(Field::DestinationAddress, "somebody sends to the node's loopback"),
        drop(Field::SourceAddress, "somebody sends as if from the node's loopback"),
    ];
    let hook = Hook { kind: ChainKind::Filter, point: HookPoint::Prerouting, priority: RAW };
    let chain = Chain { hook: Some(hook), rules };
    let note = opened.then(|| (OPENED.into(), Chain { hook: None, rules: Vec::new() }));
    let chains = [("from-elsewhere".into(), chain)].into_iter().chain(note).collect();
    RuleSet { chains, ..RuleSet::empty(Family::V4) }
}

#[cfg(test)]
mod tests {
    use podnet_model::Protocol;

    use super::*;
    use crate::ruleset::walk::{Direction, Host, Packet, Verdict, walk};

    #[test]
    fn ranges_allow_the_loopback_addresses_that_they_contain_or_name() {
        let within = |ranges: &[&str]| -> Vec<String> {
            let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
            super::within(&ranges).iter().map(ToString::to_string).collect()
        };
        assert_eq!(within(&["192.0.2.0/24", "2001:db8::/32"]), Vec::<String>::new());
        assert_eq!(within(&["0.0.0.0/0"]), ["127.0.0.1"]);
        assert_eq!(within(&["127.0.0.0/8", "::/0"]), ["127.0.0.1", "::1"]);
        assert_eq!(within(&["127.0.0.2/32", "::1/128", "127.1.0.0/16"]), ["::1", "127.0.0.2"]);
        assert_eq!(within(&["127.0.0.1/32", "127.0.0.0/8"]), ["127.0.0.1"]);
    }

    #[test]
    fn nobody_but_the_node_reaches_its_loopback() {
        let (node, other) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let verdict = |from: Ipv4Addr, to: Ipv4Addr, direction| {
            let packet = Packet::opening(from, to, Protocol::Tcp, 30_080);
            walk(&guard(true), &packet, direction, &Host::new([node])).verdict()
        };
        for (from, direction) in [(other, Direction::FromOutside), (other, Direction::FromPod)] {
            for to in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 255, 0, 9)] {
                assert_eq!(verdict(from, to, direction), Some(Verdict::Dropped));
            }
            assert_eq!(verdict(from, node, direction), Some(Verdict::Accepted));
            assert_eq!(verdict(Ipv4Addr::LOCALHOST, node, direction), Some(Verdict::Dropped));
        }
        assert_eq!(verdict(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, Direction::FromHost), Some(Verdict::Accepted));
    }
}
