//! Turns recording on when somebody wants it, and off when nobody does any more.

use std::{
    convert::Infallible,
    error::Error,
    io,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use podnet_flow::{Joint, Tally, store::Retention};
use podnet_model::NodeName;
use tokio::time::{interval, sleep, timeout};
use tracing::{info, warn};

use super::{
    FlowLog, RecordError,
    collect::Collectors,
    demand::{Demand, Scope},
    known::{Known, Watches},
    log::Log,
    neighbours::{Asks, Neighbours},
    past::{self, Past},
    recorder::{Recorder, Recording, Sinks},
    senders::OfNode,
};
use crate::{addresses::Addresses, fastpath::FastPath, repair::PodEnds};

/// So long recording goes on after the last one who followed went: they may only have lost their connection.
const LINGER: Duration = Duration::from_secs(15);
/// Before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// For the cluster's pods, nodes and Services to be listed. Without them flows are recorded too, without names.
const LISTING: Duration = Duration::from_secs(10);
/// Between two looks at who chooses backends of Services: the mode changes seldom.
const LOOK: Duration = Duration::from_secs(2);
/// What is kept where nobody asked for the past: enough for a reader to be a little slower than what it reads.
const UNASKED: Retention = Retention { time: SignedDuration::from_mins(1), bytes: 16 << 20 };

/// What it works with.
pub(crate) struct Keeper {
    pub(super) demand: Arc<Demand>,
    pub(super) node: NodeName,
    pub(super) client: Client,
    pub(super) log: Option<FlowLog>,
    /// The past that is kept whether somebody follows or not.
    pub(super) retention: Option<Retention>,
    /// What is told in metrics.
    pub(super) tally: Arc<Mutex<Tally>>,
    /// Whom records are sent to.
    pub(super) collectors: Collectors,
    /// Labels of pods that records have.
    pub(super) labels: Vec<String>,
    /// Services' addresses.
    pub(super) service_cidr: Option<IpNet>,
    /// Which pod of this node has which.
    pub(super) addresses: Arc<Addresses>,
    /// In which namespaces these pods are.
    pub(super) ends: Arc<PodEnds>,
    /// Where it is written down who had which address.
    pub(super) holders: PathBuf,
    /// How other nodes' agents are asked, where they can be.
    pub(super) asks: Option<Asks>,
}

/// While flows are recorded.
struct Running {
    /// It ends before what it reads of does.
    _recording: Recording,
    watches: Watches,
    known: Arc<Known>,
}

impl Keeper {
    /// Goes on for good. `mend` brings all pods' interfaces to what `pods` says.
    pub(crate) async fn keep(self, fast_path: &FastPath, mend: impl Fn()) -> Infallible {
        // An earlier agent recorded: who followed it is about to ask again.
        let mut running =
            if fast_path.counting().flows().is_some() { self.begin(fast_path, &mend).await } else { None };
        loop {
            let scope = self.demand.scope();
            if let Some(going_on) = &running {
                if scope != Scope::Nothing {
                    self.follow(going_on, scope, fast_path, &mend).await;
                } else if timeout(LINGER, self.demand.changed_from(scope)).await.is_err() && self.demand.close() {
                    self.end(running.take(), fast_path, &mend);
                }
                continue;
            }
            if scope == Scope::Nothing {
                self.demand.changed_from(scope).await;
                continue;
            }
            running = self.begin(fast_path, &mend).await;
            if running.is_none() {
                sleep(AGAIN).await;
            }
        }
    }

    /// Until something else is wanted.
    async fn follow(&self, running: &Running, scope: Scope, fast_path: &FastPath, mend: &impl Fn()) {
        let mut changed = pin!(self.demand.changed_from(scope));
        let mut look = interval(LOOK);
        let mut is_known = running.is_known();
        running.narrow(fast_path, scope);
        loop {
            tokio::select! {
                () = &mut changed => return,
                () = running.known.ranges_changed(), if scope == Scope::PodToPod => running.narrow(fast_path, scope),
                _ = look.tick() => tokio::task::block_in_place(|| {
                    if fast_path.counting().follow_sockets() {
                        mend();
                    }
                    if !is_known && running.is_known() {
                        is_known = true;
                        running.narrow(fast_path, scope);
                    }
                }),
            }
        }
    }

    async fn begin(&self, fast_path: &FastPath, mend: &impl Fn()) -> Option<Running> {
        tokio::task::block_in_place(|| {
            fast_path.count_flows(true);
            mend();
        });
        let flows = fast_path.counting().flows()?;
        // What is counted meanwhile is in the kernel.
        let known = Known::of_node(self.node.clone(), self.service_cidr);
        known.choose_labels(&self.labels);
        tokio::task::block_in_place(|| known.keep_at(&self.holders));
        let mut watches = Watches::start(&self.client, &known);
        if timeout(LISTING, watches.listed()).await.is_err() {
            warn!("flows are recorded before it is known who is who");
        }
        let word = self.holders.with_file_name("flow-epoch");
        let past = Past::new(self.retention.unwrap_or(UNASKED), past::earlier(&word, flows.goes_on()));
        let neighbours = self.asks.clone().map(|asks| {
            *past.joint() = Some(Joint::new(self.node.clone(), Timestamp::now()));
            Neighbours::start(self.node.clone(), asks, known.clone())
        });
        let sinks = |log| {
            let (tally, collectors) = (self.tally.clone(), self.collectors.clone());
            Sinks { log, past: Some(past.clone()), tally, collectors }
        };
        let node = OfNode::new(self.addresses.clone(), self.ends.clone());
        let cgroup = fast_path.counting().cgroup();
        let mark = self.holders.with_file_name("flow-recording");
        let recorder = |log| {
            let recorder = Recorder::new(flows, sinks(log), self.node.clone(), (known.clone(), node));
            recorder.refusing(cgroup).asking(neighbours).marking(&mark)
        };
        let recording = self.open_log().and_then(|log| recorder(log).start().map_err(RecordError::Thread));
        match recording {
            Ok(recording) => {
                let path = self.log.as_ref().map(|log| tracing::field::display(log.path.display()));
                info!(path, "flows are recorded");
                past.leave_word(&word);
                self.demand.set_past(past);
                Some(Running { _recording: recording, watches, known })
            }
            Err(error) => {
                warn!(error = &error as &dyn Error, "flows are not recorded; it is tried again");
                None
            }
        }
    }

    fn open_log(&self) -> Result<Option<Log>, RecordError> {
        let failed = |log: &FlowLog, source: io::Error| RecordError::Log { path: log.path.clone(), source };
        self.log.as_ref().map(|log| Log::open(log, self.node.clone()).map_err(|source| failed(log, source))).transpose()
    }

    fn end(&self, running: Option<Running>, fast_path: &FastPath, mend: &impl Fn()) {
        tokio::task::block_in_place(|| {
            drop(running);
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).forget_flows();
            fast_path.count_flows(false);
            mend();
        });
        podnet_kernel::heap::give_back();
        info!("flows are recorded no more: nobody asks for them");
    }
}

impl Running {
    /// Whether all that is in the cluster was told once.
    fn is_known(&self) -> bool {
        self.watches.are_listed()
    }

    /// Has the kernel count only what may be between pods, where nothing else is wanted. Before it is known where pods may be, all is counted.
    fn narrow(&self, fast_path: &FastPath, scope: Scope) {
        let Some(flows) = fast_path.counting().flows() else { return };
        let ranges = (scope != Scope::All && self.is_known()).then(|| self.known.ranges());
        if let Err(error) = flows.set_ranges(ranges.as_ref()) {
            info!(error = &error as &dyn Error, "all flows are counted, though only those between pods are wanted");
            // It was so before.
            let _ = flows.set_ranges(None);
        }
    }
}
