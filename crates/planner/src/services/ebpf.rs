//! Services as the programs at the sockets of this node have them: frontends with lists of backends.
//!
//! A frontend has a list of its own, whose first slots are its backends; those of UDP that end have slots of their own, from [`ENDING`] on: a
//! socket that speaks with one goes on, and none comes to it anew. [`Edits`] are done in order: slots are filled before a frontend
//! counts them and emptied after it does not any more, so that whoever connects meanwhile finds the old backends or the new ones. Whoever
//! speaks with a backend that ends finds it at every moment, also where its slot becomes another's.
//!
//! The programs serve what is connected from inside: [`Serving::inside`]. What they cannot judge is left to the rules, to which every
//! packet comes that they let through unchanged: who may come to a load balancer's address, SCTP, the ports that a ClusterIP has not, and
//! for a while frontends of [backends](Remembered) to which connections of another mode are remembered.

mod list;
mod numbers;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use podnet_model::Protocol;

pub use self::list::{ENDING, slots};
use self::{list::List, numbers::Numbers};
use super::{Backends, FrontendChange, Known, Services, Serving, lives::Life};
use crate::ruleset::{BackendAddress, FrontendKey};

/// A place in a list of backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// The list.
    pub list: u32,
    /// The number in it.
    pub number: u32,
}

/// What connecting to a frontend comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// One of so many backends: the first slots of the list.
    Backends(u32),
    /// It is refused at once: nobody serves it.
    Nobody,
    /// It fails at once: others serve it, but none that clients of this node may use.
    NobodyHere,
}

/// What a frontend is to the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The list of its backends; none other has the same.
    pub list: u32,
    /// What connecting to it comes to.
    pub serves: Serves,
    /// sessionAffinity: for how many seconds a client stays with its backend, and the group of frontends that it holds for.
    pub affinity: Option<Affinity>,
}

/// `sessionAffinity: ClientIP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Its timeout in seconds; not 0.
    pub seconds: u32,
    /// The frontends of one port of a Service are a group: clients stay with the same backend at all of them.
    pub group: u32,
}

/// A backend as it stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is.
    pub at: BackendAddress,
    /// The frontend's protocol.
    pub protocol: Protocol,
}

/// All that the programs know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The frontends.
    pub frontends: HashMap<FrontendKey, Entry>,
    /// The backends.
    pub backends: BTreeMap<Slot, Target>,
}

/// What is changed, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Slots to fill, or fill otherwise.
    pub fill: Vec<(Slot, Target)>,
    /// Frontends to make, or change.
    pub point: Vec<(FrontendKey, Entry)>,
    /// Frontends to forget.
    pub forget: Vec<FrontendKey>,
    /// Slots to empty.
    pub empty: Vec<Slot>,
}

impl Edits {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fill.len() + self.point.len() + self.forget.len() + self.empty.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Tables {
    /// What has to be done where these tables are wanted and those others are there.
    #[must_use]
    pub fn edits_from(&self, there: &Self) -> Edits {
        let mut fill = lacking(self.backends.iter(), |slot| there.backends.get(slot));
        // Those that end first, as they may stand where others are to.
        fill.sort_by_key(|(slot, _)| slot.number < ENDING);
        Edits {
            fill,
            point: lacking(self.frontends.iter(), |key| there.frontends.get(key)),
            forget: there.frontends.keys().filter(|key| !self.frontends.contains_key(key)).copied().collect(),
            empty: there.backends.keys().filter(|slot| !self.backends.contains_key(slot)).copied().collect(),
        }
    }
}

fn lacking<'a, K: Copy + 'a, V: Copy + PartialEq + 'a>(
    wanted: impl Iterator<Item = (&'a K, &'a V)>,
    there: impl Fn(&K) -> Option<&'a V>,
) -> Vec<(K, V)> {
    wanted.filter(|(key, value)| there(key) != Some(value)).map(|(key, value)| (*key, *value)).collect()
}

/// Backends to which virtual servers remember connections (see [`remembered`](super::ipvs::remembered)): whoever comes there by itself from a
/// port that one of these had hears from a stranger.
pub type Remembered = BTreeSet<(Protocol, BackendAddress)>;

/// Renders what is done for frontends, and remembers which list is whose. One value is for both families.
#[derive(Debug, Default)]
pub struct Ebpf {
    numbers: Numbers,
    backends: usize,
    /// What leads to one of these is left to the rules.
    remembered: Arc<Remembered>,
}

impl Ebpf {
    /// From now on frontends that lead to one of these are left to the rules. Where they are others than before, everything is to be put
    /// in force as a whole ([`Ebpf::desired`]) before edits are asked for.
    pub fn leave_to_rules(&mut self, remembered: Arc<Remembered>) {
        self.remembered = remembered;
    }

    /// The backends whose frontends are left to the rules.
    #[must_use]
    pub const fn left_to_rules(&self) -> &Arc<Remembered> {
        &self.remembered
    }

