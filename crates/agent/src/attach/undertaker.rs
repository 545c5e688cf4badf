//! Removing what DEL was answered for.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use podnet_kernel::{netlink::RtSocket, pod_interface};
use podnet_model::LinkName;
use podnet_planner::ipam::Handle;
use tracing::{info, warn};

use super::{Attachment, chain, records::Records};
use crate::{addresses::Addresses, fault, journal::JournalError, turns::Turn};

/// Removals that wait; a DEL beyond them waits itself.
const BACKLOG: usize = 256;

/// One removal under way. Whoever wants the same attachment waits for it.
struct Burial {
    attachment: Attachment,
    tombstone: PathBuf,
    _turn: Turn<Handle>,
    _under_way: UnderWay,
}

/// Removes what DEL was answered for, on a thread of its own. It ends with this value; what is left then keeps its tombstone.
pub(super) struct Undertaker {
    burials: SyncSender<Burial>,
    count: Arc<Count>,
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
        Self { burials, count: Arc::default() }
    }

    pub(super) fn bury(&self, attachment: Attachment, tombstone: PathBuf, turn: Turn<Handle>) {
        let burial = Burial { attachment, tombstone, _turn: turn, _under_way: UnderWay::of(&self.count) };
        // The thread ends after this value only; and if it died, the housekeeper finds the tombstone.
        let _ = self.burials.send(burial);
    }

    /// Waits until what was under way is done, at most so long. False where there was nothing to wait for.
    pub(super) fn settle(&self, patience: Duration) -> bool {
        let begun = self.count.begun();
        if begun.done == begun.all {
            return false;
        }
        let goal = begun.all;
        drop(self.count.changed.wait_timeout_while(begun, patience, |begun| begun.done < goal));
        true
    }
}

/// How many removals were begun, and how many of them ended. They end in their order, near enough.
#[derive(Default)]
struct Count {
    begun: Mutex<Begun>,
    changed: Condvar,
}

#[derive(Default)]
struct Begun {
    all: u64,
    done: u64,
}

impl Count {
    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct UnderWay(Arc<Count>);

impl UnderWay {
    fn of(count: &Arc<Count>) -> Self {
        count.begun().all += 1;
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.begun().done += 1;
        self.0.changed.notify_all();
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
        let attachments: Vec<&Attachment> = burials.iter().map(|burial| &burial.attachment).collect();
        if let Err(error) = forget(addresses, records, &attachments) {
            warn!(error = chain(&error), "addresses not freed; it is tried again");
            continue;
        }
        fault::point("burial-freed");
        for burial in &burials {
            let _ = fs::remove_file(&burial.tombstone);
        }
    }
}

/// Frees what attachments without an interface hold.
pub(super) fn forget(
    addresses: &Addresses,
    records: &Records,
    attachments: &[&Attachment],
) -> Result<(), JournalError> {
    for attachment in attachments {
        if let Err(error) = records.remove(&attachment.handle) {
            warn!(%error, interface = %attachment.host_ifname, "record of an attachment that is gone not removed");
        }
    }
    fault::point("burial-unrecorded");
    let handles: Vec<Handle> = attachments.iter().map(|attachment| attachment.handle.clone()).collect();
    let freed = addresses.release_all(&handles)?;
    for (attachment, addrs) in attachments.iter().zip(freed).filter(|(_, addrs)| !addrs.is_empty()) {
        info!(?addrs, interface = %attachment.host_ifname, "pod detached");
    }
    Ok(())
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
