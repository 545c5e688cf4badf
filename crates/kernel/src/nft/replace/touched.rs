//! Elements that others touched, one by one: the kernel's notice names them, so they are asked for and mended, and nothing else is looked at.

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_core::NLM_F_ACK;
use podnet_model::Family;
use podnet_planner::ruleset::{FrontendKey, RuleSet};

use super::{
    super::{
        NftError, NftSocket,
        element::{self, Element, Key},
        transaction::{Message, Transaction, head, protocol_family},
    },
    wanted::{Wanted, WantedSet},
};
use crate::netlink::{
    Operation,
    attribute::{attribute, text},
};

/// Attributes 1 and 2 of every message about elements name the table and the set.
const TABLE: u16 = 1;
const SET: u16 = 2;

/// An element that somebody added, removed or changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touched {
    /// `NFPROTO_*`.
    family: u8,
    table: String,
    set: String,
    key: Key,
}

impl Touched {
    /// The elements of a notice; none where one of them is no single place: a part of a range, or one without a key.
    pub(crate) fn told(family: u8, attributes: &[u8]) -> Option<Vec<Self>> {
        let name = |kind| attribute(attributes, kind).map(text);
        let (table, set) = (name(TABLE)?, name(SET)?);
        let touched = |told: element::Told<'_>| {
            let key = told.place?.single()?;
            Some(Self { family, table: table.clone(), set: set.clone(), key })
        };
        element::listed(attributes).map(touched).collect()
    }

    /// Whether it is of this table.
    #[must_use]
    pub fn is_of(&self, family: Family, table: &str) -> bool {
        self.family == protocol_family(family) && self.table == table
    }

    /// The set or map that it is of.
    #[must_use]
    pub fn set(&self) -> &str {
        &self.set
    }

    /// The frontend that its key is, or begins with; none where it cannot be one.
    #[must_use]
    pub fn frontend(&self) -> Option<FrontendKey> {
        let family = Family::ALL.into_iter().find(|family| protocol_family(*family) == self.family)?;
        self.key.frontend(family)
    }
}

impl NftSocket {
    /// Makes elements of a table that others touched what `rules` have at their places, and nothing where they have nothing there; what
    /// `rules` do not have elsewhere does not matter. Answers how many were wrong.
    ///
    /// # Errors
    /// What the kernel refused, also where somebody else was at it meanwhile; the table is then as it was.
    pub fn mend_elements(
        &mut self,
        family: Family,
        table: &str,
        rules: &RuleSet,
        touched: &[Touched],
    ) -> Result<usize, NftError> {
        let wanted = Wanted::of(rules);
        let mut sets: BTreeMap<&str, BTreeSet<Key>> = BTreeMap::new();
        for one in touched.iter().filter(|one| one.is_of(family, table)) {
            sets.entry(&one.set).or_default().insert(one.key);
        }
        let (mut surplus, mut missing, mut wrong) = (Vec::new(), Vec::new(), 0);
        for (set, keys) in sets {
            let elements = wanted.sets.get(set).map(WantedSet::elements).unwrap_or_default();
            let right: BTreeMap<Key, Element<'_>> = elements
                .into_iter()
                .map(|element| (element.key, element))
                .filter(|(key, _)| keys.contains(key))
                .collect();
            for key in keys {
                let right = right.get(&key).copied();
                let (is_there, is_right) = self.compare(family, table, set, key, right)?;
                if is_right {
                    continue;
                }
                wrong += 1;
                surplus.extend(is_there.then_some((set, key)));
                missing.extend(right.map(|element| (set, element)));
            }
        }
        let mut transaction = Transaction::new(family, table);
        for (set, key) in surplus {
            element::remove_told(&mut transaction, set, &[key]);
        }
        for (set, element) in missing {
            element::add(&mut transaction, set, &[element], &format!("add an element to {set}"));
        }
        if wrong > 0 {
            self.commit(transaction)?;
        }
        Ok(wrong)
    }

    /// Whether there is an element at a place, and whether all is right there.
    fn compare(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        key: Key,
        right: Option<Element<'_>>,
    ) -> Result<(bool, bool), NftError> {
        let operation = Operation::new("ask for an element of", format_args!("{set} in table {table}"));
        let kind = Message::GetElements.kind();
        let answer = self.wire.get()?.ask(&operation, kind, NLM_F_ACK, |writer| {
            writer.raw(&head(protocol_family(family), 0));
            writer.text(TABLE, table);
            element::name_element(writer, set, key);
        });
        let frames = match answer {
            Err(error) if error.is_missing() => Vec::new(),
            answer => answer?,
        };
        let start = head(0, 0).len();
        let mut told = frames.iter().flat_map(|frame| element::listed(frame.payload.get(start..).unwrap_or_default()));
        let there = told.find(|told| told.place.and_then(|place| place.single()) == Some(key));
        let is_right = match (&there, right) {
            (None, None) => true,
            (Some(there), Some(right)) => right.maps_to(there.value),
            _ => false,
        };
        Ok((there.is_some(), is_right))
    }
}
