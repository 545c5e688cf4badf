//! Clients for the API server.

use std::path::{Path, PathBuf};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read or used.
    #[error("cannot use the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// This is not a pod, or it has no service account.
    #[error("no service account is mounted here (expected below /var/run/secrets/kubernetes.io/serviceaccount)")]
    InCluster(#[source] kube::config::InClusterError),
    /// The certificates cannot be used.
    #[error("cannot set up TLS towards the API server")]
    Tls(#[source] kube::Error),
}

/// A client with the identity that the kubeconfig's current context names.
///
/// # Errors
///
/// When the file cannot be read or its certificates cannot be used; the server is not contacted.
pub async fn from_kubeconfig(path: &Path) -> Result<Client, ConnectError> {
    let unusable = |source| ConnectError::Kubeconfig { path: path.to_path_buf(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(unusable)?;
    client(config)
}

/// A client with the identity of the pod's service account.
///
/// # Errors
///
/// When there is no service account here.
pub fn in_cluster() -> Result<Client, ConnectError> {
    client(Config::incluster().map_err(ConnectError::InCluster)?)
}

fn client(mut config: Config) -> Result<Client, ConnectError> {
    // A watch is silent for as long as nothing changes; the server's bookmarks and its own time limit end a dead one.
    config.read_timeout = None;
    Client::try_from(config).map_err(ConnectError::Tls)
}
