//! A pod's interface: a veth pair, one end in the pod, one in the node's namespace, with what makes it work.
//!
//! The pod has a host prefix, so everything else is reached through a gateway address that is the same in every pod and that nobody
//! has: a permanent neighbour entry says that the node's end of the pair is behind it. The node has a route and a permanent neighbour
//! entry for the pod. So neither side ever asks (ARP, ND), and no proxy has to answer.

pub mod bridge;
mod check;
pub mod host_end;
pub mod inside;
pub(crate) mod ipv6;
pub mod loopback;
pub mod mtu;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use podnet_model::{LinkName, Mac};
use podnet_planner::{limits::egress_device, step::ROUTE_PROTOCOL};

use crate::{
    addr,
    link::{self, LinkRef, Veth, VethPeer},
    neigh,
    netlink::{NetlinkError, Operation, Request, RtSocket},
    netns::NetNs,
    route::{self, Route, Target},
    segment::request::{announce, join},
};

pub use bridge::{NodeBridge, OnBridge, PodBridgeError};
pub use check::Difference;
pub use host_end::HostEnd;

/// The gateway of every pod for IPv4: link-local (RFC 3927), so it can be no pod's and no node's.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The gateway of every pod for IPv6: link-local (RFC 4291, section 2.5.6).
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Where the agent of a pod's node answers it over IPv6, as at [`GATEWAY_V4`] over IPv4: a link-local address is one of a single interface, and this
/// one of every node, behind whichever the pod's packets come in. It is unique local (RFC 4193), with the letters "podnet" behind its first byte.
pub const AGENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd70, 0x6f64, 0x6e65, 0x7400, 0, 0, 0, 1);

/// Where a sandbox's later interfaces have their metrics and tables, each by its index: after the kernel's own metric for IPv6 (1024).
/// Also the priority of their rules, which is before that of the main table (32766).
pub(crate) const BEHIND: u32 = 10_000;
/// The group (`ip-link(8)`) of devices that are being removed. Its number is "pndd" and means nothing to anybody else.
const DOOMED: u32 = 0x706e_6464;

/// A pod's interface as it shall be. The node's end is in the namespace of the socket that is passed to each operation.
#[derive(Clone, Debug)]
pub struct PodInterface {
    /// The pod's namespace.
    pub netns: NetNs,
    /// The pod's end (`CNI_IFNAME`).
    pub container_ifname: LinkName,
    /// The node's end.
    pub host_ifname: LinkName,
    /// The pod's addresses, each a host prefix.
    pub addr: Vec<IpAddr>,
    /// What the pod reaches through its gateway; none stands for everything, by each family that it has an address of.
    pub routes: Vec<IpNet>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Ethernet address of the pod's end.
    pub pod_mac: Mac,
    /// Ethernet address of what the pod's gateway is behind: the node's end, or the bridge that it is a port of.
    pub host_mac: Mac,
    /// The bridge that the node's end is a port of; none where the node routes by it.
    pub bridge: Option<OnBridge>,
}

/// The interface that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// Index of the pod's end, in the pod's namespace.
    pub pod_index: u32,
    /// Index of the node's end, in the node's namespace.
    pub host_index: u32,
}

impl PodInterface {
    /// Makes the interface: when this returns, the pod reaches the node and the node the pod.
    ///
    /// # Errors
    /// What the kernel refused; [`NetlinkError::is_exists`] where either name is taken. What was made until then is undone.
    pub fn create(&self, host: &mut RtSocket) -> Result<Created, PodInterfaceError> {
        self.create_parts(host)
            .map_err(|source| PodInterfaceError::Create { interface: self.host_ifname.clone(), source })
    }

