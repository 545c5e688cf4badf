//! The cluster's changes become this node's network.
//!
//! One thread takes changes, asks the planners what they mean here, and does it. It is a thread and not a task because all that it
//! does is planning and system calls, in order. When the kernel refuses something, the difference between what is wanted and what is
//! there is worked out afresh and done, after growing pauses: the network depends on the present state only.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ipnet::{IpNet, Ipv4Net};
use podnet_client::watch::Update;
use podnet_kernel::{
    addr,
    carrier::{CarrierError, RunningCarrier},
    datapath::{Datapath, KernelDatapath},
    executor::{self, Observed, StepFailed},
    monitor::Notice,
    netlink::NetlinkError,
    netns::NetNs,
    nft::NftError,
    stale,
};
use podnet_model::{Change, NodeAddr, NodeName};
use podnet_planner::{
    overlay::{Overlay, OverlayConfig, State as OverlayState},
    ruleset::Edit,
    services::{MASQUERADE_MARK, Services, ServicesConfig},
    step::Step,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    time::timeout_at,
};
use tracing::{debug, error, info, warn};

use crate::{
    AgentConfig,
    addresses::Addresses,
    attach::rules::PodRules,
    repair::{Counts, MendError, PodEnds, Repair},
    underlay::{Finder, Underlay},
    view::View,
    ways::Ways,
};

/// The table that holds every rule of ours.
pub const TABLE: &str = "podnet";
/// Changes that are planned together: a burst becomes one transaction.
const BATCH: usize = 512;
/// The pause after a refusal, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// ClusterIPs are refused when unassigned only where their range is known; this one holds no address at all.
const NO_RANGE: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 32);

/// Why the network cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No netlink sockets.
    #[error("cannot talk to the kernel's routing and nf_tables")]
    Netlink(#[from] NftError),
    /// No thread.
    #[error("cannot start the network's thread")]
    Thread(#[source] std::io::Error),
    /// The thread ended, which it does only when the agent does.
    #[error("the network's thread has ended")]
    Ended,
}

/// The running network of this node.
#[derive(Clone, Debug)]
pub struct Network {
    pods: Arc<PodEnds>,
    published: watch::Receiver<IpNet>,
    state: watch::Receiver<State>,
}

/// How far the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The cluster's state is not complete yet.
    Learning,
    /// What the cluster wants is in force.
    InForce,
    /// The kernel refused something; it is tried again.
    Failing,
}

impl Network {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the kernel's interfaces cannot be opened.
    pub fn start(
        config: &AgentConfig,
        (finder, underlay): (Finder, Underlay),
        addresses: Arc<Addresses>,
        view: Arc<View>,
        ways: Arc<Ways>,
        counts: Arc<Counts>,
        updates: mpsc::Receiver<Update>,
    ) -> Result<Self, NetworkError> {
        let (told, state) = watch::channel(State::Learning);
        let mut datapath = KernelDatapath::open()?;
        let support = executor::support(datapath.route_socket()).map_err(NftError::from)?;
        let overlay = OverlayConfig {
            support,
            without_lost_nodes: config.without_lost_nodes,
            underlay_addr: v4(underlay.address),
            pod_mtu: config.underlay.pod_mtu,
            ..OverlayConfig::new(config.node.clone(), underlay.device.clone(), underlay.mtu)
        };
        let mut overlay = Overlay::new(overlay);
        overlay.set_keys(ways.keys());
        let pods = Arc::new(PodEnds::new(PodRules::open()?, overlay.pod_mtu()));
        let (publish, published) = watch::channel(underlay.published);
        let (repair, notices) =
            Repair::start(&mut datapath, &underlay, pods.clone(), counts).map_err(NftError::from)?;
        let worker = Worker {
            repair,
            finder,
            internal: None,
            node: config.node.clone(),
            pods: pods.clone(),
            publish,
            overlay,
            services: Services::new(ServicesConfig {
                node: config.node.clone(),
                node_addrs: vec![NodeAddr(underlay.address.addr())],
                pod_cidrs: Vec::new(),
                no_nat_cidrs: config.no_nat_cidrs.clone(),
                service_cidr: config.service_cidr.unwrap_or(NO_RANGE),
                masquerade_mark: MASQUERADE_MARK,
            }),
            datapath,
            carrier: None,
            addresses,
            view,
            ways,
            told,
        };
        let handle = Handle::current();
        let thread = thread::Builder::new().name("network".into());
        thread.spawn(move || worker.run(&handle, Events { updates, notices })).map_err(NetworkError::Thread)?;
        Ok(Self { pods, published, state })
    }

