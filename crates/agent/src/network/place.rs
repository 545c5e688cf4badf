//! The network follows the node's place on the underlay.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use podnet_kernel::{addr, stale};
use podnet_model::NodeAddr;
use tracing::{info, warn};

use super::worker::{ApplyError, Work, Worker};
use crate::repair::MendError;

impl Worker {
    /// Follows the node's place on the underlay where it changed. Where nothing fits any more the former place stands: an address that
    /// is being replaced is gone for a moment.
    pub(super) fn look_at_underlay(&mut self) -> Result<(), ApplyError> {
        let found = match self.finder.find(self.internal) {
            Ok(found) if found == *self.repair.underlay() => return Ok(()),
            Ok(found) => found,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "the node's place on the underlay is not found; the former one stands");
                return Ok(());
            }
        };
        let (device, address, mtu) = (&found.device, found.address, found.mtu);
        info!(%device, %address, mtu, "the node's place on the underlay changed");
        found.prepare().map_err(MendError::from)?;
        let before = self.repair.underlay().address.addr();
        let moved = found.address.addr() != before;
        if moved && !addr::list_all(self.datapath.route_socket())?.iter().any(|(_, net)| net.addr() == before) {
            // The watches would go on waiting for what cannot come.
            let ended = stale::end_connections_from(before);
            info!(address = %before, ended, "connections from an address that is gone ended");
        }
        self.repair.set_underlay(found.clone());
        let steps = self.overlay.set_underlay(device.clone(), mtu, v4(address));
        let edits = if moved { self.services.set_node_addrs(vec![NodeAddr(address.addr())]).edits } else { Vec::new() };
        self.apply(&Work { steps, edits, ..Work::default() })?;
        self.publish.send_if_modified(|published| std::mem::replace(published, found.published) != found.published);
        Ok(())
    }

    /// Gives pods' interfaces the MTU that follows from the underlay and the pools.
    pub(super) fn fit_pods(&mut self) -> Result<(), ApplyError> {
        let mtu = self.overlay.pod_mtu();
        if mtu != self.pods.wanted_mtu() {
            let changed = self.pods.fit(self.datapath.route_socket(), mtu)?;
            info!(mtu, interfaces = changed, "pods' interfaces have another MTU");
        }
        Ok(())
    }
}

pub(super) fn v4(address: IpNet) -> Option<Ipv4Addr> {
    match address.addr() {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    }
}
