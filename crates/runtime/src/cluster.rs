//! What the pod lifecycle asks of the cluster: the seam between pods and the Kubernetes API. Tests put a cluster in memory here.

use futures::future::BoxFuture;
use k8s_openapi::{
    api::core::v1::{ConfigMap, PodStatus, Secret},
    jiff::Timestamp,
};

pub(crate) mod api;
pub(crate) mod events;

/// The API server could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {reason}")]
pub(crate) struct ClusterError {
    /// What was tried, on what.
    pub(crate) action: String,
    /// What came back.
    pub(crate) reason: String,
}

/// A pod, as requests name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PodKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl std::fmt::Display for PodKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// A service account's token for one pod.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) token: String,
    pub(crate) expires: Timestamp,
}

/// What a token is asked for.
#[derive(Clone, Debug)]
pub(crate) struct TokenWish {
    pub(crate) service_account: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) seconds: i64,
}

/// Something worth telling about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodEvent {
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// The container it is about, as a field path.
    pub(crate) container: Option<String>,
}

type Asked<'a, T> = BoxFuture<'a, Result<T, ClusterError>>;

/// See the module's text.
pub(crate) trait Cluster: Send + Sync + 'static {
    /// None where there is no such object.
    fn config_map<'a>(&'a self, namespace: &'a str, name: &'a str) -> Asked<'a, Option<ConfigMap>>;
    /// None where there is no such object.
    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> Asked<'a, Option<Secret>>;
    /// A token bound to the pod.
    fn token<'a>(&'a self, pod: &'a PodKey, wish: &'a TokenWish) -> Asked<'a, Token>;
    /// Writes a pod's status, leaving conditions of others alone; answers the version of the object that this made, none where the
    /// pod is gone.
    fn publish_status<'a>(&'a self, pod: &'a PodKey, status: &'a PodStatus) -> Asked<'a, Option<String>>;
    /// Removes the pod's object at once, provided that it is still the same pod.
    fn remove<'a>(&'a self, pod: &'a PodKey) -> Asked<'a, ()>;
    /// Tells an event; never waits.
    fn event(&self, pod: &PodKey, event: PodEvent);
    /// The `kubernetes` Service's address and port, which containers find in their environment.
    fn kubernetes_service(&self) -> BoxFuture<'_, Option<(String, u16)>>;
}

/// Whether one version of an object came after another: versions of a resource are numbers that grow (Kubernetes API concepts,
/// "Resource versions"). Where they are no numbers, another version is taken for a newer one.
pub(crate) fn is_newer(version: Option<&str>, than: Option<&str>) -> bool {
    let number = |version: Option<&str>| version.and_then(|version| version.parse::<u64>().ok());
    match (number(version), number(than)) {
        (Some(version), Some(than)) => version > than,
        _ => version != than || than.is_none(),
    }
}
