//! Ports of the machine's loopback that lead to containers on a bridge.
//!
//! The bridge has to take packets for the loopback then, from whomever. So it does only while one of its containers has a port, and while
//! the rules keep away what others send there.

use podnet_kernel::{cni_wire::Failure, netlink::RtSocket, pod_interface::loopback};
use podnet_model::{Family, LinkName, errors::chain};
use podnet_planner::ipam::Handle;

use super::{
    joined::SegmentLink,
    records::{Record, Records},
};

/// Lets a container on a bridge answer, if it has ports. Its rules are in force already.
pub(super) fn open(socket: &mut RtSocket, record: &Record) -> Result<(), Failure> {
    let Some(bridge) = bridge(record) else { return Ok(()) };
    for family in record.addrs.iter().map(Family::of).filter(|_| !record.ports.is_empty()) {
        loopback::answer(socket, bridge, family).map_err(|error| Failure::new(Failure::INTERFACE, chain(&error)))?;
    }
    Ok(())
}

/// Takes that back, if no other container on the bridge has ports. To be done while the rules are in force.
pub(super) fn close(socket: &mut RtSocket, records: &Records, handle: &Handle, record: &Record) -> Result<(), Failure> {
    let Some(bridge) = bridge(record).filter(|_| !record.ports.is_empty()) else { return Ok(()) };
    let others = records.all().into_iter().filter(|(other, _)| other != handle);
    let needed = |other: &Record| self::bridge(other) == Some(bridge) && !other.ports.is_empty();
    if others.into_iter().any(|(_, other)| needed(&other)) {
        return Ok(());
    }
    loopback::close(socket, bridge).map_err(|error| Failure::new(Failure::INTERFACE, chain(&error)))
}

fn bridge(record: &Record) -> Option<&LinkName> {
    match &record.segment.as_ref()?.link {
        SegmentLink::Bridge { bridge, .. } => Some(bridge),
        SegmentLink::Macvlan { .. } => None,
    }
}
