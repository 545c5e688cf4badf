//! The bridge of the node that pods' interfaces may be ports of.
//!
//! Pods are on it as on a wire, so what needs a shared segment works: broadcast, multicast, protocols other than IP. Yet the node knows
//! each of them for good, as by a link of its own: it has a route and a permanent neighbour for each address, by the bridge. So
//! addresses of any block, and borrowed ones, are reached, and nothing of a pod's stands on what it says of itself.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressFlags, AddressScope};
use podnet_model::{LinkName, Mac};
use podnet_planner::{overlay::IPV6_LEAST_MTU, step::ROUTE_PROTOCOL};
use serde::{Deserialize, Serialize};

use super::{Created, Difference, PodInterface, ipv6};
use crate::{
    addr,
    link::{self, Link, LinkRef},
    neigh,
    netlink::{NetlinkError, RtSocket},
    netns::NetNs,
    route::{self, Route, Target},
    sysctl::{self, SysctlError},
};

/// How a pod's interface is on a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnBridge {
    /// The bridge, which has to be there ([`NodeBridge::prepare`]).
    pub bridge: LinkName,
    /// The port gets back what it sent, where that is for itself.
    pub hairpin: bool,
    /// Ranges whose addresses the pod takes for its neighbours'. An address of the pod's that is in none reaches all by the gateway.
    pub segments: Vec<IpNet>,
    /// The gateways, one of each family that the pod has addresses of, with the prefix that the bridge has them by.
    pub gateways: Vec<IpNet>,
}

/// A bridge as the pods on it need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeBridge {
    /// Its name.
    pub name: LinkName,
    /// Its Ethernet address: pods know their gateway by it for good, so it is the same after it was made anew.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// The pods' gateways.
    pub gateways: Vec<IpNet>,
    /// A pod has an IPv6 address.
    pub has_ipv6: bool,
}

impl NodeBridge {
    /// Makes the bridge where there is none, and what it should be. It is not removed with the last pod: others may have made
    /// something of it. `is_ours` says that pods are on it already, so that it is mended whatever it became.
    ///
    /// # Errors
    /// What the kernel refused; a device of another kind that has the name; a bridge that somebody else made.
    pub fn prepare(&self, host: &mut RtSocket, is_ours: bool) -> Result<(), PodBridgeError> {
        let found = match link::find(host, &self.name)? {
            Some(found) => found,
            None => self.make(host)?,
        };
        if found.kind.as_deref() != Some("bridge") {
            let kind = found.kind.unwrap_or_else(|| "physical".to_owned());
            return Err(PodBridgeError::Kind { name: self.name.clone(), kind });
        }
        if found.mac != Some(self.mac) {
            if !is_ours {
                return Err(PodBridgeError::Foreign { name: self.name.clone() });
            }
            link::set_mac(host, found.index, self.mac)?;
        }
        if found.mtu != self.mtu {
            link::set_mtu(host, found.index, self.mtu)?;
            ipv6::renew(host, &self.name, (found.mtu, self.mtu), self.has_ipv6)?;
        }
        let there = addr::list(host, found.index)?;
        for wanted in self.addresses().filter(|wanted| !there.contains(wanted)) {
            host.perform(request(found.index, wanted))?;
        }
        if found.learns_link_local {
            link::learn_from_no_link_local(host, found.index)?;
        }
        if !found.is_up {
            // Being up is the last of it: what is down may have been begun, and not finished.
            self.finish(host)?;
        } else if self.has_ipv6 {
            ipv6::restrict(host, &self.name, true)?;
        }
        if !found.is_up {
            host.perform(link::request::set_up_quietly(LinkRef::Index(found.index), self.mtu))?;
        }
        Ok(())
    }

