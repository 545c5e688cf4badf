//! What can be done with the elements of a set, whatever its kind.

use std::collections::BTreeSet;

use super::Set;

impl Set {
    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Addresses(elements) => elements.is_empty(),
            Self::Ranges(elements) => elements.is_empty(),
            Self::Pairs(elements) => elements.is_empty(),
            Self::Devices(elements) => elements.is_empty(),
        }
    }

    /// The kind in words.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Addresses(_) => "set of addresses",
            Self::Ranges(_) => "set of ranges",
            Self::Pairs(_) => "set of address pairs",
            Self::Devices(_) => "set of devices",
        }
    }

    /// The elements that `other`, of the same kind, has not; none where there are no such.
    pub(crate) fn minus(&self, other: &Self) -> Option<Self> {
        let rest = match (self, other) {
            (Self::Addresses(here), Self::Addresses(there)) => Self::Addresses(here - there),
            (Self::Ranges(here), Self::Ranges(there)) => Self::Ranges(here - there),
            (Self::Pairs(here), Self::Pairs(there)) => Self::Pairs(here - there),
            (Self::Devices(here), Self::Devices(there)) => Self::Devices(here - there),
            _ => self.clone(),
        };
        (!rest.is_empty()).then_some(rest)
    }

    /// Takes in the elements of a set of the same kind; one of another kind changes nothing.
    pub(crate) fn extend(&mut self, more: &Self) {
        match (self, more) {
            (Self::Addresses(here), Self::Addresses(more)) => here.extend(more),
            (Self::Ranges(here), Self::Ranges(more)) => here.extend(more),
            (Self::Pairs(here), Self::Pairs(more)) => here.extend(more),
            (Self::Devices(here), Self::Devices(more)) => here.extend(more.iter().cloned()),
            _ => {}
        }
    }

    /// Gives up the elements of a set of the same kind; one of another kind changes nothing.
    pub(super) fn reduce(&mut self, fewer: &Self) {
        match (self, fewer) {
            (Self::Addresses(here), Self::Addresses(fewer)) => remove_all(here, fewer),
            (Self::Ranges(here), Self::Ranges(fewer)) => remove_all(here, fewer),
            (Self::Pairs(here), Self::Pairs(fewer)) => remove_all(here, fewer),
            (Self::Devices(here), Self::Devices(fewer)) => remove_all(here, fewer),
            _ => {}
        }
    }
}

/// Costs as much as what is removed, however much there is.
fn remove_all<T: Ord>(here: &mut BTreeSet<T>, fewer: &BTreeSet<T>) {
    for element in fewer {
        here.remove(element);
    }
}
