//! Traffic shaping of pods' links (`tc(8)`): token buckets, and the way that leads a pod's traffic through one.
//!
//! ```text
//! to the pod      root qdisc of the node's end: tbf
//! from the pod    node's end, clsact, ingress: u32 filter → mirred redirect → ifb device, root qdisc: tbf → back to the node's end
//! ```
//!
//! What is made carries podnet's numbers ([`HANDLE`], [`PRIORITY`]), by which it is told from what others put on the same link.

mod listing;
pub(crate) mod program;
mod request;
pub(crate) mod tcx;
mod watch;

use std::collections::BTreeMap;

use listing::Qdiscs;
use podnet_flow::Direction;
use podnet_model::LinkName;
use podnet_planner::limits::{Bucket, Found, Step, egress_device, served_by};
use rustix::io::Errno;
pub use watch::Watch;

use crate::{
    link::{self, Link, LinkRef},
    netlink::{NetlinkError, Operation, RtSocket},
};

/// The major number of our qdiscs, as of our routes.
const HANDLE: u16 = 0x88;
/// The priority (`pref`) of our filters.
const PRIORITY: u16 = 88;
/// The kind of the devices that traffic from pods is led through.
const IFB: &str = "ifb";

/// Does the steps to the shaping of one pod's link, given by the node's end.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_missing`] where there is no such link. What was done until then stays: each step can be
/// done again.
pub fn apply(socket: &mut RtSocket, host: &LinkName, steps: &[Step]) -> Result<(), NetlinkError> {
    if steps.is_empty() {
        return Ok(());
    }
    let index = link::index_of(socket, host.as_str())?;
    for step in steps {
        match step {
            Step::SetIngress(bucket) => socket.perform(request::set_bucket(index, host, bucket))?,
            Step::RemoveIngress => socket.perform(request::remove_bucket(index, host))?,
            Step::SetEgress(bucket) => set_egress(socket, index, host, bucket)?,
            Step::RemoveEgress => remove_egress(socket, index, host)?,
        }
    }
    Ok(())
}

/// The bucket is there before anything is led to it.
fn set_egress(socket: &mut RtSocket, index: u32, host: &LinkName, bucket: &Bucket) -> Result<(), NetlinkError> {
    let device = through(host)?;
    let name = LinkRef::from(&device);
    let replies = socket.exchange(&[
        request::make_ifb(&device),
        // What the kernel gives it: packets of any size pass.
        link::request::set_up_quietly(name, 1500),
        link::request::find(name),
    ])?;
    let made = replies.into_iter().flatten().find_map(link::from_message);
    let made = made.filter(|link| link.kind.as_deref() == Some(IFB)).ok_or_else(|| NetlinkError::Refused {
        operation: Operation::new("lead a pod's traffic through", &device),
        hint: Some("the name is taken by a device of another kind".into()),
        errno: Errno::EXIST,
    })?;
    socket.perform_all(&[request::set_bucket(made.index, &device, bucket), request::make_hook(index, host)])?;
    let there = listing::diversions(socket, index, host)?;
    if there == [Some(made.index)] {
        return Ok(());
    }
    // Replaced as a whole: one may lead to a device that is gone, and what goes there is lost.
    Ok(socket.perform_all(&[request::remove_diversions(index, host), request::divert(index, made.index, host)])?)
}

fn remove_egress(socket: &mut RtSocket, index: u32, host: &LinkName) -> Result<(), NetlinkError> {
    let device = through(host)?;
    socket.perform_all(&[request::remove_diversions(index, host), link::request::delete(LinkRef::from(&device))])?;
    // The hook may be somebody else's, or have got filters of others meanwhile.
    if Qdiscs::list(socket)?.has_hook(index) && listing::filters(socket, index, host)? == 0 {
        socket.perform(request::remove_hook(index, host))?;
    }
    Ok(())
}

fn through(host: &LinkName) -> Result<LinkName, NetlinkError> {
    egress_device(host).ok_or_else(|| NetlinkError::Refused {
        operation: Operation::new("lead a pod's traffic away from", host),
        hint: Some("that is no name of a pod's link".into()),
        errno: Errno::INVAL,
    })
}

