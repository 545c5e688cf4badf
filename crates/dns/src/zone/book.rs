//! The names that Services have in zones, and how they are taken out again.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use podnet_model::{Namespace, Service, ServiceKey, labels::Labels};
use smallvec::SmallVec;

use super::render::Rendered;
use crate::{
    answer::{Alias, Answer},
    chain::KubernetesOptions,
    name::Name,
};

/// What Services put into one or several zones.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) origins: Vec<Origin>,
    pub(super) pointers: HashMap<IpAddr, SmallVec<[Pointer; 1]>>,
    /// How many Services each namespace has.
    populated: HashMap<Box<[u8]>, usize>,
    /// Namespaces that were announced themselves, and that the options show.
    declared: HashSet<Box<[u8]>>,
    owned: HashMap<ServiceKey, Owned>,
}

/// A zone of Services.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) name: Name,
    pub(super) entries: HashMap<Box<[u8]>, Entry>,
    pub(super) soa: Box<[u8]>,
}

/// What stands at one name. An entry without anything is a name that only has names below it.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) sets: SmallVec<[(u16, Answer); 1]>,
    pub(super) alias: Option<Alias>,
}

/// What a Service put into the zones, to be taken out again.
#[derive(Clone, Debug, Default)]
struct Owned {
    names: Vec<Box<[u8]>>,
    addresses: Vec<IpAddr>,
}

/// The name of an address.
#[derive(Clone, Debug)]
pub(super) struct Pointer {
    service: ServiceKey,
    pub(super) name: Name,
    /// It is the Service's own address; then endpoints' names for it are not told.
    pub(super) frontend: bool,
}

impl Book {
    pub(super) fn new(origins: Vec<Origin>) -> Self {
        Self {
            origins,
            pointers: HashMap::new(),
            populated: HashMap::new(),
            declared: HashSet::new(),
            owned: HashMap::new(),
        }
    }

    /// A namespace appeared, got other labels, or vanished. True when Services of it may be shown now that were not, or the other
    /// way round.
    pub(super) fn declare(
        &mut self,
        namespace: &Namespace,
        labels: Option<&Labels>,
        options: &KubernetesOptions,
    ) -> bool {
        let shown = labels.is_some_and(|labels| {
            let selected = options.namespace_labels.as_ref().is_none_or(|selector| selector.matches(labels));
            selected && options.namespaces.as_ref().is_none_or(|only| only.contains(namespace))
        });
        let label = label(namespace);
        let changed = if shown { self.declared.insert(label) } else { self.declared.remove(&label) };
        changed && options.namespace_labels.is_some()
    }

    /// Whether names in a namespace are shown. Where labels decide it, the namespace itself has to be known.
    pub(super) fn exposed(&self, namespace: &Namespace, options: &KubernetesOptions) -> bool {
        options.namespaces.as_ref().is_none_or(|only| only.contains(namespace))
            && (options.namespace_labels.is_none() || self.declared.contains(&label(namespace)))
    }

    /// Whether a Service is shown.
    pub(super) fn shows(&self, service: &Service, options: &KubernetesOptions) -> bool {
        let selected = options.labels.as_ref().is_none_or(|selector| selector.matches(&service.labels));
        selected && self.exposed(&service.key.namespace, options)
    }

    pub(super) fn namespace_exists(&self, label: &[u8]) -> bool {
        self.declared.contains(label) || self.populated.contains_key(label)
    }

    /// Puts in what a Service that is not there yet has in each zone.
    pub(super) fn put(&mut self, key: &ServiceKey, render: impl Fn(&Name) -> Option<Rendered>) {
        let mut owned = Owned::default();
        for (index, origin) in self.origins.iter_mut().enumerate() {
            let Some(rendered) = render(&origin.name) else { continue };
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

    /// Takes out what a Service put in.
    pub(super) fn withdraw(&mut self, key: &ServiceKey) {
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
}

pub(super) fn label(namespace: &Namespace) -> Box<[u8]> {
    namespace.as_str().to_ascii_lowercase().into_bytes().into()
}
