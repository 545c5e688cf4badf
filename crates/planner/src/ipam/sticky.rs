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

    /// What the next pod of this name is to have, of a pod that got these addresses. Where it had another before, that one could not be had
    /// just now, and stays the one that it waits for, unless no pool has it any more; so does one of a family that it got none of, this
    /// time. Addresses that were asked for take the place of those before.
    #[must_use]
    pub fn kept(&self, pod: &PodKey, got: &[IpAddr], is_asked_for: bool) -> Vec<IpAddr> {
        let may_return = |kept: &IpAddr| self.pool_around(IpNet::from(*kept)).is_some_and(|pool| !pool.disabled);
        let of = |family: Family| {
            let got = got.iter().find(|addr| Family::of(addr) == family).copied();
            let before = || self.sticky.of(pod, family).filter(may_return);
            got.filter(|_| is_asked_for).or_else(before).or(got)
        };
        Family::ALL.into_iter().filter_map(of).collect()
    }
}
