//! DEL: done for what is there whole, in part or not at all.
//!
//! The kernel takes tens of milliseconds to remove a device, however few packets it saw: it waits until no processor can still use
//! it. A runtime need not wait for that. DEL leaves word of the removal on the disk, cuts the pod's address off and answers; the
//! [`Undertaker`] removes the devices of all that were deleted meanwhile with one wait, then frees their addresses. So an address is
//! given again only after its last interface is gone, and what a crash interrupts the next start finishes.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use podnet_kernel::{
    cni_wire::{Failure, Request},
    netlink::RtSocket,
    pod_interface,
};
use podnet_model::LinkName;
use podnet_planner::ipam::Handle;
use tracing::{info, warn};

use super::{Attachment, Attachments, chain, records::Records};
use crate::{addresses::Addresses, fault, turns::Turn};

/// Removals that wait; a DEL beyond them waits itself.
const BACKLOG: usize = 256;

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
        if let Some(addr) = self.addresses.of(&attachment.handle) {
            let cut_off = self.with_socket(&attachment.host_ifname, |socket| Ok(pod_interface::cut_off(socket, addr)));
            if let Ok(Err(error)) | Err(pod_interface::PodInterfaceError::Check { source: error, .. }) = cut_off {
                warn!(%addr, error = &error as &dyn std::error::Error, "the route is removed with the interface only");
            }
            fault::point("del-cut-off");
            if let Ok(tombstone) = self.leave_tombstone(&attachment) {
                fault::point("del-certain");
                self.undertaker.bury(Burial { attachment, tombstone, _turn: turn });
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
        let _turn = self.turns.take(attachment.handle.clone());
        let tombstone = self.tombstone(&attachment);
        // Somebody else was faster, and what is there now is a new life of the attachment.
        if !tombstone.exists() {
            return Ok(());
        }
        self.remove(&attachment)?;
        info!(container_id, ifname, "attachment that was deleted while the agent was down is buried");
        let _ = fs::remove_file(tombstone);
        Ok(())
    }

    /// What is found missing from now on is no damage, and the pod's ports of the node are free for the next one.
    fn leave(&self, attachment: &Attachment) {
        self.pods.leaving(&attachment.host_ifname);
        if let Some(addr) = self.addresses.of(&attachment.handle) {
            self.forget_rules(addr);
        }
        if let Err(error) = self.pods.rules().remove(&attachment.handle) {
            let error = &error as &dyn std::error::Error;
            warn!(error, "rules of a pod not removed; they are with the next change");
        }
    }

    /// Removes the interface and frees the address, with the attachment's turn.
    fn remove(&self, attachment: &Attachment) -> Result<(), Failure> {
        self.leave(attachment);
        self.with_socket(&attachment.host_ifname, |socket| pod_interface::remove(socket, &attachment.host_ifname))
            .map_err(|error| {
                Failure::new(
                    Failure::INTERFACE,
                    format!("cannot remove interface {}: {}", attachment.host_ifname, chain(&error)),
                )
            })?;
        forget(&self.addresses, &self.records, attachment)
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

/// Frees what an attachment without an interface holds.
fn forget(addresses: &Addresses, records: &Records, attachment: &Attachment) -> Result<(), Failure> {
    let interface = &attachment.host_ifname;
    if let Err(error) = records.remove(&attachment.handle) {
        warn!(%error, %interface, "record of an attachment that is gone not removed");
    }
    fault::point("burial-unrecorded");
    let freed = addresses
        .release(&attachment.handle)
        .map_err(|error| Failure::new(Failure::JOURNAL, format!("cannot free the address: {}", chain(&error))))?;
    if let Some(addr) = freed {
        info!(%addr, %interface, "pod detached");
    }
    Ok(())
}

/// One removal under way. Whoever wants the same attachment waits for it.
struct Burial {
    attachment: Attachment,
    tombstone: PathBuf,
    _turn: Turn<Handle>,
}

/// Removes what DEL was answered for, on a thread of its own. It ends with this value; what is left then keeps its tombstone.
pub(super) struct Undertaker {
    burials: SyncSender<Burial>,
}

impl Undertaker {
    /// # Panics
    ///
    /// Where the process can have no thread more.
    pub(super) fn start(addresses: Arc<Addresses>, records: Arc<Records>) -> Self {
        let (burials, waiting) = sync_channel(BACKLOG);
        let spawned =
            thread::Builder::new().name("undertaker".to_owned()).spawn(move || work(&waiting, &addresses, &records));
        spawned.expect("an agent that starts can have a thread");
        Self { burials }
    }

    fn bury(&self, burial: Burial) {
        // The thread ends after this value only; and if it died, the housekeeper finds the tombstone.
        let _ = self.burials.send(burial);
    }
}

fn work(waiting: &Receiver<Burial>, addresses: &Addresses, records: &Records) {
    let mut socket = None;
    while let Ok(first) = waiting.recv() {
        let burials: Vec<Burial> = std::iter::once(first).chain(waiting.try_iter()).collect();
        let names: Vec<LinkName> = burials.iter().map(|burial| burial.attachment.host_ifname.clone()).collect();
        if let Err(error) = remove_devices(&mut socket, &names) {
            warn!(error, "pods' interfaces not removed; it is tried again");
            continue;
        }
        fault::point("burial-removed");
        for Burial { attachment, tombstone, _turn } in burials {
            match forget(addresses, records, &attachment) {
                Ok(()) => {
                    fault::point("burial-freed");
                    let _ = fs::remove_file(tombstone);
                }
                Err(failure) => warn!(handle = %attachment.handle, failure.msg, "it is tried again"),
            }
        }
    }
}

/// With a socket that is kept for the next time, unless there was an error: an answer may still be under way in it then.
fn remove_devices(kept: &mut Option<RtSocket>, names: &[LinkName]) -> Result<(), String> {
    let mut socket = match kept.take() {
        Some(socket) => socket,
        None => RtSocket::open().map_err(|error| chain(&error))?,
    };
    pod_interface::remove_all(&mut socket, names).map_err(|error| chain(&error))?;
    *kept = Some(socket);
    Ok(())
}
