//! Makes tunnels be as planned.

use std::net::Ipv4Addr;

use podnet_model::LinkName;
use podnet_planner::{
    overlay::Support,
    step::{Ipip, Tunnel},
};
use rustix::io::Errno;

use super::Set;
use crate::{
    link::{self, Link, LinkRef},
    netlink::{NetlinkError, Operation, Request, RtSocket},
};

/// Which tunnels the kernel can make: it is asked to, and the device removed again.
///
/// # Errors
/// Where the kernel refuses for another reason than that it does not know the kind.
pub fn support(socket: &mut RtSocket) -> Result<Support, NetlinkError> {
    // Of a range for documentation (RFC 5737): no real device has it.
    let ipip = Ipip { name: PROBE.into(), local: Ipv4Addr::new(192, 0, 2, 88), mtu: 1480 };
    Ok(Support { ipip: is_made(socket, link::request::ipip(&ipip))? })
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
    }
}

/// The tunnel that a device is. One that the planner cannot name counts as none: it will be made anew.
pub(super) fn observed(link: &Link) -> Option<Tunnel> {
    let local = link.ipip_local.filter(|_| link.is_up)?;
    Some(Tunnel::Ipip(Ipip { name: link.name.clone(), local, mtu: link.mtu }))
}

fn set_ipip(socket: &mut RtSocket, wanted: &Ipip) -> Result<Set, NetlinkError> {
    let is_it = |link: &Link| link.ipip_local == Some(wanted.local);
    let (link, remade) = find_or_create(socket, &wanted.name, is_it, || link::request::ipip(wanted))?;
    configure(socket, &link, wanted.mtu)?;
    Ok(Set { index: link.index, remade })
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
    let replies = socket.exchange(&[creation(), link::request::find(LinkRef::from(name))])?;
    let made = replies.into_iter().flatten().find_map(link::from_message).ok_or_else(|| NetlinkError::NoDevice {
        operation: Operation::new("configure device", name),
        device: name.to_string(),
    })?;
    Ok((made, remade))
}

fn configure(socket: &mut RtSocket, link: &Link, mtu: u32) -> Result<(), NetlinkError> {
    let index = LinkRef::Index(link.index);
    let mut requests = Vec::new();
    if link.mtu != mtu {
        requests.push(link::request::set_mtu(index, mtu));
    }
    if !link.is_up {
        // The pods' answers may come from here while their requests went elsewhere.
        requests.push(link::request::set_up_quietly(index));
    }
    Ok(socket.perform_all(&requests)?)
}
