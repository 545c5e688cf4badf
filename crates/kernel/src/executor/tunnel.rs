//! Makes tunnels be as planned.

use std::{collections::BTreeMap, net::Ipv4Addr};

use podnet_model::{LinkName, wireguard::PublicKey};
use podnet_planner::{
    overlay::{IPV6_LEAST_MTU, PeerEnd, Support},
    step::{Ipip, Tunnel, UdpTunnel, Wireguard},
};
use rustix::io::Errno;

use super::{Set, allow_ipv6};
use crate::{
    link::{self, Link, LinkRef},
    netlink::{NetlinkError, Operation, Request, RtSocket},
    pod_interface::ipv6,
    sysctl, tun,
    wireguard::{Shown, WireguardSocket},
};

/// A WireGuard device's peers by their keys.
pub(super) type Peers = BTreeMap<PublicKey, PeerEnd>;

/// Which tunnels the kernel can make: it is asked to, and the device removed again.
///
/// # Errors
/// Where the kernel refuses for another reason than that it does not know the kind.
pub fn support(socket: &mut RtSocket) -> Result<Support, NetlinkError> {
    // Of a range for documentation (RFC 5737): no real device has it.
    let ipip = Ipip { name: PROBE.into(), local: Ipv4Addr::new(192, 0, 2, 88), mtu: 1480 };
    Ok(Support {
        ipip: is_made(socket, link::request::ipip(&ipip))?,
        wireguard: is_made(socket, link::request::wireguard(&PROBE.into(), ipip.mtu))?,
        tun: tun::is_there(),
        ipv6: sysctl::has_ipv6(),
    })
}

const PROBE: &str = "podnet.probe";

fn is_made(socket: &mut RtSocket, creation: Request) -> Result<bool, NetlinkError> {
    // One that a killed agent left.
    link::delete(socket, PROBE)?;
    match socket.perform(creation) {
        Ok(()) => link::delete(socket, PROBE).map(|()| true),
        Err(NetlinkError::Refused { errno: Errno::OPNOTSUPP, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn set(socket: &mut RtSocket, wanted: &Tunnel) -> Result<Set, NetlinkError> {
    match wanted {
        Tunnel::Ipip(ipip) => set_ipip(socket, ipip),
        Tunnel::Wireguard(wireguard) => set_wireguard(socket, wireguard),
        Tunnel::Udp(udp) => set_udp(socket, udp),
    }
}

/// The tunnel that a device is. One that the planner cannot name counts as none: it will be made anew.
pub(super) fn observed(socket: &RtSocket, link: &Link) -> Result<Option<(Tunnel, Peers)>, NetlinkError> {
    let (name, mtu) = (link.name.clone(), link.mtu);
    let alone = |tunnel| Ok(Some((tunnel, Peers::new())));
    match link.kind.as_deref().filter(|_| link.is_up) {
        Some("ipip") => match link.ipip_local {
            Some(local) => alone(Tunnel::Ipip(Ipip { name, local, mtu })),
            None => Ok(None),
        },
        Some("wireguard") => {
            let Shown { key, port, mark, peers } = WireguardSocket::open_in(socket.netns())?.show(&name)?;
            let Some(key) = key else { return Ok(None) };
            Ok(Some((Tunnel::Wireguard(Wireguard { name, port, mtu, mark, key }), peers)))
        }
        Some("tun") => alone(Tunnel::Udp(UdpTunnel { name, mtu })),
        _ => Ok(None),
    }
}

/// The key is set whether it changed or not: the kernel passes over what it has already, and asking costs as much.
fn set_wireguard(socket: &mut RtSocket, wanted: &Wireguard) -> Result<Set, NetlinkError> {
    let is_it = |link: &Link| link.kind.as_deref() == Some("wireguard");
    let creation = || link::request::wireguard(&wanted.name, wanted.mtu);
    let (link, remade) = find_or_create(socket, &wanted.name, is_it, creation)?;
    WireguardSocket::open_in(socket.netns())?.set_device(wanted)?;
    configure(socket, &link, wanted.mtu)?;
    Ok(Set { index: link.index, remade })
}

/// The device stays when nobody holds it, so that its routes outlive the program that carries its packets.
fn set_udp(socket: &mut RtSocket, wanted: &UdpTunnel) -> Result<Set, NetlinkError> {
    let is_it = |link: &Link| link.kind.as_deref() == Some("tun");
    let found = link::find(socket, &wanted.name)?;
    let remade = found.as_ref().is_some_and(|link| !is_it(link));
    if remade {
        link::delete(socket, &wanted.name)?;
    }
    if !found.as_ref().is_some_and(is_it) {
        tun::create(socket.netns(), &wanted.name)?;
    }
    let link = made(socket, &wanted.name)?;
    configure(socket, &link, wanted.mtu)?;
    Ok(Set { index: link.index, remade })
}

fn set_ipip(socket: &mut RtSocket, wanted: &Ipip) -> Result<Set, NetlinkError> {
    let is_it = |link: &Link| link.ipip_local == Some(wanted.local);
    let made = find_or_create(socket, &wanted.name, is_it, || link::request::ipip(wanted));
    let (link, remade) = made.map_err(|error| explained(socket, wanted, error))?;
    configure(socket, &link, wanted.mtu)?;
    Ok(Set { index: link.index, remade })
}

/// Names the device that has the same ends: that of another program, perhaps one that left it behind (flannel's `flannel.ipip`).
fn explained(socket: &mut RtSocket, wanted: &Ipip, error: NetlinkError) -> NetlinkError {
    let is_it = |link: &Link| link.name != wanted.name && link.ipip_local == Some(wanted.local);
    let others = || link::list(socket).unwrap_or_default().into_iter();
    match error.is_exists().then(others).and_then(|mut others| others.find(is_it)) {
        Some(other) => NetlinkError::InTheWay {
            operation: Operation::new("make device", &wanted.name),
            device: other.name.to_string(),
            what: format!("IPIP's local address {} without a remote one", wanted.local),
        },
        None => error,
    }
}

/// The device of that name, made anew where it is another one, and whether it was.
fn find_or_create(
    socket: &mut RtSocket,
    name: &LinkName,
    is_it: impl Fn(&Link) -> bool,
    creation: impl FnOnce() -> Request,
) -> Result<(Link, bool), NetlinkError> {
    let found = link::find(socket, name)?;
    let remade = match found {
        Some(link) if is_it(&link) => return Ok((link, false)),
        Some(_) => {
            link::delete(socket, name)?;
            true
        }
        None => false,
    };
    socket.perform(creation())?;
    Ok((made(socket, name)?, remade))
}

fn made(socket: &mut RtSocket, name: &LinkName) -> Result<Link, NetlinkError> {
    link::find(socket, name)?.ok_or_else(|| NetlinkError::NoDevice {
        operation: Operation::new("configure device", name),
        device: name.to_string(),
    })
}

fn configure(socket: &mut RtSocket, link: &Link, mtu: u32) -> Result<(), NetlinkError> {
    let index = LinkRef::Index(link.index);
    let mut requests = Vec::new();
    if link.is_up && link.mtu < IPV6_LEAST_MTU {
        link::set_mtu(socket, link.index, mtu)?;
        ipv6::renew(socket, &link.name, (link.mtu, mtu), true)?;
    }
    if link.mtu != mtu {
        requests.push(link::request::set_mtu(index, mtu));
    }
    if !link.is_up {
        allow_ipv6(socket, &link.name)?;
        // The pods' answers may come from here while their requests went elsewhere.
        requests.push(link::request::set_up_quietly(index, mtu));
    }
    Ok(socket.perform_all(&requests)?)
}
