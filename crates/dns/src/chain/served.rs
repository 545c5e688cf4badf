//! Server blocks that would answer the same questions.

use super::{BindTarget, Chain, Plugin};
use crate::corefile::{CorefileError, Fault, Key};

/// What a block serves, and where it listens; no targets: everywhere.
struct Served<'a> {
    key: &'a Key,
    targets: Vec<&'a BindTarget>,
}

/// Keys that a block before serves already. As in CoreDNS, a block with a `view` takes only some questions, so others may follow it;
/// blocks with different `bind` stand beside each other, but not one with and one without.
pub(super) fn overlaps(chains: &[Chain]) -> Vec<CorefileError> {
    let mut served: Vec<Served<'_>> = Vec::new();
    let mut errors = Vec::new();
    for chain in chains {
        let views = chain.plugins.iter().any(|plugin| matches!(plugin, Plugin::View(_)));
        let targets = targets(chain);
        for key in &chain.keys {
            let first = served.iter().find(|first| first.key.same(key) && meet(&first.targets, &targets));
            match first {
                Some(first) => errors.push(CorefileError {
                    place: key.place.clone(),
                    fault: Fault::Served { key: key.to_string(), first: first.key.place.clone() },
                }),
                None if views => {}
                None => served.push(Served { key, targets: targets.clone() }),
            }
        }
    }
    errors
}

fn targets(chain: &Chain) -> Vec<&BindTarget> {
    let binds =
        chain.plugins.iter().filter_map(|plugin| if let Plugin::Bind(bind) = plugin { Some(bind) } else { None });
    binds.flat_map(|bind| bind.targets.iter().filter(|target| !bind.except.contains(target))).collect()
}

fn meet(one: &[&BindTarget], other: &[&BindTarget]) -> bool {
    one.is_empty() || other.is_empty() || one.iter().any(|target| other.contains(target))
}
