//! What `iptables-save` prints.

use std::collections::{BTreeMap, BTreeSet};

use super::{ChainKey, Table};

/// Chains that podnet always has in the mode `iptables`, and kube-proxy never, one in each table.
const MARKS: [(Table, &str); 2] = [(Table::Nat, "KUBE-PING"), (Table::Filter, "KUBE-CLUSTER-IPS")];

/// The same of the mode `ipvs`: tables are written one after the other, and any one may be the last before a power cut.
const MARKS_OF_IPVS: [(Table, &str); 3] =
    [(Table::Filter, "KUBE-UNSERVED"), (Table::Nat, "KUBE-NODE-ADDRESSES"), (Table::Mangle, "KUBE-ATTRACT")];

/// The chains that are there, everybody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Each chain's rules, from behind its name on.
    pub chains: BTreeMap<ChainKey, Vec<String>>,
}

impl Saved {
    /// Reads it. Tables that podnet has nothing in are left out, and so is what nobody knows.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut chains = BTreeMap::<ChainKey, Vec<String>>::new();
        let mut table = None;
        for line in text.lines() {
            match line.split_at_checked(1) {
                Some(("*", name)) => table = Table::ALL.into_iter().find(|table| table.name() == name),
                Some((":", rest)) => {
                    if let (Some(table), Some(name)) = (table, rest.split(' ').next()) {
                        chains.entry(ChainKey::new(table, name)).or_default();
                    }
                }
                Some(("-", _)) => {
                    let rest = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' '));
                    if let (Some(table), Some((name, rule))) = (table, rest) {
                        chains.entry(ChainKey::new(table, name)).or_default().push(rule.to_owned());
                    }
                }
                _ => {}
            }
        }
        Self { chains }
    }

    /// Whether podnet's chains are there, and not kube-proxy's, which have the same names but for some.
    #[must_use]
    pub fn is_of_podnet(&self) -> bool {
        self.has_one_of(&MARKS)
    }

    /// Whether podnet's chains of the mode `ipvs` are there.
    #[must_use]
    pub fn is_of_podnet_in_ipvs(&self) -> bool {
        self.has_one_of(&MARKS_OF_IPVS)
    }

    fn has_one_of(&self, marks: &[(Table, &str)]) -> bool {
        marks.iter().any(|(table, name)| self.chains.contains_key(&ChainKey::new(*table, *name)))
    }

    /// The chains that some rule outside of podnet's own leads to. What the kernel's own chains have for podnet is no such rule.
    pub(super) fn used_by_others(&self) -> BTreeSet<ChainKey> {
        let foreign = self.chains.iter().filter(|(key, _)| !super::is_ours(&key.name) && !is_built_in(&key.name));
        let leads = |(key, rules): (&ChainKey, &Vec<String>)| {
            let table = key.table;
            let names: Vec<_> = rules.iter().filter_map(|rule| leads_to(rule)).map(str::to_owned).collect();
            names.into_iter().map(move |name| ChainKey::new(table, name))
        };
        foreign.flat_map(leads).collect()
    }
}

/// Whether it is one of the kernel's own chains.
pub(super) fn is_built_in(name: &str) -> bool {
    matches!(name, "PREROUTING" | "INPUT" | "FORWARD" | "OUTPUT" | "POSTROUTING")
}

/// The chain, or the target, that a rule leads to. Its options stand behind it, and its conditions before; a comment is in quotes.
pub(super) fn leads_to(rule: &str) -> Option<&str> {
    let mut quoted = false;
    let unquoted = rule.split(' ').filter(|word| {
        let outside = !quoted;
        let escaped = word.matches("\\\"").count();
        if (word.matches('"').count() - escaped) % 2 == 1 {
            quoted = !quoted;
        }
        outside
    });
    unquoted.skip_while(|word| !matches!(*word, "-j" | "-g")).nth(1)
}
