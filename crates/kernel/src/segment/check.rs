//! What differs between an interface on a segment and how it should be.

use podnet_planner::step::ROUTE_PROTOCOL;

use super::{Segment, SegmentInterface};
use crate::{
    addr,
    link::{self, Link},
    netlink::{NetlinkError, RtSocket},
    route,
};

pub(super) fn differences(interface: &SegmentInterface, host: &mut RtSocket) -> Result<Vec<String>, NetlinkError> {
    let mut pod = RtSocket::open_in(&interface.netns)?;
    let name = &interface.container_ifname;
    let Some(own) = link::find(&mut pod, name)? else { return Ok(vec![format!("there is no device {name}")]) };
    let mut differences = Vec::new();
    if !own.is_up {
        differences.push(format!("device {name} is down"));
    }
    // A plugin that is chained after podnet, or the container itself, may lower what it sends at once.
    if own.mtu > interface.mtu {
        differences.push(format!("device {name} has MTU {}", own.mtu));
    }
    if let (Some(wanted), Some(found)) = (interface.mac, own.mac)
        && wanted != found
    {
        let dropped = matches!(interface.segment, Segment::Bridge { checked: true, .. });
        let effect = if dropped { ": what it sends is dropped, as macspoofchk is true" } else { "" };
        differences.push(format!("device {name} has Ethernet address {found}, and not {wanted}{effect}"));
    }
    let addresses = addr::list(&mut pod, own.index)?;
    let missing = interface.addrs.iter().filter(|addr| !addresses.contains(addr));
    differences.extend(missing.map(|addr| format!("the container has not address {addr}")));
    let routes = route::list(&mut pod, ROUTE_PROTOCOL)?;
    for wanted in interface.pod_routes(own.index) {
        if !routes.contains(&wanted) {
            differences.push(format!("no route to {} goes through {name}", wanted.dst));
        }
    }
    on_segment(interface, host, &own, &mut differences)?;
    Ok(differences)
}

fn on_segment(
    interface: &SegmentInterface,
    host: &mut RtSocket,
    own: &Link,
    differences: &mut Vec<String>,
) -> Result<(), NetlinkError> {
    match &interface.segment {
        Segment::Bridge { bridge, port, .. } => {
            let Some(end) = link::find(host, port)? else {
                differences.push(format!("there is no device {port}"));
                return Ok(());
            };
            if own.peer != Some(end.index) || end.peer != Some(own.index) {
                differences.push("the two devices are not one pair".to_owned());
            }
            if !end.is_up {
                differences.push(format!("device {port} is down"));
            }
            match link::find(host, bridge)? {
                Some(bridge) if end.master != Some(bridge.index) => {
                    differences.push(format!("device {port} is no port of bridge {}", bridge.name));
                }
                Some(bridge) if !bridge.is_up => differences.push(format!("bridge {} is down", bridge.name)),
                Some(_) => {}
                None => differences.push(format!("there is no bridge {bridge}")),
            }
        }
        Segment::Macvlan { master, .. } => {
            let below = link::find(host, master)?.map(|link| link.index);
            if own.kind.as_deref() != Some("macvlan") || below.is_none() || own.peer != below {
                differences
                    .push(format!("device {} is no macvlan device on top of {master}", interface.container_ifname));
            }
        }
    }
    Ok(())
}
