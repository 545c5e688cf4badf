//! The rules about what is attached to this node: who may send what, and which ports of the node lead where.
//!
//! They are tables of their own, one for each family of addresses, because they change with attachments and not with the cluster: an ADD
//! puts its elements in force before it answers, and waits for nobody. As with Services, an attachment is elements of sets and maps,
//! never a rule:
//!
//! ```text
//! set senders      (device, Ethernet address, source address)        of every attachment: what else comes in there is dropped
//! map host-ports   (address, protocol, port, 0) → (address, port)    unspecified address: every address of the node
//! set port-pairs   (attachment, attachment)                          of those with ports: connections to themselves are masqueraded
//! ```

mod chains;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use podnet_model::{Dual, Family, LinkName, Mac, Protocol, cni::PortMapping};

use crate::{
    ipam::Handle,
    ruleset::{
        BackendAddress, BackendKey, Edit, FrontendKey, RuleName, RuleSet, Set, unspecified,
        walk::{Element, Hop},
    },
};

/// The tables, one for each family.
pub const TABLE: &str = "podnet-pods";

/// How the names of devices begin that lead to attachments.
pub const DEVICE_PREFIX: &str = "pn";

/// Something that is attached to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The node's end of its link.
    pub device: LinkName,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its addresses, of either family. It may send with all of them; ports lead to the first one of their family.
    pub addrs: Vec<IpAddr>,
    /// Ports of the node that lead to it. Those of a family that it has no address of have no effect.
    pub ports: Vec<PortMapping>,
    /// Where its device is a port of a bridge, the ranges in which others are its neighbours there. What it sends comes in by the bridge,
    /// and is checked where it enters that.
    pub segment: Option<Vec<IpNet>>,
}

impl Attached {
    /// The families by which a port of the node's loopback leads to it.
    pub fn on_loopback(&self) -> impl Iterator<Item = Family> {
        let is_loopback = |addr: IpAddr| addr.is_unspecified() || addr.is_loopback();
        let leads = move |family| backends(self, family).any(|(key, _)| is_loopback(key.frontend.addr));
        Family::ALL.into_iter().filter(move |family| leads(*family))
    }
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
    /// Ranges whose way out is translated.
    masqueraded: BTreeSet<IpNet>,
    /// Ranges whose attachments reach each other without this node.
    segments: BTreeSet<IpNet>,
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
            masqueraded: BTreeSet::new(),
            segments: BTreeSet::new(),
            attached: BTreeMap::new(),
            ports: BTreeMap::new(),
        }
    }

    /// What leaves these ranges, none of which lies in another, gets an address of the node as its source, unless it goes to one of
    /// them or to a multicast group. It counts for [`Attachments::desired`].
    pub fn masquerade(&mut self, ranges: BTreeSet<IpNet>) {
        self.masqueraded = ranges;
    }

    /// These ranges, none of which lies in another, are shared Ethernet segments. Who asks for a port from there is answered past this
    /// node's translation, unless this node asks in its place. It counts for [`Attachments::desired`].
    pub fn on_segments(&mut self, ranges: BTreeSet<IpNet>) {
        self.segments = ranges;
    }

    /// Takes an attachment in, in the place of an earlier one of that handle, and tells what to change in each family's table.
    ///
    /// # Errors
    ///
    /// When another one has one of its ports; then nothing changes.
    pub fn add(&mut self, handle: Handle, attached: Attached) -> Result<Dual<Vec<Edit>>, PortTaken> {
        if let Some((port, holder)) = self.taken(&handle, &attached) {
            return Err(PortTaken { port, holder });
        }
        let mut edits = self.remove(&handle);
        for family in Family::ALL {
            let edits = &mut edits[family];
            edits.extend(elements(&attached, family).map(|(name, set)| Edit::AddElements(name.into(), set)));
            for (key, to) in backends(&attached, family) {
                edits.push(Edit::SetBackend { map: RuleName::from(chains::HOST_PORTS), key, to, replaces: false });
                self.ports.insert(key.frontend, handle.clone());
            }
        }
        self.attached.insert(handle, attached);
        Ok(edits)
    }

    /// Forgets an attachment and tells what to change in each family's table; nothing where there is none.
    pub fn remove(&mut self, handle: &Handle) -> Dual<Vec<Edit>> {
        let Some(attached) = self.attached.remove(handle) else { return Dual::default() };
        Dual::from_fn(|family| {
            let elements = elements(&attached, family).map(|(name, set)| Edit::RemoveElements(name.into(), set));
            let mut edits: Vec<Edit> = elements.collect();
            for (key, _) in backends(&attached, family) {
                edits.push(Edit::RemoveBackend { map: chains::HOST_PORTS.into(), key });
                self.ports.remove(&key.frontend);
            }
            edits
        })
    }

    /// The node's ports of UDP that lead to an attachment: what connection tracking remembers of them is wrong when it comes or goes.
    #[must_use]
    pub fn udp_ports(attached: &Attached) -> BTreeSet<(Family, u16)> {
        let of = |family| backends(attached, family).map(move |(key, _)| (family, key.frontend));
        let udp = Family::ALL.into_iter().flat_map(of).filter(|(_, frontend)| frontend.protocol == Protocol::Udp);
        udp.map(|(family, frontend)| (family, frontend.port)).collect()
    }

    /// The attachment of this handle.
    #[must_use]
    pub fn of(&self, handle: &Handle) -> Option<&Attached> {
        self.attached.get(handle)
    }

    /// Whether there has to be a table of the family. That of IPv4 always: what has no address may not send. A device that leads to no
    /// IPv6 address takes no IPv6 packets anyway, so where nothing has one no table need be.
    #[must_use]
    pub fn is_needed(&self, family: Family) -> bool {
        let mut addrs = self.attached.values().flat_map(|attached| &attached.addrs);
        family == Family::V4 || addrs.any(|addr| Family::of(addr) == family)
    }

    /// Those that are ports of bridges.
    pub fn on_bridges(&self) -> impl Iterator<Item = &Attached> {
        self.attached.values().filter(|attached| attached.segment.is_some())
    }

    /// Ranges that are shared segments, none of which lies in another. Where they change, the whole tables do.
    #[must_use]
    pub fn all_segments(&self) -> BTreeSet<IpNet> {
        let of_attached = self.on_bridges().flat_map(|attached| attached.segment.iter().flatten());
        let all: BTreeSet<IpNet> = self.segments.iter().chain(of_attached).copied().collect();
        let within = |net: &IpNet| all.iter().any(|other| other != net && other.contains(net));
        all.iter().filter(|net| !within(net)).copied().collect()
    }

    /// The whole table of a family.
    #[must_use]
    pub fn desired(&self, family: Family) -> RuleSet {
        let mut rules = chains::constant(family, self.device_prefix);
        chains::masquerade(&mut rules, &self.masqueraded);
        chains::answer_segments(&mut rules, &self.all_segments());
        for attached in self.attached.values() {
            for (name, more) in elements(attached, family) {
                if let Some(here) = rules.sets.get_mut(name) {
                    here.extend(&more);
                }
            }
            if let Some(map) = rules.backend_maps.get_mut(chains::HOST_PORTS) {
                map.elements.extend(backends(attached, family));
            }
        }
        rules
    }

    /// A port that another has, on the same address or where one of the two is for every address.
    fn taken(&self, handle: &Handle, attached: &Attached) -> Option<(PortMapping, Handle)> {
        attached.ports.iter().find_map(|port| {
            let wanted = frontend(port);
            let family = Family::of(&wanted.addr);
            first(attached, family)?;
            let everywhere = FrontendKey { addr: unspecified(family), ..wanted };
            let same = [wanted, everywhere].into_iter().find_map(|key| self.ports.get(&key).filter(|by| *by != handle));
            let anywhere = || {
                let by_any = |(key, by): &(&FrontendKey, &Handle)| {
                    (Family::of(&key.addr), key.protocol, key.port) == (family, wanted.protocol, wanted.port)
                        && *by != handle
                };
                self.ports.iter().find(by_any).map(|(_, by)| by)
            };
            let holder = same.or_else(|| wanted.addr.is_unspecified().then(anywhere).flatten())?;
            Some((*port, holder.clone()))
        })
    }
}

