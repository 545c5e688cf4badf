//! A table as a value: looked at where it is, and compared with a plan there or elsewhere.

use std::collections::BTreeMap;

use podnet_model::Family;
use podnet_planner::ruleset::RuleSet;
use serde::{Deserialize, Serialize};

use super::{
    super::{
        NftError, NftSocket,
        element::{self, Kept, Told},
        object::{Form, HookForm},
    },
    chains::{self, ListedRule},
    difference,
    found::Found,
    wanted::{Wanted, WantedSet},
};
use crate::netlink::Connection;

/// A table as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// With their hooks.
    pub(super) chains: BTreeMap<String, Option<HookForm>>,
    pub(super) sets: BTreeMap<String, ListedSet>,
    /// By their chains, in their order; none where there are too many to be told.
    pub(super) rules: Option<BTreeMap<String, Vec<ListedRule>>>,
}

/// A set or map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListedSet {
    pub(super) form: Form,
    pub(super) contents: Contents,
}

/// What is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Contents {
    Elements(Vec<Kept>),
    /// So many, for which there was no room.
    TooMany(usize),
    /// That is no part of any plan: rules put it there.
    Evaluated,
}

impl Listed {
    /// As the kernel tells of a table that was just made of these rules: for whoever compares without one.
    #[must_use]
    pub fn of(rules: &RuleSet) -> Self {
        let listed = |(name, set): (&&str, &WantedSet<'_>)| {
            let form = set.kind.form(rules.family);
            let contents = match form.is_evaluated() {
                true => Contents::Evaluated,
                false => Contents::Elements(element::as_told(&set.elements())),
            };
            ((*name).to_owned(), ListedSet { form, contents })
        };
        let chains = || rules.chains.iter().map(|(name, chain)| (name.to_string(), chain));
        Self {
            chains: chains().map(|(name, chain)| (name, chain.hook.map(HookForm::of))).collect(),
            sets: Wanted::of(rules).sets.iter().map(listed).collect(),
            rules: Some(chains().map(|(name, chain)| (name, chains::told(rules.family, chain))).collect()),
        }
    }
}

impl NftSocket {
    /// A table with its elements and rules, none where there is no such table, or one that does nothing. `room` is for so many elements, of this table and
    /// those after it; of a set that does not fit there is told how many it has.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn listed(&mut self, family: Family, table: &str, room: &mut usize) -> Result<Option<Listed>, NftError> {
        let connection = self.wire.get()?;
        let Some(Found { sets: found, chains }) = Found::read(connection, family, table)? else { return Ok(None) };
        let mut sets = BTreeMap::new();
        for (name, form) in found {
            let contents = match form.is_evaluated() {
                true => Contents::Evaluated,
                false => match contents(connection, family, (table, &name), room) {
                    // It went since it was found.
                    Err(error) if error.is_missing() => continue,
                    contents => contents?,
                },
            };
            sets.insert(name, ListedSet { form, contents });
        }
        let rules = chains::read(connection, family, table)?;
        Ok(Some(Listed { chains, sets, rules }))
    }
}

fn contents(
    connection: &mut Connection,
    family: Family,
    (table, set): (&str, &str),
    room: &mut usize,
) -> Result<Contents, NftError> {
    let most = *room;
    let take = |(count, kept): &mut (usize, Vec<Kept>), told: &Told<'_>| {
        *count += 1;
        if *count <= most {
            kept.push(Kept::of(told));
        }
    };
    let (count, kept) = difference::elements(connection, family, table, set, take)?;
    if count > most {
        return Ok(Contents::TooMany(count));
    }
    *room -= count;
    Ok(Contents::Elements(kept))
}
