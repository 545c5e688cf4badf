//! The node's end of pods' interfaces: what somebody else did to it, and mending it. The pod's own end is the pod's namespace's.

use std::{collections::BTreeMap, net::IpAddr};

use podnet_model::{LinkName, Mac};
use podnet_planner::{overlay::IPV6_LEAST_MTU, step::ROUTE_PROTOCOL};

use super::{Difference, OnBridge, host_route, ipv6};
use crate::{
    link::{self, Link, LinkRef},
    neigh,
    netlink::{BatchError, NetlinkError, Request, RtSocket},
    route::{self, Route, Target},
    segment::request::join,
};

/// The node's end of a pod's interface as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEnd {
    /// The device.
    pub ifname: LinkName,
    /// The pod's addresses.
    pub addrs: Vec<IpAddr>,
    /// Ethernet address of the pod's end.
    pub pod_mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// The pod answers to the node's loopback by IPv6 (see [`loopback`](super::loopback)).
    pub answers_loopback6: bool,
    /// The bridge that it is a port of, where it is.
    pub bridge: Option<OnBridge>,
}

impl HostEnd {
    /// `through` is the device that the pod's addresses are behind.
    fn requests(&self, found: &Link, through: u32) -> Vec<Request> {
        let index = LinkRef::Index(found.index);
        let mut requests = Vec::new();
        if found.mtu != self.mtu {
            requests.push(link::request::set_mtu(index, self.mtu));
        }
        if !found.is_up {
            requests.push(link::request::set_up_quietly(index, self.mtu));
        }
        if let Some(on) = self.bridge.as_ref().filter(|_| found.master != Some(through)) {
            requests.extend(join(&self.ifname, through, on.hairpin, self.mtu));
        }
        for addr in &self.addrs {
            requests.push(route::set(&host_route(*addr, through)));
            requests.push(neigh::set(through, *addr, self.pod_mac));
        }
        if self.answers_loopback6 {
            requests.push(route::to_loopback(through));
        }
        requests
    }

    fn differences(
        &self,
        found: &Link,
        through: u32,
        routes: &[Route],
        neighbours: &[(u32, IpAddr, Mac)],
    ) -> Vec<Difference> {
        let device = || self.ifname.clone();
        let mut differences = Vec::new();
        if !found.is_up {
            differences.push(Difference::Down(device()));
        }
        if found.mtu != self.mtu {
            differences.push(Difference::Mtu { device: device(), found: found.mtu });
        }
        if let Some(on) = self.bridge.as_ref().filter(|_| found.master != Some(through)) {
            differences.push(Difference::NoPort { device: device(), bridge: on.bridge.clone() });
        }
        for addr in &self.addrs {
            let wanted = host_route(*addr, through);
            if !routes.contains(&wanted) {
                differences.push(Difference::NoRoute { device: device(), dst: wanted.dst });
            }
            if !neighbours.contains(&(through, *addr, self.pod_mac)) {
                differences.push(Difference::NoNeighbour { device: device(), addr: *addr });
            }
        }
        differences
    }
}

/// A node's end that is not as it should be.
#[derive(Clone, Debug)]
pub struct Damaged {
    /// How it should be.
    pub end: HostEnd,
    /// What is wrong. Where the device is gone that is all, and there is nothing to mend: the sandbox has to be made anew.
    pub differences: Vec<Difference>,
    link: Option<Link>,
    /// The device that the pod's addresses are behind.
    through: u32,
}

/// Looks at all of these at once: three questions to the kernel, however many there are. What would be on a bridge that is not there is
/// passed by.
///
/// # Errors
/// Where the kernel cannot be asked.
pub fn damaged(socket: &mut RtSocket, ends: &[HostEnd]) -> Result<Vec<Damaged>, NetlinkError> {
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    let links = link::list(socket)?;
    let links: BTreeMap<&str, &Link> = links.iter().map(|link| (link.name.as_str(), link)).collect();
    let mut routes = route::list(socket, ROUTE_PROTOCOL)?;
    routes.retain(|route| matches!(route.target, Target::Device(_)));
    let neighbours = neigh::list_all(socket)?;
    let mut found = Vec::new();
    for end in ends {
        let Some(link) = links.get(end.ifname.as_str()) else {
            let differences = vec![Difference::NoDevice(end.ifname.clone())];
            found.push(Damaged { end: end.clone(), differences, link: None, through: 0 });
            continue;
        };
        let through = end.bridge.as_ref().map_or(Some(link), |on| links.get(on.bridge.as_str()));
        let Some(through) = through.map(|link| link.index) else { continue };
        let differences = end.differences(link, through, &routes, &neighbours);
        if !differences.is_empty() {
            found.push(Damaged { end: end.clone(), differences, link: Some((*link).clone()), through });
        }
    }
    Ok(found)
}

impl Damaged {
    /// Whether there is anything to mend.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.link.is_some()
    }

    /// Puts right what is wrong. A device that went meanwhile is no error: its sandbox is being removed.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn mend(&self, socket: &mut RtSocket) -> Result<(), NetlinkError> {
        let Some(link) = &self.link else { return Ok(()) };
        if link.mtu < IPV6_LEAST_MTU {
            let has_ipv6 = self.end.bridge.is_none() && self.end.addrs.iter().any(IpAddr::is_ipv6);
            let widened = link::set_mtu(socket, link.index, self.end.mtu)
                .and_then(|()| ipv6::renew(socket, &link.name, (link.mtu, self.end.mtu), has_ipv6));
            match widened {
                Err(error) if error.is_missing() => return Ok(()),
                widened => widened?,
            }
        }
        match socket.perform_all(&self.end.requests(link, self.through)) {
            Ok(()) => Ok(()),
            Err(BatchError { source, .. }) if source.is_missing() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
