//! How much of a pool is given.

use std::net::IpAddr;

use podnet_model::{
    Dual,
    balancer::{AddressPool, Span},
};

use super::{Balancers, free};

/// Addresses of a pool, as its status counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Services have them. One that several share counts once.
    pub assigned: Dual<u64>,
    /// A Service could have them.
    pub available: Dual<u64>,
}

impl Balancers {
    /// How much of the pool is given.
    #[must_use]
    pub fn usage(&self, pool: &AddressPool) -> Usage {
        let mut usage = Usage::default();
        for span in &pool.spans {
            let held = || self.holders.range(span.first()..=span.last()).map(|(addr, _)| *addr);
            let usable = |addr: &IpAddr| !(pool.avoid_buggy && free::is_buggy(*addr));
            let (assigned, not_usable) = (held().count(), held().filter(|addr| !usable(addr)).count());
            let avoided = if pool.avoid_buggy { buggy(span) } else { 0 };
            let taken = avoided + u64::try_from(assigned - not_usable).unwrap_or(u64::MAX);
            usage.assigned[span.family()] += u64::try_from(assigned).unwrap_or(u64::MAX);
            let available = &mut usage.available[span.family()];
            *available = available.saturating_add(span.count().saturating_sub(taken));
        }
        usage
    }
}

/// How many of the range's addresses end in .0 or .255.
fn buggy(span: &Span) -> u64 {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (span.first(), span.last()) else { return 0 };
    // Of the addresses below this one.
    let below = |end: u64| end.div_ceil(256) + end / 256;
    below(u64::from(u32::from(last)) + 1) - below(u64::from(u32::from(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_old_devices_do_not_take_are_counted() {
        for (span, wanted) in [
            ("192.0.2.0/24", 2),
            ("192.0.2.1-192.0.2.254", 0),
            ("192.0.2.255-192.0.3.0", 2),
            ("192.0.0.0/16", 512),
            ("0.0.0.0/32", 1),
            ("255.255.255.255/32", 1),
            ("2001:db8::/120", 0),
        ] {
            let span: Span = span.parse().unwrap();
            assert_eq!(buggy(&span), wanted, "{span}");
            if let (IpAddr::V4(first), IpAddr::V4(last)) = (span.first(), span.last()) {
                let each = (u32::from(first)..=u32::from(last)).map(|addr| IpAddr::V4(addr.into()));
                assert_eq!(u64::try_from(each.filter(|addr| free::is_buggy(*addr)).count()).unwrap(), wanted);
            }
        }
    }
}