    fn create_parts(&self, host: &mut RtSocket) -> Result<Created, NetlinkError> {
        let mut pod = RtSocket::open_in(&self.netns)?;
        let bridge = self.bridge.as_ref().map(|on| link::index_of(host, on.bridge.as_str())).transpose()?;
        let (created, is_off) = self.create_pair(&mut pod, host.netns())?;
        let on = if is_off { ipv6::turn_on(&self.netns, &self.container_ifname) } else { Ok(()) };
        let configured = on.and_then(|()| match bridge {
            None => self.configure_routed(&mut pod, host, created),
            Some(bridge) => self.configure_port(&mut pod, host, created, bridge),
        });
        match configured {
            Ok(()) => Ok(created),
            Err(error) => {
                self.undo(&mut pod, host, created, bridge);
                Err(error)
            }
        }
    }

    fn configure_routed(&self, pod: &mut RtSocket, host: &mut RtSocket, at: Created) -> Result<(), NetlinkError> {
        self.configure_pod(pod, at.pod_index)?;
        ipv6::restrict(host, &self.host_ifname, self.addr.iter().any(IpAddr::is_ipv6))?;
        host.perform_all(&self.host_requests(at.host_index, None))?;
        // The pod's end came up before it had a carrier.
        link::settle(pod, &self.container_ifname)
    }

