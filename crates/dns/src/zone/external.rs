//! The zones of `k8s_external`: names for the addresses at which Services are reached from outside of the cluster.

use std::net::IpAddr;

use podnet_model::{Namespace, ServiceKey, labels::Labels};

use super::{Authority, Book, Cluster, DNS_SERVICE, Entry, Found, Names, Origin, Touched, label, render, set};
use crate::{
    chain::{ExternalOptions, Fallthrough, KubernetesOptions, is_reverse},
    message::rtype,
    name::{Name, QueryName},
};

/// What one `k8s_external` plugin serves.
#[derive(Debug)]
pub struct External {
    options: ExternalOptions,
    /// Those of the plugin beside it, which say what is shown of the cluster.
    kubernetes: KubernetesOptions,
    book: Book,
    /// Reverse zones with their SOA's data.
    reverse_origins: Vec<(Name, Box<[u8]>)>,
    serial: u32,
}

impl External {
    /// The zones for a cluster of which `kubernetes` says what is shown; `serial` starts their serial numbers.
    #[must_use]
    pub fn new(options: ExternalOptions, kubernetes: KubernetesOptions, cluster: &Cluster, serial: u32) -> Self {
        let (reverse, forward): (Vec<Name>, Vec<Name>) = options.zones.iter().cloned().partition(is_reverse);
        let mut book = Book::new(forward.into_iter().map(|name| origin(name, &options)).collect());
        for (namespace, labels) in cluster.namespaces() {
            book.declare(namespace, Some(labels), &kubernetes);
        }
        let reverse_origins = reverse.into_iter().map(|name| (name, Box::default())).collect();
        let mut external = Self { options, kubernetes, book, reverse_origins, serial };
        for service in cluster.services() {
            external.refresh(service, cluster);
        }
        external.start_authority();
        external
    }

    /// Renders again what a change touched.
    pub fn update(&mut self, touched: &Touched, cluster: &Cluster) {
        for service in &touched.services {
            self.refresh(service, cluster);
        }
        if !touched.services.is_empty() {
            self.changed();
        }
    }

    /// A namespace appeared, got other labels, or vanished (then without labels).
    pub fn namespace(&mut self, namespace: &Namespace, labels: Option<&Labels>, cluster: &Cluster) {
        if !self.book.declare(namespace, labels, &self.kubernetes) {
            return;
        }
        for service in cluster.services().filter(|service| &service.namespace == namespace) {
            self.refresh(service, cluster);
        }
        self.changed();
    }

    fn changed(&mut self) {
        self.serial = self.serial.wrapping_add(1);
        self.start_authority();
    }

    fn start_authority(&mut self) {
        for origin in &mut self.book.origins {
            origin.soa = soa(&origin.name, &origin.name, &self.options, self.serial);
        }
        // Their name server has its address in the first zone.
        let first = self.book.origins.first().map_or_else(Name::root, |origin| origin.name.clone());
        for (name, data) in &mut self.reverse_origins {
            *data = soa(name, &first, &self.options, self.serial);
        }
    }

    fn refresh(&mut self, key: &ServiceKey, cluster: &Cluster) {
        self.book.withdraw(key);
        self.name_servers(key, cluster);
        let shown = cluster.service(key).filter(|service| self.book.shows(service, &self.kubernetes));
        // What is below the apex' label is the zone's own.
        let Some(service) = shown.filter(|_| *label(&key.namespace) != *self.options.apex.as_bytes()) else { return };
        let (options, kubernetes) = (&self.options, &self.kubernetes);
        self.book.put(key, |zone| render::external(zone, options, kubernetes, service, cluster.slices(key)));
    }

    /// `ns1.<apex>.<zone>`, which the zone's NS record names, has the addresses of the cluster's DNS Service: those outside of the
    /// cluster, or its own where it has no others.
    fn name_servers(&mut self, key: &ServiceKey, cluster: &Cluster) {
        if (key.namespace.as_str(), &*key.name) != DNS_SERVICE {
            return;
        }
        let service = cluster.service(key);
        let mut addrs: Vec<IpAddr> = service.map(render::external_addresses).unwrap_or_default();
        if addrs.is_empty() {
            addrs = service.map(render::frontend_addresses).unwrap_or_default();
        }
        for origin in &mut self.book.origins {
            if let Some(name) = name_server(&origin.name, &self.options) {
                let sets = render::address_sets(&name, &addrs, self.options.ttl);
                origin.entries.insert(name.wire().into(), Entry { sets, alias: None });
            }
        }
    }
}

impl Names for External {
    fn find(&self, name: &QueryName, qtype: u16) -> Option<Found<'_>> {
        let origins = self.book.origins.iter();
        let within = origins.filter_map(|origin| Some((name.within(&origin.name)?, origin)));
        // The smallest zone that the name lies in.
        if let Some((below, origin)) = within.min_by_key(|(below, _)| *below) {
            let authority = origin.authority(self.options.ttl);
            return Some(match origin.at(name, below, qtype, authority) {
                Some(found) => found,
                None if below == 1 && self.book.namespace_exists(name.label(0)) => Found::NoData(authority),
                None => Found::NoName(authority),
            });
        }
        let (zone, soa) = self.reverse_origins.iter().find(|(zone, _)| name.within(zone).is_some())?;
        Some(self.book.reverse(name, qtype, Authority { zone, soa, ttl: self.options.ttl }, &self.options.fallthrough))
    }

    fn fallthrough(&self) -> &Fallthrough {
        &self.options.fallthrough
    }
}

/// The zone with the names that it has without any Service.
fn origin(name: Name, options: &ExternalOptions) -> Origin {
    let mut origin = Origin { entries: [].into(), soa: Box::default(), name };
    let mut put = |name: &Name, entry: Entry| origin.entries.insert(name.wire().into(), entry);
    if let Some(server) = name_server(&origin.name, options) {
        put(&origin.name, set(&origin.name, rtype::NS, options.ttl, server.wire()));
        put(&server, Entry::default());
    }
    if let Ok(apex) = origin.name.child(&options.apex) {
        put(&apex, Entry::default());
    }
    origin
}

fn name_server(zone: &Name, options: &ExternalOptions) -> Option<Name> {
    zone.child(&options.apex).and_then(|apex| apex.child("ns1")).ok()
}

/// The data of a SOA record with CoreDNS's times: refresh 4 h, retry 1 h, expire a week.
fn soa(zone: &Name, server_zone: &Name, options: &ExternalOptions, serial: u32) -> Box<[u8]> {
    let server = name_server(server_zone, options).unwrap_or_else(Name::root);
    let mailbox = zone.child("hostmaster").unwrap_or_else(|_| Name::root());
    let mut data = [server.wire(), mailbox.wire()].concat();
    for value in [serial, 14_400, 3600, 604_800, options.ttl] {
        data.extend_from_slice(&value.to_be_bytes());
    }
    data.into()
}
