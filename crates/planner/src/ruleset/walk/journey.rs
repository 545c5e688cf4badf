//! What became of a packet, and by which rules.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use crate::ruleset::{BackendAddress, BackendKey, FrontendKey, HookPoint, RuleName};

/// Everything that can become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    /// The ways that it can go, each as often as random choices lead there; at least one.
    pub outcomes: Vec<Outcome>,
}

impl Journey {
    /// What becomes of the packet, if it is the same whatever random choice is made.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let first = self.outcomes.first()?.verdict;
        self.outcomes.iter().all(|outcome| outcome.verdict == first).then_some(first)
    }

    /// Where accepted packets go, with the probability of each destination.
    #[must_use]
    pub fn destinations(&self) -> Vec<(BackendAddress, f64)> {
        let mut sum = BTreeMap::new();
        for outcome in self.outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Accepted) {
            *sum.entry(outcome.destination).or_insert(0.0) += 1.0 / f64::from(outcome.one_in);
        }
        sum.into_iter().collect()
    }

    /// Whether any accepted packet gets another source.
    #[must_use]
    pub fn masqueraded(&self) -> bool {
        self.outcomes.iter().any(|outcome| outcome.verdict == Verdict::Accepted && outcome.masqueraded)
    }
}

/// One way that a packet can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Where it is addressed to in the end.
    pub destination: BackendAddress,
    /// Its destination was translated.
    pub translated: bool,
    /// Its source becomes an address of this host.
    pub masqueraded: bool,
    /// It asks for an echo.
    pub answers: bool,
    /// Its mark in the end.
    pub mark: u32,
    /// It goes this way once in so many times.
    pub one_in: u32,
    /// The rules that it met, in order.
    pub steps: Vec<Hop>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It reaches a process of this host, or leaves it.
    Accepted,
    /// It is refused, and its sender is told.
    Rejected,
    /// There is no route for it, and its sender is told.
    Unreachable,
    /// It is lost: a rule says so, or the rules are not valid.
    Dropped,
}

/// A rule that was met: all of its matches held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The hook.
    pub hook: HookPoint,
    /// The rule's chain.
    pub chain: RuleName,
    /// The rule's comment.
    pub comment: &'static str,
    /// The elements of sets and maps that it found.
    pub matched: Vec<Element>,
}

/// An element of a set or map that a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    /// An address, alone or in a range, or a pair of addresses.
    Member(RuleName, Vec<IpAddr>),
    /// A frontend and the chain that it is in.
    Frontend(RuleName, FrontendKey, RuleName),
    /// A slot and the backend that is in it.
    Backend(RuleName, BackendKey, BackendAddress),
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.hook, self.chain, self.comment)?;
        self.matched.iter().try_for_each(|element| write!(f, " [{element}]"))
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(set, addrs) => {
                write!(f, "{set}:")?;
                addrs.iter().try_for_each(|addr| write!(f, " {addr}"))
            }
            Self::Frontend(map, key, chain) => write!(f, "{map}: {key} → {chain}"),
            Self::Backend(map, key, to) => write!(f, "{map}: {key} → {to}"),
        }
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Unreachable => "unreachable",
            Self::Dropped => "dropped",
        })
    }
}
