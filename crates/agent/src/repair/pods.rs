//! The node's ends of the pods' interfaces that are in use.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use podnet_kernel::pod_interface::HostEnd;
use podnet_model::{LinkName, Mac};

use crate::attach::rules::PodRules;

/// What ADD made and DEL has not begun to remove: what is between the two has to be whole.
#[derive(Debug)]
pub struct PodEnds {
    ends: Mutex<BTreeMap<LinkName, HostEnd>>,
    rules: PodRules,
}

impl PodEnds {
    /// None yet, with these rules.
    #[must_use]
    pub const fn new(rules: PodRules) -> Self {
        Self { ends: Mutex::new(BTreeMap::new()), rules }
    }

    /// The rules about what comes in by them.
    #[must_use]
    pub const fn rules(&self) -> &PodRules {
        &self.rules
    }

    /// An interface is made.
    pub fn made(&self, end: HostEnd) {
        self.lock().insert(end.ifname.clone(), end);
    }

    /// An interface is about to be removed, or made anew.
    pub fn leaving(&self, ifname: &LinkName) {
        self.lock().remove(ifname);
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<HostEnd> {
        self.lock().values().cloned().collect()
    }

    /// Whether this one is in use.
    #[must_use]
    pub fn contains(&self, ifname: &LinkName) -> bool {
        self.lock().contains_key(ifname)
    }

    /// What the device's MTU should be; none where it is no pod's.
    pub(super) fn mtu(&self, ifname: &LinkName) -> Option<u32> {
        self.lock().get(ifname).map(|end| end.mtu)
    }

    /// The Ethernet address that should be behind an address on the device.
    pub(super) fn mac(&self, ifname: &LinkName, addr: IpAddr) -> Option<Mac> {
        self.lock().get(ifname).filter(|end| end.addrs.contains(&addr)).map(|end| end.pod_mac)
    }

    /// Whether a pod in use has the address.
    pub(super) fn has_address(&self, addr: IpAddr) -> bool {
        self.lock().values().any(|end| end.addrs.contains(&addr))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LinkName, HostEnd>> {
        // Nothing panics half-way through a change.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
