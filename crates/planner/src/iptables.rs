//! The vocabulary of iptables: rules, chains of them, what a table holds, and the text that makes one of the other.
//!
//! [`Rules`] are all chains of podnet's in one family, and from where the kernel's own chains lead there. [`Saved`] is what `iptables-save`
//! tells. [`difference`] of the two is a [`Rewrite`], whose text `iptables-restore --noflush` does. A chain that is not podnet's is read to
//! see what leads where, and is never written.
//!
//! A rule's text is in the very form that `iptables-save` prints, so that a chain that is right is seen to be right.

mod difference;
mod names;
mod rule;
mod saved;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    sync::Arc,
};

pub use difference::{difference, removal};
pub use names::{concerns, endpoint_chain, is_ours, port_chain};
pub(crate) use names::{nth_port_chain, port_text};
pub use rule::{Match, Rule, Side, Target, Transport};
pub use saved::{Saved, nat_is_of_kube_proxy};

/// A chain's name: at most 28 bytes (`XT_EXTENSION_MAXNAMELEN` less the terminator).
pub type ChainName = Arc<str>;

/// A table of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// What may pass.
    Filter,
    /// What is translated.
    Nat,
    /// How packets are marked.
    Mangle,
}

impl Table {
    /// All, in the order in which they are written.
    pub const ALL: [Self; 3] = [Self::Filter, Self::Nat, Self::Mangle];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Mangle => "mangle",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A chain in its table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainKey {
    /// The table.
    pub table: Table,
    /// The name.
    pub name: ChainName,
}

impl ChainKey {
    /// The chain `name` of the table.
    #[must_use]
    pub fn new(table: Table, name: impl Into<ChainName>) -> Self {
        Self { table, name: name.into() }
    }
}

impl fmt::Display for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {} of table {}", self.name, self.table)
    }
}

/// A rule that stands in one of the kernel's own chains and leads into one of podnet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `PREROUTING`, `INPUT`, `FORWARD`, `OUTPUT` or `POSTROUTING`.
    pub at: ChainKey,
    /// The rule, whose target is a jump.
    pub rule: Rule,
}

impl Hook {
    /// Whether a rule, in the words of `iptables-save`, leads from there to there too. Its conditions may be others.
    #[must_use]
    pub fn is_like(&self, at: &ChainKey, rule: &str) -> bool {
        self.at == *at && saved::leads_to(rule) == self.rule.leads_to().map(|chain| &**chain)
    }
}

/// All that podnet has in iptables, in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The chains.
    pub chains: BTreeMap<ChainKey, Vec<Rule>>,
    /// What leads into them; where one of the kernel's chains has several, in this order.
    pub hooks: Vec<Hook>,
}

/// What makes the rules that are there those that ought to be. All of a table is done, or nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Chains that are made or written anew.
    pub chains: BTreeMap<ChainKey, Vec<Rule>>,
    /// Chains that go.
    pub gone: BTreeSet<ChainKey>,
    /// Rules for the head of the kernel's own chains.
    pub hooks: Vec<Hook>,
    /// Rules of the kernel's own chains that go, in the words of `iptables-save`.
    pub unhooked: Vec<(ChainKey, String)>,
}

impl Rewrite {
    /// Nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What `iptables-restore --noflush` reads; nothing where there is nothing to do.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for table in Table::ALL {
            // Writing into a String cannot fail.
            let _ = self.table(table, &mut text);
        }
        text
    }

    fn table(&self, table: Table, text: &mut String) -> fmt::Result {
        let chains = || self.chains.iter().filter(|(key, _)| key.table == table);
        let gone = || self.gone.iter().filter(|key| key.table == table);
        let hooks = || self.hooks.iter().filter(|hook| hook.at.table == table);
        let unhooked = || self.unhooked.iter().filter(|(key, _)| key.table == table);
        if chains().next().is_none()
            && gone().next().is_none()
            && hooks().next().is_none()
            && unhooked().next().is_none()
        {
            return Ok(());
        }
        writeln!(text, "*{table}")?;
        // A chain that is named so is made where there is none, and emptied. One that goes has to be empty first.
        for key in chains().map(|(key, _)| key).chain(gone()) {
            writeln!(text, ":{} - [0:0]", key.name)?;
        }
        for (key, line) in unhooked() {
            writeln!(text, "-D {} {line}", key.name)?;
        }
        for hook in hooks().collect::<Vec<_>>().into_iter().rev() {
            writeln!(text, "-I {} 1 {}", hook.at.name, hook.rule)?;
        }
        for (key, rules) in chains() {
            for rule in rules {
                writeln!(text, "-A {} {rule}", key.name)?;
            }
        }
        for key in gone() {
            writeln!(text, "-X {}", key.name)?;
        }
        writeln!(text, "COMMIT")
    }
}

#[cfg(test)]
mod tests;
