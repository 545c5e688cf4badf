//! What is wrong in a set that stays: compared while the kernel tells of it, so that what is right takes no room.

use std::collections::BTreeSet;

use podnet_model::Family;

use super::{
    super::{
        NftError,
        element::{self, Element, Kept, Key, Told},
        listing,
        transaction::{Message, Transaction, protocol_family},
    },
    wanted::WantedSet,
};
use crate::netlink::{Connection, Operation, attribute::Writer};

/// What has to be done to a set that stays.
pub(super) enum Difference<'a> {
    /// All its elements go, and all are put there: those of ranges, which overlap where they are wrong; where there is one that has no key;
    /// and where they cannot be listed. Packets find the old ones, or the new ones.
    Anew,
    /// The other elements stay.
    Some {
        /// What goes.
        surplus: Vec<Key>,
        /// What comes, some of it in place of what goes.
        missing: Vec<Element<'a>>,
        /// In so many places.
        count: usize,
    },
}

impl<'a> Difference<'a> {
    /// Compares a set with the one of this name in the kernel.
    pub(super) fn find(
        connection: &mut Connection,
        family: Family,
        table: &str,
        name: &str,
        wanted: &WantedSet<'a>,
    ) -> Self {
        let elements = wanted.in_order();
        match list(connection, family, table, name, &elements) {
            Ok(listing) => Self::between(wanted, elements, listing),
            Err(_) => Self::Anew,
        }
    }

    /// Compares a set with what the kernel told of it.
    pub(super) fn with(wanted: &WantedSet<'a>, told: &[Kept]) -> Self {
        let elements = wanted.in_order();
        let mut listing = Listing { states: vec![State::Missing; elements.len()], ..Listing::default() };
        told.iter().for_each(|one| listing.take(&elements, &one.told()));
        Self::between(wanted, elements, listing)
    }

    fn between(wanted: &WantedSet<'a>, mut elements: Vec<Element<'a>>, listing: Listing) -> Self {
        let wrong = listing.states.iter().filter(|state| **state == State::Wrong).count();
        let mut states = listing.states.iter();
        elements.retain(|_| states.next() != Some(&State::Right));
        let count = listing.surplus.len() + elements.len() - wrong;
        if listing.is_strange || (wanted.kind.has_ranges() && count > 0) {
            return Self::Anew;
        }
        elements.shrink_to_fit();
        Self::Some { surplus: listing.surplus.into_iter().collect(), missing: elements, count }
    }

    /// In how many places something is wrong; all of a set that is filled anew is one.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Anew => 1,
            Self::Some { count, .. } => *count,
        }
    }

    /// Where something is that does not belong there, or something else does; of a set that is filled anew that is not known.
    pub(super) fn surplus(&self) -> &[Key] {
        match self {
            Self::Anew => &[],
            Self::Some { surplus, .. } => surplus,
        }
    }

    /// Removes what does not belong there.
    pub(super) fn remove(&self, transaction: &mut Transaction<'_>, set: &str) {
        match self {
            Self::Anew => element::clear(transaction, set),
            Self::Some { surplus, .. } => element::remove_told(transaction, set, surplus),
        }
    }

    /// Adds what is missing.
    pub(super) fn add(&self, transaction: &mut Transaction<'_>, set: &str, wanted: &WantedSet<'_>) {
        let what = format!("add elements to {set}");
        match self {
            Self::Anew => element::ensure(transaction, set, &wanted.elements(), &what),
            Self::Some { missing, .. } => element::ensure(transaction, set, missing, &what),
        }
    }
}

/// What was heard of a set.
#[derive(Default)]
struct Listing {
    /// Of each element that has to be there.
    states: Vec<State>,
    /// The kernel may tell of one twice.
    surplus: BTreeSet<Key>,
    /// There is an element without a key, or with one that cannot be in the set.
    is_strange: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Right,
    /// There is another value.
    Wrong,
}

impl Listing {
    /// `wanted` is in order.
    fn take(&mut self, wanted: &[Element<'_>], told: &Told<'_>) {
        let Some(place) = told.place else {
            self.is_strange = true;
            return;
        };
        let found = wanted.binary_search_by_key(&place, Element::place).ok();
        let state = match found {
            Some(index) if wanted[index].maps_to(told.value) => State::Right,
            _ => State::Wrong,
        };
        if let Some(entry) = found.and_then(|index| self.states.get_mut(index)) {
            *entry = state;
        }
        if state == State::Wrong {
            self.surplus.insert(place.key);
        }
    }
}

/// While the kernel moves a hash table to more room, which it does at its leisure after it grew, a listing may leave out elements, or tell of
/// some twice: each part of it is counted from the beginning. What is told is there; what is not told may be there, too.
/// Others may write meanwhile, of which the kernel says nothing either. What does not fit what is there by then is refused, and the table looked
/// at again.
fn list(
    connection: &mut Connection,
    family: Family,
    table: &str,
    set: &str,
    wanted: &[Element<'_>],
) -> Result<Listing, NftError> {
    let take = |listing: &mut Listing, told: &Told<'_>| {
        listing.states.resize(wanted.len(), State::Missing);
        listing.take(wanted, told);
    };
    let mut listing = elements(connection, family, table, set, take)?;
    listing.states.resize(wanted.len(), State::Missing);
    Ok(listing)
}

/// What `take` makes of the elements of a set.
pub(super) fn elements<T: Default>(
    connection: &mut Connection,
    family: Family,
    table: &str,
    set: &str,
    take: impl Fn(&mut T, &Told<'_>),
) -> Result<T, NftError> {
    /// Attribute 1 of every message of nf_tables names the table.
    const TABLE: u16 = 1;
    let operation = Operation::new("list the elements of", format_args!("{set} in table {table}"));
    let body = |writer: &mut Writer| {
        writer.text(TABLE, table);
        element::name_set(writer, set);
    };
    let take_all = |heard: &mut T, message: &[u8]| element::listed(message).for_each(|told| take(heard, &told));
    listing::gather(connection, protocol_family(family), Message::GetElements, &operation, body, take_all)
}
