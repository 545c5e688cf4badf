//! Addresses that pods of a StatefulSet get again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
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

    /// Whether a pod that got `addr` is to have it again the next time. Where it had another before, that one could not be had just
    /// now, and stays the one that it waits for, unless no pool has it any more.
    #[must_use]
    pub fn keeps(&self, pod: &PodKey, addr: IpAddr) -> bool {
        let may_return = |kept| self.pool_around(Ipv4Net::from(kept)).is_some_and(|(pool, _)| !pool.disabled);
        self.sticky.of(pod).is_none_or(|kept| addr == IpAddr::V4(kept) || !may_return(kept))
    }
}
