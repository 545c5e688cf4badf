//! Catalog zones (RFC 9432): zones whose records list other zones, as their consumer reads them.
//!
//! A [`Catalog`] is one version of such a zone; a [`Roster`] knows which zone is a member of which catalog, and what a new version changes.

mod roster;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use roster::{Changes, LeftOut, Owner, Roster, Step};

use super::Zone;
use crate::{
    message::rtype,
    name::{Name, QueryName},
};

/// The most zones that catalogs may list, all catalogs of a server block together: each has a task and data of its own.
pub const MOST_MEMBERS: usize = 10_000;

/// How many bytes of records the zones that the catalogs of one `secondary` list may have together where it says nothing else
/// (`catalog_bytes`): as many as [`MOST_MEMBERS`] zones of 26 KiB. In memory small records take several times as much.
pub const MEMBERS_BYTES: usize = 256 << 20;

/// The only version that there is of the way in which catalogs are written: a TXT record's one string (RFC 9432 §4.3.1).
const VERSION: &[u8] = b"\x012";

/// What a catalog lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    members: BTreeMap<Name, Member>,
}

/// A zone that a catalog lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The label of its node, in lower case: with another one it is another zone of the same name (RFC 9432 §5.4).
    pub id: Box<[u8]>,
    /// The catalog that may take it over (`coo`, RFC 9432 §4.4.1).
    pub heir: Option<Name>,
}

/// Why a zone is no catalog. What was known before stays as it was (RFC 9432 §5.1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// The zone does not say, or not once, how it is written.
    #[error("it has {found} TXT records at version.{catalog}; needed: exactly one, \"2\"")]
    Versions {
        /// The catalog.
        catalog: Name,
        /// How many there are.
        found: usize,
    },
    /// It is written in another way.
    #[error("version.{catalog} is not \"2\", the one version that is known (RFC 9432)")]
    Version {
        /// The catalog.
        catalog: Name,
    },
    /// A node that stands for several zones, or names several heirs.
    #[error("{node} has several PTR records; allowed: one")]
    Several {
        /// The node.
        node: Name,
    },
    /// Two nodes that stand for one zone.
    #[error("{zone} is listed twice; allowed: once")]
    Twice {
        /// The zone.
        zone: Name,
    },
    /// A record whose data is no name.
    #[error("the PTR record of {node} holds no name")]
    NoName {
        /// Whose it is.
        node: Name,
    },
    /// It lists too much.
    #[error("it lists more zones than the {} that are allowed", MOST_MEMBERS)]
    TooMany,
}

impl Catalog {
    /// Reads what a zone lists. Properties that are not known, `group` among them, say nothing to this server (RFC 9432 §4.2).
    ///
    /// # Errors
    /// When the zone is no catalog, or a broken one.
    pub fn read(zone: &Zone) -> Result<Self, CatalogError> {
        let origin = zone.origin();
        let mut versions = Vec::new();
        let (mut zones, mut heirs) = (BTreeMap::new(), BTreeMap::new());
        for record in zone.records() {
            let owner = QueryName::from(&record.owner);
            let Some(depth) = owner.within(origin).filter(|depth| *depth > 0) else { continue };
            match (record.rtype, depth, owner.label(depth - 1)) {
                (rtype::TXT, 1, b"version") => versions.push(record.rdata),
                (rtype::PTR, 2, b"zones") => only(&mut zones, owner.label(0), &record.owner, &record.rdata)?,
                (rtype::PTR, 3, b"zones") if owner.label(0) == b"coo" => {
                    only(&mut heirs, owner.label(1), &record.owner, &record.rdata)?;
                }
                _ => {}
            }
        }
        match versions.as_slice() {
            [version] if **version == *VERSION => {}
            [_] => return Err(CatalogError::Version { catalog: origin.clone() }),
            found => return Err(CatalogError::Versions { catalog: origin.clone(), found: found.len() }),
        }
        if zones.len() > MOST_MEMBERS {
            return Err(CatalogError::TooMany);
        }
        let mut members = BTreeMap::new();
        for (id, zone) in zones {
            let heir = heirs.remove(&id);
            if members.contains_key(&zone) {
                return Err(CatalogError::Twice { zone });
            }
            members.insert(zone, Member { id, heir });
        }
        Ok(Self { members })
    }

    /// The zones that are listed.
    pub fn members(&self) -> impl Iterator<Item = (&Name, &Member)> {
        self.members.iter()
    }

    /// What is said of a zone.
    #[must_use]
    pub fn member(&self, zone: &Name) -> Option<&Member> {
        self.members.get(zone)
    }
}

/// Notes the one name that a node has.
fn only(names: &mut BTreeMap<Box<[u8]>, Name>, id: &[u8], node: &Name, rdata: &[u8]) -> Result<(), CatalogError> {
    let name = Name::from_wire(rdata).map_err(|_| CatalogError::NoName { node: node.clone() })?;
    match names.insert(id.into(), name) {
        None => Ok(()),
        Some(_) => Err(CatalogError::Several { node: node.clone() }),
    }
}
