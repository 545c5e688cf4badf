//! The rules about what is attached to this node: who may send what, and which ports of the node lead where.
//!
//! They are a table of their own, because they change with attachments and not with the cluster: an ADD puts its elements in force
//! before it answers, and waits for nobody. As with Services, an attachment is elements of sets and maps, never a rule:
//!
//! ```text
//! set senders      (device, Ethernet address)                of every attachment: what else comes in there is dropped
//! map host-ports   (address, protocol, port, 0) → (address, port)    address 0.0.0.0: every address of the node
//! set port-pairs   (attachment, attachment)                  of those with ports: connections to themselves are masqueraded
//! ```
//!
//! A sender's *address* needs no elements: the way back to it must lead through the device that it came in by.

mod chains;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;
use podnet_model::{LinkName, Mac, Protocol, cni::PortMapping};

use crate::{
    ipam::Handle,
    ruleset::{BackendAddress, BackendKey, Edit, FrontendKey, RuleName, RuleSet, Set},
};

/// How the names of devices begin that lead to attachments.
pub const DEVICE_PREFIX: &str = "pn";

/// Something that is attached to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The node's end of its link.
    pub device: LinkName,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its addresses, of either family. The rules are of IPv4 alone, and of the first address of that.
    pub addrs: Vec<IpAddr>,
    /// Ports of the node that lead to it. Those of another address family than its own have no effect.
    pub ports: Vec<PortMapping>,
}

/// A port of the node is another's already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("port {port} of this node leads to {holder} already")]
pub struct PortTaken {
    /// The port.
    pub port: PortMapping,
    /// Whose it is.
    pub holder: Handle,
}

/// Everything that is attached to this node.
#[derive(Clone, Debug)]
pub struct Attachments {
    device_prefix: &'static str,
    /// Ranges whose way out is translated, and ranges where it does not lead out beside them.
    masqueraded: Option<(BTreeSet<Ipv4Net>, Ipv4Net)>,
    /// Ranges whose attachments reach each other without this node.
    segments: BTreeSet<Ipv4Net>,
    attached: BTreeMap<Handle, Attached>,
    ports: BTreeMap<FrontendKey, Handle>,
}

impl Default for Attachments {
    fn default() -> Self {
        Self::of_devices(DEVICE_PREFIX)
    }
}

impl Attachments {
    /// Nothing yet; the names of the devices begin with `prefix`.
    #[must_use]
    pub const fn of_devices(prefix: &'static str) -> Self {
        Self {
            device_prefix: prefix,
            masqueraded: None,
            segments: BTreeSet::new(),
            attached: BTreeMap::new(),
            ports: BTreeMap::new(),
        }
    }

    /// What leaves these ranges, none of which lies in another, gets an address of the node as its source, unless it goes to one of
    /// them or to `exempt`. It counts for [`Attachments::desired`].
    pub fn masquerade(&mut self, ranges: BTreeSet<Ipv4Net>, exempt: Ipv4Net) {
        self.masqueraded = (!ranges.is_empty()).then_some((ranges, exempt));
    }

    /// These ranges, none of which lies in another, are shared Ethernet segments. Who asks for a port from there is answered past this
    /// node's translation, unless this node asks in its place. It counts for [`Attachments::desired`].
    pub fn on_segments(&mut self, ranges: BTreeSet<Ipv4Net>) {
        self.segments = ranges;
    }

    /// Takes an attachment in, in the place of an earlier one of that handle, and tells what to change.
    ///
    /// # Errors
    ///
    /// When another one has one of its ports; then nothing changes.
    pub fn add(&mut self, handle: Handle, attached: Attached) -> Result<Vec<Edit>, PortTaken> {
        if let Some((port, holder)) = self.taken(&handle, &attached.ports) {
            return Err(PortTaken { port, holder });
        }
        let mut edits = self.remove(&handle);
        edits.push(Edit::AddElements(chains::SENDERS.into(), sender(&attached)));
        if let Some(pair) = pair(&attached) {
            edits.push(Edit::AddElements(chains::PORT_PAIRS.into(), pair));
        }
        let map = || RuleName::from(chains::HOST_PORTS);
        for (key, to) in backends(&attached) {
            edits.push(Edit::SetBackend { map: map(), key, to, replaces: false });
            self.ports.insert(key.frontend, handle.clone());
        }
        self.attached.insert(handle, attached);
        Ok(edits)
    }

