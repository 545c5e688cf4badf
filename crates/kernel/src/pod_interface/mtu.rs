//! The MTU of pods' interfaces that are in use.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use podnet_model::{LinkName, Mac};

use super::ipv6;
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
    /// The pod has an IPv6 address.
    pub has_ipv6: bool,
    /// The pod's namespace, where its name is known; otherwise it is searched among those that have names.
    pub netns: Option<PathBuf>,
}

/// The interfaces that do not have the MTU that was asked for.
#[derive(Debug, Default)]
pub struct Unchanged {
    /// Their pod's end was not found.
    pub lost: Vec<LinkName>,
    /// The kernel refused; the two ends may differ.
    pub refused: Vec<(LinkName, NetlinkError)>,
}

impl Unchanged {
    /// Whether all have it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.refused.is_empty()
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contains(&self, host_ifname: &LinkName) -> bool {
        self.lost.contains(host_ifname) || self.refused.iter().any(|(name, _)| name == host_ifname)
    }
}

/// Changes both ends of the interfaces to this MTU, and returns those that have it not. No packet is dropped between the two changes: a
/// veth device drops what is larger than the receiving end's MTU, so the end that sends less is changed first.
///
/// # Errors
/// Where the node's devices cannot be listed. What is wrong with one interface does not concern the others.
pub fn change(host: &mut RtSocket, interfaces: &[Interface], mtu: u32) -> Result<Unchanged, NetlinkError> {
    let links = link::list(host)?;
    let by_name: BTreeMap<&str, &Link> = links.iter().map(|link| (link.name.as_str(), link)).collect();
    let pending = interfaces.iter().filter_map(|interface| {
        let link = by_name.get(interface.host_ifname.as_str())?;
        Some(((link.peer?, link.index, interface.pod_mac), (*link, interface)))
    });
    let mut pending: Pending<'_> = pending.collect();
    let known: Vec<PathBuf> = interfaces.iter().filter_map(|interface| interface.netns.clone()).collect();
    let mut refused = Vec::new();
    for path in known.iter().cloned().chain(named()) {
        if pending.is_empty() {
            break;
        }
        refused.extend(change_inside(host, &path, &mut pending, mtu));
    }
    let lost = pending.into_values().map(|(_, interface)| interface.host_ifname.clone()).collect();
    Ok(Unchanged { lost, refused })
}

/// Interfaces by the index of the pod's end, that of the node's end, and the Ethernet address of the pod's end. Indices alone may be the
/// same in two nodes that are namespaces of one machine.
type Pending<'a> = BTreeMap<(u32, u32, Mac), (&'a Link, &'a Interface)>;

fn change_inside(
    host: &mut RtSocket,
    path: &Path,
    pending: &mut Pending<'_>,
    mtu: u32,
) -> Vec<(LinkName, NetlinkError)> {
    // A namespace that cannot be looked into is gone, or somebody else's.
    let Ok(mut pod) = NetNs::open(path).map_err(NetlinkError::from).and_then(|netns| RtSocket::open_in(&netns)) else {
        return Vec::new();
    };
    let mut refused = Vec::new();
    for end in link::list(&mut pod).unwrap_or_default() {
        let (Some(peer), Some(mac)) = (end.peer, end.mac) else { continue };
        let Some((host_end, interface)) = pending.remove(&(end.index, peer, mac)) else { continue };
        if let Err(error) = change_pair((&mut pod, &end), (&mut *host, host_end), mtu, interface.has_ipv6) {
            refused.push((interface.host_ifname.clone(), error));
        }
    }
    refused
}

fn change_pair(
    (pod, pod_end): (&mut RtSocket, &Link),
    (host, host_end): (&mut RtSocket, &Link),
    mtu: u32,
    has_ipv6: bool,
) -> Result<(), NetlinkError> {
    if pod_end.mtu > mtu {
        link::set_mtu(pod, pod_end.index, mtu)?;
    }
    if host_end.mtu != mtu {
        link::set_mtu(host, host_end.index, mtu)?;
        ipv6::renew(host, &host_end.name, (host_end.mtu, mtu), has_ipv6)?;
    }
    if pod_end.mtu < mtu {
        link::set_mtu(pod, pod_end.index, mtu)?;
    }
    Ok(())
}

pub(super) fn named() -> impl Iterator<Item = PathBuf> {
    // One of the two is usually a link to the other's parent.
    let directories = NAMES.map(|name| std::fs::canonicalize(name).unwrap_or_default());
    let distinct = if directories[0] == directories[1] { &directories[..1] } else { &directories[..] };
    let entries = distinct.iter().flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten().flatten());
    entries.map(|entry| entry.path()).collect::<Vec<_>>().into_iter()
}
