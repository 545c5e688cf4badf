//! What an agent is told when it begins.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::{IpNet, Ipv4Net};
use podnet_model::NodeName;

use crate::{
    conflist::PodLink,
    flows::{self, CollectorSettings, FlowApi, FlowLog},
    proxy::userspace::Launch,
    underlay::UnderlaySettings,
};

/// What an agent is told.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The node that it serves.
    pub node: NodeName,
    /// The node's identity; none means the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Journal and tombstones.
    pub state_dir: PathBuf,
    /// The socket for `podnet-cni`.
    pub socket: PathBuf,
    /// Where the conflist goes.
    pub cni_conf_dir: PathBuf,
    /// How the node's place on the network between nodes is found.
    pub underlay: UnderlaySettings,
    /// Destinations outside the pools to which pods keep their own address, in spite of `natOutgoing`.
    pub no_nat_cidrs: Vec<IpNet>,
    /// Routes to a node leave when its lease has expired, and not only with its Node object.
    pub without_lost_nodes: bool,
    /// Services' addresses, so that unassigned ones are refused at once.
    pub service_cidr: Option<Ipv4Net>,
    /// Where plugins that are made for flannel look for this node's part of the range.
    pub subnet_file: PathBuf,
    /// How the conflist says that pods are joined to the node.
    pub pod_link: PodLink,
    /// Rules of podnet's let pods' packets pass other people's `FORWARD` chains that drop. Without them tables of other programs are not looked at either, once
    /// what agents and modes of Services before left there is taken away; a mode whose rules stand there needs them all the same.
    pub forward_rules: bool,
    /// Packets between pods may pass by the stack.
    pub fast_path: bool,
    /// The cgroup (v2) whose processes' connections come to Services at the socket, in mode `ebpf`, by its path from the hierarchy's root: that of
    /// the pods, or, empty, of the whole machine.
    pub sockets_cgroup: PathBuf,
    /// Stands for election to give load balancers their addresses.
    pub gives_addresses: bool,
    /// Where health, metrics and configuration are served.
    pub health_address: SocketAddr,
    /// Where the node's own resolver answers; without an address there is none.
    pub node_local_dns: Vec<IpAddr>,
    /// What that resolver does, in place of what it does by itself.
    pub node_local_dns_corefile: Option<PathBuf>,
    /// The domain of the cluster's names.
    pub cluster_domain: String,
    /// kube-proxy's configuration of this node alone; without it the ConfigMap `kube-proxy` counts.
    pub proxy_config: Option<PathBuf>,
    /// How the program is started that passes on connections to Services in mode `userspace` and outlives the agent; without it the agent passes
    /// them on itself.
    pub proxy_program: Option<Launch>,
    /// Where records of the flows of this node's pods go; without it none are made.
    pub flow_log: Option<FlowLog>,
    /// Where records are sent besides, whether somebody follows or not.
    pub flow_collectors: CollectorSettings,
    /// Of what is recorded whether somebody follows or not only flows between pods are.
    pub flows_between_pods: bool,
    /// Of how many pairs of workloads metrics tell what passed between them; of the others they tell the sum.
    pub flow_pairs: usize,
    /// How many flows the kernel may count at once, at each pod's interface by itself; it is a map's size, and that of a map that is gone on with stays.
    pub flow_entries: u32,
    /// The labels of pods that records have, by their keys, or by what these begin with and `*` behind it. None: all but those that controllers make.
    pub flow_labels: Vec<String>,
    /// How these are read over the network; without it they are not.
    pub flow_api: Option<FlowApi>,
}

impl AgentConfig {
    /// Whether flows are recorded whether somebody follows them or not.
    pub(crate) fn records_flows(&self) -> bool {
        self.flow_log.is_some()
            || !self.flow_collectors.targets.is_empty()
            || self.flow_api.as_ref().is_some_and(|api| api.retention.is_some())
    }

    pub(crate) fn counts_at_start(&self) -> flows::AtStart {
        match self.flow_api {
            _ if self.records_flows() => flows::AtStart::Always,
            Some(_) => flows::AtStart::WhereTheyWere,
            None => flows::AtStart::Never,
        }
    }

    /// Where a plugin leaves word of what it deleted while the agent was down.
    #[must_use]
    pub fn tombstones(&self) -> PathBuf {
        self.state_dir.join("tombstones")
    }

    /// Destinations to which pods keep their own address, in spite of `natOutgoing`: those of Services among them.
    pub(crate) fn all_no_nat_cidrs(&self) -> impl Iterator<Item = IpNet> {
        self.no_nat_cidrs.iter().copied().chain(self.service_cidr.map(IpNet::V4))
    }

    /// Where it is kept what was made for each attachment.
    pub(crate) fn attachments(&self) -> PathBuf {
        self.state_dir.join("attachments")
    }

    /// Where the addresses of the node's resolver are noted.
    pub(crate) fn resolver_note(&self) -> PathBuf {
        self.state_dir.join("node-local-dns")
    }

    /// Which frontends of UDP connection tracking may remember.
    pub(crate) fn udp_frontends(&self) -> PathBuf {
        self.state_dir.join("udp-frontends")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.state_dir.join("wireguard.keys")
    }

    /// Where flows wait for collectors that are away.
    pub(crate) fn flow_spill(&self) -> PathBuf {
        self.state_dir.join("flow-spill")
    }

    /// Who had which address, for the names of flows.
    pub(crate) fn flow_holders(&self) -> PathBuf {
        self.state_dir.join("flow-holders.json")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.state_dir.join("addresses.journal")
    }
}
