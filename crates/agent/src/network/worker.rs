//! The thread that does what changes ask for.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use podnet_client::watch::Update;
use podnet_kernel::{
    carrier::{CarrierError, RunningCarrier},
    datapath::{Datapath, KernelDatapath},
    fastpath::Behind,
    netlink::NetlinkError,
    netns::NetNs,
};
use podnet_model::{Change, Dual, NodeName, errors::chain};
use podnet_planner::{overlay::Overlay, step::Step};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tracing::{debug, error, info, warn};

use super::{
    State,
    events::{Event, Events},
    failures::Failures,
    legacy::LegacyWatch,
    place::{Missed, Unfitted},
    problems::Problems,
    refused::ApplyError,
    rules::ClusterRules,
    sockets::SocketsPlace,
};
use crate::{
    addresses::Addresses,
    proxy::{Configured, programming::Moment},
    repair::{Counts, PodEnds, Repair},
    underlay::Finder,
    view::View,
    ways::Ways,
};

/// Changes that are planned together: a burst becomes one transaction.
const BATCH: usize = 512;
/// The pause after a refusal, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What the thread has.
pub(super) struct Worker {
    pub(super) repair: Repair,
    pub(super) finder: Finder,
    pub(super) node: NodeName,
    /// The node's `InternalIP`s.
    pub(super) internal: Dual<Option<IpAddr>>,
    pub(super) pods: Arc<PodEnds>,
    pub(super) unfitted: Unfitted,
    pub(super) missed: Missed,
    pub(super) problems: Problems,
    pub(super) failures: Failures,
    pub(super) legacy: LegacyWatch,
    pub(super) counts: Arc<Counts>,
    pub(super) publish: watch::Sender<Dual<Option<IpNet>>>,
    pub(super) overlay: Overlay,
    pub(super) rules: ClusterRules,
    /// Services at the sockets, in mode `ebpf`.
    pub(super) sockets: SocketsPlace,
    pub(super) proxy: Configured,
    pub(super) datapath: KernelDatapath,
    pub(super) carrier: Option<RunningCarrier>,
    pub(super) addresses: Arc<Addresses>,
    pub(super) view: Arc<View>,
    pub(super) ways: Arc<Ways>,
    /// The node was made to forward IPv6.
    pub(super) forwards_ipv6: bool,
    pub(super) told: watch::Sender<State>,
}

/// What a batch of changes comes to.
#[derive(Default)]
pub(super) struct Work {
    pub(super) steps: Vec<Step>,
    pub(super) synced: bool,
    /// Something of Services changed.
    pub(super) services: bool,
    /// kube-proxy's configuration changed.
    pub(super) proxy: bool,
}