    /// What peers shall know of this node's address, as it changes.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<IpNet> {
        self.published.clone()
    }

    /// The node's ends of pods' interfaces: what is told here is kept whole.
    #[must_use]
    pub fn pods(&self) -> Arc<PodEnds> {
        self.pods.clone()
    }

    /// Waits until what the cluster wants is in force for the first time.
    ///
    /// # Errors
    ///
    /// When the thread ended.
    pub async fn in_force(&self) -> Result<(), NetworkError> {
        let mut state = self.state.clone();
        state.wait_for(|state| *state == State::InForce).await.map(|_| ()).map_err(|_| NetworkError::Ended)
    }

    /// Waits until the thread ends.
    pub async fn ended(&self) -> NetworkError {
        let mut state = self.state.clone();
        while state.changed().await.is_ok() {}
        NetworkError::Ended
    }
}

struct Worker {
    repair: Repair,
    finder: Finder,
    node: NodeName,
    /// The node's `InternalIP`.
    internal: Option<IpAddr>,
    pods: Arc<PodEnds>,
    publish: watch::Sender<IpNet>,
    overlay: Overlay,
    services: Services,
    datapath: KernelDatapath,
    carrier: Option<RunningCarrier>,
    addresses: Arc<Addresses>,
    view: Arc<View>,
    ways: Arc<Ways>,
    told: watch::Sender<State>,
}

/// What the worker waits for.
struct Events {
    updates: mpsc::Receiver<Update>,
    notices: mpsc::Receiver<Vec<Notice>>,
}

/// What came.
enum Event {
    Update(Box<Update>),
    Notices(Vec<Notice>),
    Time,
    End,
}

impl Events {
    /// The next event, or [`Event::Time`] when it is time.
    async fn next(&mut self, deadline: Option<Instant>) -> Event {
        let waiting = async {
            tokio::select! {
                update = self.updates.recv() => update.map_or(Event::End, |update| Event::Update(Box::new(update))),
                // Without a listener nothing is heard, and the network goes on.
                Some(notices) = self.notices.recv() => Event::Notices(notices),
            }
        };
        match deadline {
            Some(deadline) => timeout_at(deadline.into(), waiting).await.unwrap_or(Event::Time),
            None => waiting.await,
        }
    }
}

/// What a batch of changes comes to.
#[derive(Default)]
struct Work {
    steps: Vec<Step>,
    edits: Vec<Edit>,
    synced: bool,
    /// What is asked of the network changed, and not only who is there.
    asked: bool,
}