    fn make(&self, host: &mut RtSocket) -> Result<Link, PodBridgeError> {
        host.perform(link::request::bridge_with(self.name.as_str(), self.mac, self.mtu))?;
        let made = link::find(host, &self.name)?;
        made.ok_or_else(|| {
            let operation = crate::netlink::Operation::new("set up bridge", &self.name);
            NetlinkError::NoDevice { operation, device: self.name.to_string() }.into()
        })
    }

    /// What a bridge has to have before it is up. The kernel refuses settings of IPv6 where it has none, and where the MTU is too
    /// small for it: there the bridge has none of it, and gets it with a larger MTU.
    fn finish(&self, host: &mut RtSocket) -> Result<(), PodBridgeError> {
        if self.mtu >= IPV6_LEAST_MTU && sysctl::has_ipv6() {
            link::set_without_link_local(host, &self.name)?;
        }
        ipv6::restrict(host, &self.name, self.has_ipv6)?;
        let here = NetNs::current().and_then(|here| here.inode()).ok() == host.netns().inode().ok();
        for (key, value) in settings(&self.name) {
            if here {
                sysctl::set_here(&key, value)?;
            } else {
                sysctl::set(host.netns(), &key, value)?;
            }
        }
        Ok(())
    }

    /// What is not as it should be; [`NodeBridge::prepare`] mends it.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn differences(&self, host: &mut RtSocket) -> Result<Vec<Difference>, NetlinkError> {
        let device = || self.name.clone();
        let Some(found) = link::find(host, &self.name)? else { return Ok(vec![Difference::NoDevice(device())]) };
        let mut differences = Vec::new();
        if !found.is_up {
            differences.push(Difference::Down(device()));
        }
        if found.mtu != self.mtu {
            differences.push(Difference::Mtu { device: device(), found: found.mtu });
        }
        if found.mac != Some(self.mac) {
            differences.push(Difference::MacOf { device: device(), found: found.mac });
        }
        if found.learns_link_local {
            differences.push(Difference::LearnsUnchecked(device()));
        }
        let there = addr::list(host, found.index)?;
        let missing = self.addresses().filter(|wanted| !there.contains(wanted));
        differences.extend(missing.map(|addr| Difference::NoGateway { device: device(), addr }));
        Ok(differences)
    }

    /// What the bridge answers for: gateways of IPv4, and those of a range of their own. A link-local gateway of IPv6 is
    /// nobody's address, as by routed links: with one, the node would tell pods of shorter ways (RFC 4861, section 8).
    fn addresses(&self) -> impl Iterator<Item = IpNet> {
        self.gateways.iter().copied().filter(|gateway| gateway.addr().is_ipv4() || !is_host(gateway))
    }
}

impl PodInterface {
    /// The port comes first, so that the pod can tell its neighbours its addresses.
    pub(super) fn configure_port(
        &self,
        pod: &mut RtSocket,
        host: &mut RtSocket,
        at: Created,
        bridge: u32,
    ) -> Result<(), NetlinkError> {
        // A port has no IPv6 of its own.
        ipv6::restrict(host, &self.host_ifname, false)?;
        host.perform_all(&self.host_requests(at.host_index, Some(bridge)))?;
        self.configure_pod(pod, at.pod_index)?;
        link::settle(pod, &self.container_ifname)?;
        // A bridge sends through a port, and has a carrier itself, only once the kernel told it of the port's.
        link::settle(host, &self.host_ifname)?;
        self.bridge.as_ref().map_or(Ok(()), |on| link::settle(host, &on.bridge))
    }

    /// An address as the pod has it: a host's alone, or one of a segment's that is a subnet as others have it, whose first and last
    /// address nobody has. In a block somebody has those too, and the kernel would take the last one for that of all.
    #[must_use]
    pub fn with_prefix(&self, addr: IpAddr) -> IpNet {
        let subnet = self.bridge.iter().flat_map(OnBridge::subnets).find(|subnet| subnet.contains(&addr));
        subnet.and_then(|subnet| IpNet::new(addr, subnet.prefix_len()).ok()).unwrap_or_else(|| IpNet::from(addr))
    }
}

