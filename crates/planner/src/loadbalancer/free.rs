//! The first free address of a range, found by what is taken and not by trying every address.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use podnet_model::balancer::Span;

/// The first address of the span that nobody has.
pub(super) fn first<T>(taken: &BTreeMap<IpAddr, T>, span: &Span, avoid_buggy: bool) -> Option<IpAddr> {
    let mut next = number(span.first());
    let last = number(span.last());
    let address = |number: u128| match span.first() {
        IpAddr::V4(_) => u32::try_from(number).ok().map(|number| IpAddr::V4(Ipv4Addr::from(number))),
        IpAddr::V6(_) => Some(IpAddr::V6(Ipv6Addr::from(number))),
    };
    // .255 and .0 follow each other, so of three addresses one is always good.
    let good =
        |from: u128, to: u128| (from..=to).take(3).filter_map(address).find(|addr| !(avoid_buggy && is_buggy(*addr)));
    for held in taken.range(span.first()..=span.last()).map(|(addr, _)| number(*addr)) {
        if held > next
            && let Some(found) = good(next, held - 1)
        {
            return Some(found);
        }
        next = held.checked_add(1)?;
    }
    good(next, last)
}

/// Whether old devices take the address for a network's own or for its broadcast.
pub(super) fn is_buggy(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V4(addr) if matches!(addr.octets()[3], 0 | 255))
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u32::from(addr).into(),
        IpAddr::V6(addr) => addr.into(),
    }
}
