//! What of a table is not as it has to be, without mending it.

use podnet_planner::ruleset::RuleSet;

use super::{Difference, Found, NftSocket, Wanted, is_right};
use crate::nft::{NftError, object::Kind};

impl NftSocket {
    /// What [`NftSocket::replace`] would mend, in words; nothing where the table is right. Rules within chains are not compared, nor is told
    /// what is there beside.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn differences(&mut self, table: &str, rules: &RuleSet) -> Result<Vec<String>, NftError> {
        let wanted = Wanted::of(rules);
        let Some(found) = Found::read(self.wire.get()?, rules.family, table)? else {
            return Ok(vec![format!("there is no table {table} that does anything")]);
        };
        let kept = wanted.kept(&found);
        let mut told = Vec::new();
        for name in rules.chains.keys() {
            match found.chains.get(&**name) {
                None => told.push(format!("chain {name} of table {table} is missing")),
                Some(hook) if !is_right(rules, name, hook) => {
                    told.push(format!("chain {name} of table {table} is at another hook"));
                }
                Some(_) => {}
            }
        }
        for (name, set) in &wanted.sets {
            if !kept.contains(name) {
                told.push(format!("{name} of table {table} is missing or of another type"));
                continue;
            }
            if set.kind == Kind::Memory {
                continue;
            }
            let count = Difference::find(self.wire.get()?, rules.family, table, name, set).count();
            if count > 0 {
                told.push(format!("{name} of table {table} has {count} wrong or missing elements"));
            }
        }
        Ok(told)
    }
}