/// Whether a rule that a packet met leads it to an attachment by a port of the node.
pub(crate) fn leads(met: &Hop) -> bool {
    met.matched.iter().any(|found| matches!(found, Element::Backend(map, ..) if **map == *chains::HOST_PORTS))
}

/// The elements of sets, by the sets' names; none of them is empty.
fn elements(attached: &Attached, family: Family) -> impl Iterator<Item = (&'static str, Set)> {
    let sender = |addr: IpAddr| (attached.device.clone(), attached.mac, addr);
    let addrs = || attached.addrs.iter().copied().filter(move |addr| Family::of(addr) == family);
    let pair = backends(attached, family).next().map(|(_, to)| (to.addr, to.addr));
    [
        (chains::SENDERS, Set::Senders(addrs().filter(|_| attached.segment.is_none()).map(sender).collect())),
        // Only where a port is mapped can it reach itself by the node's address.
        (chains::PORT_PAIRS, Set::Pairs(pair.into_iter().collect())),
    ]
    .into_iter()
    .filter(|(_, set)| !set.is_empty())
}

fn backends(attached: &Attached, family: Family) -> impl Iterator<Item = (BackendKey, BackendAddress)> {
    let addr = first(attached, family);
    attached.ports.iter().filter_map(move |port| {
        let frontend = frontend(port);
        let to = BackendAddress { addr: addr?, port: port.container_port };
        (Family::of(&frontend.addr) == family).then_some((BackendKey { frontend, slot: 0 }, to))
    })
}

fn first(attached: &Attached, family: Family) -> Option<IpAddr> {
    attached.addrs.iter().copied().find(|addr| Family::of(addr) == family)
}

const fn frontend(port: &PortMapping) -> FrontendKey {
    FrontendKey { addr: port.host_ip, protocol: port.protocol, port: port.host_port }
}

#[cfg(test)]
mod tests;
