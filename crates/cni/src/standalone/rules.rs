//! The containers' rules: what they may send, ports of the machine, translation of their way out. A table of their own, made with the
//! first container and gone with the last.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use podnet_kernel::{
    cni_wire::Failure,
    conntrack,
    nft::{NftError, NftSocket},
    pod_interface::PodInterface,
};
use podnet_model::Protocol;
use podnet_planner::{
    attachments::{Attached, Attachments},
    ipam::Handle,
    ruleset::Edit,
};

use super::{
    MULTICAST, chain,
    interface::{DEVICE_PREFIX, device},
    records::{Record, Records},
};

const TABLE: &str = "podnet-cni";

/// Puts a container's rules in force.
pub(super) fn add(
    records: &Records,
    handle: &Handle,
    interface: &PodInterface,
    record: &Record,
) -> Result<(), Failure> {
    let mut attachments = known(records, None);
    let new = attached(handle, record).filter(|attached| attached.device == interface.host_ifname);
    let Some(new) = new else { return Ok(()) };
    let udp = Attachments::udp_ports(&new);
    let edits = attachments
        .add(handle.clone(), new)
        .map_err(|error| Failure::new(Failure::INVALID_CONFIG, error.to_string()))?;
    let mut all = records.all();
    let before = ways_out(&all);
    all.push((handle.clone(), record.clone()));
    let after = ways_out(&all);
    attachments.masquerade(after.clone(), MULTICAST);
    apply(&attachments, &edits, before == after).map_err(failed)?;
    forget(&udp);
    Ok(())
}

/// Takes a container's rules out of force.
pub(super) fn remove(records: &Records, handle: &Handle) -> Result<(), Failure> {
    let others: Vec<_> = records.all().into_iter().filter(|(other, _)| other != handle).collect();
    let gone = records.of(handle).and_then(|record| attached(handle, &record));
    if others.is_empty() {
        NftSocket::open().and_then(|mut socket| socket.delete_table(TABLE)).map_err(failed)?;
    } else {
        let mut attachments = known(records, gone.is_none().then_some(handle));
        let after = ways_out(&others);
        let same = ways_out(&records.all()) == after;
        attachments.masquerade(after, MULTICAST);
        let edits = attachments.remove(handle);
        apply(&attachments, &edits, same).map_err(failed)?;
    }
    forget(&gone.as_ref().map(Attachments::udp_ports).unwrap_or_default());
    Ok(())
}

/// Edits the table; where it is not as the edits expect, or other ranges have to be translated, all of it is put in place.
fn apply(attachments: &Attachments, edits: &[Edit], same_ranges: bool) -> Result<(), NftError> {
    let mut socket = NftSocket::open()?;
    if same_ranges && socket.apply(TABLE, edits).is_ok() {
        return Ok(());
    }
    socket.replace(TABLE, &attachments.desired())
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
    let (id, ifname) = handle.as_str().split_once('/')?;
    let (addrs, ports) = (record.addrs.clone(), record.ports.clone());
    Some(Attached { device: device(id, ifname), mac: record.mac, addrs, ports })
}

/// The subnets whose way out is translated, none within another.
fn ways_out(records: &[(Handle, Record)]) -> BTreeSet<Ipv4Net> {
    let all: BTreeSet<Ipv4Net> = records.iter().flat_map(|(_, record)| &record.masqueraded).copied().collect();
    let within = |net: &Ipv4Net| all.iter().any(|other| other != net && other.contains(net));
    all.iter().filter(|net| !within(net)).copied().collect()
}

fn forget(ports: &BTreeSet<u16>) {
    for port in ports {
        // Where it fails, clients are led anew once they pause.
        let _ = conntrack::forget(Protocol::Udp, *port);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn failed(error: NftError) -> Failure {
    Failure::new(Failure::INTERFACE, format!("cannot put the container's rules in force: {}", chain(&error)))
}
