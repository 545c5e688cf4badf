//! What became of a flow, and what dropped or refused it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    entry::IcmpError,
    record::{UnknownName, named},
};

/// What became of a flow, as far as its packets show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Packets passed and were answered, or need no answer.
    Forwarded,
    /// The first answer was a reset, or an error of ICMP that says no; or the socket was told so, and nothing was sent.
    Refused,
    /// Somebody was asked for a connection, an association or an echo, and never answered.
    Unanswered,
    /// Something on the way dropped all packets; or the destination is on this node, and none came to it.
    Dropped,
}

impl Verdict {
    const NAMED: [(Self, &'static str); 4] = [
        (Self::Forwarded, "forwarded"),
        (Self::Refused, "refused"),
        (Self::Unanswered, "unanswered"),
        (Self::Dropped, "dropped"),
    ];
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMED.iter().find(|(verdict, _)| verdict == self).map_or("", |(_, name)| *name);
        f.write_str(name)
    }
}

impl FromStr for Verdict {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        named(&Self::NAMED, text)
    }
}

/// What dropped or refused packets. What leaves no trace (a silent firewall) is not among them: nothing could tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The Service that was asked had no backend for this node.
    NoBackend,
    /// The source is no address of the pod that sent: its node drops that.
    SpoofGuard,
    /// A network policy does not allow it. Nothing tells this yet: podnet puts no policies in force so far.
    Policy,
    /// It was beyond what a pod is limited to: of connections where it was refused, else of packets, of which some may have passed. What is beyond a
    /// bandwidth the kernel counts by interface: no flow has that cause, [`crate::record::Drops`] have.
    Limit,
    /// Somebody on the way had no route, or nobody has the address: destination unreachable.
    NoRoute,
    /// Somebody refused by rule: administratively prohibited, or a port that is not theirs called unreachable, as rules for rejecting do unless told
    /// otherwise.
    Prohibited,
    /// Nobody listens at the port, or speaks the protocol: the destination itself said so.
    PortClosed,
    /// A packet was too large for a link on its way, and none came through since.
    PacketTooBig,
    /// A packet passed as many routers as it might.
    HopLimit,
}

impl Cause {
    pub(crate) const NAMED: [(Self, &'static str); 9] = [
        (Self::NoBackend, "no-backend"),
        (Self::SpoofGuard, "spoof-guard"),
        (Self::Policy, "policy"),
        (Self::Limit, "limit"),
        (Self::NoRoute, "no-route"),
        (Self::Prohibited, "prohibited"),
        (Self::PortClosed, "port-closed"),
        (Self::PacketTooBig, "packet-too-big"),
        (Self::HopLimit, "hop-limit"),
    ];

    /// What an error of ICMP, or of ICMPv6, says of the packet that it is about; nothing where it is no word about its way or its destination.
    pub(crate) const fn of(error: IcmpError, is_v6: bool) -> Option<Self> {
        let cause = match (is_v6, error.kind, error.code) {
            // Protocol and port unreachable; of IPv6 port unreachable, next header unknown.
            (false, 3, 2 | 3) | (true, 1, 4) | (true, 4, 1) if error.by_destination => Self::PortClosed,
            (false, 3, 2 | 3) | (true, 1, 4) => Self::Prohibited,
            (false, 3, 4) | (true, 2, _) => Self::PacketTooBig,
            // RFC 1812, section 5.2.7.1; RFC 4443, section 3.1: prohibited, source address failed policy, reject route.
            (false, 3, 9 | 10 | 13..=15) | (true, 1, 1 | 5 | 6) => Self::Prohibited,
            (false, 3, 0 | 1 | 5..=8 | 11 | 12) | (true, 1, 0 | 2 | 3) => Self::NoRoute,
            // Code 1: parts that were waited for in vain.
            (false, 11, 0) | (true, 3, 0) => Self::HopLimit,
            _ => return None,
        };
        Some(cause)
    }

    /// What becomes of a flow by this that nobody ever answered.
    pub(crate) const fn verdict(self) -> Verdict {
        match self {
            Self::NoBackend | Self::Prohibited | Self::PortClosed => Verdict::Refused,
            Self::SpoofGuard | Self::Policy | Self::Limit | Self::NoRoute | Self::PacketTooBig | Self::HopLimit => {
                Verdict::Dropped
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMED.iter().find(|(cause, _)| cause == self).map_or("", |(_, name)| *name);
        f.write_str(name)
    }
}

impl FromStr for Cause {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        named(&Self::NAMED, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (verdict, _) in Verdict::NAMED {
            assert_eq!(verdict.to_string().parse(), Ok(verdict));
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.to_string());
        }
        for (cause, _) in Cause::NAMED {
            assert_eq!(cause.to_string().parse(), Ok(cause));
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.to_string());
        }
        assert!(
            "firewall".parse::<Cause>().unwrap_err().to_string().contains("no-backend, spoof-guard, policy, limit")
        );
    }

    #[test]
    fn errors_of_both_families_say_what_it_was_or_nothing() {
        let of = |is_v6, kind, code| {
            [true, false].map(|by_destination| Cause::of(IcmpError { kind, code, by_destination }, is_v6))
        };
        let both = |cause| [Some(cause); 2];
        let rows = [
            ((false, 3, 3), [Some(Cause::PortClosed), Some(Cause::Prohibited)]),
            ((false, 3, 2), [Some(Cause::PortClosed), Some(Cause::Prohibited)]),
            ((true, 1, 4), [Some(Cause::PortClosed), Some(Cause::Prohibited)]),
            ((true, 4, 1), [Some(Cause::PortClosed), None]),
            ((false, 3, 0), both(Cause::NoRoute)),
            ((false, 3, 1), both(Cause::NoRoute)),
            ((true, 1, 0), both(Cause::NoRoute)),
            ((true, 1, 3), both(Cause::NoRoute)),
            ((false, 3, 13), both(Cause::Prohibited)),
            ((true, 1, 1), both(Cause::Prohibited)),
            ((false, 3, 4), both(Cause::PacketTooBig)),
            ((true, 2, 0), both(Cause::PacketTooBig)),
            ((false, 11, 0), both(Cause::HopLimit)),
            ((true, 3, 0), both(Cause::HopLimit)),
            ((false, 11, 1), [None; 2]),
            ((true, 3, 1), [None; 2]),
            ((true, 4, 0), [None; 2]),
            ((false, 12, 0), [None; 2]),
            // What is an error of one family is none of the other.
            ((true, 11, 0), [None; 2]),
            ((false, 1, 0), [None; 2]),
        ];
        for ((is_v6, kind, code), expected) in rows {
            assert_eq!(of(is_v6, kind, code), expected, "type {kind}, code {code}, IPv6: {is_v6}");
        }
    }
}
