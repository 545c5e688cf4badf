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

/// What is suspected, and what was done about it so far.
pub struct Repair {
    underlay: Underlay,
    pods: Arc<PodEnds>,
    counts: Arc<Counts>,
    limiter: Limiter,
    suspicion: Suspicion,
    /// What is damaged and has to wait, and for how long.
    held: Suspicion,
    held_until: Option<Instant>,
    /// Names of devices by index: notices speak of indices.
    devices: HashMap<u32, LinkName>,
    /// Pods' devices whose loss was told.
    lost: BTreeSet<LinkName>,
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
        let monitor = datapath.monitor(&[pods.rules().port()?])?;
        let links = link::list(datapath.route_socket())?;
        let repair = Self {
            underlay: underlay.clone(),
            pods,
            counts,
            limiter: Limiter::default(),
            suspicion: Suspicion::at_start(),
            held: Suspicion::default(),
            held_until: None,
            devices: links.into_iter().map(|link| (link.index, link.name)).collect(),
            lost: BTreeSet::new(),
            began: Instant::now(),
        };
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let listener = thread::Builder::new().name("monitor".into()).spawn(move || listen(monitor, &sender));
        listener.map_err(|source| NetlinkError::Socket { action: "listen on", source })?;
        Ok((repair, receiver))
    }

    /// Takes notices in.
    pub fn hear(&mut self, notices: &[Notice], overlay: &Overlay) {
        for notice in notices {
            self.judge(notice, overlay);
        }
    }

    /// The pools changed: other people's chains may have to let other ranges pass.
    pub fn ranges_changed(&mut self) {
        self.suspicion.passage(Instant::now());
    }

    /// Whether the node's place on the underlay may have changed; asked once.
    pub fn underlay_suspected(&mut self) -> bool {
        let due = |since: Instant| since + GATHER <= Instant::now();
        let suspected = self.suspicion.underlay.is_some_and(due);
        if suspected {
            self.suspicion.underlay = None;
        }
        suspected
    }

    /// Has the node's place looked at anew.
    pub fn suspect_underlay(&mut self) {
        self.suspicion.underlay.get_or_insert_with(Instant::now);
    }

    /// The node's place as it is now.
    #[must_use]
    pub const fn underlay(&self) -> &Underlay {
        &self.underlay
    }

    /// The node's place changed.
    pub fn set_underlay(&mut self, underlay: Underlay) {
        self.underlay = underlay;
        self.suspicion.settings.get_or_insert_with(Instant::now);
        // Routes through the old address or device went with it.
        self.suspicion.overlay.get_or_insert_with(Instant::now);
    }

    /// When [`Repair::mend`] is due; none where nothing is suspected.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.suspicion.due().into_iter().chain(self.held_until).min()
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
