//! A zone that is served, version after version.

use std::sync::{Arc, PoisonError, RwLock};

use super::{
    Zone,
    transfer::{Difference, Journal, newer},
};
use crate::name::Name;

/// A small zone's changes are kept up to this many records, a large one's up to its own size: beyond that, the whole zone is no
/// more to send.
const LEAST_JOURNAL: usize = 1000;

/// A version of a zone, and what led to it.
#[derive(Clone, Debug)]
pub struct Version {
    /// The zone.
    pub zone: Arc<Zone>,
    /// The changes that led to it, for those who have an earlier version.
    pub journal: Arc<Journal>,
}

impl Version {
    /// A zone of which no earlier version is remembered.
    #[must_use]
    pub fn alone(zone: Zone) -> Self {
        Self { zone: Arc::new(zone), journal: Arc::new(Journal::new(0)) }
    }
}

/// A zone that is served: the version that is in force, if there is one.
#[derive(Debug)]
pub struct Held {
    origin: Name,
    version: RwLock<Option<Version>>,
}

/// What became of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is what was there before.
    Same,
    /// It is newer, or the first: secondaries have to be told.
    Newer,
    /// It differs, but its serial number is not higher, so that secondaries do not see that.
    Unseen,
}

impl Version {
    /// How many bytes of records it has: the zone's, and those that changed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.zone.bytes() + self.journal.bytes()
    }
}

impl Held {
    /// A zone with its first version.
    #[must_use]
    pub fn new(origin: Name, zone: Option<Arc<Zone>>) -> Self {
        let version = zone.map(|zone| Version { journal: Arc::new(journal(&zone)), zone });
        Self { origin, version: RwLock::new(version) }
    }

    /// The zone's name.
    #[must_use]
    pub fn origin(&self) -> &Name {
        &self.origin
    }

    /// The version in force.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The zone in force.
    #[must_use]
    pub fn zone(&self) -> Option<Arc<Zone>> {
        let version = self.version.read().unwrap_or_else(PoisonError::into_inner);
        version.as_ref().map(|version| Arc::clone(&version.zone))
    }

    /// Puts another version into force. One task alone does this.
    pub fn replace(&self, zone: Arc<Zone>) -> Taken {
        let (version, taken) = follow(self.version(), zone);
        self.set(Some(version));
        taken
    }

    /// No version is in force any more.
    pub fn clear(&self) {
        self.set(None);
    }

    /// Forgets the changes that led to the version in force: who has an earlier one gets the whole zone.
    pub fn forget_changes(&self) {
        let forgotten = self.zone().map(|zone| Version { journal: Arc::new(journal(&zone)), zone });
        self.set(forgotten);
    }

    /// Goes on where another left off: the version here follows the one there; where there is none here, it is the one there.
    pub fn inherit(&self, before: &Self) -> Taken {
        let Some(old) = before.version() else { return Taken::Newer };
        let (version, taken) = match self.version() {
            Some(own) => follow(Some(old), own.zone),
            None => (old, Taken::Same),
        };
        self.set(Some(version));
        taken
    }

    fn set(&self, version: Option<Version>) {
        *self.version.write().unwrap_or_else(PoisonError::into_inner) = version;
    }
}

fn journal(zone: &Zone) -> Journal {
    Journal::new(zone.len().max(LEAST_JOURNAL))
}

/// The version that follows `old`, with the way to it where secondaries can go it.
fn follow(old: Option<Version>, zone: Arc<Zone>) -> (Version, Taken) {
    let anew = |zone: Arc<Zone>, taken| (Version { journal: Arc::new(journal(&zone)), zone }, taken);
    let Some(old) = old else { return anew(zone, Taken::Newer) };
    if old.zone.records().eq(zone.records()) {
        return (Version { zone, journal: old.journal }, Taken::Same);
    }
    if !newer(zone.soa().serial, old.zone.soa().serial) {
        return anew(zone, Taken::Unseen);
    }
    let mut journal = Journal::clone(&old.journal);
    journal.push(Difference::between(&old.zone, &zone));
    (Version { zone, journal: Arc::new(journal) }, Taken::Newer)
}
