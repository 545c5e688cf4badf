//! A container's interface on a shared Ethernet segment: the port of a bridge, or a macvlan device.
//!
//! Here a container is a host among others, as on a wire: it has an address with its subnet's prefix, asks for Ethernet addresses (ARP,
//! ND), and reaches its neighbours without the node's routing. What it reaches otherwise leads through a gateway of the segment.

pub mod bridge;
mod check;
pub(crate) mod request;

use std::net::IpAddr;

use ipnet::IpNet;
use podnet_model::{LinkName, Mac, cni::MacvlanKind};
use podnet_planner::step::ROUTE_PROTOCOL;

use crate::{
    addr,
    link::{self, Link, LinkRef, Veth, VethPeer},
    netlink::{NetlinkError, Operation, Request, RtSocket},
    netns::NetNs,
    pod_interface::{BEHIND, PodInterfaceError},
    route::{self, Route, Target},
};

/// A container's interface on a segment as it shall be. What of it is the node's is in the namespace of the socket that is passed.
#[derive(Clone, Debug)]
pub struct SegmentInterface {
    /// The container's namespace.
    pub netns: NetNs,
    /// The container's device (`CNI_IFNAME`).
    pub container_ifname: LinkName,
    /// Its addresses, each with the prefix of its subnet.
    pub addrs: Vec<IpNet>,
    /// What it reaches through which neighbour.
    pub routes: Vec<(IpNet, IpAddr)>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Its Ethernet address; the kernel chooses where there is none.
    pub mac: Option<Mac>,
    /// How it is on the segment.
    pub segment: Segment,
}

/// How a container is on a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// By a veth pair whose other end is a port of a bridge.
    Bridge {
        /// The bridge, which has to be there ([`bridge::prepare`]).
        bridge: LinkName,
        /// The port.
        port: LinkName,
        /// The port gets back what it sent, where that is for itself.
        hairpin: bool,
        /// Rules drop what comes from the port with other addresses than the interface shall have.
        checked: bool,
    },
    /// By a device of its own on top of one of the node's.
    Macvlan {
        /// The node's device.
        master: LinkName,
        /// Who reaches whom.
        kind: MacvlanKind,
    },
}

impl SegmentInterface {
    /// Makes the interface: when this returns, it sends and receives.
    ///
    /// # Errors
    /// What the kernel refused; [`PodInterfaceError::is_exists`] where either name is taken. What was made until then is undone.
    pub fn create(&self, host: &mut RtSocket) -> Result<Link, PodInterfaceError> {
        self.create_parts(host).map_err(|source| PodInterfaceError::Create { interface: self.name().clone(), source })
    }

    fn create_parts(&self, host: &mut RtSocket) -> Result<Link, NetlinkError> {
        let mut pod = RtSocket::open_in(&self.netns)?;
        match &self.segment {
            Segment::Bridge { port, .. } => {
                let peer = VethPeer { name: port.as_str(), mac: None, netns: Some(host.netns()) };
                let name = self.container_ifname.as_str();
                link::create_veth(&mut pod, &Veth { name, mac: self.mac, peer, mtu: self.mtu })?;
            }
            Segment::Macvlan { master, kind } => {
                let master = link::index_of(host, master.as_str())?;
                host.perform(request::macvlan(self, master, *kind))?;
            }
        }
        self.finish(host, &mut pod).inspect_err(|_| {
            // The other end goes with it.
            if let Err(error) = link::delete(&mut pod, &self.container_ifname) {
                tracing::warn!(interface = %self.name(), %error, "a half-made interface could not be removed");
            }
        })
    }

