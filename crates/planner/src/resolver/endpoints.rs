//! Where cluster DNS answers.

use std::collections::{BTreeMap, BTreeSet};

use podnet_model::{Change, Endpoint, EndpointSlice, PortName, Protocol, ServiceKey, SliceKey};

use super::PORT;
use crate::ruleset::BackendAddress;

/// The endpoints of the Service of cluster DNS, as far as they answer questions.
#[derive(Debug)]
pub struct Endpoints {
    service: ServiceKey,
    /// The Service's ports for questions. Endpoints have numbers of their own for them, by their names.
    ports: BTreeSet<(PortName, Protocol)>,
    slices: BTreeMap<SliceKey, EndpointSlice>,
}

impl Endpoints {
    /// Of this Service, of which nothing is known yet.
    #[must_use]
    pub const fn new(service: ServiceKey) -> Self {
        Self { service, ports: BTreeSet::new(), slices: BTreeMap::new() }
    }

    /// Takes a change in, and tells whether it may matter.
    pub fn learn(&mut self, change: &Change) -> bool {
        match change {
            Change::Service(key, service) if *key == self.service => {
                let ports = service.iter().flat_map(|service| &service.ports);
                let ports = ports.filter(|port| port.port.0 == PORT);
                self.ports = ports.map(|port| (port.name.clone(), port.protocol)).collect();
                true
            }
            Change::Slice(key, Some(slice)) if slice.service == self.service => {
                self.slices.insert(key.clone(), slice.clone());
                true
            }
            Change::Slice(key, _) => self.slices.remove(key).is_some(),
            _ => false,
        }
    }

    /// By protocol: those that are ready, or, where none is, those that answer while they end.
    #[must_use]
    pub fn all(&self) -> BTreeMap<Protocol, BTreeSet<BackendAddress>> {
        let ready = self.those(|endpoint| endpoint.ready);
        if ready.is_empty() { self.those(|endpoint| endpoint.serving && endpoint.terminating) } else { ready }
    }

    fn those(&self, wanted: impl Fn(&Endpoint) -> bool) -> BTreeMap<Protocol, BTreeSet<BackendAddress>> {
        let mut found: BTreeMap<Protocol, BTreeSet<BackendAddress>> = BTreeMap::new();
        for slice in self.slices.values() {
            for port in &slice.ports {
                if !self.ports.contains(&(port.name.clone(), port.protocol)) {
                    continue;
                }
                for endpoint in slice.endpoints.iter().filter(|endpoint| wanted(endpoint)) {
                    let at = BackendAddress { addr: endpoint.addr.0, port: port.port.0 };
                    found.entry(port.protocol).or_default().insert(at);
                }
            }
        }
        found
    }
}
