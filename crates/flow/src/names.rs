//! Who an address belonged to, by time.
//!
//! Addresses go from pod to pod, and what is read of the kernel is read later than it happened: so earlier holders are remembered for a while.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use podnet_model::{NodeName, ServiceKey};
use serde::{Deserialize, Serialize};

use crate::entry::Transport;

/// How long an earlier holder of an address is remembered: longer than a flow waits to be read.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);

/// What a record says of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentity {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// Its node.
    pub node: NodeName,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// What it is of: the kind and name of its controller, of a ReplicaSet that of the Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Its service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<Arc<str>>,
}

/// What pods are of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// `Deployment`, `StatefulSet`, …
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A pod.
    Pod(Arc<PodIdentity>),
    /// A node.
    Node(NodeName),
    /// Nobody of the cluster.
    World,
}

#[derive(Debug)]
struct Held {
    until: Option<Timestamp>,
    pod: Arc<PodIdentity>,
}

/// Who has which address, and which Service is where.
#[derive(Debug, Default)]
pub struct Names {
    pods: HashMap<IpAddr, Vec<Held>>,
    devices: HashMap<u32, Arc<PodIdentity>>,
    nodes: HashMap<IpAddr, NodeName>,
    services: HashMap<(SocketAddr, Transport), ServiceKey>,
}

impl Names {
    /// A pod has this address from now on; what it is called may have changed. An earlier holder has it no more.
    pub fn hold(&mut self, addr: IpAddr, pod: &Arc<PodIdentity>, now: Timestamp) {
        let held = self.pods.entry(addr).or_default();
        match held.last_mut() {
            Some(last) if last.pod.uid == pod.uid && last.until.is_none() => last.pod = pod.clone(),
            last => {
                if let Some(last) = last.filter(|last| last.until.is_none()) {
                    last.until = Some(now);
                }
                held.push(Held { until: None, pod: pod.clone() });
            }
        }
    }

    /// A pod has this address no more.
    pub fn release(&mut self, addr: IpAddr, uid: &str, now: Timestamp) {
        let held = self.pods.get_mut(&addr).into_iter().flatten();
        held.filter(|held| *held.pod.uid == *uid && held.until.is_none()).for_each(|held| held.until = Some(now));
    }

    /// The pod behind an interface of this node, by its index. While it is known, nobody asks whose its address is.
    pub fn set_device(&mut self, device: u32, pod: Option<Arc<PodIdentity>>) {
        match pod {
            Some(pod) => self.devices.insert(device, pod),
            None => self.devices.remove(&device),
        };
    }

    /// The pod behind an interface.
    #[must_use]
    pub fn device(&self, device: u32) -> Option<&Arc<PodIdentity>> {
        self.devices.get(&device)
    }

    /// The addresses of nodes, in place of those of before.
    pub fn set_nodes(&mut self, nodes: HashMap<IpAddr, NodeName>) {
        self.nodes = nodes;
    }

    /// Where Services are, in place of what was before.
    pub fn set_services(&mut self, services: HashMap<(SocketAddr, Transport), ServiceKey>) {
        self.services = services;
    }

    /// Who had an address at a time. A pod may send before anybody was told of its address: where nobody is known to have had it
    /// then, the next to have it counts.
    #[must_use]
    pub fn holder(&self, addr: IpAddr, at: Timestamp) -> Holder {
        if let Some(node) = self.nodes.get(&addr) {
            return Holder::Node(node.clone());
        }
        let held = self.pods.get(&addr).into_iter().flatten();
        held.into_iter()
            .find(|held| held.until.is_none_or(|until| at < until))
            .map_or(Holder::World, |held| Holder::Pod(held.pod.clone()))
    }

    /// The Service at an address and port.
    #[must_use]
    pub fn service(&self, at: SocketAddr, transport: Transport) -> Option<&ServiceKey> {
        self.services.get(&(at, transport))
    }

    /// Forgets who had an address long ago.
    pub fn forget(&mut self, now: Timestamp) {
        let is_recent = |held: &Held| held.until.is_none_or(|until| now.duration_since(until) < REMEMBERED);
        self.pods.retain(|_, held| {
            held.retain(is_recent);
            !held.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Arc<PodIdentity> {
        Arc::new(PodIdentity {
            namespace: "default".into(),
            name: name.into(),
            uid: format!("uid-{name}").into(),
            node: "node1".into(),
            labels: BTreeMap::new(),
            owner: None,
            service_account: None,
        })
    }

    #[test]
    fn an_address_is_whose_it_was_when_asked_for() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let addr: IpAddr = "10.0.0.1".parse().unwrap();
        let mut names = Names::default();
        names.hold(addr, &pod("first"), at(10));
        names.release(addr, "uid-first", at(20));
        names.hold(addr, &pod("second"), at(30));
        let is = |names: &Names, second| match names.holder(addr, at(second)) {
            Holder::Pod(pod) => pod.name.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!([15, 25, 35].map(|second| is(&names, second)), ["first", "second", "second"]);
        // Who did not let go before has it no more either.
        names.hold(addr, &pod("third"), at(40));
        assert_eq!([35, 40].map(|second| is(&names, second)), ["second", "third"]);
        names.release(addr, "uid-second", at(50));
        assert_eq!(is(&names, 60), "third", "it is not the second's to release");
        names.forget(at(20 + 600));
        assert_eq!(is(&names, 15), "second", "long ago");
        names.release(addr, "uid-third", at(700));
        assert_eq!(is(&names, 800), "World");
    }
}