    fn finish(&self, host: &mut RtSocket, pod: &mut RtSocket) -> Result<Link, NetlinkError> {
        let made = self.find(pod)?.ok_or_else(|| NetlinkError::NoDevice {
            // Made, and gone again: somebody else works on the same namespace.
            operation: Operation::new("configure device", &self.container_ifname),
            device: self.container_ifname.to_string(),
        })?;
        if let Segment::Bridge { bridge, port, hairpin, .. } = &self.segment {
            let bridge = link::index_of(host, bridge.as_str())?;
            host.perform_all(&request::join(port, bridge, *hairpin, self.mtu))?;
        }
        pod.perform_all(&self.setting_up(made.index))?;
        match pod.perform_all(&self.ways(made.index, route::add)) {
            // A sandbox may have had an interface before this one, which keeps its routes.
            Err(error) if error.source.is_exists() => {
                let mut requests = self.ways(made.index, |route| route::set_behind(route, BEHIND + made.index));
                requests.extend(self.own_table(made.index));
                pod.perform_all(&requests)?;
            }
            done => done?,
        }
        link::settle(pod, &self.container_ifname)?;
        if let Segment::Bridge { bridge, port, .. } = &self.segment {
            // A bridge sends through a port, and has a carrier itself, only once the kernel told it of the port's.
            link::settle(host, port)?;
            link::settle(host, bridge)?;
        }
        self.find(pod).map(|link| link.unwrap_or(made))
    }

    /// Addresses come before the device is up, so that it can announce them.
    fn setting_up(&self, index: u32) -> Vec<Request> {
        let name = LinkRef::Index(index);
        let mut requests: Vec<Request> = self.addrs.iter().map(|addr| addr::set(index, *addr)).collect();
        requests.push(request::announce(name));
        requests.push(match self.segment {
            // Its link-local address would be nobody's whom the check of senders knows.
            Segment::Bridge { .. } => link::request::set_up_quietly(name, self.mtu),
            Segment::Macvlan { .. } => link::request::set_state(name, true),
        });
        requests
    }

    fn ways(&self, index: u32, make: impl Fn(&Route) -> Request) -> Vec<Request> {
        self.pod_routes(index).iter().map(make).collect()
    }

    fn pod_routes(&self, index: u32) -> Vec<Route> {
        let through = |(dst, via): &(IpNet, IpAddr)| {
            let target = Target::Gateway { device: Some(index), via: *via, onlink: false };
            Route { dst: *dst, target, protocol: ROUTE_PROTOCOL, source: None }
        };
        self.routes.iter().map(through).collect()
    }

    /// What has the address of an interface that is not the first leaves by it all the same.
    fn own_table(&self, index: u32) -> Vec<Request> {
        let table = BEHIND + index;
        let on_link = |addr: &IpNet| Route {
            dst: addr.trunc(),
            target: Target::Device(index),
            protocol: ROUTE_PROTOCOL,
            source: None,
        };
        let routes = self.addrs.iter().map(on_link).chain(self.pod_routes(index));
        let rules = self.addrs.iter().map(|addr| route::use_table_for(addr.addr(), table, BEHIND));
        routes.map(|route| route::set_in_table(&route, table)).chain(rules).collect()
    }

    /// Whether the container has a device of that name.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn is_name_taken(&self) -> Result<bool, PodInterfaceError> {
        let found = RtSocket::open_in(&self.netns).and_then(|mut pod| self.find(&mut pod));
        found
            .map(|found| found.is_some())
            .map_err(|source| PodInterfaceError::Check { interface: self.name().clone(), source })
    }

    fn find(&self, pod: &mut RtSocket) -> Result<Option<Link>, NetlinkError> {
        link::find(pod, &self.container_ifname)
    }

    /// The device that errors are about: the node's, where there is one.
    fn name(&self) -> &LinkName {
        match &self.segment {
            Segment::Bridge { port, .. } => port,
            Segment::Macvlan { .. } => &self.container_ifname,
        }
    }

    /// What differs from how the interface should be; nothing where all is well.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn check(&self, host: &mut RtSocket) -> Result<Vec<String>, PodInterfaceError> {
        check::differences(self, host)
            .map_err(|source| PodInterfaceError::Check { interface: self.name().clone(), source })
    }
}

#[cfg(test)]
mod tests;
