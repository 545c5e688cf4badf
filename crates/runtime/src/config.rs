//! Settings of a node.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

/// All that a node's runtime has to be told.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The Node object's name.
    pub node_name: String,
    /// The node's address on the underlay; the streaming server listens there.
    pub node_address: IpAddr,
    /// Its address of the other family, where it has one.
    pub other_address: Option<IpAddr>,
    /// The node's identity (`system:node:<name>`).
    pub kubeconfig: PathBuf,
    /// One directory for each sandbox; survives restarts.
    pub state_dir: PathBuf,
    /// Holds `net.d/`, where the network's conflist appears when the network is ready.
    pub run_dir: PathBuf,
    /// Where CNI plugins are, in the order of search.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// This node's directory in the cgroup v2 hierarchy.
    pub cgroup_root: PathBuf,
    /// The executable that has `pause`, and that containers find at `/opt/podnet/bin/podnet`.
    pub podnet_binary: PathBuf,
    /// The streaming server's certificate chain, PEM.
    pub serving_certificate: PathBuf,
    /// Its key, PEM.
    pub serving_key: PathBuf,
    /// Who may speak to the streaming server: certificates of this authority, PEM.
    pub client_ca: PathBuf,
    /// The cluster DNS Service's address.
    pub cluster_dns: IpAddr,
    /// The DNS domain of the cluster, `cluster.local`.
    pub cluster_domain: String,
    /// More labels of the Node object.
    pub labels: BTreeMap<String, String>,
    /// What pods with `dnsPolicy: Default` get.
    pub resolv_conf: PathBuf,
    /// How many pods the scheduler may put here.
    pub max_pods: u32,
    /// The image store.
    pub image_dir: PathBuf,
}

impl NodeConfig {
    /// What kubelet's `maxPods` defaults to is 110; pods here are small.
    pub const MAX_PODS: u32 = 250;
    /// The port of the streaming server, as kubelet's.
    pub const PORT: u16 = 10250;
}
