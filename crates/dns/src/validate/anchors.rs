//! The keys that are trusted from the beginning (RFC 4033 §2, trust anchors).

use std::{collections::BTreeMap, io};

use super::{Digest, Key};
use crate::{
    authority::{
        kind,
        rdata::mnemonic,
        zonefile::{self, ZoneFileError},
    },
    corefile::Place,
    name::Name,
};

/// The root's: KSK-2017 and KSK-2024 (IANA, root-anchors.xml).
const ROOT: &str = "\
. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D
. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16
";

/// The keys that trust begins with, by zone. A zone without any is as trustworthy as its parent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchors(BTreeMap<Name, Vec<Digest>>);

/// Why a file has no trust anchors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnchors {
    /// It is no zone file.
    #[error(transparent)]
    File(#[from] ZoneFileError),
    /// It has a record of another type.
    #[error("{place}: found a record of type {found}, allowed: DS and DNSKEY")]
    Type {
        /// Where.
        place: Place,
        /// The type.
        found: String,
    },
    /// Nothing of what it has for a zone can be used.
    #[error(
        "no record of {zone} can be used, needed: a zone's key that is not revoked, with algorithm 8, 10, 13, 14 or 15, as DNSKEY, or \
         as DS with digest type 2 or 4"
    )]
    Unusable {
        /// The zone.
        zone: Name,
    },
    /// It has nothing.
    #[error("there is no record; needed: DS or DNSKEY records")]
    Empty,
}

impl Default for Anchors {
    /// The root's keys.
    fn default() -> Self {
        // The text is a constant, and a test reads it.
        Self::read("the root's keys", ROOT).unwrap_or_else(|_| Self(BTreeMap::new()))
    }
}

impl Anchors {
    /// Reads DS and DNSKEY records as a zone file has them, of any zones. `name` is what errors call it.
    ///
    /// # Errors
    /// When it has other records, or none that can be used for one of its zones.
    pub fn read(name: &str, text: &str) -> Result<Self, BadAnchors> {
        // It may leave times to live out.
        let text = format!("$TTL 3600\n{text}");
        let moved = |place: &Place| Place { line: place.line.saturating_sub(1), ..place.clone() };
        let none = |_: &str| Err(io::ErrorKind::Unsupported.into());
        let file = zonefile::parse(name, &text, &Name::root(), &none)
            .map_err(|error| ZoneFileError { place: moved(&error.place), ..error })?;
        let mut zones: BTreeMap<Name, Vec<Digest>> = BTreeMap::new();
        for (record, place) in file.records.iter().zip(&file.places) {
            let digest = match record.rtype {
                kind::DS => Digest::read(&record.rdata).filter(Digest::is_usable),
                kind::DNSKEY => Key::read(&record.rdata).map(|key| Digest::of(&record.owner, &key)),
                other => return Err(BadAnchors::Type { place: moved(place), found: mnemonic(other) }),
            };
            zones.entry(record.owner.clone()).or_default().extend(digest);
        }
        if zones.is_empty() {
            return Err(BadAnchors::Empty);
        }
        match zones.iter().find(|(_, digests)| digests.is_empty()) {
            Some((zone, _)) => Err(BadAnchors::Unusable { zone: zone.clone() }),
            None => Ok(Self(zones)),
        }
    }

    /// Takes others in: of a zone that both have, theirs count.
    pub(crate) fn take(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Those of a zone; none where its parent has to vouch for it.
    pub(crate) fn of(&self, zone: &Name) -> Option<&[Digest]> {
        self.0.get(zone).map(Vec::as_slice)
    }
}
