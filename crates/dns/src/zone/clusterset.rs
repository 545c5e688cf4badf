//! The zones of `multicluster`: the Services that the clusters of a set share (KEP-1645, the Multi-Cluster Services API, and its DNS
//! specification 1.0.0).

use std::net::IpAddr;

use super::{
    Authority, Found, Origin, Zone,
    known::{Known, Record},
    lookup, reverse, servers,
    stand::Stand,
};
use crate::{
    message::rtype,
    name::{Name, QueryName},
};

/// The version of the schema that these zones follow (its specification §2.2).
pub const SET_SCHEMA_VERSION: &str = "1.0.0";

impl Zone {
    /// What a zone of the cluster set says; what is known of it comes behind what is known of the cluster, whose namespaces count there,
    /// too.
    pub(super) fn in_set<'a>(
        &'a self,
        (known, set): (&'a Known, &'a Known),
        origin: &'a Origin,
        name: &QueryName,
        below: usize,
        qtype: u16,
        authority: Authority<'a>,
    ) -> Found<'a> {
        let Some(parent) = below.checked_sub(1) else {
            return lookup::apex(origin, qtype, authority, || servers::inside(known));
        };
        let exists = match (name.label(parent), below) {
            (b"svc", 3..) => {
                let record = set.service(name.labels_between(below - 3, below - 1));
                let stand = record.and_then(|record| self.imported(known, record, &origin.tail));
                match stand.and_then(|stand| stand.at(name, below - 3, qtype)) {
                    None => false,
                    found => return lookup::stood(found, authority),
                }
            }
            (b"svc", 2) => {
                let namespace = name.label(0);
                (known.namespace(namespace) || set.namespace(namespace))
                    && lookup::exposed(known, namespace, &self.options)
            }
            (b"dns", 2) if name.label(0) == b"ns" => {
                return lookup::addresses(&servers::inside(known), qtype, authority);
            }
            (b"dns-version", 1) if qtype == rtype::TXT => return lookup::version(SET_SCHEMA_VERSION, authority),
            (b"svc" | b"dns" | b"dns-version", 1) => true,
            _ => false,
        };
        if exists {
            Found::NoData(authority)
        } else if set.complete {
            Found::NoName(authority)
        } else {
            Found::Unknown
        }
    }

    /// An imported Service in a zone of the cluster set; none where it is not shown there.
    pub(super) fn imported<'a>(&'a self, known: &Known, record: &'a Record, tail: &'a [u8]) -> Option<Stand<'a>> {
        let stand = Stand::imported(record, &self.options, tail)?;
        lookup::shows(known, record, &self.options).then_some(stand)
    }

    /// The names of an address, each with whether it is a Service's own: those in the cluster's own zone, or else in that of its set. An
    /// address has names in one of them only (the set's specification §2.3.3 and §2.4.3).
    pub(super) fn names_of_address(&self, known: &Known, addr: IpAddr) -> Vec<(bool, Name)> {
        let first = |in_set: bool| self.origins.iter().find(|origin| origin.in_set == in_set);
        let own =
            first(false).map(|origin| reverse::names(known, addr, |record| self.stand(known, record, &origin.tail)));
        let own = own.unwrap_or_default();
        match first(true) {
            Some(origin) if own.is_empty() => {
                let set = self.set.read();
                reverse::names(&set, addr, |record| self.imported(known, record, &origin.tail))
            }
            _ => own,
        }
    }

    /// How often what is known of the cluster set changed, where some zone shows it.
    pub(super) fn changes_of_set(&self) -> u32 {
        if self.has_set() { self.set.read().changes } else { 0 }
    }

    /// Whether some zone shows the cluster set.
    pub(super) fn has_set(&self) -> bool {
        self.origins.iter().any(|origin| origin.in_set)
    }
}
