//! The cluster's zone (Kubernetes DNS-Based Service Discovery 1.1.0), with prebuilt answers.
//!
//! [`Cluster`] keeps what the watches said; a [`Zone`] is what one `kubernetes` plugin makes of it. A change re-renders only the
//! Services that it touches. Reading is one look-up by the name's lower-case wire form.

mod book;
mod cluster;
mod external;
mod lookup;
mod render;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::HashMap, net::IpAddr};

use podnet_model::{Namespace, PodKey, ServiceKey, labels::Labels};
use smallvec::SmallVec;

use book::{Book, Entry, Origin, label};
pub use cluster::{Cluster, PodMove, Touched};
pub use external::External;
pub use lookup::{Authority, Found, Names};

use crate::{
    answer::{AnswerBuilder, Owner, Section},
    chain::KubernetesOptions,
    message::rtype,
    name::Name,
};

/// The version of the schema that the zone follows (specification §2.2).
pub const SCHEMA_VERSION: &str = "1.1.0";

/// The Service that cluster DNS itself stands behind, in every distribution.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// What one `kubernetes` plugin serves.
#[derive(Debug)]
pub struct Zone {
    options: KubernetesOptions,
    book: Book,
    /// Reverse zones with their SOA's data.
    reverse_origins: Vec<(Name, Box<[u8]>)>,
    pods: HashMap<IpAddr, SmallVec<[PodKey; 1]>>,
    serial: u32,
}

impl Zone {
    /// The zone of a cluster; `serial` starts its SOA's serial number.
    #[must_use]
    pub fn new(options: KubernetesOptions, cluster: &Cluster, serial: u32) -> Self {
        let origins = options.zones.iter().map(|name| Origin::new(name.clone(), &options, serial)).collect();
        let reverse = options.reverse_zones.iter();
        let reverse_origins = reverse.map(|name| (name.clone(), soa(name, options.ttl, serial))).collect();
        let mut book = Book::new(origins);
        for (namespace, labels) in cluster.namespaces() {
            book.declare(namespace, Some(labels), &options);
        }
        let mut zone = Self { options, book, reverse_origins, pods: HashMap::new(), serial };
        for service in cluster.services() {
            zone.refresh(service, cluster);
        }
        for (pod, addrs) in cluster.pods() {
            zone.pod(&PodMove { pod: pod.clone(), before: Vec::new(), after: addrs.to_vec() });
        }
        zone
    }

    /// What it serves.
    #[must_use]
    pub fn options(&self) -> &KubernetesOptions {
        &self.options
    }

    /// Renders again what a change touched.
    pub fn update(&mut self, touched: &Touched, cluster: &Cluster) {
        for service in &touched.services {
            self.refresh(service, cluster);
        }
        if let Some(moved) = &touched.pod {
            self.pod(moved);
        }
        if !touched.services.is_empty() {
            self.changed();
        }
    }

    fn changed(&mut self) {
        self.serial = self.serial.wrapping_add(1);
        for origin in &mut self.book.origins {
            origin.soa = soa(&origin.name, self.options.ttl, self.serial);
        }
        for (name, data) in &mut self.reverse_origins {
            *data = soa(name, self.options.ttl, self.serial);
        }
    }

    /// A namespace appeared, got other labels, or vanished (then without labels).
    pub fn namespace(&mut self, namespace: &Namespace, labels: Option<&Labels>, cluster: &Cluster) {
        if !self.book.declare(namespace, labels, &self.options) {
            return;
        }
        for service in cluster.services().filter(|service| &service.namespace == namespace) {
            self.refresh(service, cluster);
        }
        self.changed();
    }

    fn refresh(&mut self, key: &ServiceKey, cluster: &Cluster) {
        self.book.withdraw(key);
        self.name_servers(key, cluster);
        let Some(service) = cluster.service(key).filter(|service| self.book.shows(service, &self.options)) else {
            return;
        };
        let options = &self.options;
        self.book.put(key, |origin| render::render(origin, options, service, cluster.slices(key)));
    }

    /// `ns.dns.<zone>`, which the zone's NS record names, has the addresses of the cluster's DNS Service.
    fn name_servers(&mut self, key: &ServiceKey, cluster: &Cluster) {
        if (key.namespace.as_str(), &*key.name) != DNS_SERVICE {
            return;
        }
        let addrs = cluster.service(key).map(render::frontend_addresses).unwrap_or_default();
        for origin in &mut self.book.origins {
            if let Ok(name) = origin.name.prefixed_text("ns.dns") {
                let sets = render::address_sets(&name, &addrs, self.options.ttl);
                origin.entries.insert(name.wire().into(), Entry { sets, alias: None });
            }
        }
    }

    fn pod(&mut self, moved: &PodMove) {
        // Only where pods are watched there are any: for their names, or for their search paths.
        for addr in &moved.before {
            if let Some(pods) = self.pods.get_mut(addr) {
                pods.retain(|pod| pod != &moved.pod);
                if pods.is_empty() {
                    self.pods.remove(addr);
                }
            }
        }
        for addr in &moved.after {
            self.pods.entry(*addr).or_default().push(moved.pod.clone());
        }
    }
}

impl Origin {
    /// The zone with the names that it has without any Service.
    fn new(name: Name, options: &KubernetesOptions, serial: u32) -> Self {
        let mut entries = HashMap::new();
        let mut put = |text: &str, entry: Entry| {
            if let Ok(name) = name.prefixed_text(text) {
                entries.insert(Box::from(name.wire()), entry);
            }
        };
        for empty in ["svc", "pod", "dns", "ns.dns"] {
            put(empty, Entry::default());
        }
        let mut version = vec![SCHEMA_VERSION.len() as u8];
        version.extend_from_slice(SCHEMA_VERSION.as_bytes());
        put("dns-version", set(&name, rtype::TXT, options.ttl, &version));
        if let Ok(server) = name.prefixed_text("ns.dns") {
            put("", set(&name, rtype::NS, options.ttl, server.wire()));
        }
        Self { soa: soa(&name, options.ttl, serial), name, entries }
    }
}

fn set(name: &Name, rtype: u16, ttl: u32, rdata: &[u8]) -> Entry {
    let mut builder = AnswerBuilder::new(name);
    builder.push(Section::Answer, Owner::Question, rtype, ttl, rdata);
    Entry { sets: std::iter::once((rtype, builder.build())).collect(), alias: None }
}

/// The data of a zone's SOA record. The times are CoreDNS's: refresh 2 h, retry 30 min, expire a day; nobody transfers the zone.
fn soa(zone: &Name, ttl: u32, serial: u32) -> Box<[u8]> {
    let mut data = Vec::with_capacity(2 * zone.wire().len() + 40);
    data.extend_from_slice(b"\x02ns\x03dns");
    data.extend_from_slice(zone.wire());
    data.extend_from_slice(b"\x0ahostmaster");
    data.extend_from_slice(zone.wire());
    for value in [serial, 7200, 1800, 86_400, ttl] {
        data.extend_from_slice(&value.to_be_bytes());
    }
    data.into()
}

/// What a Service is called in a zone: `<name>.<namespace>.svc.<zone>`; none when a part of it cannot be in a name.
#[must_use]
pub fn service_name(zone: &Name, service: &ServiceKey) -> Option<Name> {
    let namespace = zone.child("svc").and_then(|svc| svc.child(service.namespace.as_str()));
    namespace.and_then(|namespace| namespace.child(&service.name)).ok()
}
