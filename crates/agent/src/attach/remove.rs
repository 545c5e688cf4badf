//! DEL: done for what is there whole, in part or not at all.
//!
//! The kernel takes tens of milliseconds to remove a device, however few packets it saw: it waits until no processor can still use
//! it. A runtime need not wait for that. DEL leaves word of the removal on the disk, cuts the pod's address off and answers; the
//! [`Undertaker`](super::undertaker::Undertaker) removes the devices of all that were deleted meanwhile with one wait, then frees
//! their addresses. So an address is given again only after its last interface is gone, and what a crash interrupts the next start
//! finishes.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    time::Instant,
};

use podnet_kernel::{
    cni_wire::{Failure, Request},
    pod_interface,
};
use tracing::{info, warn};

use super::{Attachment, Attachments, chain, undertaker};
use crate::fault;

impl Attachments {
    pub(super) fn del(&self, request: &Request) -> Result<(), Failure> {
        self.detach(Attachment::of(request))
    }

    /// Begins to remove what is there of an attachment. When this returns, nothing reaches it, and its removal is certain.
    pub(super) fn detach(&self, attachment: Attachment) -> Result<(), Failure> {
        let turn = self.turns.take(attachment.handle.clone());
        fault::point("del-begun");
        self.leave(&attachment);
        fault::point("del-ruled");
        let addrs = self.addresses.of(&attachment.handle);
        self.cut_off(self.bridge_of(&attachment).as_ref(), &addrs);
        // What is established goes the closed way until then.
        self.pods.fast_path().relearn();
        if !addrs.is_empty() {
            fault::point("del-cut-off");
            if let Ok(tombstone) = self.leave_tombstone(&attachment) {
                fault::point("del-certain");
                self.undertaker.bury(attachment, tombstone, turn);
                return Ok(());
            }
        }
        // Nothing to remember, or no room to do so: the caller waits, and hears how it went.
        self.remove(&attachment)
    }

    /// Detaches what a plugin deleted while the agent was down, or what an agent could not remove, as its tombstone says.
    ///
    /// # Errors
    ///
    /// When the interface cannot be removed or the journal cannot be written: it has to be tried again.
    pub fn bury(&self, container_id: &str, ifname: &str) -> Result<(), Failure> {
        let attachment = Attachment::new(container_id, ifname);
        // Who has the turn is removing it now, or attaches it anew.
        let Some(_turn) = self.turns.take_until(attachment.handle.clone(), Instant::now()) else { return Ok(()) };
        let tombstone = self.tombstone(&attachment);
        // Somebody else was faster, and what is there now is a new life of the attachment.
        if !tombstone.exists() {
            return Ok(());
        }
        self.leave(&attachment);
        self.cut_off(self.bridge_of(&attachment).as_ref(), &self.addresses.of(&attachment.handle));
        self.remove(&attachment)?;
        info!(container_id, ifname, "attachment that was deleted while the agent was down is buried");
        let _ = fs::remove_file(tombstone);
        Ok(())
    }

    /// What is found missing from now on is no damage, and the pod's ports of the node are free for the next one.
    fn leave(&self, attachment: &Attachment) {
        self.pods.leaving(&attachment.host_ifname);
        for addr in self.addresses.of(&attachment.handle) {
            self.forget_rules(addr);
        }
        if let Err(error) = self.pods.rules().remove(&attachment.handle) {
            let error = &error as &dyn std::error::Error;
            warn!(error, "rules of a pod not removed; they are with the next change");
        }
    }

    /// Removes the interface and frees the address of an attachment that left, with its turn.
    fn remove(&self, attachment: &Attachment) -> Result<(), Failure> {
        self.with_socket(&attachment.host_ifname, |socket| pod_interface::remove(socket, &attachment.host_ifname))
            .map_err(|error| {
                Failure::new(
                    Failure::INTERFACE,
                    format!("cannot remove interface {}: {}", attachment.host_ifname, chain(&error)),
                )
            })?;
        undertaker::forget(&self.addresses, &self.records, &[attachment])
            .map_err(|error| Failure::new(Failure::JOURNAL, format!("cannot free the address: {}", chain(&error))))
    }

    /// The tombstone's name is the attachment's identity, as plugins write it too.
    pub(super) fn tombstone(&self, attachment: &Attachment) -> PathBuf {
        self.tombstones.join(format!("{}@{}", attachment.container_id, attachment.ifname))
    }

    /// It need not outlive the machine, which takes the interface along: the next start frees the addresses of those.
    fn leave_tombstone(&self, attachment: &Attachment) -> io::Result<PathBuf> {
        let tombstone = self.tombstone(attachment);
        if let Err(error) = File::create(&tombstone) {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            DirBuilder::new().recursive(true).mode(0o700).create(&self.tombstones)?;
            File::create(&tombstone)?;
        }
        Ok(tombstone)
    }
}
