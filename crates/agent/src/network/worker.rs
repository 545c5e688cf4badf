//! The thread that does what changes ask for.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use podnet_client::watch::Update;
use podnet_kernel::{carrier::RunningCarrier, datapath::KernelDatapath, monitor::Notice};
use podnet_model::{Change, Dual, NodeName, errors::chain};
use podnet_planner::{
    overlay::{Overlay, OverlayConfig},
    step::Step,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tracing::error;

use super::{
    State,
    events::{Event, Events},
    failures::Failures,
    force::{Extent, Refused},
    lacking::Lacking,
    legacy::LegacyWatch,
    loopback::Loopback,
    place::{Missed, Unfitted},
    problems::Problems,
    refused::ApplyError,
    resolver::ResolverWay,
    rules::ClusterRules,
    sockets::SocketsPlace,
    strangers::Strangers,
};
use crate::{
    addresses::Addresses,
    proxy::{Configured, programming::Moment},
    repair::{Counts, PodEnds, Repair},
    underlay::Finder,
    view::View,
    ways::Ways,
};

/// Changes that are planned together: a burst becomes one transaction. As many as may wait (`podnet_client::watch`): where putting in force
/// takes long however little is written, as by a program of iptables, all that came meanwhile is done in one go, and none falls behind.
const BATCH: usize = 4096;
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
    /// None where tables of other programs are not looked at; so of the next one.
    pub(super) legacy: Option<LegacyWatch>,
    pub(super) strangers: Option<Strangers>,
    pub(super) lacking: Lacking,
    pub(super) counts: Arc<Counts>,
    pub(super) publish: watch::Sender<Dual<Option<IpNet>>>,
    pub(super) overlay: Overlay,
    /// What that is made with.
    pub(super) planned_with: watch::Sender<OverlayConfig>,
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
    pub(super) loopback: Loopback,
    pub(super) resolver: ResolverWay,
    pub(super) told: watch::Sender<State>,
    pub(super) refused: Refused,
    /// Rules were put in force, or refused.
    pub(super) began: bool,
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
        // After a refusal: when it is tried again. What has nothing to do with it goes on.
        let mut again: Option<Instant> = None;
        loop {
            let mut hastened = false;
            let due = self.due(again.is_some()).filter(|_| synced);
            let deadline = again.into_iter().chain(due).min();
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
            if !synced {
                continue;
            }
            let extent = match again {
                _ if work.synced => Extent::Everything,
                Some(again) if Instant::now() < again => Extent::Others,
                Some(_) => Extent::Again,
                None => Extent::Changes,
            };
            match self.work_off(&mut work, extent) {
                Ok(()) if extent == Extent::Others => {}
                Ok(()) => {
                    (pause, again) = (FIRST_PAUSE, None);
                    self.failures.over(&self.counts);
                    self.tell(State::InForce);
                }
                Err(error) if extent == Extent::Others => {
                    let error = &error as &dyn std::error::Error;
                    error!(error, "network not as wanted");
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    error!(error, again_in_ms = pause.as_millis() as u64, "network not as wanted");
                    self.failures.refused(&chain(error), &self.counts);
                    again = Some(Instant::now() + pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    self.tell(State::Failing { ruled: !self.rules.is_refused() && self.rules.serves() });
                }
            }
        }
    }

    /// When something is due that is not told. What is part of what was refused is not due while that has to wait.
    fn due(&self, waits: bool) -> Option<Instant> {
        let of_others = [
            self.repair.due(),
            self.problems.due(),
            self.proxy.due(),
            self.rules.due(),
            self.loopback.due(),
            self.resolver.due(),
            self.lacking.due(),
        ];
        let unless_waiting = [self.unfitted.due(), self.missed.due()].into_iter().filter(|_| !waits);
        let sockets = self.sockets.due().filter(|_| !waits || !self.refused.sockets);
        let all = of_others.into_iter().chain(unless_waiting).chain([
            self.legacy.as_ref().map(LegacyWatch::due),
            self.strangers.as_ref().map(Strangers::due),
            sockets,
        ]);
        all.flatten().min()
    }

    /// Does the work, and what else is due. An obstacle in one part does not keep the others from being done; the first one is told.
    /// The node's place comes first: the plan depends on it.
    fn work_off(&mut self, work: &mut Work, extent: Extent) -> Result<(), ApplyError> {
        let (afresh, tries_all) = (extent.is_afresh(), extent.tries_all());
        if afresh {
            self.repair.try_again();
        }
        self.look_for_nftables(work);
        let mends = self.repair.is_due();
        work.proxy |= self.proxy.tries_again(Instant::now());
        let forwarded = if tries_all { self.forward_ipv6() } else { Ok(()) };
        let suspected = self.repair.underlay_suspected() || tries_all && self.missed.is_due();
        let placed = if suspected { self.look_at_underlay(work) } else { Ok(()) };
        if placed.is_err() {
            self.repair.put_underlay_off();
        }
        self.addresses.set_room_for_ipv6(self.overlay.room_for_ipv6());
        self.begin();
        let configured = if afresh || work.proxy { self.configure() } else { Ok(()) };
        self.open_loopback_for(self.rules.standing());
        let changed = self.put_in_force(work, extent);
        let served = if afresh || work.proxy { self.serve() } else { Ok(()) };
        if afresh || work.proxy || work.services {
            self.tell_checks();
        }
        let fitted = if tries_all { self.fit_pods() } else { Ok(()) };
        let mended = self.mend();
        let looked = self.rules.look(&mut self.datapath).map_err(ApplyError::from);
        self.resolver.look(&mut self.datapath);
        self.proxy.unserved(self.rules.unserved());
        if let Some(faults) = self.rules.faults() {
            self.proxy.faults(faults, |service| self.view.announcements().tells_of(service));
        }
        let carried = if tries_all { self.carry() } else { Ok(()) };
        self.forget_vanished();
        if afresh || mends || !work.steps.is_empty() {
            self.lead_past();
            self.loopback.devices_changed();
        }
        let seen = self.look_at_sockets(extent);
        if self.datapath.nft_socket().missed() {
            self.hear(&[Notice::RulesLost]);
        }
        self.rules.tell(&self.proxy.told().facts);
        self.tell_who_stands_in();
        self.counts.repaired(&self.rules.mended());
        self.counts.repaired(&self.loopback.mended());
        self.counts.repaired(&self.sockets.mended());
        self.problems.look(&self.overlay, &self.counts);
        if let Some(legacy) = &mut self.legacy {
            legacy.look(&self.overlay);
        }
        if let Some(strangers) = &mut self.strangers {
            strangers.look(self.datapath.nft_socket());
        }
        forwarded
            .and(placed)
            .and(configured)
            .and(changed)
            .and(served)
            .and(fitted)
            .and(mended)
            .and(looked)
            .and(carried)
            .and(seen)
    }

    fn look_at_sockets(&mut self, extent: Extent) -> Result<(), ApplyError> {
        if self.refused.sockets && !extent.tries_all() {
            return Ok(());
        }
        let seen = self.sockets.look(&mut self.rules);
        self.refused.sockets |= seen.is_err();
        Ok(seen?)
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
        self.resolver.learn(change);
        self.sockets.heard(change);
    }

    /// Mends what others damaged, where something is suspected.
    fn mend(&mut self) -> Result<(), ApplyError> {
        if self.repair.is_due() {
            self.repair.mend(&mut self.datapath, &self.overlay, &mut self.rules)?;
        }
        Ok(())
    }

    fn tell(&self, state: State) {
        self.told.send_if_modified(|told| std::mem::replace(told, state) != state);
    }
}
