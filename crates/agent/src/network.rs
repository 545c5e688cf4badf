//! The cluster's changes become this node's network.
//!
//! One thread takes changes, asks the planners what they mean here, and does it. It is a thread and not a task because all that it
//! does is planning and system calls, in order. When the kernel refuses something, the difference between what is wanted and what is
//! there is worked out afresh and done, after growing pauses: the network depends on the present state only. Meanwhile what is not refused
//! goes on to follow what changes.

mod events;
mod failures;
mod force;
mod lacking;
mod legacy;
mod loopback;
mod place;
mod problems;
mod proxy;
mod refused;
mod resolver;
pub(crate) mod rules;
mod sockets;
mod strangers;
mod worker;

use std::{panic, sync::Arc, thread};

use ipnet::IpNet;
use podnet_client::{events::Complaints, watch::Update};
use podnet_kernel::{capabilities, cgroup::Cgroup, datapath::KernelDatapath, executor, nft::NftError};
use podnet_model::{Dual, Family};
use podnet_planner::{
    border::BorderConfig,
    overlay::{Overlay, OverlayConfig, Support},
    proxy::Capabilities,
    services::ServicesConfig,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};

use crate::{
    AgentConfig,
    addresses::Addresses,
    attach::rules::PodRules,
    dns::Seat,
    fastpath::FastPath,
    flows::Counting,
    proxy::{Configured, Told},
    repair::{Counts, PodEnds, Repair},
    underlay::{Finder, Underlay},
    view::View,
    ways::Ways,
};
use events::Events;
use failures::Failures;
use force::Refused;
use lacking::Lacking;
use legacy::LegacyWatch;
use loopback::Loopback;
use place::{Missed, Unfitted};
use problems::Problems;
use resolver::ResolverWay;
use rules::ClusterRules;
use sockets::SocketsPlace;
use strangers::Strangers;
use worker::Worker;

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
    published: watch::Receiver<Dual<Option<IpNet>>>,
    state: watch::Receiver<State>,
    overlay: watch::Receiver<OverlayConfig>,
    resolver: Seat,
}

/// How far the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The cluster's state is not complete yet.
    Learning,
    /// What the cluster wants is in force.
    InForce,
    /// The kernel refused something; it is tried again. Services may have their rules all the same.
    Failing {
        /// They have.
        ruled: bool,
    },
}

