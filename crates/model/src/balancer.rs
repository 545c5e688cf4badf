//! Where load balancers' addresses come from, and who announces them.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr, sync::Arc};

use ipnet::IpNet;

use crate::{
    Family,
    labels::{Labels, NodeSelector},
};

/// The Lease of whoever gives addresses: its namespace and name. The namespace is podnet's alone, since whoever may make a Lease may make
/// any of the namespace.
pub const LEASE: (&str, &str) = ("podnet-system", "podnet-load-balancers");

/// The class (`spec.loadBalancerClass`) that Services name who want their addresses from podnet and from nobody else.
pub const CLASS: &str = "podnet.io/load-balancer";

/// An `IPAddressPool`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.labels`, which advertisements select by.
    pub labels: Labels,
    /// `spec.addresses`, in order.
    pub spans: Vec<Span>,
    /// `spec.autoAssign`: Services get addresses of it without naming it.
    pub auto_assign: bool,
    /// `spec.avoidBuggyIPs`: addresses that end in .0 and .255 are left alone.
    pub avoid_buggy: bool,
    /// `spec.serviceAllocation`; none: every Service may have addresses of it.
    pub reserved: Option<Reserved>,
}

impl AddressPool {
    /// One for every Service, with MetalLB's defaults.
    #[must_use]
    pub fn new(name: &str, spans: Vec<Span>) -> Self {
        Self {
            name: name.into(),
            labels: Labels::default(),
            spans,
            auto_assign: true,
            avoid_buggy: false,
            reserved: None,
        }
    }
}

/// Which Services may have addresses of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Of several pools that serve, that with the lowest number comes first; 0 comes last.
    pub priority: u64,
    /// Namespaces by name.
    pub namespaces: BTreeSet<String>,
    /// Namespaces by their labels.
    pub namespace_selectors: Vec<NodeSelector>,
    /// Services by their labels.
    pub service_selectors: Vec<NodeSelector>,
}

/// An `L2Advertisement`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// `spec.ipAddressPools`.
    pub pools: BTreeSet<String>,
    /// `spec.ipAddressPoolSelectors`.
    pub pool_selectors: Vec<NodeSelector>,
    /// `spec.nodeSelectors`; none: every node.
    pub node_selectors: Vec<NodeSelector>,
    /// `spec.interfaces`; none: every interface.
    pub interfaces: BTreeSet<String>,
}

impl Advertisement {
    /// Whether it is about the pool: one that names none is about all.
    #[must_use]
    pub fn is_about(&self, pool: &AddressPool) -> bool {
        let names_none = self.pools.is_empty() && self.pool_selectors.is_empty();
        names_none
            || self.pools.contains(&*pool.name)
            || self.pool_selectors.iter().any(|selector| selector.matches(&pool.labels))
    }
}

/// Addresses that follow each other, the first and the last one included; of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: IpAddr,
    last: IpAddr,
}

impl Span {
    /// The first address.
    #[must_use]
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address.
    #[must_use]
    pub const fn last(&self) -> IpAddr {
        self.last
    }

    /// The family of its addresses.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(&self.first)
    }

    /// How many addresses these are; of IPv6 there may be more than can be counted, then it is the largest number.
    #[must_use]
    pub fn count(&self) -> u64 {
        let between = match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                u128::from(u32::from(last)).saturating_sub(u32::from(first).into())
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => u128::from(last).saturating_sub(first.into()),
            // They are of one family.
            _ => 0,
        };
        u64::try_from(between.saturating_add(1)).unwrap_or(u64::MAX)
    }

    /// Whether the address is one of them.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        Family::of(&addr) == self.family() && self.first <= addr && addr <= self.last
    }
}

/// A text is no range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither a range such as 192.0.2.0/28 nor one such as 192.0.2.10-192.0.2.20")]
pub struct NoSpan;

impl FromStr for Span {
    type Err = NoSpan;

    fn from_str(text: &str) -> Result<Self, NoSpan> {
        if let Some((first, last)) = text.split_once('-') {
            let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| NoSpan);
            let (first, last) = (parse(first)?, parse(last)?);
            let fits = Family::of(&first) == Family::of(&last) && first <= last;
            return if fits { Ok(Self { first, last }) } else { Err(NoSpan) };
        }
        let net: IpNet = text.trim().parse().map_err(|_| NoSpan)?;
        Ok(Self { first: net.network(), last: net.broadcast() })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_range_in_either_spelling() {
        for (text, wanted) in [
            ("192.0.2.0/30", Some("192.0.2.0-192.0.2.3")),
            ("192.0.2.7/32", Some("192.0.2.7-192.0.2.7")),
            ("192.0.2.10 - 192.0.2.20", Some("192.0.2.10-192.0.2.20")),
            ("2001:db8::/126", Some("2001:db8::-2001:db8::3")),
            ("192.0.2.20-192.0.2.10", None),
            ("192.0.2.20-2001:db8::1", None),
            ("192.0.2.1", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Span>().ok().map(|span| span.to_string()).as_deref(), wanted, "{text}");
        }
        let span: Span = "192.0.2.10-192.0.2.20".parse().unwrap();
        assert!(span.contains("192.0.2.20".parse().unwrap()) && !span.contains("192.0.2.21".parse().unwrap()));
        assert!(!span.contains("::c000:20a".parse().unwrap()));
        assert_eq!(span.count(), 11);
        assert_eq!("2001:db8::/64".parse::<Span>().unwrap().count(), u64::MAX);
        assert_eq!("::/0".parse::<Span>().unwrap().count(), u64::MAX);
    }
}
