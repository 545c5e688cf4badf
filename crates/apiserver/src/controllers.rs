//! The controllers that an embedded cluster needs.
//!
//! Each is a loop of the same shape, whose parts are [`podnet_client::controller`]'s; the [`caches`] are shared. The deciding is pure
//! code in the modules below each controller.
//!
//! - [`deployment`] → [`replicaset`] → pods → [`scheduler`] → nodes
//! - [`statefulset`] → pods, by number
//! - [`endpoints`]: which pods a Service leads to
//! - [`node_lifecycle`]: nodes that fall silent or vanish, and their pods
//! - [`service_accounts`]: what a namespace has from the start; [`namespaces`]: how it ends
//! - [`garbage`]: what has lost its owner
//!
//! They talk to the API as any client does. Load balancers' addresses are given by the nodes' agents, here as on any cluster.

mod caches;
mod deployment;
mod endpoints;
mod garbage;
mod kinds;
mod label_index;
mod namespaces;
mod naming;
mod node_lifecycle;
mod ownership;
mod pods;
mod replicaset;
mod scheduler;
mod service_accounts;
mod statefulset;

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use caches::Caches;
use kube::Client;
use podnet_client::controller::{cache, key, queue, recorder, worker};
use recorder::Recorder;
use tokio::task::JoinSet;
use tracing::{error, info};

/// What the controllers are told at start.
#[derive(Clone, Debug)]
pub struct ControllersConfig {
    /// The cluster's CA certificate in PEM, which every namespace gets as the ConfigMap `kube-root-ca.crt`.
    pub ca_pem: String,
    /// How long a node may fail to renew its Lease before it counts as lost.
    pub node_grace: Duration,
}

impl ControllersConfig {
    /// The settings of a usual cluster: a node is lost after 40 s, four renewals of its Lease (kube-controller-manager's
    /// `--node-monitor-grace-period` for most of its life).
    pub fn new(ca_pem: impl Into<String>) -> Self {
        Self { ca_pem: ca_pem.into(), node_grace: Duration::from_secs(40) }
    }
}

/// Runs all controllers until `shutdown` is done. They may be stopped at any moment, also in the middle of their work: the next run
/// goes on from what is there.
pub async fn run(client: Client, config: ControllersConfig, shutdown: impl Future<Output = ()>) {
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    tokio::select! {
        () = start(&client, config, &mut tasks) => info!("controllers started"),
        () = &mut shutdown => return,
    }
    tokio::select! {
        () = &mut shutdown => {}
        // The loops have no end of their own.
        Some(ended) = tasks.join_next() => error!(?ended, "a controller stopped; all are stopped"),
    }
    tasks.shutdown().await;
}

async fn start(client: &Client, config: ControllersConfig, tasks: &mut JoinSet<()>) {
    let caches = Arc::new(Caches::default());
    let (recorder, written) = Recorder::new(client.clone());
    tasks.spawn(written);

    let deployments = deployment::Deployments::new(client.clone(), &caches, &recorder);
    let replica_sets = replicaset::ReplicaSets::new(client.clone(), &caches, &recorder);
    let stateful_sets = statefulset::StatefulSets::new(client.clone(), &caches, &recorder);
    let scheduler = scheduler::Scheduler::new(client.clone(), &caches, &recorder);
    let endpoints = endpoints::ServiceEndpoints::new(client.clone(), &caches, &recorder);
    let nodes = node_lifecycle::NodeLifecycle::new(client.clone(), &caches, &recorder, config.node_grace);
    let contents = service_accounts::NamespaceContents::new(client.clone(), &caches, config.ca_pem);
    let ends = namespaces::NamespaceEnds::new(client.clone(), &caches);
    let garbage = garbage::GarbageCollector::new(client.clone(), &caches);

    caches.start(client, tasks).await;

    tasks.spawn(deployments.run());
    tasks.spawn(replica_sets.run());
    tasks.spawn(stateful_sets.run());
    tasks.spawn(scheduler.run());
    tasks.spawn(endpoints.run());
    tasks.spawn(nodes.run());
    tasks.spawn(contents.run());
    tasks.spawn(ends.run());
    tasks.spawn(garbage.run());
}
