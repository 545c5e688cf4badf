//! The way to the API server for commands that people call.

use std::path::Path;

use kube::Client;

use crate::{
    layout,
    report::{Doing, Failure},
};

/// As the kubeconfig says; without one the embedded cluster's admin.
pub(crate) async fn connect(kubeconfig: Option<&Path>, command: &str) -> Result<Client, Failure> {
    let path = kubeconfig.map_or_else(layout::kubeconfig, Path::to_path_buf);
    if !path.exists() {
        let failure = Failure::new(format!("there is no kubeconfig at {}", path.display()));
        let remedy = format!("`podnet up` makes one; for another cluster: podnet {command} --kubeconfig PATH …");
        return Err(failure.remedy(remedy));
    }
    podnet_client::connect::from_kubeconfig(&path).await.doing(|| "cannot use the kubeconfig".into())
}
