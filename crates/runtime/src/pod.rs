//! Pods: one worker each, level-triggered. A worker compares what the API wants with what is there, does the next thing that is missing,
//! and sleeps until something changes. Nothing that matters is in memory alone: see [`runs`] for how a worker picks up after a restart.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Semaphore, watch};

use crate::{
    cluster::{Cluster, PodKey},
    cni::Conflist,
    containers::Containers,
    images::ImageStore,
    sandbox::SandboxMaker,
};

mod backoff;
mod container_spec;
mod ending;
mod environment;
mod expand;
pub(crate) mod fields;
pub(crate) mod names;
mod network_wishes;
mod observe;
mod probes;
mod publish;
mod runs;
mod setup;
mod start;
pub(crate) mod status;
mod volumes;
mod worker;

pub(crate) use worker::Worker;

#[cfg(test)]
mod tests;

/// What all workers of a node share.
pub(crate) struct PodContext {
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) images: ImageStore,
    pub(crate) sandboxes: SandboxMaker,
    pub(crate) containers: Containers,
    /// The network, once it is ready.
    pub(crate) network: watch::Receiver<NetworkState>,
    pub(crate) dns: names::DnsSettings,
    pub(crate) node_addresses: Vec<IpAddr>,
    pub(crate) state_dir: PathBuf,
    pub(crate) cgroup_root: PathBuf,
    pub(crate) netns_dir: PathBuf,
    pub(crate) podnet_binary: PathBuf,
    /// How many pods are set up at the same time: enough to hide waiting, few enough that the first ones are done early.
    pub(crate) setups: Semaphore,
}

/// The pods' network.
#[derive(Clone, Debug)]
pub(crate) enum NetworkState {
    Ready(Arc<Conflist>),
    /// Why not yet.
    NotReady(String),
}

/// What the API wants of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    /// The newest object.
    pub(crate) pod: Arc<Pod>,
    /// It is not in the API any more.
    pub(crate) gone: bool,
}

/// Names a pod; none where the object has no name, or one that cannot be a directory's, neither of which the API does.
pub(crate) fn key_of(pod: &Pod) -> Option<PodKey> {
    let meta = &pod.metadata;
    let key = PodKey { namespace: meta.namespace.clone()?, name: meta.name.clone()?, uid: meta.uid.clone()? };
    is_plain(&key.uid).then_some(key)
}

/// Whether a name is one of a file and not a path.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}
