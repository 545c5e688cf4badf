//! Names of addresses.

use std::{borrow::Cow, net::IpAddr};

use super::{
    Authority, Found,
    known::{Known, Record},
    stand::Stand,
};
use crate::{
    answer::{AnswerBuilder, Owner, Section},
    chain::Fallthrough,
    message::rtype,
    name::{Name, QueryName},
};

/// What is said about a name in a reverse zone. `names` tells the names of an address, each with whether it is a Service's own.
pub(super) fn reverse_answer<'a>(
    name: &QueryName,
    qtype: u16,
    authority: Authority<'a>,
    fallthrough: &Fallthrough,
    names: impl FnOnce(IpAddr) -> Vec<(bool, Name)>,
) -> Found<'a> {
    let Some(addr) = name.reverse_address() else {
        return match (name.labels() == authority.zone.labels(), qtype) {
            (true, rtype::SOA) => Found::Authority(authority),
            (true, _) => Found::NoData(authority),
            // Half an address has names below it, or may have: saying that it does not exist would deny those, too (RFC 8020).
            (false, _) if !fallthrough.holds(name) => Found::NoData(authority),
            (false, _) => Found::NoName(authority),
        };
    };
    let all = names(addr);
    if all.is_empty() {
        return match (name.labels() == authority.zone.labels(), qtype) {
            (true, rtype::SOA) => Found::Authority(authority),
            (true, _) => Found::NoData(authority),
            (false, _) => Found::NoName(authority),
        };
    }
    if qtype != rtype::PTR {
        return Found::NoData(authority);
    }
    // Endpoints' names for an address that is a Service's own are not told.
    let own = all.iter().any(|(own, _)| *own);
    let mut builder = AnswerBuilder::for_any();
    for (_, name) in all.iter().filter(|(one, _)| *one == own) {
        builder.push(Section::Answer, Owner::Question, rtype::PTR, authority.ttl, name.wire());
    }
    Found::Records(Cow::Owned(builder.build()))
}

/// The names of an address, each with whether it is a Service's own. `stand` says how a Service is shown.
pub(super) fn names<'k>(
    known: &'k Known,
    addr: IpAddr,
    stand: impl Fn(&'k Record) -> Option<Stand<'k>>,
) -> Vec<(bool, Name)> {
    let stands = known.holders(addr).filter_map(stand);
    let all = stands.flat_map(|stand| {
        let (own, names) = stand.names_of(addr);
        names.into_iter().map(move |name| (own, name))
    });
    all.collect()
}
