//! The namespace that a pod's interface is in.

use std::path::PathBuf;

use podnet_model::{LinkName, Mac};

use super::mtu::named;
use crate::{
    link,
    netlink::{NetlinkError, RtSocket},
    netns::NetNs,
};

/// The namespace of the pod behind a device of the node: the known one, or one of those that have names; none where that of the pod is not
/// among them, or there is no such device. `mac` is the Ethernet address of the pod's end: indices alone may be the same in two nodes that
/// are namespaces of one machine.
///
/// # Errors
/// Where the node's device cannot be looked at.
pub fn namespace_of(
    host: &mut RtSocket,
    device: &LinkName,
    mac: Mac,
    known: Option<PathBuf>,
) -> Result<Option<NetNs>, NetlinkError> {
    let end = match link::find(host, device) {
        Err(error) if !error.is_missing() => return Err(error),
        end => end.ok().flatten(),
    };
    let Some((index, peer)) = end.and_then(|end| Some((end.index, end.peer?))) else { return Ok(None) };
    Ok(known.into_iter().chain(named()).find_map(|path| {
        // One that cannot be looked into is gone, or somebody else's.
        let netns = NetNs::open(&path).ok()?;
        let other = link::find(&mut RtSocket::open_in(&netns).ok()?, peer).ok()??;
        (other.peer == Some(index) && other.mac == Some(mac)).then_some(netns)
    }))
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
}