impl Worker {
    pub(super) fn run(mut self, handle: &Handle, mut events: Events) {
        let mut synced = false;
        let mut pause = FIRST_PAUSE;
        // After a refusal: when it is tried again. Until then changes are only taken in.
        let mut again: Option<Instant> = None;
        loop {
            let mut hastened = false;
            let due = || {
                self.repair
                    .due()
                    .into_iter()
                    .chain(self.unfitted.due())
                    .chain(self.missed.due())
                    .chain(self.problems.due())
                    .chain(self.proxy.due())
                    .chain([self.legacy.due()])
                    .chain(self.sockets.due())
                    .chain(self.rules.due())
                    .min()
                    .filter(|_| synced)
            };
            let deadline = again.or_else(due);
            let first = match handle.block_on(events.next(deadline)) {
                Event::Update(update) => Some(*update),
                Event::Notices(notices) => {
                    hastened |= self.hear(&notices);
                    None
                }
                Event::Time => None,
                Event::End => return,
            };
            while let Ok(notices) = events.notices.try_recv() {
                hastened |= self.hear(&notices);
            }
            if hastened {
                again = again.map(|at| at.min(Instant::now() + FIRST_PAUSE));
            }
            let mut work = self.plan(first, &mut events.updates);
            synced |= work.synced;
            if !synced || again.is_some_and(|again| Instant::now() < again) {
                continue;
            }
            // The first time, and after a refusal, nothing is known of what is there.
            let afresh = work.synced || again.is_some();
            match self.work_off(&mut work, afresh) {
                Ok(()) => {
                    (pause, again) = (FIRST_PAUSE, None);
                    self.failures.over(&self.counts);
                    self.tell(State::InForce);
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    error!(error, again_in_ms = pause.as_millis() as u64, "network not as wanted");
                    self.failures.refused(&chain(error), &self.counts);
                    again = Some(Instant::now() + pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    self.tell(State::Failing);
                }
            }
        }
    }

    /// Does the work, and what else is due. An obstacle in one part does not keep the others from being done; the first one is told.
    /// The node's place comes first: the plan depends on it.
    fn work_off(&mut self, work: &mut Work, afresh: bool) -> Result<(), ApplyError> {
        let mends = self.repair.is_due();
        work.proxy |= self.proxy.tries_again(Instant::now());
        let forwarded = self.forward_ipv6();
        let suspected = self.repair.underlay_suspected() || self.missed.is_due();
        let placed = if suspected { self.look_at_underlay(work) } else { Ok(()) };
        self.addresses.set_room_for_ipv6(self.overlay.room_for_ipv6());
        let configured = if afresh || work.proxy { self.configure() } else { Ok(()) };
        let started = Instant::now();
        let changed = if afresh { self.converge() } else { self.apply(work) };
        self.programmed(changed.is_ok(), afresh, started.elapsed());
        if afresh || work.proxy {
            self.serve();
        }
        if afresh || work.proxy || work.services {
            self.tell_checks();
        }
        let fitted = self.fit_pods();
        let mended = self.mend();
        let looked = self.rules.look(&mut self.datapath);
        let carried = self.carry();
        if changed.is_ok() {
            self.forget_vanished();
        }
        if afresh || mends || !work.steps.is_empty() {
            self.lead_past();
        }
        let seen = self.sockets.look(&mut self.rules).map_err(ApplyError::Sockets);
        self.problems.look(&self.overlay, &self.counts);
        self.legacy.look(&self.overlay);
        forwarded
            .and(placed)
            .and(configured)
            .and(changed)
            .and(fitted)
            .and(mended)
            .and(looked.map_err(ApplyError::from))
            .and(carried)
            .and(seen)
    }

    /// Makes the node forward IPv6 once pods have it. When no pod has it any more it goes on: others may count on it.
    fn forward_ipv6(&mut self) -> Result<(), ApplyError> {
        if self.overlay.carries_ipv6() && !self.forwards_ipv6 {
            self.repair.underlay().forward_ipv6()?;
            self.forwards_ipv6 = true;
        }
        Ok(())
    }

    fn plan(&mut self, first: Option<Update>, updates: &mut mpsc::Receiver<Update>) -> Work {
        let mut work = Work::default();
        let mut next = first;
        for _ in 0..BATCH {
            match next.take() {
                Some(Update::Change(change)) => self.plan_change(&change, &mut work),
                Some(Update::Synced) => work.synced = true,
                None => break,
            }
            next = updates.try_recv().ok();
        }
        if let Some(update) = next {
            // Taken from the queue beyond the batch: it belongs to this one then.
            match update {
                Update::Change(change) => self.plan_change(&change, &mut work),
                Update::Synced => work.synced = true,
            }
        }
        work
    }

    fn plan_change(&mut self, change: &Change, work: &mut Work) {
        match change {
            Change::Pool(..) | Change::NetConf(..) => self.repair.ranges_changed(),
            Change::Service(..) | Change::Slice(..) => work.services = true,
            Change::Proxy(config) => {
                self.proxy.take(config.clone());
                work.proxy = true;
            }
            Change::Node(name, Some(node)) if *name == self.node => {
                self.proxy.told().programming.set_leaving(node.leaving);
                let internal = node.internals();
                if std::mem::replace(&mut self.internal, internal) != internal && self.finder.needs_internal() {
                    self.repair.suspect_underlay();
                }
            }
            _ => {}
        }
        if matches!(change, Change::Node(..)) {
            // The node may be seen with a key that was made since.
            work.steps.extend(self.overlay.set_keys(self.ways.keys()));
        }
        if !matches!(change, Change::Pod(..) | Change::Service(..) | Change::Slice(..) | Change::Namespace(..)) {
            self.problems.suspect();
        }
        self.view.learn(change);
        self.addresses.learn(change);
        work.steps.extend(self.overlay.apply(change));
        if matches!(change, Change::Node(..) | Change::NetConf(..) | Change::Felix(..)) {
            self.ways.learn(&self.overlay);
        }
        self.proxy.told().programming.queued(change, Moment::now());
        self.rules.learn(change);
        self.sockets.heard(change);
    }

    fn apply(&mut self, work: &mut Work) -> Result<(), ApplyError> {
        let started = Instant::now();
        work.steps = self.pods.without_theirs(std::mem::take(&mut work.steps));
        let applied = self.datapath.apply(&work.steps)?;
        if !applied.remade.is_empty() {
            // With the device went everything that stood on it.
            return self.converge();
        }
        let ruled = self.rules.edit(&mut self.datapath);
        let at_sockets = self.sockets.edit(&mut self.rules);
        let edits = ruled? + at_sockets?;
        if !work.steps.is_empty() || edits > 0 {
            debug!(steps = work.steps.len(), edits, elapsed = ?started.elapsed(), "network changed");
        }
        Ok(())
    }

    /// From whatever is there to what is wanted. Connections that are under way keep their translations: they live in connection
    /// tracking and not in the rules. The rules are put in force also where a device or a route is refused.
    fn converge(&mut self) -> Result<(), ApplyError> {
        let started = Instant::now();
        let linked = self.link();
        let ruled = self.rules.put(&mut self.datapath);
        let at_sockets = self.sockets.put(&mut self.rules);
        ruled?;
        at_sockets?;
        self.problems.suspect();
        let steps = linked?;
        info!(steps, elapsed_ms = started.elapsed().as_millis() as u64, "network in force");
        Ok(())
    }

    /// What is left of this is found with the next change that makes a backend vanish, and at the next start.
    fn forget_vanished(&mut self) {
        match self.rules.forget_vanished() {
            Ok(0) => return,
            Ok(forgotten) => debug!(forgotten, "UDP connections to backends that are gone are forgotten"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "UDP connections may go on to backends that are gone");
            }
        }
        // What passes by the stack goes on as it was translated.
        self.pods.fast_path().relearn();
    }