    /// Whether the pod has a device with the name of the pod's end.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn is_name_taken(&self) -> Result<bool, PodInterfaceError> {
        RtSocket::open_in(&self.netns)
            .and_then(|mut pod| link::find(&mut pod, &self.container_ifname))
            .map(|found| found.is_some())
            .map_err(|source| PodInterfaceError::Check { interface: self.host_ifname.clone(), source })
    }

    /// One request makes both ends in their namespaces; the question after it tells both indices, and whether IPv6 has to be turned on.
    fn create_pair(&self, pod: &mut RtSocket, host: &NetNs) -> Result<(Created, bool), NetlinkError> {
        // The ports of a bridge have addresses of their own.
        let mac = Some(self.host_mac).filter(|_| self.bridge.is_none());
        let peer = VethPeer { name: self.host_ifname.as_str(), mac, netns: Some(host) };
        let name = self.container_ifname.as_str();
        let veth = Veth { name, mac: Some(self.pod_mac), peer, mtu: self.mtu };
        let replies = pod.exchange(&[link::request::veth(&veth), link::request::find(LinkRef::Name(name))])?;
        let is_off = self.addr.iter().any(IpAddr::is_ipv6) && replies.iter().flatten().any(ipv6::is_off);
        let made = replies.into_iter().flatten().find_map(link::from_message);
        let indices = made.and_then(|made| Some(Created { pod_index: made.index, host_index: made.peer? }));
        indices.map(|created| (created, is_off)).ok_or_else(|| {
            // Made, and gone again: somebody else works on the same namespace.
            NetlinkError::NoDevice { operation: Operation::new("configure device", name), device: name.to_owned() }
        })
    }

    /// A sandbox may have had an interface before this one, which keeps its routes: those of the later ones come behind.
    fn configure_pod(&self, pod: &mut RtSocket, index: u32) -> Result<(), NetlinkError> {
        match pod.perform_all(&self.pod_requests(index, route::add)) {
            Err(error) if error.source.is_exists() => {
                let mut requests = self.pod_requests(index, |route| route::set_behind(route, BEHIND + index));
                requests.extend(self.own_table(index));
                Ok(pod.perform_all(&requests)?)
            }
            done => Ok(done?),
        }
    }

    fn pod_requests(&self, index: u32, make: impl Fn(&Route) -> Request) -> Vec<Request> {
        let name = LinkRef::Index(index);
        let mut requests: Vec<Request> =
            self.addr.iter().map(|addr| addr::set(index, self.with_prefix(*addr))).collect();
        match self.bridge {
            None => requests.insert(0, link::request::set_up_quietly(name, self.mtu)),
            // Addresses come before the device is up, so that it can announce them.
            Some(_) => requests.extend([announce(name), link::request::set_up_quietly(name, self.mtu)]),
        }
        requests.extend(self.addr.iter().filter(|addr| addr.is_ipv6()).map(|addr| route::to_own(*addr, index)));
        for gateway in self.gateways() {
            requests.extend(self.pod_routes(index, gateway).iter().map(&make));
            requests.push(neigh::set(index, gateway, self.host_mac));
        }
        requests
    }

    /// What has the address of an interface that is not the first leaves by it all the same: the node drops it anywhere else. Where the
    /// interface goes its table empties, and is passed by.
    fn own_table(&self, index: u32) -> Vec<Request> {
        let table = BEHIND + index;
        let routes =
            self.gateways().into_iter().map(|via| route::set_in_table(&way(index, everywhere(via), via), table));
        let rules = self.addr.iter().map(|addr| route::use_table_for(*addr, table, BEHIND));
        routes.chain(rules).collect()
    }

    fn pod_routes(&self, index: u32, gateway: IpAddr) -> Vec<Route> {
        let on_link =
            Route { dst: IpNet::from(gateway), target: Target::Device(index), protocol: ROUTE_PROTOCOL, source: None };
        let all = [everywhere(gateway)];
        let wanted = if self.routes.is_empty() { &all[..] } else { &self.routes };
        let wanted = wanted.iter().filter(|dst| dst.addr().is_ipv4() == gateway.is_ipv4());
        let neighbours = self.bridge.iter().flat_map(|on| on.ways_to_neighbours(index));
        let neighbours = neighbours.filter(|way| way.dst.addr().is_ipv4() == gateway.is_ipv4());
        std::iter::once(on_link).chain(neighbours).chain(wanted.map(|dst| way(index, *dst, gateway))).collect()
    }

    fn host_requests(&self, index: u32, bridge: Option<u32>) -> Vec<Request> {
        let mut requests = match (&self.bridge, bridge) {
            (Some(on), Some(bridge)) => join(&self.host_ifname, bridge, on.hairpin, self.mtu).to_vec(),
            _ => vec![link::request::set_up_quietly(LinkRef::Index(index), self.mtu)],
        };
        let through = bridge.unwrap_or(index);
        for addr in &self.addr {
            requests.push(route::set(&host_route(*addr, through)));
            requests.push(neigh::set(through, *addr, self.pod_mac));
        }
        requests
    }

    /// One gateway for each family that the pod has addresses of.
    fn gateways(&self) -> Vec<IpAddr> {
        if let Some(on) = &self.bridge {
            return on.gateways.iter().map(IpNet::addr).collect();
        }
        let v4 = self.addr.iter().any(IpAddr::is_ipv4).then_some(GATEWAY_V4.into());
        let v6 = self.addr.iter().any(IpAddr::is_ipv6).then_some(GATEWAY_V6.into());
        v4.into_iter().chain(v6).collect()
    }

    /// What of it is in the node's namespace, of a pod that does not answer to the node's loopback.
    #[must_use]
    pub fn host_end(&self) -> HostEnd {
        HostEnd {
            ifname: self.host_ifname.clone(),
            addrs: self.addr.clone(),
            pod_mac: self.pod_mac,
            mtu: self.mtu,
            answers_loopback6: false,
            bridge: self.bridge.clone(),
        }
    }

    /// Routes, neighbours and the other end go with the device, but for those of a bridge.
    fn undo(&self, pod: &mut RtSocket, host: &mut RtSocket, created: Created, bridge: Option<u32>) {
        for addr in self.addr.iter().filter(|_| bridge.is_some()) {
            if let Err(error) = cut_off(host, *addr, self.bridge.as_ref().map(|on| &on.bridge)) {
                tracing::warn!(interface = %self.host_ifname, %addr, %error, "the way to a half-made pod interface could not be removed");
            }
        }
        if let Err(error) = link::delete(pod, created.pod_index) {
            tracing::warn!(interface = %self.host_ifname, %error, "a half-made pod interface could not be removed");
        }
    }

    /// What differs from how the interface should be; nothing where all is well.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn check(&self, host: &mut RtSocket) -> Result<Vec<Difference>, PodInterfaceError> {
        check::differences(self, host)
            .map_err(|source| PodInterfaceError::Check { interface: self.host_ifname.clone(), source })
    }
}

