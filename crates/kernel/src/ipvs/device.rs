//! The device that has the addresses of virtual servers. It is down and sends nothing: an address of any device is the node's. None of them is
//! ever the source of what is masqueraded.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use podnet_model::Family;
use podnet_planner::ipvs::{DEVICE, Edit};

use super::IpvsError;
use crate::{
    addr,
    link::{self, Link, request},
    netlink::{BatchError, NetlinkError, RtSocket},
    sysctl,
};

/// Its type, as the kernel calls it.
const KIND: &str = "dummy";

/// The addresses of a family that it has, by themselves, and whether each is such as podnet makes them: none's source.
pub(super) fn addresses(socket: &mut RtSocket, family: Family) -> Result<BTreeMap<IpAddr, bool>, IpvsError> {
    let Some(device) = find(socket)? else { return Ok(BTreeMap::new()) };
    let found = addr::list_of(socket, device.index)?;
    // Were it up it would have a link-local address of the kernel's making, with a range.
    let own = |net: &IpNet| Family::of_net(net) == family && net.prefix_len() == net.max_prefix_len();
    let own = found.into_iter().filter(|(net, _)| own(net));
    Ok(own.map(|(net, is_no_source)| (net.addr(), is_no_source)).collect())
}

/// Does edits of addresses, in order; all are tried. Others are passed over. The device is made for the first address.
pub(super) fn apply(socket: &mut RtSocket, family: Family, edits: &[Edit]) -> Result<(), IpvsError> {
    let adds = edits.iter().any(|edit| matches!(edit, Edit::AddAddress(_)));
    let index = match find(socket)? {
        Some(device) => device.index,
        None if adds => make(socket)?,
        None => return Ok(()),
    };
    if adds && family == Family::V6 {
        sysctl::allow_ipv6(socket.netns(), DEVICE)?;
    }
    let removal = |addr: IpAddr| addr::removal(index, IpNet::from(addr));
    let requests = |edit: &Edit| match edit {
        // The kernel does not change the scope of one that is there.
        Edit::AddAddress(addr) => vec![removal(*addr), addr::set_as_no_source(index, *addr)],
        Edit::RemoveAddress(addr) => vec![removal(*addr)],
        _ => Vec::new(),
    };
    let requests: Vec<_> = edits.iter().flat_map(requests).collect();
    Ok(socket.perform_all(&requests).map_err(NetlinkError::from)?)
}

/// Removes it where it has no address of either family.
pub(super) fn remove(socket: &mut RtSocket) -> Result<(), IpvsError> {
    for family in Family::ALL {
        if !addresses(socket, family)?.is_empty() {
            return Ok(());
        }
    }
    match find(socket)? {
        Some(device) => Ok(link::delete(socket, device.index)?),
        None => Ok(()),
    }
}

fn make(socket: &mut RtSocket) -> Result<u32, IpvsError> {
    match socket.perform(request::dummy(DEVICE)) {
        // The socket of the other family was faster.
        Err(error) if error.is_exists() => {}
        made => made?,
    }
    Ok(link::index_of(socket, DEVICE)?)
}

fn find(socket: &mut RtSocket) -> Result<Option<Link>, IpvsError> {
    match link::find(socket, DEVICE)? {
        Some(found) if found.kind.as_deref() != Some(KIND) => {
            Err(IpvsError::Device { kind: found.kind.unwrap_or_else(|| "device of the host".to_owned()) })
        }
        found => Ok(found),
    }
}

impl From<BatchError> for IpvsError {
    fn from(error: BatchError) -> Self {
        Self::Netlink(error.source)
    }
}
