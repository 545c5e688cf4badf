//! What the node takes from its end of a pod's interface by IPv6.

use std::{fs, io};

use podnet_model::LinkName;
use rustix::io::Errno;

use crate::netlink::{NetlinkError, Operation, RtSocket};

/// Makes the node deaf to router advertisements of a pod, by which it could become the node's default router (CVE-2020-13597), and
/// to all of IPv6 where the pod has no IPv6 address. Settings of a device are files and no messages, so this is no part of a batch; it
/// comes before the device is up. A kernel without IPv6 has no such files.
pub(super) fn restrict(host: &RtSocket, device: &LinkName, has_addr: bool) -> Result<(), NetlinkError> {
    let here = crate::netns::NetNs::current()?.inode()? == host.netns().inode()?;
    let done = if here { settings(device, has_addr) } else { host.netns().run(|| settings(device, has_addr))? };
    done.map_err(|error| NetlinkError::Refused {
        operation: Operation::new("keep the node from the IPv6 of device", device),
        hint: None,
        errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })
}

fn settings(device: &LinkName, has_addr: bool) -> io::Result<()> {
    let set = |setting, value| match fs::write(format!("/proc/sys/net/ipv6/conf/{device}/{setting}"), value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    set("accept_ra", "0")?;
    if has_addr { Ok(()) } else { set("disable_ipv6", "1") }
}
