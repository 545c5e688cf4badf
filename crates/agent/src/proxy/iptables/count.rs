//! How many rules there are in each table.

use std::collections::{BTreeMap, HashMap};

use podnet_planner::iptables::{ChainKey, Rewrite, Rules as Chains, Table};

use crate::proxy::facts::Rules;

/// Counted by chain, since a chain is written as a whole.
#[derive(Debug, Default)]
pub(super) struct Counted {
    chains: HashMap<ChainKey, u32>,
    tables: BTreeMap<Table, Rules>,
}

impl Counted {
    /// All that is wanted is in force; so much had to be written for it.
    pub(super) fn whole(&mut self, wanted: &Chains, done: &Rewrite) {
        self.chains.clear();
        self.tables.clear();
        for (key, rules) in &wanted.chains {
            self.set(key, rules.len());
        }
        for hook in &wanted.hooks {
            self.tables.entry(hook.at.table).or_default().all += 1;
        }
        self.written(done);
    }

    /// That was done.
    pub(super) fn rewritten(&mut self, done: &Rewrite) {
        for (key, rules) in &done.chains {
            self.set(key, rules.len());
        }
        for key in &done.gone {
            if let Some(before) = self.chains.remove(key) {
                self.tables.entry(key.table).or_default().all -= before as usize;
            }
        }
        self.written(done);
    }

    pub(super) const fn tables(&self) -> &BTreeMap<Table, Rules> {
        &self.tables
    }

    fn set(&mut self, key: &ChainKey, rules: usize) {
        let before = self.chains.insert(key.clone(), u32::try_from(rules).unwrap_or(u32::MAX)).unwrap_or(0);
        let all = &mut self.tables.entry(key.table).or_default().all;
        *all = *all + rules - before as usize;
    }

    fn written(&mut self, done: &Rewrite) {
        self.tables.values_mut().for_each(|rules| rules.last = 0);
        for (key, rules) in &done.chains {
            self.tables.entry(key.table).or_default().last += rules.len();
        }
        for hook in &done.hooks {
            self.tables.entry(hook.at.table).or_default().last += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use podnet_planner::iptables::{Rule, Target};

    use super::*;

    fn chain(name: &str, rules: usize) -> (ChainKey, Vec<Rule>) {
        (ChainKey::new(Table::Nat, name), vec![Rule::new(Target::Return); rules])
    }

    #[test]
    fn rules_are_counted_as_chains_come_change_and_go() {
        let mut counted = Counted::default();
        let count = |counted: &mut Counted| {
            let Rules { all, last } = counted.tables()[&Table::Nat];
            (all, last)
        };
        let wanted = Chains { chains: [chain("A", 3), chain("B", 2)].into(), hooks: Vec::new() };
        counted.whole(&wanted, &Rewrite { chains: [chain("B", 2)].into(), ..Rewrite::default() });
        assert_eq!(count(&mut counted), (5, 2));
        let gone = [ChainKey::new(Table::Nat, "B")].into();
        counted.rewritten(&Rewrite { chains: [chain("A", 1), chain("C", 4)].into(), gone, ..Rewrite::default() });
        assert_eq!(count(&mut counted), (5, 5));
        counted.rewritten(&Rewrite::default());
        assert_eq!(count(&mut counted), (5, 0));
    }
}
