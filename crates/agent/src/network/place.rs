//! The network follows the node's place on the underlay.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use podnet_kernel::{addr, stale};
use podnet_model::NodeAddr;
use tracing::{info, warn};

use super::worker::{ApplyError, Work, Worker};
use crate::underlay::{Underlay, UnderlayError};

impl Worker {
    /// Looks at the node's place on the underlay and follows it where it changed. Where nothing fits any more the former place stands: an
    /// address that is being replaced is gone for a moment. What cannot be looked at stays suspected.
    pub(super) fn look_at_underlay(&mut self, work: &mut Work) -> Result<(), ApplyError> {
        match self.finder.find(self.internal) {
            Ok(found) if found != *self.repair.underlay() => return self.follow(found, work),
            Ok(_) => {}
            Err(UnderlayError::Netlink(error)) => return Err(error.into()),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "the node's place on the underlay is not found; the former one stands");
            }
        }
        let stands = self.repair.underlay().clone().stands(self.datapath.route_socket())?;
        self.repair.underlay_seen(stands);
        Ok(())
    }

    /// The node has another place. What may fail is asked first; then it is taken over as a whole, and told to the peers before the
    /// kernel has it all: it may not be able to have it before the peers know.
    fn follow(&mut self, found: Underlay, work: &mut Work) -> Result<(), ApplyError> {
        let before = self.repair.underlay().address.addr();
        let moved = found.address.addr() != before;
        let addrs = addr::list_all(self.datapath.route_socket())?;
        let (device, address, mtu) = (&found.device, found.address, found.mtu);
        info!(%device, %address, mtu, "the node's place on the underlay changed");
        work.steps.extend(self.overlay.set_underlay(device.clone(), mtu, v4(address), Some(found.published)));
        if moved {
            work.edits.extend(self.services.set_node_addrs(vec![NodeAddr(address.addr())]).edits);
        }
        self.publish.send_if_modified(|published| std::mem::replace(published, found.published) != found.published);
        // The settings of the new device are looked at with the others.
        self.repair.set_underlay(found);
        if moved && !addrs.iter().any(|(_, net)| net.addr() == before) {
            // The watches would go on waiting for what cannot come.
            let ended = stale::end_connections_from(before);
            info!(address = %before, ended, "connections from an address that is gone ended");
        }
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
