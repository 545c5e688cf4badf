//! What programs at sockets know.

use std::collections::{BTreeMap, BTreeSet};

use podnet_planner::services::ebpf::{Entry, Serves, Slot, Tables};
use serde::{Deserialize, Serialize};

use crate::sockets::Seen;

/// What there is, of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frontends {
    /// Programs that are not there.
    missing: Vec<String>,
    frontends: BTreeMap<String, Frontend>,
}

/// One, whatever the number of its list is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Frontend {
    /// What becomes of who connects.
    serves: String,
    backends: BTreeSet<String>,
    /// For so many seconds a client stays with its backend.
    affinity: Option<u32>,
}

impl Frontends {
    /// What is seen, in words.
    #[must_use]
    pub fn of(seen: &Seen) -> Self {
        let frontends = seen.tables.frontends.iter();
        Self {
            missing: seen.missing.iter().map(ToString::to_string).collect(),
            frontends: frontends.map(|(key, entry)| (key.to_string(), Frontend::of(entry, &seen.tables))).collect(),
        }
    }

    /// What of that which is wanted is there otherwise than it has to be, and which programs are not, in words.
    #[must_use]
    pub fn differences(&self, wanted: &Self) -> Vec<String> {
        let gone = self.missing.iter().filter(|name| !wanted.missing.contains(name));
        let mut told: Vec<String> = gone.map(|name| format!("program {name} is not at the sockets")).collect();
        for (key, frontend) in &wanted.frontends {
            if let Some(there) = self.frontends.get(key) {
                there.tell_differences(key, frontend, &mut told);
            }
        }
        told
    }

    /// Which frontends that are wanted the programs do not know, in words: rules serve them. An agent may leave one to the rules on purpose,
    /// for as long as virtual servers of a mode before remember connections to its backends.
    #[must_use]
    pub fn left_to_rules(&self, wanted: &Self) -> Vec<String> {
        let unknown = wanted.frontends.keys().filter(|key| !self.frontends.contains_key(*key));
        unknown
            .map(|key| format!("rules serve the frontend {key}, which the programs at the sockets do not know"))
            .collect()
    }
}

impl Frontend {
    fn of(entry: &Entry, tables: &Tables) -> Self {
        let (serves, count) = match entry.serves {
            Serves::Backends(count) => (format!("{count} backends"), count),
            Serves::Nobody => ("nobody".to_owned(), 0),
            Serves::NobodyHere => ("nobody here".to_owned(), 0),
        };
        let slot = |number| Slot { list: entry.list, number };
        let backends = tables.backends.range(slot(0)..slot(count)).map(|(_, target)| target.at.to_string());
        let affinity = entry.affinity.map(|affinity| affinity.seconds);
        Self { serves, backends: backends.collect(), affinity }
    }

    fn tell_differences(&self, key: &str, wanted: &Self, told: &mut Vec<String>) {
        let of = format!("frontend {key} of the programs at the sockets");
        if self.serves != wanted.serves {
            told.push(format!("{of} leads to {} and not to {}", self.serves, wanted.serves));
        }
        let missing = wanted.backends.difference(&self.backends);
        told.extend(missing.map(|backend| format!("{of} lacks the backend {backend}")));
        let more = self.backends.difference(&wanted.backends);
        told.extend(more.map(|backend| format!("{of} has the backend {backend}, which nobody asked for")));
        if self.affinity != wanted.affinity {
            let [there, asked] = [self.affinity, wanted.affinity].map(Option::unwrap_or_default);
            told.push(format!("{of} keeps clients with their backends for {there} s and not for {asked} s"));
        }
    }
}
