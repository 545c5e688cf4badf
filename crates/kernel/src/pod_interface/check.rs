//! What differs between a pod's interface and how it should be.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use podnet_model::{LinkName, Mac};
use podnet_planner::step::ROUTE_PROTOCOL;

use super::{PodInterface, host_route};
use crate::{
    addr,
    link::{self, Link},
    neigh,
    netlink::{NetlinkError, RtSocket},
    route::{self, Route},
};

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// There is no such device.
    NoDevice(LinkName),
    /// The device was set down.
    Down(LinkName),
    /// The device has another MTU.
    Mtu {
        /// The device.
        device: LinkName,
        /// What it has.
        found: u32,
    },
    /// The device has another Ethernet address.
    MacOf {
        /// The device.
        device: LinkName,
        /// What it has.
        found: Option<Mac>,
    },
    /// The two devices are not the ends of one pair.
    NotAPair,
    /// The device is no port of this bridge.
    NoPort {
        /// The device.
        device: LinkName,
        /// The bridge.
        bridge: LinkName,
    },
    /// The bridge has not the gateway's address.
    NoGateway {
        /// The bridge.
        device: LinkName,
        /// The address.
        addr: IpNet,
    },
    /// The bridge learns from frames that nobody checks.
    LearnsUnchecked(LinkName),
    /// The pod has not this address.
    NoAddress(IpAddr),
    /// This route is missing or goes elsewhere.
    NoRoute {
        /// The device that it should go through.
        device: LinkName,
        /// The destination.
        dst: IpNet,
    },
    /// This permanent neighbour is missing or has another Ethernet address.
    NoNeighbour {
        /// The device that it should be on.
        device: LinkName,
        /// The neighbour.
        addr: IpAddr,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice(device) => write!(f, "there is no device {device}"),
            Self::Down(device) => write!(f, "device {device} is down"),
            Self::Mtu { device, found } => write!(f, "device {device} has MTU {found}"),
            Self::MacOf { device, found: Some(mac) } => write!(f, "device {device} has Ethernet address {mac}"),
            Self::MacOf { device, found: None } => write!(f, "device {device} has no Ethernet address"),
            Self::NotAPair => f.write_str("the two devices are not one pair"),
            Self::NoPort { device, bridge } => write!(f, "device {device} is no port of bridge {bridge}"),
            Self::NoGateway { device, addr } => write!(f, "bridge {device} has not address {addr}"),
            Self::LearnsUnchecked(device) => write!(f, "bridge {device} learns from frames to itself"),
            Self::NoAddress(addr) => write!(f, "the pod has not address {addr}"),
            Self::NoRoute { device, dst } => write!(f, "no route to {dst} goes through {device}"),
            Self::NoNeighbour { device, addr } => write!(f, "{addr} is no permanent neighbour on {device}"),
        }
    }
}

pub(super) fn differences(interface: &PodInterface, host: &mut RtSocket) -> Result<Vec<Difference>, NetlinkError> {
    let mut pod = RtSocket::open_in(&interface.netns)?;
    let pod_end = link::find(&mut pod, &interface.container_ifname)?;
    let host_end = link::find(host, &interface.host_ifname)?;
    let mut differences = Vec::new();
    // A plugin that is chained after podnet, or the pod itself, may lower what its end sends at once.
    let least = pod_end.as_ref().map_or(interface.mtu, |end| end.mtu.min(interface.mtu));
    let host_mac = Some(interface.host_mac).filter(|_| interface.bridge.is_none());
    compare(pod_end.as_ref(), &interface.container_ifname, Some(interface.pod_mac), least, &mut differences);
    compare(host_end.as_ref(), &interface.host_ifname, host_mac, interface.mtu, &mut differences);
    let (Some(pod_end), Some(host_end)) = (pod_end, host_end) else { return Ok(differences) };
    if pod_end.peer != Some(host_end.index) || host_end.peer != Some(pod_end.index) {
        differences.push(Difference::NotAPair);
    }
    check_pod(interface, &mut pod, &pod_end, &mut differences)?;
    check_host(interface, host, &host_end, &mut differences)?;
    Ok(differences)
}

fn compare(found: Option<&Link>, name: &LinkName, mac: Option<Mac>, mtu: u32, differences: &mut Vec<Difference>) {
    let device = name.clone();
    let Some(found) = found else { return differences.push(Difference::NoDevice(device)) };
    if !found.is_up {
        differences.push(Difference::Down(device.clone()));
    }
    if found.mtu != mtu {
        differences.push(Difference::Mtu { device: device.clone(), found: found.mtu });
    }
    if mac.is_some() && found.mac != mac {
        differences.push(Difference::MacOf { device, found: found.mac });
    }
}

fn check_pod(
    interface: &PodInterface,
    pod: &mut RtSocket,
    end: &Link,
    differences: &mut Vec<Difference>,
) -> Result<(), NetlinkError> {
    let addresses = addr::list(pod, end.index)?;
    let missing = interface.addr.iter().filter(|addr| !addresses.contains(&interface.with_prefix(**addr)));
    differences.extend(missing.map(|addr| Difference::NoAddress(*addr)));
    let gateways = interface.gateways();
    let routes: Vec<Route> = gateways.iter().flat_map(|gateway| interface.pod_routes(end.index, *gateway)).collect();
    let neighbours: Vec<_> = gateways.into_iter().map(|gateway| (gateway, interface.host_mac)).collect();
    check_paths(pod, end, &routes, &neighbours, differences)
}

fn check_host(
    interface: &PodInterface,
    host: &mut RtSocket,
    end: &Link,
    differences: &mut Vec<Difference>,
) -> Result<(), NetlinkError> {
    let bridge = match &interface.bridge {
        None => None,
        Some(on) => {
            let found = link::find(host, &on.bridge)?.filter(|bridge| end.master == Some(bridge.index));
            if found.is_none() {
                let (device, bridge) = (end.name.clone(), on.bridge.clone());
                differences.push(Difference::NoPort { device, bridge });
                return Ok(());
            }
            found
        }
    };
    let end = bridge.as_ref().unwrap_or(end);
    let routes: Vec<Route> = interface.addr.iter().map(|addr| host_route(*addr, end.index)).collect();
    let neighbours: Vec<_> = interface.addr.iter().map(|addr| (*addr, interface.pod_mac)).collect();
    check_paths(host, end, &routes, &neighbours, differences)
}

fn check_paths(
    socket: &mut RtSocket,
    end: &Link,
    routes: &[Route],
    neighbours: &[(IpAddr, Mac)],
    differences: &mut Vec<Difference>,
) -> Result<(), NetlinkError> {
    let found = route::list(socket, ROUTE_PROTOCOL)?;
    let missing = routes.iter().filter(|route| !found.contains(route));
    differences.extend(missing.map(|route| Difference::NoRoute { device: end.name.clone(), dst: route.dst }));
    let found = neigh::list(socket, end.index)?;
    let missing = neighbours.iter().filter(|neighbour| !found.contains(neighbour));
    differences.extend(missing.map(|(addr, _)| Difference::NoNeighbour { device: end.name.clone(), addr: *addr }));
    Ok(())
}
