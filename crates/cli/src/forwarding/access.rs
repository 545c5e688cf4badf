//! How the agents of nodes are reached, and as whom.

use std::{net::SocketAddr, path::PathBuf};

use kube::Client;
use podnet_client::connect::Agents;
use podnet_model::{NodeName, errors::chain};
use podnet_planner::trace::Cluster;
use tokio::sync::OnceCell;

use crate::{
    arguments::forwarding::ClusterOptions,
    flows::agents::kubeconfig,
    report::{Doing, Failure},
};

/// Who asks, and at which port.
pub(super) struct Access {
    kubeconfig: Option<PathBuf>,
    port: u16,
    /// Once the first is asked.
    agents: OnceCell<Agents>,
}

impl Access {
    pub(super) fn new(options: &ClusterOptions, port: u16) -> Self {
        Self { kubeconfig: kubeconfig(options.kubeconfig.as_deref()), port, agents: OnceCell::new() }
    }

    /// A client for a node's agent, and where that is.
    pub(super) async fn agent(&self, cluster: &Cluster, node: &NodeName) -> Result<(Client, SocketAddr), Failure> {
        let found = cluster.nodes().get(node);
        let gone = || Failure::new(format!("there is no node {node} any more")).remedy("kubectl get nodes");
        let found = found.ok_or_else(gone)?;
        let address = SocketAddr::new(found.internal.unwrap_or(found.addr).0, self.port);
        let cannot = || format!("cannot ask the agent of node {node} at {address}");
        let agents = self.agents.get_or_try_init(|| Agents::known_to(self.kubeconfig.as_deref())).await;
        let client = agents.doing(cannot)?.at(address, None).doing(cannot)?;
        Ok((client, address))
    }
}

/// What an agent says that does not do what it is asked for, or why nothing is heard of it.
pub(super) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.trim_end().to_owned(),
        error => chain(error),
    }
}
