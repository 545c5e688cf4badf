//! The namespace that a pod's interface is in.

use std::{
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::LinkAttribute,
    nsid::{NsidAttribute, NsidMessage},
};
use podnet_model::{LinkName, Mac};

use super::mtu::named;
use crate::{
    link::{self, Link},
    netlink::{NetlinkError, Operation, Request, RtSocket},
    netns::NetNs,
};

/// The namespace of the pod behind a device of the node: the known one, or one of those that have names; none where that of the pod is not
/// among them, or there is no such device. `mac` is the Ethernet address of the pod's end.
///
/// Indices and addresses are what a pod may give its own devices, which may so look like those of another one. The kernel says by the node's
/// device which namespace the other end is in (`IFLA_LINK_NETNSID`), and no pod changes that.
///
/// # Errors
/// Where the node's device cannot be looked at.
pub fn namespace_of(
    host: &mut RtSocket,
    device: &LinkName,
    mac: Mac,
    known: Option<PathBuf>,
) -> Result<Option<NetNs>, NetlinkError> {
    let Some((end, id)) = end_of(host, device)? else { return Ok(None) };
    let Some(peer) = end.peer else { return Ok(None) };
    Ok(known.into_iter().chain(named()).find_map(|path| {
        // One that cannot be looked into is gone, or somebody else's.
        let netns = NetNs::open(&path).ok()?;
        if id_of(host, &netns) != Some(id) {
            return None;
        }
        let other = link::find(&mut RtSocket::open_in(&netns).ok()?, peer).ok()??;
        (other.peer == Some(end.index) && other.mac == Some(mac)).then_some(netns)
    }))
}

/// The node's device, and the number of the namespace of its other end; none where that is the node's own.
pub(crate) fn end_of(host: &mut RtSocket, device: &LinkName) -> Result<Option<(Link, i32)>, NetlinkError> {
    let found = match host.exchange(&[link::request::find(device.into())]).map_err(NetlinkError::from) {
        Err(error) if !error.is_missing() => return Err(error),
        found => found.unwrap_or_default(),
    };
    Ok(found.into_iter().flatten().find_map(|message| {
        let RouteNetlinkMessage::NewLink(shown) = &message else { return None };
        let id = shown.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkNetNsId(id) => Some(*id),
            _ => None,
        })?;
        Some((link::from_message(message)?, id))
    }))
}

/// The number by which the node's namespace calls another one; none where it has no number for it, and so no device that leads there.
pub(crate) fn id_of(host: &mut RtSocket, netns: &NetNs) -> Option<i32> {
    let descriptor = u32::try_from(netns.as_fd().as_raw_fd()).ok()?;
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(descriptor)];
    let operation = Operation::new("ask for the number of the namespace of descriptor", descriptor);
    let replies = host.exchange(&[Request::new(operation, RouteNetlinkMessage::GetNsId(message), 0)]).ok()?;
    replies.into_iter().flatten().find_map(|reply| {
        let RouteNetlinkMessage::NewNsId(shown) = reply else { return None };
        shown.attributes.iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(id) if *id >= 0 => Some(*id),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNs;

    #[test]
    fn a_pods_namespace_is_found_among_others_by_its_interface_and_not_where_it_has_no_name() {
        let [node, pod, other] = ["node", "pod", "other"].map(|name| TestNs::new(&format!("inside-{name}")));
        let name = |namespace: &TestNs| namespace.path.file_name().unwrap().to_str().unwrap().to_owned();
        for (number, end) in [(1, &pod), (2, &other)] {
            // Of the same index in both.
            let peer = format!("name eth0 index 77 address 02:00:00:00:00:0{number} netns {}", name(end));
            node.command(&format!("ip link add pn{number} index 7{number} type veth peer {peer}"));
        }
        let mut host = RtSocket::open_in(&node).unwrap();
        let mut find = |device: &str, last: u8, known| {
            let found = namespace_of(&mut host, &device.into(), Mac([2, 0, 0, 0, 0, last]), known).unwrap();
            found.map(|netns| netns.inode().unwrap())
        };
        assert_eq!(find("pn1", 1, None), Some(pod.inode().unwrap()));
        assert_eq!(find("pn2", 2, Some(pod.path.clone())), Some(other.inode().unwrap()));
        assert_eq!(find("pn1", 2, None), None);
        assert_eq!(find("pn3", 1, None), None);
        let held = NetNs::open(&pod.path).unwrap();
        NetNs::remove(&pod.path).unwrap();
        assert_eq!(find("pn1", 1, None), None);
        drop(held);
    }

    #[test]
    fn a_namespace_whose_devices_look_like_those_of_a_pod_is_not_taken_for_it() {
        let [node, pod, imitator] = ["node", "pod", "imitator"].map(|name| TestNs::new(&format!("imitated-{name}")));
        let end = "name eth0 index 77 address 02:00:00:00:00:01";
        let name = pod.path.file_name().unwrap().to_str().unwrap();
        node.command(&format!("ip link add pn1 index 71 type veth peer {end} netns {name}"));
        // At first nothing ties it to the node; then another device does.
        imitator.command(&format!("ip link add near index 71 type veth peer {end}"));
        let mut host = RtSocket::open_in(&node).unwrap();
        let mut find = || {
            let known = Some(imitator.path.clone());
            let found = namespace_of(&mut host, &"pn1".into(), Mac([2, 0, 0, 0, 0, 1]), known);
            found.unwrap().map(|netns| netns.inode().unwrap())
        };
        assert_eq!(find(), Some(pod.inode().unwrap()));
        let name = imitator.path.file_name().unwrap().to_str().unwrap();
        node.command(&format!("ip link add pn2 type veth peer name eth1 netns {name}"));
        assert_eq!(find(), Some(pod.inode().unwrap()));
        NetNs::remove(&pod.path).unwrap();
        assert_eq!(find(), None);
    }
}
