//! What others do to podnet's objects in the kernel is heard of, looked at, mended, counted and logged.
//!
//! A notice of the kernel's is a suspicion and no more: one's own work and the usual life of a node are heard of too. So what is
//! suspected is compared with what is planned, and only what differs is damage. What somebody keeps undoing is mended ever less often
//! ([`Limiter`]).

pub mod counts;
mod mend;
pub mod pods;
mod settings;
mod suspicion;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use podnet_kernel::{
    datapath::KernelDatapath,
    link,
    monitor::{Monitor, Notice},
    netlink::NetlinkError,
};
use podnet_model::LinkName;
use podnet_planner::{overlay::Overlay, repair::Limiter};
use tokio::sync::mpsc;
use tracing::error;

pub use counts::Counts;
pub use mend::MendError;
pub use pods::PodEnds;
use suspicion::Suspicion;

use crate::underlay::Underlay;

/// Batches of notices that wait to be heard; beyond that the kernel's buffer fills, and what is lost is told.
const BACKLOG: usize = 64;
/// Notices come in bursts (a flush, a device that goes): what follows closely is mended together.
const GATHER: Duration = Duration::from_millis(10);

/// podnet's rules in other people's chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passages {
    /// They stand wherever such a chain drops.
    Kept,
    /// There are to be none: what an agent before this one left is still to be taken away.
    Unwanted,
    /// There are none, and others' chains are not looked at any more.
    Gone,
}

/// What is suspected, and what was done about it so far.
pub struct Repair {
    underlay: Underlay,
    pods: Arc<PodEnds>,
    counts: Arc<Counts>,
    limiter: Limiter,
    suspicion: Suspicion,
    /// The underlay's device changed: the kernel may have taken the routes through it away, which it does not tell.
    flushed: bool,
    /// What is damaged and has to wait, and for how long.
    held: Suspicion,
    held_until: Option<Instant>,
    /// What was refused, until it is tried again.
    refused: Suspicion,
    /// Names of devices by index: notices speak of indices.
    devices: HashMap<u32, LinkName>,
    /// What was told last of addresses of others' devices: their flags, by device and address.
    addresses: HashMap<(u32, IpNet), u32>,
    /// Notices were lost since those were listed.
    devices_unknown: bool,
    /// Pods' devices whose loss was told.
    lost: BTreeSet<LinkName>,
    /// The reverse path filter checks who sends by pods' devices.
    filters_senders: bool,
    passages: Passages,
    /// What the limiter's times count from.
    began: Instant,
}

impl Repair {
    /// Begins to listen. The notices come in batches.
    ///
    /// # Errors
    ///
    /// When the kernel's notices cannot be had.
    pub fn start(
        datapath: &mut KernelDatapath,
        underlay: &Underlay,
        pods: Arc<PodEnds>,
        counts: Arc<Counts>,
    ) -> Result<(Self, mpsc::Receiver<Vec<Notice>>), NetlinkError> {
        let monitor = datapath.monitor(pods.rules().port()?.as_slice())?;
        let links = link::list(datapath.route_socket())?;
        let repair = Self {
            underlay: underlay.clone(),
            pods,
            counts,
            limiter: Limiter::default(),
            suspicion: Suspicion::at_start(),
            flushed: false,
            held: Suspicion::default(),
            held_until: None,
            refused: Suspicion::default(),
            devices: links.into_iter().map(|link| (link.index, link.name)).collect(),
            addresses: HashMap::new(),
            devices_unknown: false,
            lost: BTreeSet::new(),
            filters_senders: false,
            passages: Passages::Kept,
            began: Instant::now(),
        };
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let listener = thread::Builder::new().name("monitor".into()).spawn(move || listen(monitor, &sender));
        listener.map_err(|source| NetlinkError::Socket { action: "listen on", source })?;
        Ok((repair, receiver))
    }

    /// Takes notices in. Answers whether one is about the underlay's device: what could not be done without it may be done now.
    pub fn hear(&mut self, notices: &[Notice], overlay: &Overlay) -> bool {
        let before = std::mem::take(&mut self.flushed);
        for notice in notices {
            self.judge(notice, overlay);
        }
        let touched = self.flushed;
        self.flushed |= before;
        touched
    }

    /// The pools changed: other people's chains may have to let other ranges pass, and settings count that did not, where a range is the
    /// first of IPv6.
    pub fn ranges_changed(&mut self) {
        self.suspect_passage();
        self.suspicion.settings.get_or_insert_with(Instant::now);
    }

    /// From now on no rules of podnet's stand in other people's chains: those that an agent before this one left there are taken away, for which these
    /// chains are looked at for the last time.
    pub fn leave_others_chains(&mut self) {
        self.passages = Passages::Unwanted;
        self.suspect_passage();
    }

    /// Settings of the kernel were changed on which others depend.
    pub fn settings_changed(&mut self) {
        self.suspicion.settings.get_or_insert_with(Instant::now);
    }

    /// The kernel has nothing that could check who sends but the reverse path filter, or has by now.
    pub fn set_filters_senders(&mut self, is_so: bool) {
        self.filters_senders = is_so;
        self.settings_changed();
        self.suspicion.settings_of_all_pods = true;
    }

    /// Whether the node's place on the underlay may have changed, until it was [looked at](Repair::underlay_seen).
    #[must_use]
    pub fn underlay_suspected(&self) -> bool {
        self.suspicion.underlay.is_some_and(|since| since + GATHER <= Instant::now())
    }

    /// The node's place was looked at and is the former one; `stands` says whether its device is up and has the address. While it
    /// does not, routes through it cannot be set; they are looked at when it does again.
    pub fn underlay_seen(&mut self, stands: bool) {
        self.suspicion.underlay = None;
        if stands && std::mem::take(&mut self.flushed) {
            self.suspect_what_stands_on_underlay();
        }
    }

    /// Has the node's place looked at anew.
    pub fn suspect_underlay(&mut self) {
        self.suspicion.underlay.get_or_insert_with(Instant::now);
    }

    /// The node's place could not be looked at: that has to wait.
    pub(crate) fn put_underlay_off(&mut self) {
        self.refused.underlay = self.refused.underlay.or(self.suspicion.underlay.take());
    }

    /// What was refused is suspected again.
    pub(crate) fn try_again(&mut self) {
        self.suspicion.join(std::mem::take(&mut self.refused));
    }

    /// The node's place as it is now.
    #[must_use]
    pub const fn underlay(&self) -> &Underlay {
        &self.underlay
    }

    /// The node's place changed.
    pub fn set_underlay(&mut self, underlay: Underlay) {
        self.underlay = underlay;
        self.suspicion.underlay = None;
        self.flushed = false;
        self.suspect_what_stands_on_underlay();
    }

    /// Routes through an address or a device go with it, and a device that is made anew has settings of its own.
    fn suspect_what_stands_on_underlay(&mut self) {
        self.suspicion.settings.get_or_insert_with(Instant::now);
        self.suspicion.overlay.get_or_insert_with(Instant::now);
        self.suspicion.heard(|| format!("device {} of the underlay changed", self.underlay.device));
    }

    /// When [`Repair::mend`] is due; none where nothing is suspected.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.suspicion.due().into_iter().chain(self.held_until).min()
    }

    /// Whether it is due now.
    pub(crate) fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= Instant::now())
    }
}

fn listen(mut monitor: Monitor, sender: &mpsc::Sender<Vec<Notice>>) {
    loop {
        match monitor.wait() {
            Ok(notices) => {
                if sender.blocking_send(notices).is_err() {
                    return;
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                error!(error, "the kernel's notices cannot be heard any more; damage is found at the next start only");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
