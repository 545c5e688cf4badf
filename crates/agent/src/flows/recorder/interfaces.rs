//! At which interfaces something is counted, whose they are, and which of them are gone: what was counted at these is over.

use std::{
    collections::{HashMap, HashSet},
    mem,
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{Entry, Interface, Names, PodIdentity, names::Holder};

use crate::flows::senders::Devices;

/// Interfaces, from one reading of the map to the next.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    there: Devices,
    /// The names of those that have just gone, and of those at which something was counted since.
    left: Devices,
    /// Those at which something was counted in the last reading: they were there then, or had been.
    counted: HashSet<u32>,
    gone: HashSet<u32>,
}

impl Interfaces {
    /// All that are there, before the map is read; nothing changes where that cannot be told.
    pub(super) fn look(&mut self, there: Option<Devices>) {
        let Some(there) = there else { return };
        self.gone = self.counted.iter().filter(|index| !there.contains_key(*index)).copied().collect();
        self.left.retain(|index, _| self.gone.contains(index));
        self.left.extend(mem::replace(&mut self.there, there));
        self.left.retain(|index, _| !self.there.contains_key(index));
    }

    /// The indices of those that are gone: no packet passes there any more. One that came after this was looked at is not among them.
    pub(super) const fn gone(&self) -> &HashSet<u32> {
        &self.gone
    }

    /// The map was read.
    pub(super) fn read(&mut self, seen: Seen) -> HashSet<u32> {
        self.counted = seen.counted;
        seen.unknown
    }

    /// As gaps tell it.
    pub(super) fn called(&self, index: u32) -> Interface {
        Interface { index, name: self.there.get(&index).or_else(|| self.left.get(&index)).cloned() }
    }
}

/// The pod behind an interface, by the addresses that it may send with there.
pub(super) fn behind(device: u32, names: &Names, now: Timestamp) -> Option<Arc<PodIdentity>> {
    match names.holder(*names.senders(device)?.first()?, now) {
        Holder::Pod(pod) => Some(pod),
        Holder::Node(_) | Holder::World => None,
    }
}

/// What one reading of the map saw of them.
#[derive(Debug)]
pub(super) struct Seen {
    counted: HashSet<u32>,
    /// Those of which it is not known who may send there.
    unknown: HashSet<u32>,
    /// Of those where packets are missing: an address that entries of it have.
    addrs: HashMap<u32, Option<IpAddr>>,
}

impl Seen {
    /// Nothing yet, but that packets are missing at these.
    pub(super) fn new(missing: impl Iterator<Item = u32>) -> Self {
        let addrs: HashMap<u32, Option<IpAddr>> = missing.map(|device| (device, None)).collect();
        Self { counted: HashSet::new(), unknown: HashSet::new(), addrs }
    }

    pub(super) fn entry(&mut self, entry: &Entry, names: &Names) {
        let device = entry.key.device;
        if self.counted.insert(device) && names.senders(device).is_none() {
            self.unknown.insert(device);
        }
        if !self.addrs.is_empty()
            && let Some(addr) = self.addrs.get_mut(&device)
        {
            *addr = addr.or(Some(entry.key.local));
        }
    }

    /// The pod behind an interface where packets are missing. What is of it in the map has that address, if anything: where the map is full of others'
    /// there may be nothing.
    pub(super) fn pod(&mut self, device: u32, names: &Names, now: Timestamp) -> Option<Arc<PodIdentity>> {
        self.counted.insert(device);
        let senders = names.senders(device);
        if senders.is_none() {
            self.unknown.insert(device);
        }
        let own = senders.and_then(<[IpAddr]>::first).copied();
        match names.holder(own.or(self.addrs.get(&device).copied().flatten())?, now) {
            Holder::Pod(pod) => Some(pod),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(all: &[u32]) -> Option<Devices> {
        Some(all.iter().map(|index| (*index, format!("pn{index}").into())).collect())
    }

    fn seen(all: &[u32]) -> Seen {
        Seen { counted: all.iter().copied().collect(), unknown: HashSet::new(), addrs: HashMap::new() }
    }

    fn gone(interfaces: &Interfaces) -> Vec<u32> {
        let mut gone: Vec<u32> = interfaces.gone().iter().copied().collect();
        gone.sort_unstable();
        gone
    }

    #[test]
    fn what_was_counted_at_and_is_not_there_any_more_is_gone_and_keeps_its_name_as_long_as_it_counts() {
        let mut interfaces = Interfaces::default();
        interfaces.look(devices(&[1, 2]));
        // The third came after they were looked at.
        interfaces.read(seen(&[1, 2, 3]));
        interfaces.look(devices(&[1, 3]));
        assert_eq!(gone(&interfaces), [2]);
        // Nobody can tell.
        interfaces.look(None);
        assert_eq!(gone(&interfaces), [2]);
        let name = |interfaces: &Interfaces, index| interfaces.called(index).name.map(|name| name.to_string());
        assert_eq!(
            [1, 2, 3, 4].map(|index| name(&interfaces, index)),
            [Some("pn1".to_owned()), Some("pn2".to_owned()), Some("pn3".to_owned()), None]
        );
        // All of the second was taken out; the first goes, and was not counted at just now.
        interfaces.read(seen(&[3]));
        interfaces.look(devices(&[3]));
        assert_eq!(gone(&interfaces), [] as [u32; 0]);
        assert_eq!([1, 2].map(|index| name(&interfaces, index)), [Some("pn1".to_owned()), None]);
        interfaces.read(seen(&[1, 3]));
        interfaces.look(devices(&[3]));
        assert_eq!((gone(&interfaces), name(&interfaces, 1)), (vec![1], Some("pn1".to_owned())));
        interfaces.read(seen(&[3]));
        interfaces.look(devices(&[3]));
        assert!(interfaces.left.is_empty());
    }
}
