//! The containers' rules: what they may send, ports of the machine, translation of their way out. A table of their own for each family of
//! addresses, made with the first container that needs it and gone with the last.

use std::collections::BTreeSet;

use ipnet::IpNet;
use podnet_kernel::{
    cni_wire::Failure,
    conntrack,
    nft::{NftError, NftSocket, Sender},
};
use podnet_model::{Dual, Family, Protocol};
use podnet_planner::{
    attachments::{Attached, Attachments},
    ipam::Handle,
    ruleset::Edit,
};

use super::{
    chain,
    interface::{DEVICE_PREFIX, device},
    joined::SegmentLink,
    records::{Record, Records},
};

const TABLE: &str = "podnet-cni";

/// Puts a container's rules in force.
pub(super) fn add(records: &Records, handle: &Handle, record: &Record) -> Result<(), Failure> {
    let mut attachments = known(records, None);
    let Some(new) = attached(handle, record) else { return Ok(()) };
    let tables = needed(&attachments);
    let udp = Attachments::udp_ports(&new);
    let edits = attachments
        .add(handle.clone(), new)
        .map_err(|error| Failure::new(Failure::INVALID_CONFIG, error.to_string()))?;
    let mut all: Vec<_> = records.all().into_iter().filter(|(other, _)| other != handle).collect();
    let before = ranges(&all);
    all.push((handle.clone(), record.clone()));
    let after = ranges(&all);
    let same = before == after && needed(&attachments) == tables;
    translate(&mut attachments, after);
    apply(&attachments, &edits, same).map_err(failed)?;
    if record.segment.is_some() {
        check_segments(&all)?;
    }
    forget(&udp);
    Ok(())
}

/// Takes a container's rules out of force.
pub(super) fn remove(records: &Records, handle: &Handle, is_bridged: bool) -> Result<(), Failure> {
    let others: Vec<_> = records.all().into_iter().filter(|(other, _)| other != handle).collect();
    let gone = records.of(handle);
    if is_bridged || gone.as_ref().is_some_and(|record| record.segment.is_some()) {
        check_segments(&others)?;
    }
    // An ADD that was killed left rules and no record: whatever there is of it goes with the whole.
    let is_known = gone.is_some();
    let gone = gone.and_then(|record| attached(handle, &record));
    if !others.iter().any(|(handle, record)| attached(handle, record).is_some()) {
        let mut socket = NftSocket::open().map_err(failed)?;
        Family::ALL.into_iter().try_for_each(|family| socket.delete_table(family, TABLE)).map_err(failed)?;
    } else {
        let mut attachments = known(records, gone.is_none().then_some(handle));
        let after = ranges(&others);
        let same = ranges(&records.all()) == after;
        let tables = needed(&attachments);
        translate(&mut attachments, after);
        let edits = attachments.remove(handle);
        let same = same && is_known && needed(&attachments) == tables;
        apply(&attachments, &edits, same).map_err(failed)?;
    }
    forget(&gone.as_ref().map(Attachments::udp_ports).unwrap_or_default());
    Ok(())
}

/// What the ports of bridges may send.
fn check_segments(records: &[(Handle, Record)]) -> Result<(), Failure> {
    let sender = |(handle, record): &(Handle, Record)| {
        let SegmentLink::Bridge { checked: true, .. } = record.segment.as_ref()?.link else { return None };
        let (id, ifname) = handle.as_str().split_once('/')?;
        Some(Sender { port: device(id, ifname), mac: record.mac, addrs: record.addrs.clone() })
    };
    let senders: Vec<Sender> = records.iter().filter_map(sender).collect();
    NftSocket::open().and_then(|mut socket| socket.check_segments(TABLE, DEVICE_PREFIX, &senders)).map_err(failed)
}

/// Edits the tables; where they are not as the edits expect, or another table is needed (`same` is false), or other ranges have to be
/// translated, all of it is put in place.
fn apply(attachments: &Attachments, edits: &Dual<Vec<Edit>>, same: bool) -> Result<(), NftError> {
    let mut socket = NftSocket::open()?;
    if same && socket.apply_dual(TABLE, edits).is_ok() {
        return Ok(());
    }
    for family in Family::ALL {
        match attachments.is_needed(family) {
            true => drop(socket.replace(TABLE, &attachments.desired(family))?),
            false => socket.delete_table(family, TABLE)?,
        }
    }
    Ok(())
}

/// Which families have a table.
fn needed(attachments: &Attachments) -> Dual<bool> {
    Dual::from_fn(|family| attachments.is_needed(family))
}

fn known(records: &Records, but: Option<&Handle>) -> Attachments {
    let mut attachments = Attachments::of_devices(DEVICE_PREFIX);
    for (handle, record) in records.all().iter().filter(|(handle, _)| Some(handle) != but) {
        if let Some(attached) = attached(handle, record) {
            // Ports were free when the record was made.
            let _ = attachments.add(handle.clone(), attached);
        }
    }
    attachments
}

fn attached(handle: &Handle, record: &Record) -> Option<Attached> {
    // What shares a device with the node sends past the node's rules.
    if matches!(&record.segment, Some(segment) if matches!(segment.link, SegmentLink::Macvlan { .. })) {
        return None;
    }
    let (id, ifname) = handle.as_str().split_once('/')?;
    let (addrs, ports) = (record.addrs.clone(), record.ports.clone());
    // The ranges of all are told at once (`translate`).
    Some(Attached { device: device(id, ifname), mac: record.mac, addrs, ports, segment: None })
}

/// Ranges that the table is about: the subnets whose way out is translated, and those that are shared segments.
fn ranges(records: &[(Handle, Record)]) -> (BTreeSet<IpNet>, BTreeSet<IpNet>) {
    let bridged = |record: &Record| match &record.segment {
        Some(segment) if matches!(segment.link, SegmentLink::Bridge { .. }) => segment.addrs.clone(),
        _ => Vec::new(),
    };
    let ways_out = records.iter().flat_map(|(_, record)| &record.masqueraded).copied().collect();
    let segments = records.iter().flat_map(|(_, record)| bridged(record)).map(|net| net.trunc()).collect();
    (outermost(&ways_out), outermost(&segments))
}

/// Those that lie in no other.
fn outermost(all: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let within = |net: &IpNet| all.iter().any(|other| other != net && other.contains(net));
    all.iter().filter(|net| !within(net)).copied().collect()
}

fn translate(attachments: &mut Attachments, (ways_out, segments): (BTreeSet<IpNet>, BTreeSet<IpNet>)) {
    attachments.masquerade(ways_out);
    attachments.on_segments(segments);
}

fn forget(ports: &BTreeSet<(Family, u16)>) {
    for (family, port) in ports {
        // Where it fails, clients are led anew once they pause.
        let _ = conntrack::forget(*family, Protocol::Udp, *port);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn failed(error: NftError) -> Failure {
    Failure::new(Failure::INTERFACE, format!("cannot put the container's rules in force: {}", chain(&error)))
}
