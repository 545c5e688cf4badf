//! DEL: done for what is there whole, in part or not at all.

use podnet_kernel::{
    cni_wire::{Failure, Request},
    pod_interface,
};
use tracing::{info, warn};

use super::{Attachment, Attachments, chain};

impl Attachments {
    pub(super) fn del(&self, request: &Request) -> Result<(), Failure> {
        self.detach(&Attachment::of(request))
    }

    /// Removes the interface and frees the address of an attachment that may be there whole, in part or not at all.
    fn detach(&self, attachment: &Attachment) -> Result<(), Failure> {
        let _turn = self.turns.take(attachment.handle.clone());
        self.pods.leaving(&attachment.host_ifname);
        self.with_socket(&attachment.host_ifname, |socket| pod_interface::remove(socket, &attachment.host_ifname))
            .map_err(|error| {
                Failure::new(
                    Failure::INTERFACE,
                    format!("cannot remove interface {}: {}", attachment.host_ifname, chain(&error)),
                )
            })?;
        if let Err(error) = self.pods.rules().remove(&attachment.handle) {
            warn!(
                error = &error as &dyn std::error::Error,
                "rules of a pod not removed; they are with the next change"
            );
        }
        if let Err(error) = self.records.remove(&attachment.handle) {
            warn!(%error, interface = %attachment.host_ifname, "record of an attachment that is gone not removed");
        }
        let freed = self
            .addresses
            .release(&attachment.handle)
            .map_err(|error| Failure::new(Failure::JOURNAL, format!("cannot free the address: {}", chain(&error))))?;
        if let Some(addr) = freed {
            info!(%addr, interface = %attachment.host_ifname, "pod detached");
        }
        Ok(())
    }

    /// Detaches what a plugin deleted while the agent was down.
    ///
    /// # Errors
    ///
    /// When the interface cannot be removed or the journal cannot be written: it has to be tried again.
    pub fn bury(&self, container_id: &str, ifname: &str) -> Result<(), Failure> {
        self.detach(&Attachment::new(container_id, ifname))
    }
}
