//! What belongs to no sandbox any more is found and freed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podnet_kernel::{
    cni_wire::{Failure, Request, host_ifname, valid_attachments},
    link::{self, Link},
    netlink::{NetlinkError, RtSocket},
    nft::NftError,
    pod_interface::{HostEnd, bridge, host_end},
};
use podnet_model::{Family, HOST_MAC, LinkName};
use podnet_planner::ipam::Handle;
use serde_json::Value;
use tracing::{info, warn};

use super::{Attachment, Attachments, pod_mac, records::Record};
use crate::conflist;

impl Attachments {
    /// Frees the addresses whose interface is not there: of pods that a reboot, a lost journal or a crash between two steps took. Call
    /// it before the first ADD, which makes the interface after it got the address.
    ///
    /// # Errors
    ///
    /// When the interfaces cannot be listed, or the pods' rules not be put in force.
    pub fn sweep(&self) -> Result<(), NftError> {
        let mut socket = RtSocket::open()?;
        let present: BTreeMap<LinkName, Link> =
            link::list(&mut socket)?.into_iter().map(|link| (link.name.clone(), link)).collect();
        let gone = |handle: &Handle| {
            let (container_id, ifname) = handle.as_str().split_once('/')?;
            (!present.contains_key(&host_ifname(container_id, ifname))).then_some(())
        };
        let (left, held): (Vec<_>, Vec<_>) =
            self.addresses.handles().into_iter().partition(|handle| gone(handle).is_some());
        for end in held.iter().filter_map(|handle| self.host_end(handle, &present)) {
            self.pods.made(end, None);
        }
        self.rejoin_bridges(&mut socket)?;
        let ends = self.pods.all();
        let held_here: BTreeSet<IpAddr> = ends.iter().flat_map(|end| end.addrs.iter().copied()).collect();
        let strays = bridge::remove_strays(&mut socket, HOST_MAC, &held_here)?;
        if !strays.is_empty() {
            info!(?strays, "ways on bridges to pods that are gone removed");
        }
        // What the agent's earlier life made may have another MTU.
        self.fit_mtu();
        self.pods.rules().install(held.iter().filter_map(|handle| self.attached(handle)))?;
        for handle in left {
            // What is on a bridge does not go with the device.
            if let Some((container_id, ifname)) = handle.as_str().split_once('/') {
                let bridge = self.bridge_of(&Attachment::new(container_id, ifname));
                self.cut_off(bridge.as_ref(), &self.addresses.of(&handle));
            }
            match self.addresses.release(&handle) {
                Ok(addrs) => info!(%handle, ?addrs, "addresses of a sandbox that is gone freed"),
                Err(error) => warn!(%handle, error = &error as &dyn std::error::Error, "address not freed"),
            }
        }
        for (handle, _) in self.records.all().into_iter().filter(|(handle, _)| gone(handle).is_some()) {
            if let Err(error) = self.records.remove(&handle) {
                warn!(%handle, %error, "record of a sandbox that is gone not removed");
            }
        }
        Ok(())
    }

    /// What happened to bridges while no agent was there to see it.
    fn rejoin_bridges(&self, socket: &mut RtSocket) -> Result<(), NetlinkError> {
        self.pods.mend_bridges(socket);
        let on_bridges: Vec<HostEnd> = self.pods.all().into_iter().filter(|end| end.bridge.is_some()).collect();
        for damaged in host_end::damaged(socket, &on_bridges)? {
            if let Err(error) = damaged.mend(socket) {
                let error = &error as &dyn std::error::Error;
                warn!(interface = %damaged.end.ifname, error, "a pod did not get back to its bridge");
            }
        }
        Ok(())
    }

    /// An attachment of an earlier life of the agent, as the rules know it. One of a version that kept no records has no ports.
    fn attached(&self, handle: &Handle) -> Option<(Handle, podnet_planner::attachments::Attached)> {
        let (container_id, ifname) = handle.as_str().split_once('/')?;
        let addrs = self.addresses.of(handle);
        if addrs.is_empty() {
            return None;
        }
        let mac = pod_mac(&addrs);
        let network = || conflist::NETWORK.to_owned();
        let (ports, aliases, bandwidth) = (Vec::new(), Vec::new(), Value::Null);
        let bare = || Record { network: network(), addrs, mac, ports, aliases, bandwidth, bridge: None };
        let record = self.records.of(handle).unwrap_or_else(bare);
        Some((handle.clone(), Attachment::new(container_id, ifname).attached(&record)))
    }

    /// The node's end of an attachment of an earlier life of the agent.
    fn host_end(&self, handle: &Handle, present: &BTreeMap<LinkName, Link>) -> Option<HostEnd> {
        let (container_id, ifname) = handle.as_str().split_once('/')?;
        let addrs = self.addresses.of(handle);
        if addrs.is_empty() {
            return None;
        }
        let record = self.records.of(handle);
        let pod_mac = record.as_ref().map_or_else(|| pod_mac(&addrs), |record| record.mac);
        let attachment = Attachment::new(container_id, ifname);
        let answers = |record| attachment.attached(record).on_loopback().any(|family| family == Family::V6);
        let answers_loopback6 = record.as_ref().is_some_and(answers);
        let bridge = record.and_then(|record| record.bridge);
        let ifname = host_ifname(container_id, ifname);
        let link = present.get(&ifname)?;
        // A port without a record is of an ADD that was cut off, and that the runtime undoes: nothing leads through it.
        if bridge.is_none() && link.master.is_some() {
            return None;
        }
        let mtu = link.mtu;
        Some(HostEnd { ifname, addrs, pod_mac, mtu, answers_loopback6, bridge })
    }

    /// Gives the interfaces in use the MTU that they shall have.
    pub(super) fn fit_mtu(&self) {
        let mtu = self.pods.wanted_mtu();
        let error = match self.lending(|error| error, |socket| self.pods.fit(socket, mtu)) {
            Ok(fitted) => fitted.refused.into_iter().next().map(|(_, error)| error),
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            warn!(mtu, error = &error as &dyn std::error::Error, "pods' interfaces not given another MTU");
        }
    }

    /// Frees what belongs to none of the attachments that the runtime still knows. Only what was attached to the network that the
    /// runtime speaks of is touched: it calls once for each network.
    pub(super) fn collect_garbage(&self, request: &Request) -> Result<(), Failure> {
        let valid = valid_attachments(&request.config)?;
        let known: BTreeSet<Handle> = valid.iter().map(|(id, ifname)| Handle::new(id, ifname)).collect();
        let network = request.config["name"].as_str().unwrap_or_default();
        let records: BTreeMap<Handle, Record> = self.records.all().into_iter().collect();
        let held: BTreeSet<Handle> = self.addresses.handles().into_iter().chain(records.keys().cloned()).collect();
        // What has no record is of an ADD that was cut off, or of an agent that kept none: of the agent's own network.
        let of_network = |handle: &Handle| match records.get(handle) {
            Some(record) => record.network == network,
            None => network == conflist::NETWORK,
        };
        let mut failures = Vec::new();
        for stray in held.into_iter().filter(|handle| !known.contains(handle) && of_network(handle)) {
            if let Some((container_id, ifname)) = stray.as_str().split_once('/') {
                warn!(container_id, ifname, network, "attachment unknown to the runtime removed");
                failures.extend(self.detach(Attachment::new(container_id, ifname)).err());
            }
        }
        // What can be freed is freed; the first that cannot is told.
        failures.into_iter().next().map_or(Ok(()), Err)
    }
}
