//! Makes a VXLAN device be as planned.

use std::net::IpAddr;

use ipnet::IpNet;
use podnet_model::LinkName;
use podnet_planner::{overlay::IPV6_LEAST_MTU, step::Vxlan};
use rustix::io::Errno;

use super::{Set, allow_ipv6};
use crate::{
    addr,
    link::{self, Link, LinkRef, VxlanParameters},
    netlink::{NetlinkError, Operation, Request, RtSocket},
    pod_interface::ipv6,
};

pub(super) fn set(socket: &mut RtSocket, wanted: &Vxlan) -> Result<Set, NetlinkError> {
    let (link, remade) = match link::find(socket, &wanted.name)? {
        Some(link) if link.vxlan == Some(parameters(wanted)) => (link, false),
        Some(_) => {
            link::delete(socket, &wanted.name)?;
            (create(socket, wanted)?, true)
        }
        None => (create(socket, wanted)?, false),
    };
    configure(socket, wanted, &link).map_err(|error| explained(socket, wanted, error))?;
    Ok(Set { index: link.index, remade })
}

/// Names the device that has the identifier and the port: that of another program, perhaps one that left it behind (flannel's `flannel.1`,
/// Calico's `vxlan.calico`). The kernel refuses such a device when it is made, one that shares the port in another manner when it is set up.
fn explained(socket: &mut RtSocket, wanted: &Vxlan, error: NetlinkError) -> NetlinkError {
    if !matches!(error.errno(), Some(Errno::EXIST | Errno::ADDRINUSE)) {
        return error;
    }
    let others = link::list(socket).unwrap_or_default().into_iter().filter(|link| link.name != wanted.name);
    let shares = |vxlan: &VxlanParameters| {
        let family = vxlan.local.map(|local| local.is_ipv6()).unwrap_or_default();
        vxlan.port == wanted.port && family == wanted.local.is_ipv6()
    };
    let of_port = |link: Link| link.vxlan.filter(shares).map(|vxlan| (link.name, vxlan.vni));
    let mut others: Vec<(LinkName, u32)> = others.filter_map(of_port).collect();
    others.sort_by_key(|(_, vni)| *vni != wanted.vni);
    match others.into_iter().next() {
        Some((device, vni)) => NetlinkError::InTheWay {
            operation: Operation::new("make device", &wanted.name),
            device: device.to_string(),
            what: format!("VXLAN's UDP port {} and identifier {vni}", wanted.port),
        },
        None => error,
    }
}

/// What the kernel does not change, or changes only for new traffic, in a device that is there.
fn parameters(wanted: &Vxlan) -> VxlanParameters {
    VxlanParameters { vni: wanted.vni, port: wanted.port, local: Some(wanted.local), learning: false }
}

fn create(socket: &mut RtSocket, wanted: &Vxlan) -> Result<Link, NetlinkError> {
    let name = LinkRef::from(&wanted.name);
    let replies = socket
        .exchange(&[link::request::vxlan(wanted), link::request::find(name)])
        .map_err(|error| explained(socket, wanted, error.into()))?;
    replies.into_iter().flatten().find_map(link::from_message).ok_or_else(|| NetlinkError::NoDevice {
        operation: Operation::new("configure device", name),
        device: wanted.name.to_string(),
    })
}

fn configure(socket: &mut RtSocket, wanted: &Vxlan, link: &Link) -> Result<(), NetlinkError> {
    let index = LinkRef::Index(link.index);
    let mut requests: Vec<Request> = Vec::new();
    if link.is_up && link.mtu < IPV6_LEAST_MTU {
        link::set_mtu(socket, link.index, wanted.mtu)?;
        ipv6::renew(socket, &wanted.name, (link.mtu, wanted.mtu), true)?;
    }
    if link.mac != Some(wanted.mac) {
        requests.push(link::request::set_mac(index, wanted.mac));
    }
    if link.mtu != wanted.mtu {
        requests.push(link::request::set_mtu(index, wanted.mtu));
    }
    if !link.is_up {
        allow_ipv6(socket, &wanted.name)?;
        // The pods' answers may come from here while their requests went elsewhere.
        requests.push(link::request::set_up_quietly(index, wanted.mtu));
    }
    let wanted_addrs: Vec<IpNet> = wanted.addrs.iter().copied().map(IpNet::from).collect();
    let found: Vec<IpNet> =
        addr::list(socket, link.index)?.into_iter().filter(|addr| is_planned(addr.addr())).collect();
    requests
        .extend(found.iter().filter(|addr| !wanted_addrs.contains(addr)).map(|addr| addr::removal(link.index, *addr)));
    requests.extend(wanted_addrs.iter().filter(|addr| !found.contains(addr)).map(|addr| addr::set(link.index, *addr)));
    Ok(socket.perform_all(&requests)?)
}

/// Whether an address of a device is the planner's to decide about: those of a link are the kernel's.
pub(super) fn is_planned(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(_) => true,
        IpAddr::V6(addr) => !addr.is_unicast_link_local(),
    }
}
