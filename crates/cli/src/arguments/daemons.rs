//! The options of the programs that go on running.

use std::{net::SocketAddr, path::PathBuf};

use clap::{ArgAction, Args, builder::BoolishValueParser};
use ipnet::Ipv4Net;

use super::{PodLink, ranges};

/// Where a daemon runs; the supervisor says it, so that a process is in its namespace and cgroup before it does anything.
#[derive(Debug, Default, Args)]
pub(crate) struct Placement {
    /// Enter this network namespace first
    #[arg(long, hide = true)]
    pub(crate) netns: Option<PathBuf>,
    /// Enter this cgroup first
    #[arg(long, hide = true)]
    pub(crate) cgroup: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ApiserverOptions {
    #[command(flatten)]
    pub(crate) placement: Placement,
    /// Keys and, unless --store says otherwise, the store
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// The store's file
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// Addresses to listen on
    #[arg(long, required = true)]
    pub(crate) listen: Vec<SocketAddr>,
    /// The address that pods reach the API at, behind the Service `kubernetes`
    #[arg(long)]
    pub(crate) advertise: SocketAddr,
    /// Where Services' addresses come from
    #[arg(long)]
    pub(crate) service_cidr: Ipv4Net,
    /// Where Services' IPv6 addresses come from
    #[arg(long)]
    pub(crate) service_cidr_v6: Option<ipnet::Ipv6Net>,
}

#[derive(Debug, Args)]
pub(crate) struct NodeOptions {
    #[command(flatten)]
    pub(crate) placement: Placement,
    /// The node's name
    #[arg(long)]
    pub(crate) name: String,
    /// The node's address on the underlay; the second time that of the other family
    #[arg(long, required = true)]
    pub(crate) address: Vec<std::net::IpAddr>,
    /// The node's identity
    #[arg(long)]
    pub(crate) kubeconfig: PathBuf,
    /// Address of the cluster DNS Service
    #[arg(long)]
    pub(crate) cluster_dns: std::net::IpAddr,
    /// Labels of the Node object
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AgentOptions {
    #[command(flatten)]
    pub(crate) placement: Placement,
    /// The node's name
    #[arg(long, env = "NODE_NAME")]
    pub(crate) name: String,
    /// The node's identity; without it the pod's service account
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Journal and tombstones
    #[arg(long, default_value = "/var/lib/podnet/agent")]
    pub(crate) state_dir: PathBuf,
    /// The socket for podnet-cni
    #[arg(long, default_value = "/run/podnet/agent.sock")]
    pub(crate) socket: PathBuf,
    /// Where the conflist is written once the agent is ready
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,
    /// The device that leads to the other nodes; without it the device of the default route
    #[arg(long, conflicts_with_all = ["ip_autodetection_method", "iface", "iface_regex", "iface_can_reach"])]
    pub(crate) underlay_device: Option<String>,
    /// How the node's address is found: first-found, can-reach=DESTINATION, interface=REGEX[,…], skip-interface=REGEX[,…],
    /// cidr=CIDR[,…] or kubernetes-internal-ip
    #[arg(long, env = "IP_AUTODETECTION_METHOD", value_name = "METHOD", conflicts_with_all = ["iface", "iface_regex", "iface_can_reach"])]
    pub(crate) ip_autodetection_method: Option<String>,
    /// How the node's address by IPv6 is found: as above, or none; without it the first on the device of the other address
    #[arg(long, env = "IP6_AUTODETECTION_METHOD", value_name = "METHOD")]
    pub(crate) ip6_autodetection_method: Option<String>,
    /// The device, or its address, that leads to the other nodes; of several the first that is there (as flannel's)
    #[arg(long, value_name = "NAME|ADDRESS", conflicts_with = "iface_can_reach")]
    pub(crate) iface: Vec<String>,
    /// As --iface, by an expression that the name or the address fits; tried after --iface (as flannel's)
    #[arg(long, value_name = "REGEX", conflicts_with = "iface_can_reach")]
    pub(crate) iface_regex: Vec<String>,
    /// The device that packets to this address would take (as flannel's)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) iface_can_reach: Option<std::net::IpAddr>,
    /// The address at which other nodes reach this one, where it is not one of its own (as flannel's)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) public_ip: Option<std::net::Ipv4Addr>,
    /// MTU of pods' interfaces; without it what the underlay and the pools' encapsulation leave
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65_535))]
    pub(crate) mtu: Option<u32>,
    /// Pods keep their own address towards this range, in spite of their pool's natOutgoing (may be given several times)
    #[arg(long, value_name = "CIDR")]
    pub(crate) non_masquerade_cidr: Vec<ipnet::IpNet>,
    /// Remove the routes to a node when its lease has expired (its condition Ready is Unknown), and not only with its Node object
    #[arg(long)]
    pub(crate) drop_lost_nodes: bool,
    /// Services' addresses, so that unassigned ones are refused at once
    #[arg(long)]
    pub(crate) service_cidr: Option<Ipv4Net>,
    /// Where plugins that are made for flannel look for this node's part of the range
    #[arg(long, default_value = "/run/flannel/subnet.env")]
    pub(crate) subnet_file: PathBuf,
    /// How pods are joined to the node: each by a link of its own, or all on a bridge (cni0), where they are neighbours by Ethernet
    #[arg(long, value_enum, default_value_t)]
    pub(crate) pod_link: PodLink,
    /// Let pods' packets pass other people's FORWARD chains that drop, by accept rules at their heads (as flannel's). With false tables of other programs,
    /// those of iptables too, are neither changed nor read, but once at the start to take away what an agent before left in them, and by the modes
    /// iptables and ipvs: nothing tells then that such a chain drops, or of rules that a kube-proxy left
    #[arg(long, env = "PODNET_IPTABLES_FORWARD_RULES", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) iptables_forward_rules: bool,
    /// Every packet between pods passes the node's network stack, and none is led past it by eBPF
    #[arg(long, env = "PODNET_NO_FAST_PATH")]
    pub(crate) no_fast_path: bool,
    /// The cgroup (v2), by its path in the hierarchy, whose processes' connections come to Services at the socket in mode ebpf; without it that
    /// of the whole machine
    #[arg(long, value_name = "PATH")]
    pub(crate) sockets_cgroup: Option<PathBuf>,
    /// Leave it to others to give load balancers their addresses (as MetalLB's controller does); without it, one agent of the cluster does
    #[arg(long, env = "PODNET_NO_LOAD_BALANCER_CONTROLLER")]
    pub(crate) no_load_balancer_controller: bool,
    /// Health, metrics and configuration over HTTP
    #[arg(long, default_value = "127.0.0.1:9099")]
    pub(crate) health_address: SocketAddr,
    /// Answer pods' questions on their own node, at this address (169.254.20.10 by custom; one of each family with a comma between them):
    /// kubelets' clusterDNS has to be the same. It passes on to the Service kube-dns of kube-system and keeps answers
    #[arg(long, env = "PODNET_NODE_LOCAL_DNS", value_name = "ADDRESS", value_delimiter = ',', value_parser = ranges::resolver)]
    pub(crate) node_local_dns: Vec<std::net::IpAddr>,
    /// A Corefile for that resolver, such as NodeLocal DNSCache's as it is; it is followed when it changes
    #[arg(long, value_name = "FILE", requires = "node_local_dns")]
    pub(crate) node_local_dns_corefile: Option<PathBuf>,
    /// The domain of the cluster's names
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// A KubeProxyConfiguration for this node; without it that of the ConfigMap kube-proxy in kube-system counts
    #[arg(long, value_name = "FILE")]
    pub(crate) proxy_config: Option<PathBuf>,
    /// Record the flows of this node's pods in this file, as lines of JSON, whether somebody follows them (`podnet flows`) or not
    #[arg(long, env = "PODNET_FLOW_LOG", value_name = "FILE")]
    pub(crate) flow_log: Option<PathBuf>,
    /// How many bytes that file and what is set aside of it (FILE.1.gz, …) may have together
    #[arg(long, env = "PODNET_FLOW_LOG_BYTES", value_name = "BYTES", default_value_t = 256 << 20, value_parser = clap::value_parser!(u64).range(65_536..))]
    pub(crate) flow_log_bytes: u64,
    /// Send records of flows to this collector, whether somebody follows them or not: stdout:, syslog+udp://HOST (or tcp, tls), syslog+unix:///dev/log,
    /// ipfix+tcp://HOST (or udp), elasticsearch+https://HOST/INDEX?credentials=FILE&ca=FILE (or http; or opensearch), otlp+https://HOST (or http),
    /// amqps://HOST/VHOST?exchange=NAME (or amqp), kafka+tls://HOST,HOST/TOPIC?credentials=FILE&ca=FILE (or kafka); where podnet was built with the feature
    /// parquet also parquet:///DIRECTORY?bytes=BYTES&seconds=SECONDS and s3+https://HOST/BUCKET/PREFIX?region=REGION&credentials=FILE&seconds=SECONDS (or
    /// http); with buffer=disk behind ? (stdout:?buffer=disk) records are on disk before they are sent, as many as may wait there, so that an agent that is
    /// killed does not lose them; may be given several times
    #[arg(long, env = "PODNET_FLOW_COLLECTORS", value_name = "URL", value_delimiter = ' ')]
    pub(crate) flow_collector: Vec<podnet_agent::flows::Target>,
    /// How many bytes of records may wait on disk for each collector while it is away; the oldest go first, and the collector is told how many
    #[arg(long, env = "PODNET_FLOW_SPILL_BYTES", value_name = "BYTES", default_value_t = 256 << 20, value_parser = clap::value_parser!(u64).range(1_048_576..))]
    pub(crate) flow_spill_bytes: u64,
    /// Record flows and keep this much of the past (90s, 30m, 1h) for `podnet flows`, which reads it over HTTPS
    #[arg(long, env = "PODNET_FLOW_RETENTION", value_name = "TIME", value_parser = super::flows::seconds, requires_all = ["flow_certificate", "flow_key"])]
    pub(crate) flow_retention: Option<u32>,
    /// How many bytes of memory that past may take; the oldest goes first
    #[arg(long, env = "PODNET_FLOW_RETENTION_BYTES", value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(1_048_576..))]
    pub(crate) flow_retention_bytes: u64,
    /// Of the log and of the past that is kept: only flows between pods, which are told apart in the kernel; others cost one lookup and no memory
    #[arg(long, env = "PODNET_FLOW_POD_TO_POD")]
    pub(crate) flow_pod_to_pod: bool,
    /// Of how many pairs of workloads the metrics (podnet_flow_*) tell apart what passed, while flows are recorded; of the others they tell the sum
    #[arg(long, env = "PODNET_FLOW_METRICS_PAIRS", value_name = "NUMBER", default_value_t = 1000)]
    pub(crate) flow_metrics_pairs: usize,
    /// How many flows the node's kernel may count at once, at each pod's interface by itself: those between two pods of the node take two places, each about
    /// 220 bytes while it is there, and 16 are taken for each that may be. What finds no room is told as a gap. Counts from when recording next begins
    #[arg(long, env = "PODNET_FLOW_ENTRIES", value_name = "NUMBER", default_value_t = podnet_kernel::flows::Sizes::default().entries, value_parser = super::flows::entries())]
    pub(crate) flow_entries: u32,
    /// The labels of pods that records of flows have: keys, or what keys begin with and * behind it (app,app.kubernetes.io/*), an empty one for none;
    /// without it all but those that controllers make. By others no flows can be asked for (label/…, pods/…, of --from service/… what it selects)
    #[arg(long, env = "PODNET_FLOW_LABELS", value_name = "KEY", value_delimiter = ',')]
    pub(crate) flow_labels: Vec<String>,
    /// The port where flows are read, at the node's address and pods' gateway
    #[arg(long, value_name = "PORT", default_value_t = super::flows::PORT)]
    pub(crate) flow_port: u16,
    /// The certificate of the node's address and name (PEM). With it flows are also recorded while somebody follows them
    #[arg(long, env = "PODNET_FLOW_CERTIFICATE", value_name = "FILE", requires = "flow_key")]
    pub(crate) flow_certificate: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, env = "PODNET_FLOW_KEY", value_name = "FILE")]
    pub(crate) flow_key: Option<PathBuf>,
    /// The authority whose clients' certificates are believed (PEM); without it the one that the API server publishes for that (ConfigMap
    /// extension-apiserver-authentication in kube-system)
    #[arg(long, value_name = "FILE")]
    pub(crate) flow_client_ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ProxyOptions {
    #[command(flatten)]
    pub(crate) placement: Placement,
    /// Where agents say what is served; without it the program ends
    #[arg(long)]
    pub(crate) socket: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DnsOptions {
    /// The Corefile, as --conf has it
    #[arg(value_name = "COREFILE", conflicts_with = "conf")]
    pub(crate) file: Option<PathBuf>,
    /// The Corefile
    #[arg(short, long, alias = "corefile", default_value = "/etc/coredns/Corefile")]
    pub(crate) conf: PathBuf,
    /// How to reach the API server; without it the pod's service account
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// A unix socket at which the next process with the same path takes over the sockets of this one, so that a restart in place
    /// loses no question: start the new one, the old one ends by itself
    #[arg(long, value_name = "PATH")]
    pub(crate) handover: Option<PathBuf>,
    /// Check the Corefile, say what is wrong with it, and end
    #[arg(long)]
    pub(crate) check: bool,
}
