//! A node for an agent to begin on.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use podnet_agent::{
    AgentConfig,
    conflist::PodLink,
    flows::CollectorSettings,
    underlay::{Detection, UnderlaySettings},
};
use podnet_model::{ProxyConfig, proxy::Mode};
use tempfile::TempDir;

use crate::{churn::load::Network, group::Group};

/// The device that would lead to other nodes.
const UNDERLAY: &str = "underlay";
/// There is no such group: no programs are looked for anywhere else.
const NO_GROUP: &str = "pntest-churn-agent";

/// A node with a device that other nodes could be behind, and what an agent is told there.
pub(super) struct Place {
    pub(super) network: Network,
    /// How Services are to be served.
    pub(super) mode: Mode,
    /// The clients', where something is done at their sockets. They are threads, and no process is in it: an agent that looks there for connections
    /// to backends that are gone finds none, so these go on as in other modes.
    pub(super) group: Option<Arc<Group>>,
    /// What the agents have there, one after the other.
    state: TempDir,
}

impl Place {
    /// The process is in one group at most: where another place has one, its clients are gone.
    pub(super) fn new(tag: &str, mode: Mode) -> Self {
        let network = Network::new(tag);
        for line in [
            format!("ip link add {UNDERLAY} type veth peer name beyond"),
            format!("ip addr add 198.51.100.1/24 dev {UNDERLAY}"),
            format!("ip link set {UNDERLAY} up"),
            "ip link set beyond up".to_owned(),
        ] {
            network.node.command(&line);
        }
        let group = (mode == Mode::Ebpf).then(|| Arc::new(Group::new()));
        Self { network, mode, group, state: tempfile::tempdir().unwrap() }
    }

    /// Of an agent that only has a network.
    pub(super) fn config(&self) -> AgentConfig {
        let state = self.state.path();
        AgentConfig {
            node: "node1".into(),
            kubeconfig: None,
            state_dir: state.to_path_buf(),
            socket: state.join("agent.sock"),
            cni_conf_dir: state.join("net.d"),
            underlay: UnderlaySettings { detection: Detection::Device(UNDERLAY.into()), ..UnderlaySettings::default() },
            no_nat_cidrs: Vec::new(),
            without_lost_nodes: false,
            service_cidr: None,
            subnet_file: state.join("subnet.env"),
            pod_link: PodLink::Veth,
            forward_rules: true,
            fast_path: false,
            sockets_cgroup: self.group.as_ref().map_or_else(|| NO_GROUP.into(), clients_of),
            gives_addresses: false,
            health_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            node_local_dns: Vec::new(),
            node_local_dns_corefile: None,
            cluster_domain: "cluster.local".to_owned(),
            proxy_config: None,
            proxy_program: None,
            flow_log: None,
            flow_collectors: CollectorSettings::default(),
            flows_between_pods: false,
            flow_pairs: 0,
            flow_entries: 1024,
            flow_labels: Vec::new(),
            flow_api: None,
        }
    }

    /// Connection tracking's settings stay as the test has made them.
    pub(super) fn proxy_config(&self) -> ProxyConfig {
        let mode = self.mode;
        let text = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n\
             conntrack: {{maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}\n"
        );
        ProxyConfig::parse(&text).unwrap()
    }
}

fn clients_of(group: &Arc<Group>) -> PathBuf {
    group.inside().path().to_path_buf()
}
