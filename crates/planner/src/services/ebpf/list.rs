//! What stands in a frontend's list.

use podnet_model::Protocol;

use crate::{
    ruleset::{BackendAddress, FrontendKey},
    services::{Backend, Serving},
};

/// The first of the slots with backends of UDP that end, be it that they are counted as well, as they are where there are no others. There is
/// no hole among them. No list has as many backends.
pub const ENDING: u32 = 1 << 30;

/// How many slots a frontend has.
#[must_use]
pub fn slots(key: &FrontendKey, serving: &Serving) -> usize {
    List::of(key, serving).len()
}

#[derive(Default)]
pub(super) struct List<'a> {
    /// Those that are counted, by slot.
    backends: &'a [Backend],
    /// Those that end, sorted.
    ending: Vec<BackendAddress>,
}

impl<'a> List<'a> {
    pub(super) fn of(key: &FrontendKey, serving: &'a Serving) -> Self {
        let backends = serving.inside.slots();
        let mut ending = Vec::new();
        // Where it has no backends nobody is served.
        if key.protocol == Protocol::Udp && !backends.is_empty() {
            let counted = backends.iter().filter(|backend| backend.terminating);
            ending.extend(counted.chain(serving.ending(&serving.inside)).map(|backend| backend.at));
            ending.sort_unstable();
        }
        Self { backends, ending }
    }

    pub(super) fn len(&self) -> usize {
        self.backends.len() + self.ending.len()
    }

    /// Each slot's number, and who stands there.
    pub(super) fn slots(&self) -> impl Iterator<Item = (u32, BackendAddress)> {
        let backends = self.backends.iter().map(|backend| backend.at);
        (0..).zip(backends).chain((ENDING..).zip(self.ending.iter().copied()))
    }

    /// Which slots are to be filled otherwise where the list is to be `next`. Those that end come first: who ends from now on stands there before
    /// its former slot is another's.
    pub(super) fn to_fill(&self, next: &Self) -> Vec<(u32, BackendAddress)> {
        let shifted = shifted(&self.ending, &next.ending).into_iter();
        let mut fill: Vec<_> = shifted.map(|(place, at)| (ENDING + place as u32, at)).collect();
        let backends = next.backends.iter().map(|backend| backend.at).enumerate();
        let is_other = |place: usize, at| self.backends.get(place).map(|backend| backend.at) != Some(at);
        fill.extend(backends.filter(|(place, at)| is_other(*place, *at)).map(|(place, at)| (place as u32, at)));
        fill
    }

    /// Which slots are to be emptied where the list is to be `next`.
    pub(super) fn to_empty(&self, next: &Self) -> impl Iterator<Item = u32> {
        let more = |from: u32, next: usize, here: usize| (next..here).map(move |place| from + place as u32);
        more(0, next.backends.len(), self.backends.len()).chain(more(ENDING, next.ending.len(), self.ending.len()))
    }
}

/// Which places get another, in such an order that who stays stands in one of them at every moment. Both are sorted. So those who make room for
/// others move up, each into the place of one who has moved up before; and those who close up move down, each into the place of one who has
/// moved down before.
fn shifted(before: &[BackendAddress], after: &[BackendAddress]) -> Vec<(usize, BackendAddress)> {
    let mut shifted: Vec<_> = after.iter().enumerate().filter(|(place, at)| before.get(*place) != Some(*at)).collect();
    // To where the one moves who stood there.
    let moves_to = |place: usize| before.get(place).and_then(|at| after.binary_search(at).ok());
    shifted.sort_by_key(|(place, _)| match moves_to(*place) {
        None => (0, 0),
        Some(to) if to > *place => (1, usize::MAX - *place),
        Some(_) => (2, *place),
    });
    shifted.into_iter().map(|(place, at)| (place, *at)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn who_stays_has_a_place_at_every_moment() {
        // All sorted lists of five addresses.
        let all: Vec<Vec<BackendAddress>> = (0..32_u8)
            .map(|set| {
                let numbers = (0..5_u8).filter(|number| (set >> *number) & 1 == 1);
                numbers.map(|number| BackendAddress { addr: [10, 0, 0, number].into(), port: 53 }).collect()
            })
            .collect();
        for (before, after) in all.iter().flat_map(|before| all.iter().map(move |after| (before, after))) {
            let mut places: Vec<Option<BackendAddress>> = before.iter().copied().map(Some).collect();
            places.resize(before.len().max(after.len()), None);
            let stay: BTreeSet<_> = before.iter().filter(|at| after.contains(at)).collect();
            for (place, at) in shifted(before, after) {
                places[place] = Some(at);
                // Who looks for it goes on to the first hole.
                let found: BTreeSet<_> = places.iter().map_while(Option::as_ref).collect();
                assert!(stay.is_subset(&found), "{before:?} to {after:?}: {places:?}");
            }
            places.truncate(after.len());
            assert!(places.iter().flatten().eq(after), "{before:?} to {after:?}: {places:?}");
        }
    }
}
