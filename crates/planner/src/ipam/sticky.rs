//! Addresses that pods of a StatefulSet get again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use podnet_model::PodKey;

use super::NodeIpam;

/// Which pod has which address, by both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sticky {
    by_pod: BTreeMap<PodKey, Ipv4Addr>,
    by_addr: BTreeSet<(Ipv4Addr, PodKey)>,
}

impl Sticky {
    pub(super) fn set(&mut self, pod: &PodKey, addr: Option<Ipv4Addr>) {
        if let Some(before) = self.by_pod.remove(pod) {
            self.by_addr.remove(&(before, pod.clone()));
        }
        if let Some(addr) = addr {
            self.by_pod.insert(pod.clone(), addr);
            self.by_addr.insert((addr, pod.clone()));
        }
    }

    pub(super) fn of(&self, pod: &PodKey) -> Option<Ipv4Addr> {
        self.by_pod.get(pod).copied()
    }

    /// Whether an address of this range is somebody's.
    pub(super) fn touches(&self, range: Ipv4Net) -> bool {
        // The least of all keys of this address.
        let first = (range.network(), PodKey::new("", ""));
        self.by_addr.range(first..).next().is_some_and(|(addr, _)| range.contains(addr))
    }
}

impl NodeIpam {
    /// The address that the pod of this name had before.
    #[must_use]
    pub fn sticky_address(&self, pod: &PodKey) -> Option<Ipv4Addr> {
        self.sticky.of(pod)
    }
}
