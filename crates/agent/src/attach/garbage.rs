//! What belongs to no sandbox any more is found and freed.

use std::collections::BTreeSet;

use podnet_kernel::{
    cni_wire::{Failure, Request, host_ifname},
    link,
    netlink::{NetlinkError, RtSocket},
};
use podnet_model::LinkName;
use podnet_planner::ipam::Handle;
use serde_json::Value;
use tracing::{info, warn};

use super::Attachments;

impl Attachments {
    /// Frees the addresses whose interface is not there: of pods that a reboot, a lost journal or a crash between two steps took. Call
    /// it before the first ADD, which makes the interface after it got the address.
    ///
    /// # Errors
    ///
    /// When the interfaces cannot be listed.
    pub fn sweep(&self) -> Result<(), NetlinkError> {
        let mut socket = RtSocket::open()?;
        let present: BTreeSet<LinkName> = link::list(&mut socket)?.into_iter().map(|link| link.name).collect();
        for handle in self.addresses.handles() {
            let Some((container_id, ifname)) = handle.as_str().rsplit_once('/') else { continue };
            if present.contains(&host_ifname(container_id, ifname)) {
                continue;
            }
            match self.addresses.release(&handle) {
                Ok(addr) => info!(container_id, ifname, ?addr, "address of a sandbox that is gone freed"),
                Err(error) => warn!(container_id, error = &error as &dyn std::error::Error, "address not freed"),
            }
        }
        Ok(())
    }

    /// Frees what belongs to none of the attachments that the runtime still knows (`cni.dev/valid-attachments`).
    pub(super) fn collect_garbage(&self, request: &Request) -> Result<(), Failure> {
        let Some(valid) = request.config.get("cni.dev/valid-attachments").and_then(Value::as_array) else {
            return Err(Failure::new(Failure::INVALID_CONFIG, "GC needs the key \"cni.dev/valid-attachments\""));
        };
        let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let known: BTreeSet<Handle> =
            valid.iter().map(|entry| Handle::new(&text(entry, "containerID"), &text(entry, "ifname"))).collect();
        for stray in self.addresses.handles().into_iter().filter(|handle| !known.contains(handle)) {
            if let Some((container_id, ifname)) = stray.as_str().rsplit_once('/') {
                warn!(container_id, ifname, "attachment unknown to the runtime removed");
                self.bury(container_id, ifname)?;
            }
        }
        Ok(())
    }
}
