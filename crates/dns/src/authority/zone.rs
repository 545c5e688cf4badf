//! A zone: its names in canonical order, and a table that finds one at once.
//!
//! A zone never changes; a newer version is a new one. Empty non-terminals are nodes, so the name that exists closest above
//! another (RFC 4592 §3.3.1) is found by taking labels off. Each node knows the delegation or DNAME that it lies below.

mod build;
mod chain;
mod deny;
mod lookup;
pub(super) mod nsec;
mod nsec3;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt::Write as _;

pub use build::{Defect, Warning};
pub(crate) use chain::{Hash as Nsec3Hash, hash as nsec3_hash};
pub use lookup::{Found, Kind};

use super::{Record, order::Labels, record::kind};
use crate::{message::rtype, message::u32_at, name::Name};

/// A zone's data.
#[derive(Debug)]
pub struct Zone {
    origin: Name,
    soa: Soa,
    nodes: Vec<Node>,
    table: table::Table,
    denial: Denial,
    /// The NSEC3 sets, which are no names of the zone (RFC 5155 §7.2.8).
    hashed: Vec<(Name, RrSet)>,
    records: usize,
    bytes: usize,
}

/// The numbers of a zone's SOA record (RFC 1035 §3.3.13), times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Soa {
    /// The zone's version.
    pub serial: u32,
    /// How often secondaries look for a newer one.
    pub refresh: u32,
    /// How soon they try again.
    pub retry: u32,
    /// How long they serve without having reached the primary.
    pub expire: u32,
    /// How long it may be remembered that something does not exist.
    pub minimum: u32,
}

impl Soa {
    /// Reads the end of an SOA record's data.
    #[must_use]
    pub fn read(rdata: &[u8]) -> Option<Self> {
        let start = rdata.len().checked_sub(20)?;
        let number = |index: usize| u32_at(rdata, start + 4 * index);
        Some(Self {
            serial: number(0)?,
            refresh: number(1)?,
            retry: number(2)?,
            expire: number(3)?,
            minimum: number(4)?,
        })
    }
}

/// How the zone says that something does not exist.
#[derive(Debug)]
enum Denial {
    /// By its SOA record alone: it is not signed.
    Plain,
    /// By NSEC records, of which these nodes have one.
    Nsec(Vec<u32>),
    /// By NSEC3 records.
    Nsec3(chain::Chain),
}

/// What stands at one name.
#[derive(Debug)]
struct Node {
    name: Name,
    /// By type.
    sets: Box<[RrSet]>,
    cover: Cover,
}

/// What takes a name out of the zone's own data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cover {
    Nothing,
    /// The node with the NS records of a delegation, at or above the name.
    Cut(u32),
    /// A node with a DNAME record above the name.
    Redirect(u32),
}

/// Records of one name and type.
#[derive(Clone, Debug)]
struct RrSet {
    rtype: u16,
    ttl: u32,
    data: Packed,
    /// The RRSIG records that cover it.
    signatures: Packed,
}

/// Several records' data, each after its length, in canonical order.
#[derive(Clone, Debug, Default)]
struct Packed(Box<[u8]>);

impl Packed {
    fn new<'a>(items: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut bytes = Vec::new();
        for item in items {
            bytes.extend_from_slice(&(item.len() as u16).to_be_bytes());
            bytes.extend_from_slice(item);
        }
        Self(bytes.into())
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let size = usize::from(crate::message::u16_at(rest, 0)?);
            let item = rest.get(2..2 + size)?;
            rest = &rest[2 + size..];
            Some(item)
        })
    }

    fn first(&self) -> &[u8] {
        self.iter().next().unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Node {
    fn set(&self, rtype: u16) -> Option<&RrSet> {
        self.sets.iter().find(|set| set.rtype == rtype)
    }
}

impl Zone {
    /// The zone's name.
    #[must_use]
    pub fn origin(&self) -> &Name {
        &self.origin
    }

    /// The numbers of its SOA record.
    #[must_use]
    pub fn soa(&self) -> Soa {
        self.soa
    }

    /// How many records it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records
    }

    /// How many bytes its records have, without compression.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Never: a zone has an SOA record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether it is signed.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        !matches!(self.denial, Denial::Plain)
    }

    /// The SOA record.
    #[must_use]
    pub fn soa_record(&self) -> Record {
        let set = self.soa_set();
        Record { owner: self.origin.clone(), rtype: rtype::SOA, ttl: set.ttl, rdata: set.data.first().into() }
    }

    /// All records, the SOA first, in canonical order.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let rest = self.nodes.iter().flat_map(|node| {
            node.sets
                .iter()
                .flat_map(move |set| set.records(&node.name))
                .filter(move |record| record.rtype != rtype::SOA)
        });
        let hashed = self.hashed.iter().flat_map(|(owner, set)| set.records(owner));
        std::iter::once(self.soa_record()).chain(rest).chain(hashed)
    }

    /// The zone as a zone file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for record in self.records() {
            let _ = writeln!(text, "{record}");
        }
        text
    }

    /// The nodes that the zone itself speaks for: its own data, and the delegations, of which it only says that they are there.
    fn spoken_for(&self) -> impl Iterator<Item = (&Node, bool)> {
        self.nodes.iter().enumerate().filter_map(|(index, node)| match node.cover {
            Cover::Nothing => Some((node, false)),
            Cover::Cut(cut) => (cut as usize == index).then_some((node, true)),
            Cover::Redirect(_) => None,
        })
    }

    /// The sets that signatures belong to (RFC 4035 §2.2): owner, type, time to live, data.
    pub(super) fn sets_to_sign(&self) -> impl Iterator<Item = (&Name, u16, u32, Vec<&[u8]>)> {
        self.spoken_for().flat_map(|(node, cut)| {
            let signed = move |set: &&RrSet| !cut || matches!(set.rtype, kind::DS | kind::NSEC);
            node.sets.iter().filter(signed).map(move |set| (&node.name, set.rtype, set.ttl, set.data.iter().collect()))
        })
    }

    fn soa_set(&self) -> &RrSet {
        let set = self.nodes[0].set(rtype::SOA);
        set.unwrap_or_else(|| unreachable!("a zone is only made with an SOA record at its first node"))
    }

    /// The node of a name.
    fn node(&self, name: &[u8]) -> Option<usize> {
        self.table.find(name, |index| self.nodes[index].name.wire())
    }

    /// The node of a name, or of the name that exists closest above it. `name` lies in the zone.
    fn closest(&self, name: &[u8]) -> (usize, bool) {
        let labels = Labels::of(name);
        let mut count = labels.count();
        while count > self.origin.labels() {
            if let Some(node) = self.node(labels.last(count)) {
                return (node, count == labels.count());
            }
            count -= 1;
        }
        (0, count == labels.count())
    }
}

impl RrSet {
    fn records<'a>(&'a self, owner: &'a Name) -> impl Iterator<Item = Record> + 'a {
        let record =
            move |rtype, data: &[u8]| Record { owner: owner.clone(), rtype, ttl: self.ttl, rdata: data.into() };
        let own = self.data.iter().map(move |data| record(self.rtype, data));
        own.chain(self.signatures.iter().map(move |data| record(kind::RRSIG, data)))
    }
}
