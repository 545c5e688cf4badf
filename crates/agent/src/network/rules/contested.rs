//! Addresses and ports that several Services ask for, as it is told to those that go without.

use std::collections::{BTreeMap, BTreeSet};

use podnet_model::ServiceKey;
use podnet_planner::services::Conflict;

use crate::proxy::mode::{NOT_SERVED, Unserved};

/// So many are named; a NodePort may be at hundreds of addresses.
const NAMED: usize = 3;

/// What each Service that goes without is told.
pub(super) fn unserved(conflicts: &[Conflict]) -> BTreeSet<Unserved> {
    let mut lost: BTreeMap<&ServiceKey, Vec<&Conflict>> = BTreeMap::new();
    for conflict in conflicts {
        for loser in &conflict.losers {
            lost.entry(loser).or_default().push(conflict);
        }
    }
    let told = |(loser, conflicts): (&ServiceKey, Vec<&Conflict>)| {
        let frontends = named(&conflicts.iter().map(|conflict| conflict.frontend.to_string()).collect::<Vec<_>>());
        // Whoever has it may change with each Service that goes, for all that go without at once.
        let winners: BTreeSet<&ServiceKey> = conflicts.iter().map(|conflict| &conflict.winner).collect();
        let winners = named(&winners.iter().map(ToString::to_string).collect::<Vec<_>>());
        let message = format!(
            "{frontends} is not this Service's: {winners} asks for the same, and has it, as a ClusterIP comes before any other address \
             and the older Service before the younger; give one of them another address or port"
        );
        let fact = Some(format!("contested {frontends}"));
        Unserved { service: loser.clone(), reason: NOT_SERVED, message: message.into(), fact }
    };
    lost.into_iter().map(told).collect()
}

fn named(all: &[String]) -> String {
    let first = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use podnet_model::Protocol;
    use podnet_planner::ruleset::FrontendKey;

    use super::*;

    #[test]
    fn a_loser_is_told_once_and_not_again_where_the_winner_is_another() {
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
        assert_eq!(about, [("new", true), ("newest", true)]);
        let first = &told.first().unwrap().message;
        assert!(
            first.contains("192.0.2.3") && !first.contains("192.0.2.4") && first.contains(" and 2 more "),
            "{first}"
        );
        assert!(first.contains("shop/old, shop/other asks"), "{first}");
        let before = unserved(&[conflict(1, "oldest", &["new", "newest", "old"])]);
        let after = unserved(&[conflict(1, "old", &["new", "newest"])]);
        assert_ne!(before.first().unwrap().message, after.first().unwrap().message);
        assert_eq!(after.difference(&before).count(), 0, "nothing is told where the winner alone is another");
        assert_eq!(before.difference(&after).count(), 1, "one is served");
        assert_eq!(unserved(&[conflict(2, "old", &["new"])]).difference(&after).count(), 1, "another address");
        assert!(unserved(&[]).is_empty());
    }
}