impl Worker {
    fn run(mut self, handle: &Handle, mut events: Events) {
        let mut synced = false;
        let mut pause = FIRST_PAUSE;
        // After a refusal: when it is tried again. Until then changes are only taken in.
        let mut again: Option<Instant> = None;
        loop {
            let deadline = again.or_else(|| self.repair.due().filter(|_| synced));
            let first = match handle.block_on(events.next(deadline)) {
                Event::Update(update) => Some(*update),
                Event::Notices(notices) => {
                    self.repair.hear(&notices, &self.overlay);
                    None
                }
                Event::Time => None,
                Event::End => return,
            };
            while let Ok(notices) = events.notices.try_recv() {
                self.repair.hear(&notices, &self.overlay);
            }
            let work = self.plan(first, &mut events.updates);
            synced |= work.synced;
            if !synced || again.is_some_and(|again| Instant::now() < again) {
                continue;
            }
            // The first time, and after a refusal, nothing is known of what is there.
            let result = if work.synced || again.is_some() { self.converge() } else { self.apply(&work) };
            let result = result.and_then(|()| self.mend()).and_then(|()| self.carry());
            match result {
                Ok(()) => {
                    (pause, again) = (FIRST_PAUSE, None);
                    self.tell(State::InForce);
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    error!(error, again_in_ms = pause.as_millis() as u64, "network not as wanted");
                    again = Some(Instant::now() + pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    self.tell(State::Failing);
                }
            }
        }
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
            Change::Node(name, Some(node)) if *name == self.node => {
                let internal = node.internal.map(|internal| internal.0);
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
        work.asked |= matches!(change, Change::Pool(..) | Change::NetConf(..) | Change::Felix(..));
        self.view.learn(change);
        self.addresses.learn(change);
        work.steps.extend(self.overlay.apply(change));
        if matches!(change, Change::Node(..) | Change::NetConf(..) | Change::Felix(..)) {
            self.ways.learn(&self.overlay);
        }
        work.edits.extend(self.services.apply(change).edits);
    }

    fn apply(&mut self, work: &Work) -> Result<(), ApplyError> {
        let started = Instant::now();
        let applied = self.datapath.apply(&work.steps)?;
        if !applied.remade.is_empty() {
            // With the device went everything that stood on it.
            return self.converge();
        }
        if work.asked {
            self.tell_problems();
        }
        if !work.edits.is_empty() {
            self.datapath.edit(TABLE, &work.edits)?;
        }
        if !work.steps.is_empty() || !work.edits.is_empty() {
            debug!(steps = work.steps.len(), edits = work.edits.len(), elapsed = ?started.elapsed(), "network changed");
        }
        Ok(())
    }

    /// From whatever is there to what is wanted. Connections that are under way keep their translations: they live in connection
    /// tracking and not in the rules.
    fn converge(&mut self) -> Result<(), ApplyError> {
        let started = Instant::now();
        let steps = self.repairs()?;
        if !self.datapath.apply(&steps)?.remade.is_empty() {
            let again = self.repairs()?;
            self.datapath.apply(&again)?;
        }
        self.datapath.replace(TABLE, &self.services.desired())?;
        self.tell_problems();
        info!(steps = steps.len(), elapsed_ms = started.elapsed().as_millis() as u64, "network in force");
        Ok(())
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
        if self.repair.underlay_suspected() {
            self.look_at_underlay()?;
        }
        self.fit_pods()?;
        if self.repair.due().is_some_and(|due| due <= Instant::now()) {
            self.repair.mend(&mut self.datapath, &self.overlay, &self.services)?;
        }
        Ok(())
    }

    /// Follows the node's place on the underlay where it changed. Where nothing fits any more the former place stands: an address that
    /// is being replaced is gone for a moment.
    fn look_at_underlay(&mut self) -> Result<(), ApplyError> {
        let found = match self.finder.find(self.internal) {
            Ok(found) if found == *self.repair.underlay() => return Ok(()),
            Ok(found) => found,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "the node's place on the underlay is not found; the former one stands");
                return Ok(());
            }
        };
        let (device, address, mtu) = (&found.device, found.address, found.mtu);
        info!(%device, %address, mtu, "the node's place on the underlay changed");
        found.prepare().map_err(MendError::from)?;
        let before = self.repair.underlay().address.addr();
        let moved = found.address.addr() != before;
        if moved && !addr::list_all(self.datapath.route_socket())?.iter().any(|(_, net)| net.addr() == before) {
            // The watches would go on waiting for what cannot come.
            let ended = stale::end_connections_from(before);
            info!(address = %before, ended, "connections from an address that is gone ended");
        }
        self.repair.set_underlay(found.clone());
        let steps = self.overlay.set_underlay(device.clone(), mtu, v4(address));
        let edits = if moved { self.services.set_node_addrs(vec![NodeAddr(address.addr())]).edits } else { Vec::new() };
        self.apply(&Work { steps, edits, ..Work::default() })?;
        self.publish.send_if_modified(|published| std::mem::replace(published, found.published) != found.published);
        Ok(())
    }

    /// Gives pods' interfaces the MTU that follows from the underlay and the pools.
    fn fit_pods(&mut self) -> Result<(), ApplyError> {
        let mtu = self.overlay.pod_mtu();
        if mtu != self.pods.wanted_mtu() {
            let changed = self.pods.fit(self.datapath.route_socket(), mtu)?;
            info!(mtu, interfaces = changed, "pods' interfaces have another MTU");
        }
        Ok(())
    }

    fn repairs(&mut self) -> Result<Vec<Step>, NetlinkError> {
        let observed = self.datapath.observe(&self.overlay.config().vxlan_device)?;
        Ok(self.overlay.repair(&overlay_state(observed)))
    }

    fn tell_problems(&self) {
        for problem in self.overlay.problems() {
            warn!(%problem, "a part of the network is not as asked for");
        }
    }

    fn tell(&self, state: State) {
        self.told.send_if_modified(|told| std::mem::replace(told, state) != state);
    }
}

fn v4(address: IpNet) -> Option<Ipv4Addr> {
    match address.addr() {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    }
}

pub(crate) fn overlay_state(observed: Observed) -> OverlayState {
    OverlayState {
        vxlan: observed.vxlan,
        tunnels: observed.tunnels,
        peers: observed.peers,
        routes: observed.routes.into_iter().map(|route| (route.dst, route.target)).collect(),
        neighbours: observed.neighbours.into_iter().map(|entry| ((entry.device, entry.addr), entry.mac)).collect(),
        fdb: observed.fdb.into_iter().map(|entry| ((entry.device, entry.mac), entry.remote)).collect(),
    }
}

#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("cannot read the routes")]
    Observe(#[from] NetlinkError),
    #[error("cannot change links and routes")]
    Steps(#[from] StepFailed),
    #[error("cannot change the rules")]
    Rules(#[from] NftError),
    #[error("cannot run the UDP tunnel")]
    Carrier(#[from] CarrierError),
    #[error("cannot mend what others damaged")]
    Mend(#[from] MendError),
}