/// Removes a pod's interface by its node's end, and the device that its traffic was led through. Done also where there is none.
///
/// # Errors
/// What the kernel refused.
pub fn remove(host: &mut RtSocket, host_ifname: &LinkName) -> Result<(), PodInterfaceError> {
    remove_all(host, std::slice::from_ref(host_ifname))
}

/// As [`remove`], for many at once in hardly more time than for one.
///
/// # Errors
/// What the kernel refused. Others of them may be there still, in the group of those to be removed: the next removal takes them too.
pub fn remove_all(host: &mut RtSocket, host_ifnames: &[LinkName]) -> Result<(), PodInterfaceError> {
    let devices: Vec<(&LinkName, LinkName)> = host_ifnames
        .iter()
        .flat_map(|owner| std::iter::once(owner.clone()).chain(egress_device(owner)).map(move |device| (owner, device)))
        .collect();
    let Some(first) = devices.first() else { return Ok(()) };
    let grouped = devices.iter().map(|(_, device)| link::request::set_group(device.into(), DOOMED));
    let requests: Vec<Request> = grouped.chain([link::request::delete_group(DOOMED)]).collect();
    host.perform_all(&requests).map_err(|error| {
        let (owner, _) = devices.get(error.index).unwrap_or(first);
        PodInterfaceError::Remove { interface: (*owner).clone(), source: error.into() }
    })
}

/// Closes the node's way to a pod's address, ahead of the interface's removal, which takes the kernel its time; and does not take away
/// what is on the bridge, where the pod is on one.
///
/// # Errors
/// What the kernel refused; a way that is not there is none.
pub fn cut_off(host: &mut RtSocket, addr: IpAddr, bridge: Option<&LinkName>) -> Result<(), NetlinkError> {
    route::delete(host, IpNet::from(addr), ROUTE_PROTOCOL)?;
    let bridge = bridge.map(|bridge| link::find(host, bridge)).transpose()?.flatten();
    bridge.map_or(Ok(()), |bridge| neigh::delete(host, bridge.index, addr))
}

/// Removes a pod's interface by the pod's end. Done also where there is none.
///
/// # Errors
/// What the kernel refused.
pub fn remove_from_pod(netns: &NetNs, container_ifname: &LinkName) -> Result<(), PodInterfaceError> {
    RtSocket::open_in(netns)
        .and_then(|mut pod| link::delete(&mut pod, container_ifname))
        .map_err(|source| PodInterfaceError::Remove { interface: container_ifname.clone(), source })
}

fn way(index: u32, dst: IpNet, gateway: IpAddr) -> Route {
    let target = Target::Gateway { device: Some(index), via: gateway, onlink: true };
    Route { dst, target, protocol: ROUTE_PROTOCOL, source: None }
}

/// All addresses of the family of this one.
fn everywhere(addr: IpAddr) -> IpNet {
    match addr {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

fn host_route(addr: IpAddr, index: u32) -> Route {
    Route { dst: IpNet::from(addr), target: Target::Device(index), protocol: ROUTE_PROTOCOL, source: None }
}

/// Why a pod's interface could not be made, removed or looked at.
#[derive(Debug, thiserror::Error)]
pub enum PodInterfaceError {
    /// It could not be made, and nothing of it is left.
    #[error("cannot make pod interface {interface}")]
    Create {
        /// The node's end.
        interface: LinkName,
        /// Why.
        source: NetlinkError,
    },
    /// It could not be removed.
    #[error("cannot remove pod interface {interface}")]
    Remove {
        /// The end that it was named by.
        interface: LinkName,
        /// Why.
        source: NetlinkError,
    },
    /// It could not be looked at.
    #[error("cannot check pod interface {interface}")]
    Check {
        /// The node's end.
        interface: LinkName,
        /// Why.
        source: NetlinkError,
    },
}

impl PodInterfaceError {
    /// A name is taken.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        matches!(self, Self::Create { source, .. } if source.is_exists())
    }
}

#[cfg(test)]
mod tests;
