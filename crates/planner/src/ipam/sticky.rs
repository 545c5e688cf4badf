//! Addresses that pods of a StatefulSet get again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use podnet_model::{Dual, Family, PodKey};

use super::NodeIpam;

/// Which pod has which address, by both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sticky {
    by_pod: BTreeMap<PodKey, Dual<Option<IpAddr>>>,
    by_addr: BTreeSet<(IpAddr, PodKey)>,
}

impl Sticky {
    pub(super) fn set(&mut self, pod: &PodKey, addrs: &[IpAddr]) {
        let before = self.by_pod.remove(pod).unwrap_or_default();
        for addr in before.v4.into_iter().chain(before.v6) {
            self.by_addr.remove(&(addr, pod.clone()));
        }
        for addr in addrs {
            self.by_pod.entry(pod.clone()).or_default()[Family::of(addr)] = Some(*addr);
            self.by_addr.insert((*addr, pod.clone()));
        }
    }

    pub(super) fn of(&self, pod: &PodKey, family: Family) -> Option<IpAddr> {
        self.by_pod.get(pod)?[family]
    }

    /// Whether an address of this range is somebody's.
    pub(super) fn touches(&self, range: IpNet) -> bool {
        // The least of all keys of this address.
        let first = (range.network(), PodKey::new("", ""));
        self.by_addr.range(first..).next().is_some_and(|(addr, _)| range.contains(addr))
    }
}

impl NodeIpam {
    /// The address of a family that the pod of this name had before.
    #[must_use]
    pub fn sticky_address(&self, pod: &PodKey, family: Family) -> Option<IpAddr> {
        self.sticky.of(pod, family)
    }

    /// Whether a pod that got `addr` is to have it again the next time. Where it had another before, that one could not be had just
    /// now, and stays the one that it waits for, unless no pool has it any more.
    #[must_use]
    pub fn keeps(&self, pod: &PodKey, addr: IpAddr) -> bool {
        let may_return = |kept| self.pool_around(IpNet::from(kept)).is_some_and(|pool| !pool.disabled);
        self.sticky.of(pod, Family::of(&addr)).is_none_or(|kept| addr == kept || !may_return(kept))
    }
}