impl State {
    /// Whether pods may come. Where a runtime was told once that the network works it goes on to send them: one that starts into a network of
    /// which some ways are missing is better off than one that does not start.
    const fn takes_pods(self, worked_before: bool) -> bool {
        match self {
            Self::Learning => false,
            Self::InForce => true,
            Self::Failing { ruled } => worked_before && ruled,
        }
    }
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
        (counts, complaints, told_of_services): (Arc<Counts>, Complaints, Told),
        updates: mpsc::Receiver<Update>,
    ) -> Result<Self, NetworkError> {
        let (told, state) = watch::channel(State::Learning);
        let mut datapath = KernelDatapath::open()?;
        let (support, fast_path, has) = asked_of_kernel(config, &mut datapath)?;
        let overlay = OverlayConfig {
            support,
            without_lost_nodes: config.without_lost_nodes,
            underlay: place::of(&underlay),
            pod_mtu: config.underlay.pod_mtu,
            ..OverlayConfig::new(config.node.clone(), underlay.device.clone(), underlay.mtu)
        };
        let mut overlay = Overlay::new(overlay);
        overlay.set_keys(ways.keys());
        let (planned_with, of_overlay) = watch::channel(overlay.config().clone());
        let pods = Arc::new(PodEnds::new(PodRules::open()?, fast_path, overlay.pod_mtu()));
        let (publish, published) = watch::channel(underlay.published);
        let (mut repair, notices) =
            Repair::start(&mut datapath, &underlay, pods.clone(), counts.clone()).map_err(NftError::from)?;
        let looks_at_others = config.forward_rules;
        if !looks_at_others {
            repair.leave_others_chains();
        }
        let by_file = config.proxy_config.is_some();
        let proxy = Configured::new(config.node.clone(), by_file, has, told_of_services, complaints.clone());
        let resolver = Seat::default();
        let gives_way = resolver.gives_way.subscribe();
        let worker = Worker {
            resolver: ResolverWay::new(&config.node_local_dns, resolver.clone(), config.resolver_note()),
            proxy,
            repair,
            finder,
            internal: Dual::default(),
            node: config.node.clone(),
            pods: pods.clone(),
            unfitted: Unfitted::default(),
            missed: Missed::default(),
            problems: Problems::new(complaints.clone(), config.node.clone()),
            failures: Failures::new(complaints.clone(), config.node.clone()),
            legacy: looks_at_others.then(|| LegacyWatch::new(complaints.clone(), config.node.clone())),
            strangers: looks_at_others.then(|| Strangers::new(complaints.clone(), config.node.clone())),
            lacking: Lacking::new(complaints, config.node.clone()),
            counts,
            publish,
            overlay,
            planned_with,
            rules: rules_of(config, &underlay),
            sockets: SocketsPlace::new(config.sockets_cgroup.clone()),
            datapath,
            carrier: None,
            addresses,
            view,
            ways,
            forwards_ipv6: false,
            loopback: Loopback::default(),
            told,
            refused: Refused::default(),
            began: false,
        };
        let handle = Handle::current();
        let thread = thread::Builder::new().name("network".into());
        thread
            .spawn(move || worker.run(&handle, Events { updates, notices, gives_way }))
            .map_err(NetworkError::Thread)?;
        Ok(Self { pods, published, state, overlay: of_overlay, resolver })
    }

    /// What peers shall know of this node's addresses, as they change.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Dual<Option<IpNet>>> {
        self.published.clone()
    }

    /// What the ways between nodes are planned with here, as that changes.
    #[must_use]
    pub(crate) fn overlay(&self) -> watch::Receiver<OverlayConfig> {
        self.overlay.clone()
    }

    /// What the node's resolver and the network tell each other.
    #[must_use]
    pub fn resolver(&self) -> Seat {
        self.resolver.clone()
    }

    /// The node's ends of pods' interfaces: what is told here is kept whole.
    #[must_use]
    pub fn pods(&self) -> Arc<PodEnds> {
        self.pods.clone()
    }

    /// Waits until pods may come: until what the cluster wants is in force for the first time, or, where it was with an earlier agent,
    /// until that was tried and Services have their rules.
    ///
    /// # Errors
    ///
    /// When the thread ended.
    pub async fn takes_pods(&self, worked_before: bool) -> Result<(), NetworkError> {
        let mut state = self.state.clone();
        let takes = state.wait_for(|state| state.takes_pods(worked_before)).await;
        takes.map(|_| ()).map_err(|_| NetworkError::Ended)
    }

    /// Waits until the thread ends.
    pub async fn ended(&self) -> NetworkError {
        let mut state = self.state.clone();
        while state.changed().await.is_ok() {}
        NetworkError::Ended
    }
}

/// What the kernel can have: tunnels, the fast path, modes of Services. To ask is to wait for it (devices and namespaces that are made and go,
/// programs that are verified), for each by itself; a node whose agent begins anew waits for all of them.
fn asked_of_kernel(
    config: &AgentConfig,
    datapath: &mut KernelDatapath,
) -> Result<(Support, FastPath, Capabilities), NetworkError> {
    let (wanted, counts, entries) = (config.fast_path, config.counts_at_start(), config.flow_entries);
    let cgroup = Cgroup::v2(&config.sockets_cgroup).ok();
    thread::scope(|scope| {
        let open = move || FastPath::open(wanted, Counting::open(counts, cgroup, entries));
        let named = |name: &str| thread::Builder::new().name(name.into());
        let fast_path = named("programs").spawn_scoped(scope, open).map_err(NetworkError::Thread)?;
        let has = named("probe").spawn_scoped(scope, capabilities::probe).map_err(NetworkError::Thread)?;
        let support = executor::support(datapath.route_socket()).map_err(NftError::from)?;
        let fast_path = fast_path.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked));
        let has = has.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked));
        Ok((support, fast_path, has))
    })
}

fn rules_of(config: &AgentConfig, underlay: &Underlay) -> ClusterRules {
    let node_addrs = place::addrs_of(underlay);
    let services = ServicesConfig::new(Family::V4, config.node.clone(), node_addrs.clone());
    let no_nat_cidrs = config.all_no_nat_cidrs().collect();
    let border = BorderConfig { family: Family::V4, node_addrs, pod_cidrs: Vec::new(), no_nat_cidrs };
    ClusterRules::new(&services, &border).noting_in(&config.udp_frontends())
}

#[cfg(test)]
mod tests {
    use super::State::{Failing, InForce, Learning};

    #[test]
    fn pods_come_to_a_network_that_is_not_whole_only_where_it_worked_before() {
        let takes = |before: bool| {
            [Learning, Failing { ruled: false }, Failing { ruled: true }, InForce].map(|state| state.takes_pods(before))
        };
        assert_eq!(takes(false), [false, false, false, true]);
        assert_eq!(takes(true), [false, false, true, true]);
    }
}
