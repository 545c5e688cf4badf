//! Zones that endpoints are meant for.

use std::sync::Arc;

/// Lists of zones: few among however many endpoints, so each is kept once.
#[derive(Debug, Default)]
pub(super) struct Zones {
    own: Option<Arc<str>>,
    lists: Vec<Box<[Arc<str>]>>,
}

/// The number of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ZoneList(u32);

impl Zones {
    /// The list of these zones; none of none.
    pub(super) fn list(&mut self, zones: &[Arc<str>]) -> Option<ZoneList> {
        if zones.is_empty() {
            return None;
        }
        let place = self.lists.iter().position(|list| **list == *zones).unwrap_or_else(|| {
            self.lists.push(zones.into());
            self.lists.len() - 1
        });
        u32::try_from(place).ok().map(ZoneList)
    }

    /// Whether the list has this node's zone.
    pub(super) fn has_own(&self, list: Option<ZoneList>) -> bool {
        let list = list.and_then(|ZoneList(place)| self.lists.get(usize::try_from(place).ok()?));
        list.zip(self.own.as_ref()).is_some_and(|(list, own)| list.contains(own))
    }

    /// The node is in that zone now; whether it was in another.
    pub(super) fn set_own(&mut self, zone: Option<&str>) -> bool {
        let changed = self.own.as_deref() != zone;
        self.own = zone.map(Into::into);
        changed
    }
}
