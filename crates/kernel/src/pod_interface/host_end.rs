//! The node's end of pods' interfaces: what somebody else did to it, and mending it. The pod's own end is the pod's namespace's.

use std::{collections::BTreeMap, net::IpAddr};

use podnet_model::{LinkName, Mac};
use podnet_planner::{overlay::IPV6_LEAST_MTU, step::ROUTE_PROTOCOL};

use super::{Difference, host_route, ipv6};
use crate::{
    link::{self, Link, LinkRef},
    neigh,
    netlink::{BatchError, NetlinkError, Request, RtSocket},
    route::{self, Route, Target},
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
}

impl HostEnd {
    fn requests(&self, found: &Link) -> Vec<Request> {
        let index = LinkRef::Index(found.index);
        let mut requests = Vec::new();
        if found.mtu != self.mtu {
            requests.push(link::request::set_mtu(index, self.mtu));
        }
        if !found.is_up {
            requests.push(link::request::set_up_quietly(index));
        }
        for addr in &self.addrs {
            requests.push(route::set(&host_route(*addr, found.index)));
            requests.push(neigh::set(found.index, *addr, self.pod_mac));
        }
        if self.answers_loopback6 {
            requests.push(route::to_loopback(found.index));
        }
        requests
    }

    fn differences(&self, found: &Link, routes: &[Route], neighbours: &[(u32, IpAddr, Mac)]) -> Vec<Difference> {
        let device = || self.ifname.clone();
        let mut differences = Vec::new();
        if !found.is_up {
            differences.push(Difference::Down(device()));
        }
        if found.mtu != self.mtu {
            differences.push(Difference::Mtu { device: device(), found: found.mtu });
        }
        for addr in &self.addrs {
            let wanted = host_route(*addr, found.index);
            if !routes.contains(&wanted) {
                differences.push(Difference::NoRoute { device: device(), dst: wanted.dst });
            }
            if !neighbours.contains(&(found.index, *addr, self.pod_mac)) {
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
}

/// Looks at all of these at once: three questions to the kernel, however many there are.
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
            found.push(Damaged { end: end.clone(), differences, link: None });
            continue;
        };
        let differences = end.differences(link, &routes, &neighbours);
        if !differences.is_empty() {
            found.push(Damaged { end: end.clone(), differences, link: Some((*link).clone()) });
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
            let has_ipv6 = self.end.addrs.iter().any(IpAddr::is_ipv6);
            let widened = link::set_mtu(socket, link.index, self.end.mtu)
                .and_then(|()| ipv6::renew(socket, &link.name, (link.mtu, self.end.mtu), has_ipv6));
            match widened {
                Err(error) if error.is_missing() => return Ok(()),
                widened => widened?,
            }
        }
        match socket.perform_all(&self.end.requests(link)) {
            Ok(()) => Ok(()),
            Err(BatchError { source, .. }) if source.is_missing() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
