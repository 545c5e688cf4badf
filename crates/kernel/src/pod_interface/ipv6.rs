//! What the node takes from its end of a pod's interface by IPv6, and sandboxes in which IPv6 is turned off.

use std::{fs, io};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{AfSpecInet6, AfSpecUnspec, LinkAttribute},
};
use podnet_model::LinkName;
use podnet_planner::overlay::IPV6_LEAST_MTU;
use rustix::io::Errno;

use crate::{
    link,
    netlink::{NetlinkError, Operation, RtSocket},
    netns::NetNs,
    sysctl,
};

/// Makes the node deaf to router advertisements of a pod, by which it could become the node's default router (CVE-2020-13597), and
/// to all of IPv6 where the pod has no IPv6 address; where it has one, the device has IPv6 whatever is usual here. Settings of a device are files and no messages, so this is no part of a batch; it
/// comes before the device is up. A kernel without IPv6 has no such files.
pub(super) fn restrict(host: &RtSocket, device: &LinkName, has_addr: bool) -> Result<(), NetlinkError> {
    let here = NetNs::current()?.inode()? == host.netns().inode()?;
    let done = if here { settings(device, has_addr) } else { host.netns().run(|| settings(device, has_addr))? };
    done.map_err(|error| refused("keep the node from the IPv6 of device", device, &error))
}

/// To be called when a device in use has another MTU than it had. Below 1280 bytes the kernel takes IPv6 away from it with all settings,
/// and above makes it anew by the namespace's defaults, with a link-local address: what was made by [`restrict`] is made again. Routes
/// and neighbours of IPv6 are gone then.
pub(crate) fn renew(
    host: &mut RtSocket,
    device: &LinkName,
    (before, now): (u32, u32),
    has_addr: bool,
) -> Result<(), NetlinkError> {
    if before >= IPV6_LEAST_MTU || now < IPV6_LEAST_MTU || !sysctl::has_ipv6() {
        return Ok(());
    }
    link::set_without_link_local(host, device)?;
    restrict(host, device, false)?;
    if has_addr { restrict(host, device, true) } else { Ok(()) }
}

/// Whether IPv6 is turned off on the device that a message shows. Some runtimes turn it off in all sandboxes (Docker, without IPv6 of its
/// own), and the kernel gives no such device an IPv6 address.
pub(super) fn is_off(message: &RouteNetlinkMessage) -> bool {
    let RouteNetlinkMessage::NewLink(link) = message else { return false };
    let families = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecUnspec(families) => Some(families),
        _ => None,
    });
    let settings = families.flatten().filter_map(|family| match family {
        AfSpecUnspec::Inet6(settings) => Some(settings),
        _ => None,
    });
    settings.flatten().any(|setting| matches!(setting, AfSpecInet6::DevConf(conf) if conf.disable_ipv6 != 0))
}

/// Turns IPv6 on on one device of a sandbox, and on its loopback, by which it reaches itself: whoever gave it an IPv6 address wants
/// that.
pub(super) fn turn_on(pod: &NetNs, device: &LinkName) -> Result<(), NetlinkError> {
    let on = |device: &str| fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "0");
    pod.run(|| on(device.as_str()).and_then(|()| on("lo")))?
        .map_err(|error| refused("turn IPv6 on on device", device, &error))
}

fn refused(what: &'static str, device: &LinkName, error: &io::Error) -> NetlinkError {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    NetlinkError::Refused { operation: Operation::new(what, device), hint: None, errno }
}

fn settings(device: &LinkName, has_addr: bool) -> io::Result<()> {
    let set = |setting, value| match fs::write(format!("/proc/sys/net/ipv6/conf/{device}/{setting}"), value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    set("accept_ra", "0")?;
    // The namespace's default may be that new devices have none (hardened nodes): they would refuse the pod's route.
    set("disable_ipv6", if has_addr { "0" } else { "1" })
}
