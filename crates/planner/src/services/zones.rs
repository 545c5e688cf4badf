//! Zones that endpoints are meant for.

use std::{borrow::Borrow, collections::HashSet, sync::Arc};

/// Lists of zones: few among however many endpoints, so each is kept once, as long as an endpoint has it.
#[derive(Debug, Default)]
pub(super) struct Zones {
    own: Option<Arc<str>>,
    lists: HashSet<ZoneList>,
    /// Where there are more, those that no endpoint has are let go.
    most: usize,
}

/// One of the lists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ZoneList(Arc<Vec<Arc<str>>>);

impl Borrow<[Arc<str>]> for ZoneList {
    fn borrow(&self) -> &[Arc<str>] {
        &self.0
    }
}

impl Zones {
    /// The list of these zones; none of none.
    pub(super) fn list(&mut self, zones: &[Arc<str>]) -> Option<ZoneList> {
        /// So many are kept in any case.
        const FEW: usize = 16;
        if zones.is_empty() {
            return None;
        }
        if let Some(known) = self.lists.get(zones) {
            return Some(known.clone());
        }
        if self.lists.len() >= self.most {
            self.lists.retain(|ZoneList(list)| Arc::strong_count(list) > 1);
            self.most = FEW.max(self.lists.len() * 2);
        }
        let list = ZoneList(Arc::new(zones.to_vec()));
        self.lists.insert(list.clone());
        Some(list)
    }

    /// Whether the list has this node's zone.
    pub(super) fn has_own(&self, list: Option<&ZoneList>) -> bool {
        list.zip(self.own.as_ref()).is_some_and(|(ZoneList(list), own)| list.contains(own))
    }

    /// The node is in that zone now; whether it was in another.
    pub(super) fn set_own(&mut self, zone: Option<&str>) -> bool {
        let changed = self.own.as_deref() != zone;
        self.own = zone.map(Into::into);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_kept_once_and_as_long_as_somebody_has_it() {
        let mut zones = Zones::default();
        zones.set_own(Some("b"));
        let kept = zones.list(&["a".into(), "b".into()]);
        let other = zones.list(&["a".into()]);
        for number in 0..1000 {
            let name = number.to_string();
            let list = zones.list(&[name.as_str().into()]);
            assert!(!zones.has_own(list.as_ref()));
        }
        assert!(zones.lists.len() <= 16, "{} lists", zones.lists.len());
        assert!(zones.has_own(kept.as_ref()) && !zones.has_own(other.as_ref()) && !zones.has_own(None));
        let again = zones.list(&["a".into(), "b".into()]);
        assert!(Arc::ptr_eq(&again.unwrap().0, &kept.unwrap().0));
        assert_eq!(zones.list(&[]), None);
    }
}
