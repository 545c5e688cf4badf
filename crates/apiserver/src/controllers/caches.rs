//! The watches that the controllers share, one for each kind.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet, StatefulSet},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, Resource, runtime::watcher};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::{cache::Cache, service_accounts};

/// What the controllers know.
#[derive(Default)]
pub(crate) struct Caches {
    /// Deployments.
    pub(crate) deployments: Arc<Cache<Deployment>>,
    /// ReplicaSets.
    pub(crate) replica_sets: Arc<Cache<ReplicaSet>>,
    /// StatefulSets.
    pub(crate) stateful_sets: Arc<Cache<StatefulSet>>,
    /// Pods.
    pub(crate) pods: Arc<Cache<Pod>>,
    /// Services.
    pub(crate) services: Arc<Cache<Service>>,
    /// EndpointSlices.
    pub(crate) slices: Arc<Cache<EndpointSlice>>,
    /// Endpoints.
    pub(crate) endpoints: Arc<Cache<Endpoints>>,
    /// Nodes.
    pub(crate) nodes: Arc<Cache<Node>>,
    /// Leases.
    pub(crate) leases: Arc<Cache<Lease>>,
    /// Namespaces.
    pub(crate) namespaces: Arc<Cache<Namespace>>,
    /// The ServiceAccounts named `default`, and no others.
    pub(crate) default_accounts: Arc<Cache<ServiceAccount>>,
    /// The ConfigMaps with the cluster's CA certificate, and no others.
    pub(crate) root_certificates: Arc<Cache<ConfigMap>>,
}

impl Caches {
    /// Starts the watches in `tasks` and waits until each kind was listed. Listeners are to be there before.
    pub(crate) async fn start(&self, client: &Client, tasks: &mut JoinSet<()>) {
        let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let everything = watcher::Config::default;
        follow(&self.deployments, client, everything(), tasks);
        follow(&self.replica_sets, client, everything(), tasks);
        follow(&self.stateful_sets, client, everything(), tasks);
        follow(&self.pods, client, everything(), tasks);
        follow(&self.services, client, everything(), tasks);
        follow(&self.slices, client, everything(), tasks);
        follow(&self.endpoints, client, everything(), tasks);
        follow(&self.nodes, client, everything(), tasks);
        follow(&self.leases, client, everything(), tasks);
        follow(&self.namespaces, client, everything(), tasks);
        follow(&self.default_accounts, client, named(service_accounts::ACCOUNT), tasks);
        follow(&self.root_certificates, client, named(service_accounts::ROOT_CERTIFICATE), tasks);
        tokio::join!(
            self.deployments.synced(),
            self.replica_sets.synced(),
            self.stateful_sets.synced(),
            self.pods.synced(),
            self.services.synced(),
            self.slices.synced(),
            self.endpoints.synced(),
            self.nodes.synced(),
            self.leases.synced(),
            self.namespaces.synced(),
            self.default_accounts.synced(),
            self.root_certificates.synced(),
        );
    }
}

fn follow<K>(cache: &Arc<Cache<K>>, client: &Client, config: watcher::Config, tasks: &mut JoinSet<()>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (cache, api) = (Arc::clone(cache), Api::<K>::all(client.clone()));
    tasks.spawn(async move { cache.follow(api, config).await });
}
