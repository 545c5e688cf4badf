//! The cluster's zone (Kubernetes DNS-Based Service Discovery 1.1.0), with prebuilt answers.
//!
//! [`Cluster`] keeps what the watches said; a [`Zone`] is what one `kubernetes` plugin makes of it. A change re-renders only the
//! Services that it touches. Reading is one look-up by the name's lower-case wire form.

mod cluster;
mod lookup;
mod render;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use podnet_model::{Namespace, PodKey, ServiceKey};
use smallvec::SmallVec;

pub use cluster::{Cluster, PodMove, Touched};
pub use lookup::{Authority, Found};

use crate::{
    answer::{Alias, Answer, AnswerBuilder, Owner, Section},
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
    origins: Vec<Origin>,
    /// Reverse zones with their SOA's data.
    reverse_origins: Vec<(Name, Box<[u8]>)>,
    pointers: HashMap<IpAddr, SmallVec<[Pointer; 1]>>,
    /// How many Services each namespace has.
    populated: HashMap<Box<[u8]>, usize>,
    /// Namespaces that were announced themselves.
    declared: HashSet<Box<[u8]>>,
    pods: HashMap<IpAddr, SmallVec<[PodKey; 1]>>,
    owned: HashMap<ServiceKey, Owned>,
    serial: u32,
}

/// A zone of Services.
#[derive(Debug)]
struct Origin {
    name: Name,
    entries: HashMap<Box<[u8]>, Entry>,
    soa: Box<[u8]>,
}

/// What stands at one name. An entry without anything is a name that only has names below it.
#[derive(Clone, Debug, Default)]
struct Entry {
    sets: SmallVec<[(u16, Answer); 1]>,
    alias: Option<Alias>,
}

/// What a Service put into the zone, to be taken out again.
#[derive(Clone, Debug, Default)]
struct Owned {
    names: Vec<Box<[u8]>>,
    addresses: Vec<IpAddr>,
}

/// The name of an address.
#[derive(Clone, Debug)]
struct Pointer {
    service: ServiceKey,
    name: Name,
    /// It is the Service's own address; then endpoints' names for it are not told.
    frontend: bool,
}

impl Zone {
    /// The zone of a cluster; `serial` starts its SOA's serial number.
    #[must_use]
    pub fn new(options: KubernetesOptions, cluster: &Cluster, serial: u32) -> Self {
        let origins = options.zones.iter().map(|name| Origin::new(name.clone(), &options, serial)).collect();
        let reverse = options.reverse_zones.iter();
        let reverse_origins = reverse.map(|name| (name.clone(), soa(name, options.ttl, serial))).collect();
        let mut zone = Self {
            options,
            origins,
            reverse_origins,
            pointers: HashMap::new(),
            populated: HashMap::new(),
            declared: HashSet::new(),
            pods: HashMap::new(),
            owned: HashMap::new(),
            serial,
        };
        for namespace in cluster.namespaces() {
            zone.namespace(namespace, true);
        }
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
            self.serial = self.serial.wrapping_add(1);
            for origin in &mut self.origins {
                origin.soa = soa(&origin.name, self.options.ttl, self.serial);
            }
            for (name, data) in &mut self.reverse_origins {
                *data = soa(name, self.options.ttl, self.serial);
            }
        }
    }

    /// A namespace appeared or vanished.
    pub fn namespace(&mut self, namespace: &Namespace, exists: bool) {
        let label = label(namespace);
        if exists && self.exposed(namespace) {
            self.declared.insert(label);
        } else {
            self.declared.remove(&label);
        }
    }

    fn exposed(&self, namespace: &Namespace) -> bool {
        self.options.namespaces.as_ref().is_none_or(|only| only.contains(namespace))
    }

    fn refresh(&mut self, key: &ServiceKey, cluster: &Cluster) {
        self.withdraw(key);
        self.name_servers(key, cluster);
        let Some(service) = cluster.service(key).filter(|_| self.exposed(&key.namespace)) else { return };
        let mut owned = Owned::default();
        for (index, origin) in self.origins.iter_mut().enumerate() {
            let Some(rendered) = render::render(&origin.name, &self.options, service, cluster.slices(key)) else {
                continue;
            };
            for (name, entry) in rendered.entries {
                // The names are those below the Service's own, so they are the same for each origin but for its end.
                let below = name.wire().len() - origin.name.wire().len();
                owned.names.extend((index == 0).then(|| Box::from(&name.wire()[..below])));
                origin.entries.insert(name.wire().into(), entry);
            }
            for (addr, name, frontend) in rendered.pointers.into_iter().filter(|_| index == 0) {
                let pointers = self.pointers.entry(addr).or_default();
                if !pointers.iter().any(|pointer| pointer.name == name) {
                    pointers.push(Pointer { service: key.clone(), name, frontend });
                    owned.addresses.push(addr);
                }
            }
        }
        *self.populated.entry(label(&key.namespace)).or_default() += 1;
        self.owned.insert(key.clone(), owned);
    }

    fn withdraw(&mut self, key: &ServiceKey) {
        let Some(owned) = self.owned.remove(key) else { return };
        for origin in &mut self.origins {
            let mut wire = Vec::new();
            for below in &owned.names {
                wire.clear();
                wire.extend_from_slice(below);
                wire.extend_from_slice(origin.name.wire());
                origin.entries.remove(wire.as_slice());
            }
        }
        for addr in owned.addresses {
            if let Some(pointers) = self.pointers.get_mut(&addr) {
                pointers.retain(|pointer| &pointer.service != key);
                if pointers.is_empty() {
                    self.pointers.remove(&addr);
                }
            }
        }
        let namespace = label(&key.namespace);
        if let Some(services) = self.populated.get_mut(&namespace) {
            *services -= 1;
            if *services == 0 {
                self.populated.remove(&namespace);
            }
        }
    }

    /// `ns.dns.<zone>`, which the zone's NS record names, has the addresses of the cluster's DNS Service.
    fn name_servers(&mut self, key: &ServiceKey, cluster: &Cluster) {
        if (key.namespace.as_str(), &*key.name) != DNS_SERVICE {
            return;
        }
        let addrs = cluster.service(key).map(render::frontend_addresses).unwrap_or_default();
        for origin in &mut self.origins {
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

fn label(namespace: &Namespace) -> Box<[u8]> {
    namespace.as_str().to_ascii_lowercase().into_bytes().into()
}

/// What a Service is called in a zone: `<name>.<namespace>.svc.<zone>`; none when a part of it cannot be in a name.
#[must_use]
pub fn service_name(zone: &Name, service: &ServiceKey) -> Option<Name> {
    let namespace = zone.child("svc").and_then(|svc| svc.child(service.namespace.as_str()));
    namespace.and_then(|namespace| namespace.child(&service.name)).ok()
}
