//! Addresses and ports that several Services ask for, as it is told to those that go without.

use std::collections::{BTreeMap, BTreeSet};

use podnet_model::ServiceKey;
use podnet_planner::{ruleset::FrontendKey, services::Conflict};

use crate::proxy::mode::Unserved;

/// So many are named; a NodePort may be at hundreds of addresses.
const NAMED: usize = 3;

/// What each Service that goes without is told, once for each that has what it asks for.
pub(super) fn unserved(conflicts: &[Conflict]) -> BTreeSet<Unserved> {
    let mut lost: BTreeMap<(&ServiceKey, &ServiceKey), Vec<&FrontendKey>> = BTreeMap::new();
    for conflict in conflicts {
        for loser in &conflict.losers {
            lost.entry((loser, &conflict.winner)).or_default().push(&conflict.frontend);
        }
    }
    let told = |((loser, winner), frontends): ((&ServiceKey, &ServiceKey), Vec<&FrontendKey>)| {
        let named: Vec<_> = frontends.iter().take(NAMED).map(ToString::to_string).collect();
        let more = match frontends.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "{}{more} is not this Service's: {winner} asks for the same, and has it, as a ClusterIP comes before any other address \
             and the older Service before the younger; give one of them another address or port",
            named.join(", ")
        );
        Unserved { service: loser.clone(), message }
    };
    lost.into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use podnet_model::Protocol;

    use super::*;

    #[test]
    fn a_loser_is_told_once_of_each_winner() {
        let service = |name: &str| ServiceKey::new("shop", name);
        let conflict = |last: u8, winner, losers: &[&str]| Conflict {
            frontend: FrontendKey { addr: [192, 0, 2, last].into(), protocol: Protocol::Tcp, port: 80 },
            winner: service(winner),
            losers: losers.iter().map(|name| service(name)).collect(),
        };
        let told = unserved(&[
            conflict(1, "old", &["new", "newest"]),
            conflict(2, "old", &["new"]),
            conflict(3, "old", &["new"]),
            conflict(4, "old", &["new"]),
            conflict(5, "other", &["new"]),
        ]);
        let about: Vec<_> = told.iter().map(|one| (&*one.service.name, one.message.contains("shop/old"))).collect();
        assert_eq!(about, [("new", true), ("new", false), ("newest", true)]);
        let first = &told.first().unwrap().message;
        assert!(
            first.contains("192.0.2.3") && !first.contains("192.0.2.4") && first.contains(" and 1 more "),
            "{first}"
        );
        assert!(unserved(&[]).is_empty());
    }
}
