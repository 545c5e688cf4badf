//! What the watches said, as far as names need it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use podnet_model::{Change, EndpointSlice, Namespace, PodKey, Service, ServiceKey, SliceKey, labels::Labels};
use smallvec::SmallVec;

/// The Services, EndpointSlices, pods and namespaces of a cluster.
#[derive(Debug, Default)]
pub struct Cluster {
    services: HashMap<ServiceKey, Service>,
    slices: HashMap<ServiceKey, BTreeMap<SliceKey, EndpointSlice>>,
    slice_owner: HashMap<SliceKey, ServiceKey>,
    pods: HashMap<PodKey, SmallVec<[IpAddr; 2]>>,
    namespaces: HashMap<Namespace, Labels>,
}

/// What a change touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Services whose names may differ now.
    pub services: SmallVec<[ServiceKey; 2]>,
    /// A pod whose addresses differ.
    pub pod: Option<PodMove>,
}

/// A pod's addresses before and after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodMove {
    /// The pod.
    pub pod: PodKey,
    /// What it had.
    pub before: Vec<IpAddr>,
    /// What it has.
    pub after: Vec<IpAddr>,
}

impl Cluster {
    /// Takes a change in.
    pub fn apply(&mut self, change: &Change) -> Touched {
        match change {
            Change::Service(key, service) => {
                let before = match service {
                    Some(service) => self.services.insert(key.clone(), service.clone()),
                    None => self.services.remove(key),
                };
                let same = before.as_ref() == service.as_ref();
                Touched { services: (!same).then(|| key.clone()).into_iter().collect(), pod: None }
            }
            Change::Slice(key, slice) => self.slice(key, slice.as_ref()),
            Change::Pod(key, pod) => {
                let after: Vec<IpAddr> = match pod {
                    Some(pod) if !pod.finished => pod.addrs.iter().map(|addr| addr.0).collect(),
                    _ => Vec::new(),
                };
                let before = if after.is_empty() {
                    self.pods.remove(key)
                } else {
                    self.pods.insert(key.clone(), after.iter().copied().collect())
                };
                let before = before.map(SmallVec::into_vec).unwrap_or_default();
                let moved = before != after;
                Touched { services: SmallVec::new(), pod: moved.then(|| PodMove { pod: key.clone(), before, after }) }
            }
            _ => Touched::default(),
        }
    }

    fn slice(&mut self, key: &SliceKey, slice: Option<&EndpointSlice>) -> Touched {
        let mut touched = Touched::default();
        let owner = slice.map(|slice| slice.service.clone());
        let before = match owner.clone() {
            Some(owner) => self.slice_owner.insert(key.clone(), owner),
            None => self.slice_owner.remove(key),
        };
        let mut previous = None;
        if let Some(before) = before {
            if let Some(slices) = self.slices.get_mut(&before) {
                previous = slices.remove(key);
                if slices.is_empty() {
                    self.slices.remove(&before);
                }
            }
            touched.services.extend((Some(&before) != owner.as_ref()).then_some(before));
        }
        if let (Some(owner), Some(slice)) = (owner, slice) {
            let same = previous.as_ref() == Some(slice);
            self.slices.entry(owner.clone()).or_default().insert(key.clone(), slice.clone());
            touched.services.extend((!same).then_some(owner));
        }
        touched
    }

    /// A namespace appeared, got other labels, or vanished (then without labels).
    pub fn namespace(&mut self, namespace: &Namespace, labels: Option<&Labels>) {
        match labels {
            Some(labels) => self.namespaces.insert(namespace.clone(), Labels::clone(labels)),
            None => self.namespaces.remove(namespace),
        };
    }

    pub(super) fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key)
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    pub(super) fn slices(&self, key: &ServiceKey) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.get(key).into_iter().flat_map(BTreeMap::values)
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = (&PodKey, &[IpAddr])> {
        self.pods.iter().map(|(key, addrs)| (key, addrs.as_slice()))
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&Namespace, &Labels)> {
        self.namespaces.iter()
    }
}
