//! A whole table in the place of what is there, but for what the kernel remembers by its rules.

use std::collections::BTreeSet;

use podnet_model::Family;
use podnet_planner::ruleset::RuleSet;

use super::{
    NftError, NftSocket, listing,
    object::{self, Kind},
    transaction::{Message, Transaction, protocol_family},
};
use crate::netlink::{
    Operation,
    attribute::{attribute, text},
};

impl NftSocket {
    /// Makes the table of the rules' family hold exactly `rules`, whatever was in it. What its memories hold stays: clients come to the
    /// backends that they had.
    ///
    /// # Errors
    /// Which part the kernel refused; the table is then as it was.
    pub fn replace(&mut self, table: &str, rules: &RuleSet) -> Result<(), NftError> {
        // A table that changes meanwhile, or has things that do not go one by one, goes as a whole.
        if !rules.memories.is_empty() && self.replace_around(table, rules).is_ok_and(|replaced| replaced) {
            return Ok(());
        }
        let mut transaction = Transaction::new(rules.family, table);
        transaction.make_table();
        transaction.remove_table();
        transaction.make_table();
        object::render(&mut transaction, rules, &BTreeSet::new());
        transaction.commit(&mut self.connection)
    }

    /// Replaces all but the memories; whether there is any to replace around.
    fn replace_around(&mut self, table: &str, rules: &RuleSet) -> Result<bool, NftError> {
        let sets = self.sets(rules.family, table)?;
        let is_kept = |set: &Found| set.is_memory && rules.memories.iter().any(|memory| **memory == *set.name);
        let kept: BTreeSet<&str> = sets.iter().filter(|set| is_kept(set)).map(|set| set.name.as_str()).collect();
        if kept.is_empty() {
            return Ok(false);
        }
        let mut transaction = Transaction::new(rules.family, table);
        transaction.message(Message::DelRule, 0, "remove all rules".into(), |_| {});
        for set in sets.iter().filter(|set| !kept.contains(set.name.as_str())) {
            object::remove_set(&mut transaction, &set.name);
        }
        for chain in self.chains(rules.family, table)? {
            object::remove_chain(&mut transaction, &chain);
        }
        object::render(&mut transaction, rules, &kept);
        transaction.commit(&mut self.connection)?;
        Ok(true)
    }

    fn sets(&mut self, family: Family, table: &str) -> Result<Vec<Found>, NftError> {
        // enum nft_set_attributes
        const NAME: u16 = 2;
        const FLAGS: u16 = 3;
        const KEY_LENGTH: u16 = 5;
        const DATA_LENGTH: u16 = 7;
        let operation = Operation::new("list the sets of", format_args!("table {table}"));
        let messages =
            listing::dump(&mut self.connection, protocol_family(family), Message::GetSet, &operation, |writer| {
                writer.text(TABLE, table);
            })?;
        let number = |message: &[u8], kind| Some(u32::from_be_bytes(attribute(message, kind)?.try_into().ok()?));
        let memory = Kind::Memory.shape(family);
        let found = |message: &Vec<u8>| {
            // What is zero is not told.
            let shape = [FLAGS, KEY_LENGTH, DATA_LENGTH].map(|kind| number(message, kind).unwrap_or(0));
            Some(Found { name: text(attribute(message, NAME)?), is_memory: shape == memory })
        };
        Ok(messages.iter().filter(|message| is_of(message, table)).filter_map(found).collect())
    }

    fn chains(&mut self, family: Family, table: &str) -> Result<Vec<String>, NftError> {
        const NAME: u16 = 3;
        let operation = Operation::new("list", "chains");
        let messages =
            listing::dump(&mut self.connection, protocol_family(family), Message::GetChain, &operation, |_| {})?;
        let own = messages.iter().filter(|message| is_of(message, table));
        Ok(own.filter_map(|message| attribute(message, NAME)).map(text).collect())
    }
}

/// Attribute 1 of every message of nf_tables names the table.
const TABLE: u16 = 1;

fn is_of(message: &[u8], table: &str) -> bool {
    attribute(message, TABLE).is_some_and(|name| text(name) == table)
}

/// A set or map that is there.
struct Found {
    name: String,
    /// It is a memory as it is made here.
    is_memory: bool,
}