impl OnBridge {
    /// Segments in which the node has the gateway's address.
    fn subnets(&self) -> impl Iterator<Item = &IpNet> {
        self.segments.iter().filter(|segment| self.gateways.iter().any(|gateway| gateway.trunc() == **segment))
    }

    /// The ways to neighbours, but for those that come with the pod's address.
    pub(super) fn ways_to_neighbours(&self, index: u32) -> impl Iterator<Item = Route> {
        let others = self.segments.iter().filter(|segment| !self.subnets().any(|subnet| subnet == *segment));
        others.map(move |dst| Route {
            dst: *dst,
            target: Target::Device(index),
            protocol: ROUTE_PROTOCOL,
            source: None,
        })
    }
}

/// Removes the ways to addresses that no pod has by bridges with this Ethernet address: they do not go with a pod's device, so what was
/// cut off between two steps leaves them. Answers with those addresses. Nobody may make a pod's interface meanwhile.
///
/// # Errors
/// What the kernel refused.
pub fn remove_strays(host: &mut RtSocket, mac: Mac, held: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>, NetlinkError> {
    let ours = |link: &Link| link.kind.as_deref() == Some("bridge") && link.mac == Some(mac);
    let bridges: BTreeSet<u32> = link::list(host)?.into_iter().filter(ours).map(|link| link.index).collect();
    let mut strays = BTreeSet::new();
    if bridges.is_empty() {
        return Ok(strays);
    }
    for route in route::list(host, ROUTE_PROTOCOL)? {
        let by_bridge = matches!(route.target, Target::Device(index) if bridges.contains(&index));
        if by_bridge && is_host(&route.dst) && !held.contains(&route.dst.addr()) {
            route::delete(host, route.dst, ROUTE_PROTOCOL)?;
            strays.insert(route.dst.addr());
        }
    }
    for (index, addr, _) in neigh::list_all(host)? {
        if bridges.contains(&index) && !held.contains(&addr) {
            neigh::delete(host, index, addr)?;
            strays.insert(addr);
        }
    }
    Ok(strays)
}

/// What the node's end of the segment needs, as keys and values: no redirections, as a pod of another block is not on this one's link
/// for good, and answers (ARP) in place of addresses of the segment's range that are lent to another node.
#[must_use]
pub fn settings(bridge: &LinkName) -> [(String, &'static str); 4] {
    [
        // The kernel sends them where either of the two says so.
        ("net/ipv4/conf/all/send_redirects".to_owned(), "0"),
        (format!("net/ipv4/conf/{bridge}/send_redirects"), "0"),
        (format!("net/ipv4/conf/{bridge}/proxy_arp"), "1"),
        (format!("net/ipv4/neigh/{bridge}/proxy_delay"), "0"),
    ]
}

/// The route of the whole range is none of the kernel's: the node has one for each pod, and none to who is not there. An address that is
/// a host's alone is no source of the node's own packets.
fn request(index: u32, addr: IpNet) -> crate::netlink::Request {
    let scope = if is_host(&addr) { AddressScope::Host } else { AddressScope::Universe };
    addr::set_as(index, addr, scope, AddressFlags::Nodad | AddressFlags::Noprefixroute)
}

fn is_host(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// Why a bridge is not as pods need it.
#[derive(Debug, thiserror::Error)]
pub enum PodBridgeError {
    /// A device of another kind has the name.
    #[error("device {name} is no bridge ({kind})")]
    Kind {
        /// The device.
        name: LinkName,
        /// What it is.
        kind: String,
    },
    /// Somebody else made it: its ports would lose their gateway.
    #[error(
        "bridge {name} is another program's; remove it (ip link delete {name}), or name another by the key \"bridge\""
    )]
    Foreign {
        /// The bridge.
        name: LinkName,
    },
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A setting could not be made.
    #[error(transparent)]
    Setting(#[from] SysctlError),
}
