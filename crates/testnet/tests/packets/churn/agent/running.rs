//! The agent that follows what changes.

use std::{io, sync::Arc};

use http::{Request, Response};
use kube::{Client, client::Body};
use podnet_agent::{
    addresses::Addresses, network::Network as Running, proxy::Told, underlay::Finder, view::View, ways::Ways,
};
use podnet_client::{events::Complaints, watch::Update};
use podnet_model::{Change, Dual, Pool};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::timeout,
};

use super::{PATIENCE, place::Place};
use crate::churn::{
    cluster::{BACKENDS, Cluster},
    here,
};

/// As many updates wait for the agent as its watches let wait.
const BACKLOG: usize = 4096;
/// Where pods are, beside [`BACKENDS`].
const CLIENTS: &str = "10.250.0.0/24";

/// An agent's network at work in a node's namespace, without the rest of an agent.
pub(super) struct Agent {
    runtime: Runtime,
    updates: mpsc::Sender<Update>,
    running: Running,
    told: Told,
    /// So many EndpointSlices were told of at first.
    first: u64,
}

impl Agent {
    /// Begins with the cluster as it is: that is in force by now.
    pub(super) fn start(place: &Place, cluster: &Cluster) -> Self {
        let mut agent = place.network.node.netns.run(|| Self::begin(place)).unwrap();
        let pools = [("clients", CLIENTS), ("backends", BACKENDS)];
        let pools = pools.map(|(name, range)| Pool::new(name.into(), range.parse().unwrap()));
        pools.into_iter().for_each(|pool| agent.tell(Change::Pool(pool.name.clone(), Some(pool))));
        agent.tell(Change::Proxy(Some(Arc::new(place.proxy_config()))));
        cluster.all().into_iter().for_each(|change| agent.tell(change));
        agent.updates.blocking_send(Update::Synced).unwrap();
        agent.wait(async { agent.running.takes_pods(false).await.unwrap() });
        assert_eq!(*agent.told.mode.borrow(), Some(place.mode));
        agent.first = agent.in_force();
        agent
    }

    /// In the calling thread's namespace.
    fn begin(place: &Place) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let nobody = tower::service_fn(|_: Request<Body>| async {
            Err::<Response<Body>, _>(io::Error::other("there is no API server"))
        });
        let (client, config) = (Client::new(nobody, "default"), place.config());
        let finder = Finder::new(config.underlay.clone());
        let underlay = finder.find(Dual::default()).unwrap();
        let journal = config.state_dir.join("addresses.journal");
        let addresses = Addresses::open(config.node.clone(), &journal, client.clone()).unwrap();
        let ways = Ways::open(&config.state_dir.join("wireguard.keys"), &config.subnet_file).unwrap();
        let (told, complaints) = (Told::new(), Complaints::new(client, config.node.clone()));
        let (updates, receiver) = mpsc::channel(BACKLOG);
        let running = Running::start(
            &config,
            (finder, underlay),
            Arc::new(addresses),
            Arc::new(View::new(config.node.clone())),
            Arc::new(ways),
            (Arc::default(), complaints, told.clone()),
            receiver,
        );
        let running = running.unwrap();
        drop(entered);
        Self { runtime, updates, running, told, first: 0 }
    }

    pub(super) fn tell(&self, change: Change) {
        self.updates.blocking_send(Update::Change(change)).unwrap();
    }

    /// How many changed EndpointSlices of those that came since the beginning are in force, as its metrics tell it.
    pub(super) fn in_force(&self) -> u64 {
        let metrics = self.told.programming.metrics();
        let count = |what: &str| -> u64 {
            let name = format!("kubeproxy_sync_proxy_rules_endpoint_changes_{what} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(name.as_str()));
            value.unwrap().parse().unwrap()
        };
        count("total") - count("pending") - self.first
    }

    fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { timeout(here(PATIENCE), what).await }).expect("it is done in time")
    }

    /// Ends its thread. What is in force stays.
    pub(super) fn end(self) {
        let Self { runtime, updates, running, .. } = self;
        drop(updates);
        drop(runtime.block_on(async { timeout(here(PATIENCE), running.ended()).await }).expect("its thread ends"));
    }
}