    /// Devices and routes, from whatever is there to what is wanted; answers with the number of steps.
    fn link(&mut self) -> Result<usize, ApplyError> {
        let steps = self.repairs()?;
        if !self.datapath.apply(&steps)?.remade.is_empty() {
            let again = self.repairs()?;
            self.datapath.apply(&again)?;
        }
        Ok(steps.len())
    }

    /// Packets may leave by other ways than those that established flows know, and the tunnel may be another device.
    fn lead_past(&mut self) {
        let fast_path = self.pods.fast_path();
        for device in self.overlay.config().vxlan_names() {
            if let Err(error) = fast_path.follow(self.datapath.route_socket(), device, Behind::Nodes, true) {
                warn!(error = &error as &dyn std::error::Error, "the fast path of an earlier agent is not taken away");
            }
        }
        fast_path.relearn();
    }

    /// Lets the UDP tunnel's program do what is planned, or none run.
    fn carry(&mut self) -> Result<(), ApplyError> {
        let Some(wanted) = self.overlay.carrier() else {
            self.carrier = None;
            return Ok(());
        };
        if !self.carrier.as_mut().is_some_and(|carrier| carrier.follow(&wanted)) {
            // The old one has the device and the port until it is gone.
            self.carrier = None;
            let netns = NetNs::current().map_err(CarrierError::from)?;
            self.carrier = Some(RunningCarrier::start(&netns, &wanted)?);
            info!(device = %wanted.device, local = %wanted.local, port = wanted.port, "UDP tunnel runs");
        }
        Ok(())
    }

    /// Mends what others damaged, where something is suspected.
    fn mend(&mut self) -> Result<(), ApplyError> {
        if self.repair.is_due() {
            self.repair.mend(&mut self.datapath, &self.overlay, &mut self.rules)?;
        }
        Ok(())
    }

    fn repairs(&mut self) -> Result<Vec<Step>, NetlinkError> {
        let observed = self.datapath.observe(&self.overlay.config().vxlan_names())?;
        Ok(self.pods.without_theirs(self.overlay.repair(&observed.into())))
    }

    fn tell(&self, state: State) {
        self.told.send_if_modified(|told| std::mem::replace(told, state) != state);
    }
}