    /// How many frontends and backends there are by what was rendered so far.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (self.numbers.lists(), self.backends)
    }

    /// What changes, for frontends of which each is named once. It is to be done before the next edits are asked for.
    pub fn edits<'a>(&mut self, changes: impl IntoIterator<Item = &'a FrontendChange>) -> Edits {
        let mut edits = Edits::default();
        let mut over = Vec::new();
        for change in changes {
            let of = |serving: &'a Option<Arc<Serving>>| serving.as_deref().filter(|one| self.serves(&change.key, one));
            let (before, after) = (of(&change.before), of(&change.after));
            let former = before.map(|before| self.entry(&change.key, before));
            let list = |serving: Option<&'a Serving>| serving.map(|one| List::of(&change.key, one)).unwrap_or_default();
            let (list, next) = (list(before), list(after));
            match after {
                Some(after) => {
                    let entry = self.entry(&change.key, after);
                    let slot = |(number, at)| (Slot { list: entry.list, number }, target(&change.key, at));
                    edits.fill.extend(list.to_fill(&next).into_iter().map(slot));
                    if former != Some(entry) {
                        edits.point.push((change.key, entry));
                    }
                }
                None if former.is_some() => edits.forget.push(change.key),
                None => continue,
            }
            if let Some(former) = former {
                edits.empty.extend(list.to_empty(&next).map(|number| Slot { list: former.list, number }));
            }
            self.backends = self.backends + next.len() - list.len();
            over.push((change.key, before, after));
        }
        // What is free now may be another's with the next edits.
        over.into_iter().for_each(|(key, before, after)| self.numbers.leave(&key, before, after));
        edits
    }

    /// All that the programs have to know, where this is there: the numbers that stand there are kept. It is to be put in force as a whole
    /// before edits are asked for.
    pub fn desired<'a>(
        &mut self,
        servings: impl IntoIterator<Item = (&'a FrontendKey, &'a Serving)>,
        there: &Tables,
    ) -> Tables {
        let servings: Vec<_> = servings.into_iter().filter(|(key, serving)| self.serves(key, serving)).collect();
        self.numbers = Numbers::from(there, &servings);
        let mut tables = Tables::default();
        for (key, serving) in servings {
            let entry = self.entry(key, serving);
            let list = List::of(key, serving);
            let all = list.slots().map(|(number, at)| (Slot { list: entry.list, number }, target(key, at)));
            tables.backends.extend(all);
            tables.frontends.insert(*key, entry);
        }
        self.numbers.close_gaps();
        self.backends = tables.backends.len();
        tables
    }

    /// Whether the programs have it, and not the rules alone.
    fn serves(&self, key: &FrontendKey, serving: &Serving) -> bool {
        let is_remembered = |(_, at): (u32, BackendAddress)| self.remembered.contains(&(key.protocol, at));
        is_ours(key, serving) && (self.remembered.is_empty() || !List::of(key, serving).slots().any(is_remembered))
    }

    fn entry(&mut self, key: &FrontendKey, serving: &Serving) -> Entry {
        let serves = match &serving.inside {
            Backends::Of(slots) => Serves::Backends(u32::try_from(slots.len()).unwrap_or(u32::MAX)),
            Backends::Reject => Serves::Nobody,
            Backends::Drop => Serves::NobodyHere,
        };
        let affinity = serving
            .affinity
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Affinity { seconds, group: self.numbers.group(key, serving) });
        Entry { list: self.numbers.list(key), serves, affinity }
    }
}

/// What is known of a connection's other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The Service has it.
    Served,
    /// The Service has it no more, but it lives: what it goes on to say to its clients is its own matter.
    Left,
    /// Nobody is named, but neither is any other: a Service that was just made has no endpoints until its controller has written them.
    Unsure,
    /// Nobody is there any more.
    Lost,
}

impl Services {
    /// Whether a connection that was opened to a frontend's backend from inside has nobody at its other end any more. Of TCP: where no slice
    /// of the Service names the backend in whatever condition, so that one that ends may end in peace, and it does not live on outside of the
    /// Service either. Of UDP: where it answers no more (see [`Services::leads_astray`]) and there is another one.
    #[must_use]
    pub fn fate(&self, frontend: &FrontendKey, backend: BackendAddress) -> Fate {
        let serving = self.serving(frontend);
        let known = serving.and_then(|serving| Some((serving, self.services.get(&serving.service)?)));
        if frontend.protocol != Protocol::Udp {
            return self.fate_of_stream(known.map(|(_, known)| known), frontend.protocol, backend);
        }
        match known.map(|(serving, _)| serving) {
            Some(serving) if serving.answering().any(|one| one.at == backend) => Fate::Served,
            Some(serving) if !serving.inside.slots().is_empty() => Fate::Lost,
            _ => Fate::Unsure,
        }
    }

    /// `known` is none of a Service that is gone.
    fn fate_of_stream(&self, known: Option<&Known>, protocol: Protocol, backend: BackendAddress) -> Fate {
        if known.is_some_and(|known| known.names(protocol, backend)) {
            return Fate::Served;
        }
        match (self.life(backend.addr), known) {
            (Life::Lives, _) | (Life::Unknown, None) => Fate::Left,
            (Life::Unknown, Some(known)) if known.slices.is_empty() => Fate::Unsure,
            (Life::Over | Life::Unknown, _) => Fate::Lost,
        }
    }
}

fn target(key: &FrontendKey, at: BackendAddress) -> Target {
    Target { at, protocol: key.protocol }
}

/// What the programs can serve.
fn is_ours(key: &FrontendKey, serving: &Serving) -> bool {
    key.protocol != Protocol::Sctp && serving.sources.is_none()
}

#[cfg(test)]
mod tests;
