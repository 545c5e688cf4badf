//! How many objects cannot be taken as they are, for metrics.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use super::removal::Removal;

/// The numbers by kind, of all watches that share it.
#[derive(Clone, Debug, Default)]
pub struct Quarantine(Arc<Mutex<BTreeMap<String, usize>>>);

impl Quarantine {
    /// In the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        let name = "podnet_invalid_objects";
        let mut text = format!(
            "# HELP {name} Objects of the API that are not taken as they are, each left out alone; events on them say why.\n# TYPE {name} gauge\n"
        );
        for (kind, count) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}{{kind=\"{kind}\"}} {count}");
        }
        text
    }

    fn differ(&self, kind: &str, before: usize, now: usize) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(kind.to_owned()).or_default();
        *count = (*count + now).saturating_sub(before);
    }
}

/// The objects of one watch that cannot be taken.
#[derive(Debug)]
pub(super) struct Cell {
    kind: String,
    inside: BTreeSet<Removal>,
    counts: Quarantine,
}

impl Cell {
    pub(super) fn new(kind: String, counts: Quarantine) -> Self {
        counts.differ(&kind, 0, 0);
        Self { kind, inside: BTreeSet::new(), counts }
    }

    /// Whether an object can be taken is known anew.
    pub(super) fn seen(&mut self, object: &Removal, is_right: bool) {
        let before = self.inside.len();
        if is_right {
            self.inside.remove(object);
        } else {
            self.inside.insert(object.clone());
        }
        // Nearly always it is as before, of each object of a cluster.
        if self.inside.len() != before {
            self.counts.differ(&self.kind, before, self.inside.len());
        }
    }

    /// These alone are there.
    pub(super) fn listed(&mut self, there: &HashSet<Removal>) {
        let before = self.inside.len();
        self.inside.retain(|object| there.contains(object));
        self.counts.differ(&self.kind, before, self.inside.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_counts_until_it_is_mended_or_gone() {
        let counts = Quarantine::default();
        let is = |count: usize| {
            let line = format!("\npodnet_invalid_objects{{kind=\"Node\"}} {count}\n");
            assert!(counts.metrics().contains(&line), "{}", counts.metrics());
        };
        let (mut one, mut other) = (Cell::new("Node".into(), counts.clone()), Cell::new("Node".into(), counts.clone()));
        is(0);
        let node = |name: &str| Removal::Node(name.into());
        for name in ["a", "b", "b"] {
            one.seen(&node(name), false);
        }
        other.seen(&node("c"), false);
        is(3);
        one.seen(&node("a"), true);
        one.seen(&node("d"), true);
        is(2);
        one.listed(&HashSet::from([node("a")]));
        is(1);
    }
}
