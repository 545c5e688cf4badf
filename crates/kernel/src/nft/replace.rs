//! A table as it has to be, whatever is there: what is right stays, and the rest is mended in one transaction.
//!
//! What stays is more than saved work. A packet on its way through rules that go finds their maps empty from the moment on that the new
//! ones count, and goes untranslated; with maps, chains and elements that stay it finds the same before and after.

mod chains;
mod compare;
mod difference;
mod entries;
mod found;
mod listed;
mod touched;
mod wanted;

use std::error::Error;

use podnet_planner::ruleset::{FrontendKey, RuleSet};

use super::{
    NftError, NftSocket, element,
    object::{self, Kind},
    transaction::{Message, Transaction},
};
use difference::Difference;
pub use entries::Fault;
use found::Found;
pub use listed::Listed;
pub use touched::Touched;
use wanted::Wanted;

/// What was not as it had to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// There was no table, or one that cannot be mended: it was made as a whole.
    pub whole: bool,
    /// So many chains, sets and maps were missing, had another form, or do not belong there.
    pub objects: usize,
    /// So many elements of sets and maps that are there were missing, had another value, or do not belong there; a set that is filled anew
    /// counts as one.
    pub elements: usize,
}

/// What of a table is looked at.
#[derive(Clone, Copy)]
enum Look {
    Elements,
    /// All sets are filled anew, whatever is in them.
    Names,
}

impl NftSocket {
    /// Makes the table of the rules' family hold exactly `rules`, whatever was in it. Rules are written anew; of all else what is right is
    /// not touched. What memories hold stays: clients come to the backends that they had.
    ///
    /// # Errors
    /// Which part the kernel refused; the table is then as it was.
    pub fn replace(&mut self, table: &str, rules: &RuleSet) -> Result<Mended, NftError> {
        let wanted = Wanted::of(rules);
        self.surplus = Vec::new();
        let mut refused = None;
        // A table that changes between the look and the transaction is looked at again.
        for look in [Look::Elements, Look::Elements, Look::Names, Look::Names] {
            let Some(found) = Found::read(self.wire.get()?, rules.family, table)? else {
                refused = None;
                break;
            };
            match self.mend(table, rules, &wanted, &found, look) {
                Ok(mended) => return Ok(mended),
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            tracing::warn!(
                table, family = ?rules.family, %error, cause = ?error.source(),
                "a table cannot be mended and is made anew: clients may come to other backends than before"
            );
        }
        let mut transaction = Transaction::new(rules.family, table);
        transaction.make_table();
        transaction.remove_table();
        transaction.make_table();
        object::render(&mut transaction, rules);
        self.commit(transaction)?;
        Ok(Mended { whole: true, ..Mended::default() })
    }

    /// The frontends to which the last [`NftSocket::replace`] found a verdict that had no place in its map, or was another one; none the next
    /// time.
    pub fn take_surplus(&mut self) -> Vec<FrontendKey> {
        std::mem::take(&mut self.surplus)
    }

    fn mend(
        &mut self,
        table: &str,
        rules: &RuleSet,
        wanted: &Wanted<'_>,
        found: &Found,
        look: Look,
    ) -> Result<Mended, NftError> {
        let mut mended = Mended::default();
        let kept = wanted.kept(found);
        let mut differences = Vec::new();
        let is_evaluated = |kind: Kind| kind.form(rules.family).is_evaluated();
        let compared = wanted.sets.iter().filter(|(name, set)| kept.contains(*name) && !is_evaluated(set.kind));
        for (name, set) in compared {
            let difference = match look {
                Look::Elements => Difference::find(self.wire.get()?, rules.family, table, name, set),
                Look::Names => Difference::Anew,
            };
            mended.elements += difference.count();
            differences.push((name, set, difference));
        }
        let mut transaction = Transaction::new(rules.family, table);
        transaction.message(Message::DelRule, 0, "remove all rules".into(), |_| {});
        for name in found.sets.keys().filter(|name| !kept.contains(name.as_str())) {
            object::remove_set(&mut transaction, name);
            mended.objects += 1;
        }
        for (name, _, difference) in &differences {
            difference.remove(&mut transaction, name);
        }
        for (name, _) in found.chains.iter().filter(|(name, hook)| !is_right(rules, name, hook)) {
            object::remove_chain(&mut transaction, name);
            mended.objects += 1;
        }
        for (name, chain) in &rules.chains {
            if found.chains.get(&**name).is_none_or(|hook| !is_right(rules, name, hook)) {
                object::make_chain(&mut transaction, name, chain.hook);
                mended.objects += usize::from(!found.chains.contains_key(&**name));
            }
        }
        for (name, set) in wanted.sets.iter().filter(|(name, _)| !kept.contains(*name)) {
            object::make_set(&mut transaction, rules.family, name, set.kind);
            element::add(&mut transaction, name, &set.elements(), &format!("add elements to {name}"));
            mended.objects += usize::from(!found.sets.contains_key(*name));
        }
        for (name, set, difference) in &differences {
            difference.add(&mut transaction, name, set);
        }
        for (name, chain) in &rules.chains {
            object::add_rules(&mut transaction, rules.family, name, chain);
        }
        let verdicts = differences.iter().filter(|(_, set, _)| set.kind == Kind::VerdictMap);
        let surplus = verdicts.flat_map(|(.., difference)| difference.surplus());
        let surplus = surplus.filter_map(|key| key.frontend(rules.family)).collect();
        self.commit(transaction)?;
        self.surplus = surplus;
        Ok(mended)
    }
}

/// A chain that has the hook, or none, that it has to have.
fn is_right(rules: &RuleSet, name: &str, hook: &Option<object::HookForm>) -> bool {
    rules.chains.get(name).is_some_and(|chain| chain.hook.map(object::HookForm::of) == *hook)
}
