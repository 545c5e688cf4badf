//! The zones of `k8s_external`: names for the addresses at which Services are reached from outside of the cluster.

use std::collections::BTreeSet;

use super::{
    Authority, Cluster, Found, Names, Origin, Reader,
    known::{Known, Record},
    lookup, reverse, servers, soa,
    stand::Stand,
    whole,
};
use crate::{
    authority,
    chain::{ExternalOptions, Fallthrough, KubernetesOptions, is_reverse},
    name::{Name, QueryName, reverse_name},
};

/// What one `k8s_external` plugin serves.
#[derive(Debug)]
pub struct External {
    options: ExternalOptions,
    /// Those of the plugin beside it, which say what is shown of the cluster.
    kubernetes: KubernetesOptions,
    cluster: Reader,
    origins: Vec<Origin>,
    reverse_origins: Vec<Origin>,
    serial: u32,
}

impl External {
    /// The zones for a cluster of which `kubernetes` says what is shown; `serial` starts their serial numbers.
    #[must_use]
    pub fn new(options: ExternalOptions, kubernetes: KubernetesOptions, cluster: &Cluster, serial: u32) -> Self {
        let (reverse, forward): (Vec<Name>, Vec<Name>) = options.zones.iter().cloned().partition(is_reverse);
        // The name server of reverse zones has its address in the first zone.
        let first = forward.first().cloned().unwrap_or_else(Name::root);
        let origins = forward.iter().map(|name| origin(name, name, &options)).collect();
        let reverse_origins = reverse.iter().map(|name| origin(name, &first, &options)).collect();
        Self { options, kubernetes, cluster: cluster.reader(), origins, reverse_origins, serial }
    }

    fn forward<'a>(
        &'a self,
        known: &'a Known,
        origin: &'a Origin,
        name: &QueryName,
        below: usize,
        qtype: u16,
        authority: Authority<'a>,
    ) -> Found<'a> {
        let Some(namespace) = below.checked_sub(1) else {
            return lookup::apex(origin, qtype, authority, || servers::outside(known));
        };
        // What is below the apex' label is the zone's own.
        if name.label(namespace) == self.options.apex.as_bytes() {
            return match below {
                1 => Found::NoData(authority),
                2 if name.label(0) == b"ns1" => lookup::addresses(&servers::outside(known), qtype, authority),
                _ => Found::NoName(authority),
            };
        }
        if below == 1 {
            let exists = lookup::namespace_exists(known, name.label(0), &self.kubernetes);
            return if exists { Found::NoData(authority) } else { Found::NoName(authority) };
        }
        let record = known.service(name.labels_between(below - 2, below));
        let stand = record.and_then(|record| self.stand(known, record, &origin.tail));
        lookup::stood(stand.and_then(|stand| stand.at(name, below - 2, qtype)), authority)
    }

    fn stand<'a>(&'a self, known: &Known, record: &'a Record, tail: &'a [u8]) -> Option<Stand<'a>> {
        if record.namespace() == self.options.apex.as_bytes() {
            return None;
        }
        let stand = Stand::outside(record, &self.options, &self.kubernetes, tail)?;
        lookup::shows(known, record, &self.kubernetes).then_some(stand)
    }

    /// The names of a zone that have records, its own first; none where it is not served here.
    fn names_of(&self, zone: &Name) -> Option<Vec<Name>> {
        let known = self.cluster.read();
        let mut names: BTreeSet<Name> = BTreeSet::new();
        if let Some(origin) = self.origins.iter().find(|origin| origin.name == *zone) {
            names.insert(origin.name_server.clone());
            let stands = known.records().filter_map(|record| self.stand(&known, record, &origin.tail));
            stands.for_each(|stand| {
                stand.names(|name| {
                    names.insert(name);
                });
            });
        } else {
            self.reverse_origins.iter().find(|origin| origin.name == *zone)?;
            names.extend(known.addresses().map(reverse_name).filter(|name| name.within(zone)));
        }
        names.remove(zone);
        Some(std::iter::once(zone.clone()).chain(names).collect())
    }
}

impl Names for External {
    fn find<R>(&self, name: &QueryName, qtype: u16, then: impl FnOnce(Option<Found<'_>>) -> R) -> R {
        let known = self.cluster.read();
        let serial = self.serial.wrapping_add(known.changes);
        let within = self.origins.iter().filter_map(|origin| Some((name.within(&origin.name)?, origin)));
        // The smallest zone that the name lies in.
        if let Some((below, origin)) = within.min_by_key(|(below, _)| *below) {
            let authority = origin.authority(self.options.ttl, serial);
            return then(Some(self.forward(&known, origin, name, below, qtype, authority)));
        }
        let reverse = self.reverse_origins.iter().find(|origin| name.within(&origin.name).is_some());
        then(reverse.map(|origin| {
            let authority = origin.authority(self.options.ttl, serial);
            let stand = |record| self.stand(&known, record, &self.origins.first()?.tail);
            let names = |addr| reverse::names(&known, addr, stand);
            reverse::reverse_answer(name, qtype, authority, &self.options.fallthrough, names)
        }))
    }

    fn fallthrough(&self) -> &Fallthrough {
        &self.options.fallthrough
    }

    fn ttl(&self) -> u32 {
        self.options.ttl
    }

    fn gives(&self, zone: &Name) -> bool {
        self.origins.iter().chain(&self.reverse_origins).any(|origin| origin.name == *zone)
    }

    fn given(&self, zone: &Name) -> Option<authority::Zone> {
        whole::put_together(self, zone, &self.names_of(zone)?)
    }
}

/// A zone whose name server stands in `server_zone`.
fn origin(name: &Name, server_zone: &Name, options: &ExternalOptions) -> Origin {
    let server = server_zone.child(&options.apex).and_then(|apex| apex.child("ns1"));
    let name_server = server.unwrap_or_else(|_| Name::root());
    let mailbox = name.child("hostmaster").unwrap_or_else(|_| Name::root());
    // The times are CoreDNS's: refresh 4 h, retry 1 h, expire a week.
    let soa = soa(&name_server, &mailbox, [14_400, 3600, 604_800, options.ttl]);
    Origin { tail: name.wire().into(), soa, name: name.clone(), name_server, in_set: false }
}
