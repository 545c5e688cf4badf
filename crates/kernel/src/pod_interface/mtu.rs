//! The MTU of pods' interfaces that are in use.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use podnet_model::{LinkName, Mac};

use crate::{
    link::{self, Link},
    netlink::{NetlinkError, RtSocket},
    netns::NetNs,
};

/// Where runtimes name namespaces (`ip-netns(8)`; containerd, CRI-O and podman do as well).
const NAMES: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// A pod's interface whose MTU is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The node's end.
    pub host_ifname: LinkName,
    /// Ethernet address of the pod's end.
    pub pod_mac: Mac,
    /// The pod's namespace, where its name is known; otherwise it is searched among those that have names.
    pub netns: Option<PathBuf>,
}

/// Changes both ends of the interfaces to this MTU, and returns those whose pod's end was not found. No packet is dropped between the
/// two changes: a veth device drops what is larger than the receiving end's MTU, so the end that sends less is changed first.
///
/// # Errors
/// Where the node's devices cannot be listed or changed. What is wrong in one pod's namespace does not concern the others.
pub fn change(host: &mut RtSocket, interfaces: &[Interface], mtu: u32) -> Result<Vec<LinkName>, NetlinkError> {
    let links = link::list(host)?;
    let by_name: BTreeMap<&str, &Link> = links.iter().map(|link| (link.name.as_str(), link)).collect();
    let pending = interfaces.iter().filter_map(|interface| {
        let link = by_name.get(interface.host_ifname.as_str())?;
        Some(((link.peer?, link.index, interface.pod_mac), (*link, interface)))
    });
    let mut pending: Pending<'_> = pending.collect();
    let known: Vec<PathBuf> = interfaces.iter().filter_map(|interface| interface.netns.clone()).collect();
    for path in known.iter().cloned().chain(named()) {
        if pending.is_empty() {
            break;
        }
        change_inside(host, &path, &mut pending, mtu)?;
    }
    Ok(pending.into_values().map(|(_, interface)| interface.host_ifname.clone()).collect())
}

/// Interfaces by the index of the pod's end, that of the node's end, and the Ethernet address of the pod's end. Indices alone may be the
/// same in two nodes that are namespaces of one machine.
type Pending<'a> = BTreeMap<(u32, u32, Mac), (&'a Link, &'a Interface)>;

fn change_inside(host: &mut RtSocket, path: &Path, pending: &mut Pending<'_>, mtu: u32) -> Result<(), NetlinkError> {
    // A namespace that cannot be looked into is gone, or somebody else's.
    let Ok(mut pod) = NetNs::open(path).map_err(NetlinkError::from).and_then(|netns| RtSocket::open_in(&netns)) else {
        return Ok(());
    };
    for end in link::list(&mut pod).unwrap_or_default() {
        let (Some(peer), Some(mac)) = (end.peer, end.mac) else { continue };
        let Some((host_end, _)) = pending.remove(&(end.index, peer, mac)) else { continue };
        if end.mtu > mtu {
            link::set_mtu(&mut pod, end.index, mtu)?;
        }
        if host_end.mtu != mtu {
            link::set_mtu(host, host_end.index, mtu)?;
        }
        if end.mtu < mtu {
            link::set_mtu(&mut pod, end.index, mtu)?;
        }
    }
    Ok(())
}

fn named() -> impl Iterator<Item = PathBuf> {
    // One of the two is usually a link to the other's parent.
    let directories = NAMES.map(|name| std::fs::canonicalize(name).unwrap_or_default());
    let distinct = if directories[0] == directories[1] { &directories[..1] } else { &directories[..] };
    let entries = distinct.iter().flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten().flatten());
    entries.map(|entry| entry.path()).collect::<Vec<_>>().into_iter()
}
