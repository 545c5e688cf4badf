//! What is known of the cluster, as far as names need it: each Service under its name, and who has an address.

pub(super) mod left;
mod pods;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use podnet_model::{Namespace, ServiceKey, SliceKey, labels::Labels};
use pods::Pods;
use smallvec::SmallVec;

use super::packed::{Front, Slice};
use crate::{answer::Answer, name::push_label};

/// The most zones of the topology that are known. Clusters have a handful; nobody can fill the memory with made-up ones.
const MOST_ZONES: usize = 4096;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The place of each Service in `records`, by the wire form of `<name>.<namespace>`.
    places: HashMap<Arc<[u8]>, u32>,
    records: Vec<Option<Box<Record>>>,
    free: Vec<u32>,
    /// The Services of which an address is, or of whose endpoints.
    holders: HashMap<IpAddr, Holders>,
    /// The Service that a slice belonged to last.
    slices: HashMap<SliceKey, u32>,
    /// By their label in names.
    namespaces: HashMap<Box<[u8]>, Populace>,
    /// The pods that have addresses.
    pub(super) pods: Pods,
    /// The zones of the topology that an endpoint was ever in, in lower case: one that is drained for a while stays a zone.
    zones: HashSet<Box<str>>,
    /// Where this server is.
    pub(super) here: Box<[IpAddr]>,
    /// All of it was listed once. Only of a cluster set: of the cluster itself, the server knows.
    pub(super) complete: bool,
    /// Its pods are told of since its watches were replaced, and were not listed yet.
    pub(super) awaits_pods: bool,
    /// How often it changed what names there are.
    pub(super) changes: u32,
}

/// One Service, and its slices, which may be there before it or after.
#[derive(Debug)]
pub(super) struct Record {
    /// The wire form of `<name>.<namespace>`.
    pub(super) base: Arc<[u8]>,
    pub(super) front: Option<Front>,
    pub(super) slices: Vec<Slice>,
    /// Its addresses as records, made when they are asked for first.
    pub(super) built: OnceLock<Box<Built>>,
}

/// The address records of a Service, and the time to live that they tell.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) ttl: u32,
    pub(super) sets: SmallVec<[(u16, Answer); 1]>,
}

/// Services that share an address; nearly always it is one.
#[derive(Debug, PartialEq, Eq)]
enum Holders {
    One(u32),
    Several(Box<[u32]>),
}

/// What is known of a namespace.
#[derive(Debug, Default)]
struct Populace {
    services: u32,
    /// None where it was not announced itself.
    labels: Option<Labels>,
}

impl Record {
    /// The label of its namespace.
    pub(super) fn namespace(&self) -> &[u8] {
        let size = usize::from(self.base[0]);
        &self.base[size + 2..]
    }

    fn has(&self, addr: IpAddr) -> bool {
        self.front.as_ref().is_some_and(|front| front.addrs().any(|own| own == addr))
            || self.slices.iter().any(|slice| !slice.at(addr).is_empty())
    }
}

impl Known {
    /// The Service called so, its name and its namespace being in wire form.
    pub(super) fn service(&self, base: &[u8]) -> Option<&Record> {
        self.records[*self.places.get(base)? as usize].as_deref()
    }

    /// The Services of which an address is, or of whose endpoints.
    pub(super) fn holders(&self, addr: IpAddr) -> impl Iterator<Item = &Record> {
        let places = self.holders.get(&addr).map_or(&[][..], Holders::all);
        places.iter().filter_map(|place| self.records[*place as usize].as_deref())
    }