    /// Forgets an attachment and tells what to change; nothing where there is none.
    pub fn remove(&mut self, handle: &Handle) -> Vec<Edit> {
        let Some(attached) = self.attached.remove(handle) else { return Vec::new() };
        let mut edits = vec![Edit::RemoveElements(chains::SENDERS.into(), sender(&attached))];
        if let Some(pair) = pair(&attached) {
            edits.push(Edit::RemoveElements(chains::PORT_PAIRS.into(), pair));
        }
        for (key, _) in backends(&attached) {
            edits.push(Edit::RemoveBackend { map: chains::HOST_PORTS.into(), key });
            self.ports.remove(&key.frontend);
        }
        edits
    }

    /// The node's ports of UDP that lead to an attachment: what connection tracking remembers of them is wrong when it comes or goes.
    #[must_use]
    pub fn udp_ports(attached: &Attached) -> BTreeSet<u16> {
        let udp = |(key, _): &(BackendKey, BackendAddress)| key.frontend.protocol == Protocol::Udp;
        backends(attached).filter(udp).map(|(key, _)| key.frontend.port).collect()
    }

    /// The attachment of this handle.
    #[must_use]
    pub fn of(&self, handle: &Handle) -> Option<&Attached> {
        self.attached.get(handle)
    }

    /// The whole table.
    #[must_use]
    pub fn desired(&self) -> RuleSet {
        let mut rules = chains::constant(self.device_prefix);
        if let Some((ranges, exempt)) = &self.masqueraded {
            chains::masquerade(&mut rules, ranges, *exempt);
        }
        if !self.segments.is_empty() {
            chains::answer_segments(&mut rules, &self.segments);
        }
        for attached in self.attached.values() {
            for (name, set) in [(chains::SENDERS, Some(sender(attached))), (chains::PORT_PAIRS, pair(attached))] {
                if let (Some(here), Some(more)) = (rules.sets.get_mut(name), set) {
                    here.extend(&more);
                }
            }
            if let Some(map) = rules.backend_maps.get_mut(chains::HOST_PORTS) {
                map.elements.extend(backends(attached));
            }
        }
        rules
    }

    /// A port that another has, on the same address or where one of the two is for every address.
    fn taken(&self, handle: &Handle, ports: &[PortMapping]) -> Option<(PortMapping, Handle)> {
        ports.iter().find_map(|port| {
            let wanted = frontend(port)?;
            let everywhere = FrontendKey { addr: Ipv4Addr::UNSPECIFIED, ..wanted };
            let same = [wanted, everywhere].into_iter().find_map(|key| self.ports.get(&key).filter(|by| *by != handle));
            let anywhere = || {
                let by_any = |(key, by): &(&FrontendKey, &Handle)| {
                    key.protocol == wanted.protocol && key.port == wanted.port && *by != handle
                };
                self.ports.iter().find(by_any).map(|(_, by)| by)
            };
            let holder = same.or_else(|| wanted.addr.is_unspecified().then(anywhere).flatten())?;
            Some((*port, holder.clone()))
        })
    }
}

fn sender(attached: &Attached) -> Set {
    Set::Devices(BTreeSet::from([(attached.device.clone(), attached.mac)]))
}

/// Only where a port is mapped can it reach itself by the node's address.
fn pair(attached: &Attached) -> Option<Set> {
    let addr = v4(attached).filter(|_| backends(attached).next().is_some())?;
    Some(Set::Pairs(BTreeSet::from([(addr, addr)])))
}

fn backends(attached: &Attached) -> impl Iterator<Item = (BackendKey, BackendAddress)> {
    let addr = v4(attached);
    attached.ports.iter().filter_map(move |port| {
        let to = BackendAddress { addr: addr?, port: port.container_port };
        Some((BackendKey { frontend: frontend(port)?, slot: 0 }, to))
    })
}

fn v4(attached: &Attached) -> Option<Ipv4Addr> {
    attached.addrs.iter().find_map(|addr| match addr {
        IpAddr::V4(addr) => Some(*addr),
        IpAddr::V6(_) => None,
    })
}

fn frontend(port: &PortMapping) -> Option<FrontendKey> {
    match port.host_ip {
        IpAddr::V4(addr) => Some(FrontendKey { addr, protocol: port.protocol, port: port.host_port }),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests;
