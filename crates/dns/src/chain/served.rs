//! Server blocks that would answer the same questions.

use std::net::IpAddr;

use super::{Chain, Plugin};
use crate::corefile::{CorefileError, Fault, Key};

/// What a block serves, and where it listens; no addresses: everywhere.
struct Served<'a> {
    key: &'a Key,
    addresses: Vec<IpAddr>,
}

/// Keys that a block before serves already. As in CoreDNS, a block with a `view` takes only some questions, so others may follow it;
/// blocks with different `bind` stand beside each other, but not one with and one without.
pub(super) fn overlaps(chains: &[Chain]) -> Vec<CorefileError> {
    let mut served: Vec<Served<'_>> = Vec::new();
    let mut errors = Vec::new();
    for chain in chains {
        let views = chain.plugins.iter().any(|plugin| matches!(plugin, Plugin::View(_)));
        let addresses = chain.addresses();
        for key in &chain.keys {
            let first = served.iter().find(|first| first.key.same(key) && meet(&first.addresses, &addresses));
            match first {
                Some(first) => errors.push(CorefileError {
                    place: key.place.clone(),
                    fault: Fault::Served { key: key.to_string(), first: first.key.place.clone() },
                }),
                None if views => {}
                None => served.push(Served { key, addresses: addresses.clone() }),
            }
        }
    }
    errors
}

fn meet(one: &[IpAddr], other: &[IpAddr]) -> bool {
    one.is_empty() || other.is_empty() || one.iter().any(|address| other.contains(address))
}