    /// All Services.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter_map(Option::as_deref)
    }

    /// All addresses of Services and endpoints.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.holders.keys().copied()
    }

    /// Whether a namespace was announced, or has Services.
    pub(super) fn namespace(&self, label: &[u8]) -> bool {
        self.namespaces.get(label).is_some_and(|populace| populace.labels.is_some() || populace.services > 0)
    }

    /// The labels of a namespace; none where it was not announced.
    pub(super) fn labels(&self, namespace: &[u8]) -> Option<&Labels> {
        self.namespaces.get(namespace)?.labels.as_ref()
    }

    /// The zone of the topology that a label names, where there is or was such a one.
    pub(super) fn zone(&self, label: &[u8]) -> Option<&str> {
        self.zones.get(std::str::from_utf8(label).ok()?).map(|zone| &**zone)
    }

    /// Whether endpoints are, or were, in zones at all.
    pub(super) fn has_zones(&self) -> bool {
        !self.zones.is_empty()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
            && self.holders.is_empty()
            && self.slices.is_empty()
            && self.namespaces.is_empty()
            && self.pods.is_empty()
            && self.free.len() == self.records.len()
    }

    /// Puts a Service in, or takes it out.
    pub(super) fn put_service(&mut self, key: &ServiceKey, front: Option<Front>) {
        let Some(place) = self.place(key, front.is_some()) else { return };
        let Some(record) = &mut self.records[place as usize] else { return };
        if record.front == front {
            return;
        }
        let before = std::mem::replace(&mut record.front, front);
        record.built = OnceLock::new();
        let mut addrs: SmallVec<[IpAddr; 4]> = before.iter().flat_map(Front::addrs).collect();
        addrs.extend(record.front.iter().flat_map(Front::addrs));
        let now = record.front.is_some();
        if before.is_some() != now {
            let populace = self.namespaces.entry(label(&key.namespace)).or_default();
            populace.services = if now { populace.services + 1 } else { populace.services.saturating_sub(1) };
            self.forget_namespace(&key.namespace);
        }
        self.changes = self.changes.wrapping_add(1);
        addrs.into_iter().for_each(|addr| self.settle(addr, place));
        self.clear(place);
    }

    /// Puts a slice in for a Service, or takes it out.
    pub(super) fn put_slice(&mut self, key: &SliceKey, slice: Option<(&ServiceKey, Slice)>) {
        let before = self.slices.get(key).copied();
        for zone in slice.iter().flat_map(|(_, slice)| &slice.zones) {
            if !self.zones.contains(zone) && self.zones.len() < MOST_ZONES {
                self.zones.insert(zone.clone());
            }
        }
        let (now, slice) = match slice {
            Some((service, slice)) => match self.place(service, true) {
                Some(place) => (Some(place), Some(slice)),
                None => (None, None),
            },
            None => (None, None),
        };
        if let Some(place) = before.filter(|_| before != now) {
            self.exchange(place, &key.name, None);
            self.slices.remove(key);
            self.clear(place);
        }
        if let Some(place) = now {
            self.exchange(place, &key.name, slice);
            if before != now {
                self.slices.insert(key.clone(), place);
            }
        }
    }

    /// Replaces a slice of a Service.
    fn exchange(&mut self, place: u32, name: &str, slice: Option<Slice>) {
        let Some(record) = &mut self.records[place as usize] else { return };
        let there = record.slices.iter().position(|slice| &*slice.name == name);
        if there.map(|index| &record.slices[index]) == slice.as_ref() {
            return;
        }
        let before = match (there, slice) {
            (Some(index), Some(slice)) => Some(std::mem::replace(&mut record.slices[index], slice)),
            (Some(index), None) => Some(record.slices.swap_remove(index)),
            (None, Some(slice)) => {
                record.slices.reserve_exact(1);
                record.slices.push(slice);
                None
            }
            (None, None) => None,
        };
        record.built = OnceLock::new();
        // Those that are in both need no look: their place is the same.
        let after = record.slices.iter().find(|slice| &*slice.name == name);
        let mut moved: Vec<IpAddr> = Vec::new();
        for (one, other) in [(before.as_ref(), after), (after, before.as_ref())] {
            let addrs = one.iter().flat_map(|slice| &slice.endpoints).map(|endpoint| endpoint.addr);
            moved.extend(addrs.filter(|addr| other.is_none_or(|other| other.at(*addr).is_empty())));
        }
        self.changes = self.changes.wrapping_add(1);
        moved.into_iter().for_each(|addr| self.settle(addr, place));
    }

    /// Puts a namespace in with its labels, or takes it out.
    pub(super) fn put_namespace(&mut self, namespace: &Namespace, labels: Option<&Labels>) {
        let populace = self.namespaces.entry(label(namespace)).or_default();
        if populace.labels.as_ref() != labels {
            populace.labels = labels.cloned();
            self.changes = self.changes.wrapping_add(1);
        }
        self.forget_namespace(namespace);
    }

    /// Begins anew with nothing, which was listed never; hands out what there was. The number of changes goes on.
    pub(super) fn forget(&mut self) -> Self {
        let changes = self.changes.wrapping_add(1);
        std::mem::replace(self, Self { changes, ..Self::default() })
    }

    /// The place of a Service, which is made where `new` says so.
    fn place(&mut self, key: &ServiceKey, new: bool) -> Option<u32> {
        let base = base(key)?;
        if let Some(place) = self.places.get(base.as_slice()) {
            return Some(*place);
        }
        if !new {
            return None;
        }
        let base: Arc<[u8]> = base.into();
        let record =
            Some(Box::new(Record { base: base.clone(), front: None, slices: Vec::new(), built: OnceLock::new() }));
        let place = if let Some(place) = self.free.pop() {
            self.records[place as usize] = record;
            place
        } else {
            self.records.push(record);
            u32::try_from(self.records.len() - 1).ok()?
        };
        self.places.insert(base, place);
        Some(place)
    }

    /// Makes a place free that nothing stands at any more.
    fn clear(&mut self, place: u32) {
        let at = &mut self.records[place as usize];
        if let Some(record) = at.take_if(|record| record.front.is_none() && record.slices.is_empty()) {
            self.places.remove(&record.base);
            self.free.push(place);
        }
    }

    /// Notes whether an address is a Service's, or one of its endpoints'.
    fn settle(&mut self, addr: IpAddr, place: u32) {
        let has = self.records[place as usize].as_ref().is_some_and(|record| record.has(addr));
        let before = self.holders.get(&addr).map_or(&[][..], Holders::all);
        if before.contains(&place) == has {
            return;
        }
        let mut now: SmallVec<[u32; 4]> = before.iter().copied().filter(|other| *other != place).collect();
        now.extend(has.then_some(place));
        match now[..] {
            [] => self.holders.remove(&addr),
            [one] => self.holders.insert(addr, Holders::One(one)),
            _ => self.holders.insert(addr, Holders::Several(now.into_vec().into())),
        };
    }

    fn forget_namespace(&mut self, namespace: &Namespace) {
        let label = label(namespace);
        if self.namespaces.get(&label).is_some_and(|populace| populace.labels.is_none() && populace.services == 0) {
            self.namespaces.remove(&label);
        }
    }
}

impl Holders {
    fn all(&self) -> &[u32] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(all) => all,
        }
    }
}

fn label(namespace: &Namespace) -> Box<[u8]> {
    namespace.as_str().to_ascii_lowercase().into_bytes().into()
}

/// The wire form of `<name>.<namespace>`; none where a part of it cannot be in a name.
pub(super) fn base(key: &ServiceKey) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(key.name.len() + key.namespace.as_str().len() + 2);
    push_label(key.name.as_bytes(), &mut wire).ok()?;
    push_label(key.namespace.as_str().as_bytes(), &mut wire).ok()?;
    Some(wire)
}
