//! Which pods have which addresses, and those of their labels that somebody asks for.

use std::{collections::HashMap, net::IpAddr};

use podnet_model::PodKey;
use smallvec::SmallVec;

use crate::zone::packed::PackedLabels;

/// Pods by address, and the other way round.
#[derive(Debug, Default)]
pub(in crate::zone) struct Pods {
    at: HashMap<IpAddr, SmallVec<[PodKey; 1]>>,
    addrs: HashMap<PodKey, SmallVec<[IpAddr; 1]>>,
    /// Of pods that have addresses.
    labels: HashMap<PodKey, PackedLabels>,
}

impl Pods {
    /// The pods that have an address: several on a node's own network.
    pub(in crate::zone) fn at(&self, addr: IpAddr) -> &[PodKey] {
        self.at.get(&addr).map_or(&[], |pods| &pods[..])
    }

    /// The one pod that has an address; none where no pod has it, or several do.
    pub(in crate::zone) fn only_at(&self, addr: IpAddr) -> Option<&PodKey> {
        if let [pod] = self.at(addr) { Some(pod) } else { None }
    }

    /// The value of a pod's label, where such labels are kept.
    pub(in crate::zone) fn label(&self, pod: &PodKey, key: &str) -> Option<&str> {
        self.labels.get(pod)?.value(key)
    }

    /// Hands out all labels: there are none from here on.
    pub(in crate::zone) fn take_labels(&mut self) -> HashMap<PodKey, PackedLabels> {
        std::mem::take(&mut self.labels)
    }

    /// All addresses, and the pods that have them.
    pub(in crate::zone) fn all(&self) -> impl Iterator<Item = (IpAddr, &[PodKey])> {
        self.at.iter().map(|(addr, pods)| (*addr, &pods[..]))
    }

    /// All pods that have addresses.
    pub(super) fn keys(&self) -> impl Iterator<Item = &PodKey> {
        self.addrs.keys()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.at.is_empty() && self.addrs.is_empty() && self.labels.is_empty()
    }

    /// Puts a pod in with the addresses that it has, and its labels, or takes it out.
    pub(in crate::zone) fn put(&mut self, key: &PodKey, addrs: SmallVec<[IpAddr; 1]>, labels: PackedLabels) {
        // They change while the addresses stay.
        if addrs.is_empty() || labels.is_empty() {
            self.labels.remove(key);
        } else {
            self.labels.insert(key.clone(), labels);
        }
        let before = if addrs.is_empty() { self.addrs.remove(key) } else { self.addrs.get(key).cloned() };
        if before.as_ref().unwrap_or(&SmallVec::new()) == &addrs {
            return;
        }
        for addr in before.into_iter().flatten() {
            if let Some(pods) = self.at.get_mut(&addr) {
                pods.retain(|pod| *pod != *key);
                if pods.is_empty() {
                    self.at.remove(&addr);
                }
            }
        }
        for addr in &addrs {
            self.at.entry(*addr).or_default().push(key.clone());
        }
        if !addrs.is_empty() {
            self.addrs.insert(key.clone(), addrs);
        }
    }
}