/// What is there of one pod's shaping; none where the link is not there.
///
/// # Errors
/// Where the kernel cannot be asked.
pub fn find(socket: &mut RtSocket, host: &LinkName) -> Result<Option<Found>, NetlinkError> {
    let Some(end) = link::find(socket, host)? else { return Ok(None) };
    let device = match egress_device(host) {
        Some(name) => link::find(socket, &name)?,
        None => None,
    };
    let qdiscs = Qdiscs::list(socket)?;
    look(socket, &qdiscs, &end, device.as_ref()).map(Some)
}

/// What is there of the shaping of all pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// By the node's ends of the pods' links.
    pub links: BTreeMap<LinkName, Found>,
    /// Devices for traffic from pods whose links are gone.
    pub strays: Vec<LinkName>,
}

/// What is there of the shaping of these pods' links, and what serves no link any more.
///
/// # Errors
/// Where the kernel cannot be asked.
pub fn observe(socket: &mut RtSocket, hosts: &[LinkName]) -> Result<Observed, NetlinkError> {
    let devices: BTreeMap<LinkName, Link> =
        link::list(socket)?.into_iter().map(|link| (link.name.clone(), link)).collect();
    let qdiscs = Qdiscs::list(socket)?;
    let mut observed = Observed::default();
    for host in hosts {
        let Some(end) = devices.get(host) else { continue };
        let device = egress_device(host).and_then(|name| devices.get(&name));
        match look(socket, &qdiscs, end, device) {
            Ok(found) => drop(observed.links.insert(host.clone(), found)),
            // Gone since the list was made.
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    let ifbs = devices.values().filter(|link| link.kind.as_deref() == Some(IFB)).map(|link| &link.name);
    observed.strays =
        ifbs.filter(|name| served_by(name).is_some_and(|host| !devices.contains_key(&host))).cloned().collect();
    Ok(observed)
}

fn look(socket: &mut RtSocket, qdiscs: &Qdiscs, end: &Link, device: Option<&Link>) -> Result<Found, NetlinkError> {
    let diversions = match qdiscs.has_hook(end.index) {
        true => listing::diversions(socket, end.index, &end.name)?,
        false => Vec::new(),
    };
    let diverted = device.is_some() || !diversions.is_empty();
    let egress = match device {
        Some(device) if device.is_up && diversions == [Some(device.index)] => qdiscs.bucket(device.index),
        _ => None,
    };
    Ok(Found { ingress: qdiscs.bucket(end.index), egress, diverted })
}

/// What a token bucket of a pod's link has dropped since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The index of the node's end of the link.
    pub device: u32,
    /// Which way the packets went.
    pub direction: Direction,
    /// How many; what is handed over as one, to be cut by a device, is one where it was dropped uncut.
    pub packets: u64,
}

/// What the token buckets of all pods' links have dropped.
///
/// # Errors
/// Where the kernel cannot be asked.
pub fn dropped(socket: &mut RtSocket) -> Result<Vec<Dropped>, NetlinkError> {
    let counted: Vec<(u32, u64)> = Qdiscs::list(socket)?.dropped().collect();
    if counted.is_empty() {
        return Ok(Vec::new());
    }
    let links = link::list(socket)?;
    let place = |index: u32| {
        let device = links.iter().find(|link| link.index == index)?;
        if device.kind.as_deref() == Some(IFB) {
            let host = served_by(&device.name)?;
            let end = links.iter().find(|link| link.name == host)?;
            return Some((end.index, Direction::Egress));
        }
        // Another program may have chosen our number.
        egress_device(&device.name).map(|_| (index, Direction::Ingress))
    };
    let told = counted
        .into_iter()
        .filter_map(|(index, packets)| place(index).map(|(device, direction)| Dropped { device, direction, packets }));
    Ok(told.collect())
}

/// Removes a device for traffic from a pod. Done also where there is none.
///
/// # Errors
/// Why the kernel refused.
pub fn remove_stray(socket: &mut RtSocket, device: &LinkName) -> Result<(), NetlinkError> {
    link::delete(socket, device)
}

#[cfg(test)]
mod tests;
