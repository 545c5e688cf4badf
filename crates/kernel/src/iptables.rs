//! Rules of iptables, by the one program that all of its variants and versions understand: `iptables-restore`.
//!
//! This is the one place where podnet runs a command. What netlink and `setsockopt` would need is different for the two variants, for
//! each extension of iptables, and not stable.
//!
//! - Only chains that are named in a [`Rewrite`] are written (`--noflush`); a table's part of it is done as a whole or not at all.
//! - Others who write wait for us and we for them (`-w`), as far as they use the same lock; the kernel takes a table of the legacy variant
//!   only from who has seen its last state.
//! - [`Iptables::put`] reads what is there first, and does no more than what is needed: nothing, where nothing is.

mod command;
mod fingerprint;
mod first_rule;
mod variant;

use std::{
    collections::{BTreeSet, HashMap, VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use podnet_model::Family;
use podnet_planner::iptables::{ChainKey, Rewrite, Rules, Saved, difference, removal};

pub use command::IptablesError;
use command::{Program, run, run_as};
pub use fingerprint::Fingerprint;
pub use first_rule::FirstRule;
pub use variant::Variant;

use crate::{monitor::Transaction, netns::NetNs, nft};

/// How long `iptables-restore` waits for the lock, in seconds.
const LOCK_WAIT: &str = "5";
/// As many processes are remembered: what they did is told within a moment, and numbers of processes come again.
const WRITERS: usize = 8;

/// One that wrote.
#[derive(Debug)]
struct Writer {
    process: u32,
    /// The numbers between which nobody else wrote.
    generations: Option<(u32, u32)>,
}

/// The rules of one family in a namespace.
#[derive(Debug)]
pub struct Iptables {
    netns: NetNs,
    family: Family,
    variant: Variant,
    restore: Program,
    save: Program,
    /// The processes that wrote last, and what the numbers of nf_tables' rules were before and after.
    writers: VecDeque<Writer>,
    /// Chains, and rules of the kernel's own chains, that are right although they are told in other words than ours: their words' digests.
    known: HashMap<ChainKey, BTreeSet<u64>>,
}

impl Iptables {
    /// Those of the variant. Nothing is changed or asked yet.
    ///
    /// # Errors
    /// Where the programs are not there.
    pub fn new(netns: NetNs, family: Family, variant: Variant) -> Result<Self, IptablesError> {
        let restore = variant.program(family, "restore")?;
        let save = variant.program(family, "save")?;
        Ok(Self { netns, family, variant, restore, save, writers: VecDeque::new(), known: HashMap::new() })
    }

    /// Which variant it is.
    #[must_use]
    pub const fn variant(&self) -> Variant {
        self.variant
    }

    /// The first rule of a chain that is none of the kernel's own, to ask what it has counted. Nothing is asked yet.
    #[must_use]
    pub fn first_rule(&self, chain: ChainKey) -> FirstRule {
        FirstRule { netns: self.netns.clone(), family: self.family, variant: self.variant, chain }
    }

    /// What is there, everybody's.
    ///
    /// # Errors
    /// Where `iptables-save` fails.
    pub fn saved(&self) -> Result<Saved, IptablesError> {
        run(&self.netns, &self.save, &[], "").map(|text| Saved::parse(&text))
    }

    /// Does a rewrite. The filter table is written before the nat table.
    ///
    /// # Errors
    /// The line that was refused. Its table, and the one after it, are as they were.
    pub fn rewrite(&mut self, rewrite: &Rewrite) -> Result<(), IptablesError> {
        let text = rewrite.text();
        if text.is_empty() {
            return Ok(());
        }
        for key in rewrite.chains.keys().chain(&rewrite.gone) {
            self.known.remove(key);
        }
        let arguments = ["-w", LOCK_WAIT, "--noflush", "--counters"];
        let before = self.generation();
        let (process, done) = run_as(&self.netns, &self.restore, &arguments, &text)?;
        // Each table is a transaction.
        let tables = u32::try_from(text.lines().filter(|line| *line == "COMMIT").count()).ok();
        let only_ours = |(before, after): &(u32, u32)| Some(after.wrapping_sub(*before)) == tables;
        let generations = before.zip(self.generation()).filter(only_ours);
        self.writers.truncate(WRITERS - 1);
        self.writers.push_front(Writer { process, generations });
        done.map(drop)
    }

    /// None where nothing depends on it, or where it is not known.
    fn generation(&self) -> Option<u32> {
        let asked = (self.variant == Variant::Nft).then(|| self.netns.run(nft::generation))?;
        asked.ok()?.ok()?
    }

    /// Whether a change of which the kernel tells is of this value's making. In another process namespace than the machine's it is not
    /// recognised where somebody else changed anything of nf_tables meanwhile.
    #[must_use]
    pub fn is_own(&self, transaction: &Transaction) -> bool {
        let (author, number) = (transaction.author.as_ref(), transaction.generation);
        self.writers.iter().any(|writer| {
            let is_within =
                |(before, after): (u32, u32)| number.is_some_and(|number| before < number && number <= after);
            author.is_some_and(|author| author.pid == writer.process) || writer.generations.is_some_and(is_within)
        })
    }

    /// Makes what is there what is wanted, and tells what was done for it. Other people's chains are not touched.
    ///
    /// # Errors
    /// Where it cannot be asked, or the line that was refused.
    pub fn put(&mut self, wanted: &Rules) -> Result<Rewrite, IptablesError> {
        let found = self.saved()?;
        self.put_over(wanted, &found)
    }

    /// As [`Iptables::put`], over what was [found](Iptables::saved) a moment ago.
    ///
    /// # Errors
    /// As [`Iptables::put`].
    pub fn put_over(&mut self, wanted: &Rules, found: &Saved) -> Result<Rewrite, IptablesError> {
        let missing = self.difference(wanted, found);
        if missing.is_empty() {
            return Ok(missing);
        }
        self.rewrite(&missing)?;
        // What is still not told in our words is right all the same: it was written a moment ago.
        let saved = self.saved()?;
        let other_words = self.difference(wanted, &saved);
        for key in other_words.chains.into_keys().filter(|key| missing.chains.contains_key(key)) {
            if let Some(words) = saved.chains.get(&key) {
                self.know(key, words);
            }
        }
        for hook in other_words.hooks.iter().filter(|hook| missing.hooks.contains(hook)) {
            if let Some((at, words)) = other_words.unhooked.iter().find(|(at, words)| hook.is_like(at, words)) {
                self.know(at.clone(), std::slice::from_ref(words));
            }
        }
        Ok(missing)
    }

    fn know(&mut self, key: ChainKey, words: &[String]) {
        self.known.entry(key).or_default().insert(digest(words));
    }

    /// Takes away all of podnet's chains and what leads there, and nothing else; nothing where the chains are kube-proxy's.
    ///
    /// # Errors
    /// Where it cannot be asked, or the line that was refused.
    pub fn remove(&mut self) -> Result<(), IptablesError> {
        self.remove_where(Saved::is_of_podnet)
    }

    /// As [`Iptables::remove`], for the chains of the mode `ipvs`; nothing where they are those of another mode.
    ///
    /// # Errors
    /// As [`Iptables::remove`].
    pub fn remove_ipvs(&mut self) -> Result<(), IptablesError> {
        self.remove_where(Saved::is_of_podnet_in_ipvs)
    }

    fn remove_where(&mut self, are_there: fn(&Saved) -> bool) -> Result<(), IptablesError> {
        if !self.variant.may_have_rules(&self.netns)? {
            return Ok(());
        }
        let saved = self.saved()?;
        if !are_there(&saved) {
            return Ok(());
        }
        self.rewrite(&removal(&saved))
    }

    /// What the tables look like from afar, at next to no cost; none where that cannot be told. Tables of the legacy variant tell nobody
    /// when they are changed: two fingerprints that differ do. Those of nf_tables are heard of by a [`Monitor`](crate::monitor::Monitor).
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn fingerprint(&self) -> Result<Option<Fingerprint>, IptablesError> {
        match self.variant {
            Variant::Nft => Ok(None),
            Variant::Legacy => Ok(self.netns.run(|| Fingerprint::take(self.family))??),
        }
    }

    fn difference(&self, wanted: &Rules, saved: &Saved) -> Rewrite {
        difference(wanted, saved, |key, words| self.known.get(key).is_some_and(|known| known.contains(&digest(words))))
    }
}

fn digest(words: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    words.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
