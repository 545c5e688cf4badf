//! `podnet up`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::ranges;
use crate::cluster::LbPool;

/// What is left out is taken from the cluster that is there, so that plain `podnet up` heals whatever is up; without one the
/// default holds.
#[derive(Debug, Default, Args)]
pub(crate) struct UpOptions {
    /// How many nodes (1 to 100) [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) nodes: Option<u8>,
    /// On how many subnets of the underlay the nodes lie (1 to 16); a router joins them [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) subnets: Option<u8>,
    /// Where pods' addresses come from (the pool `default-ipv4-ippool`) [default: 10.233.64.0/18]
    #[arg(long, value_name = "CIDR", value_parser = ranges::pods)]
    pub(crate) pod_cidr: Option<Ipv4Net>,
    /// Whether pods, and Services that ask for it, have IPv6 addresses beside their IPv4 ones [default: ipv4]
    #[arg(long, value_enum, value_name = "FAMILY")]
    pub(crate) ip_family: Option<IpFamily>,
    /// Where pods' IPv6 addresses come from (the pool `default-ipv6-ippool`), with --ip-family dual [default: fd00:10:233::/56]
    #[arg(long, value_name = "CIDR", value_parser = ranges::pods6)]
    pub(crate) pod_cidr_v6: Option<Ipv6Net>,
    /// How pods are joined to their node: each by a link of its own, or all on a bridge of the node [default: veth]
    #[arg(long, value_enum, value_name = "LINK")]
    pub(crate) pod_link: Option<PodLink>,
    /// Where Services' addresses come from [default: 10.233.0.0/18]
    #[arg(long, value_name = "CIDR", value_parser = ranges::services)]
    pub(crate) service_cidr: Option<Ipv4Net>,
    /// Where Services' IPv6 addresses come from, with --ip-family dual [default: fd00:10:96::/108]
    #[arg(long, value_name = "CIDR", value_parser = ranges::services6)]
    pub(crate) service_cidr_v6: Option<Ipv6Net>,
    /// Where addresses of Services of type LoadBalancer come from: ranges such as 192.0.2.0/28 or 192.0.2.10-192.0.2.20 with commas
    /// between them, or none [default: .200 to .250 of the first subnet, which this machine reaches]
    #[arg(long, value_name = "RANGES|none", value_parser = LbPool::parse)]
    pub(crate) lb_pool: Option<LbPool>,
    /// How connections to Services come to their backends, to begin with; ConfigMap kube-proxy of kube-system has it afterwards
    /// [default: the best that the nodes have]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) proxy_mode: Option<ProxyMode>,
    /// Answer pods' questions on their own node, at this address, past connection tracking: each node's agent asks cluster DNS
    /// and keeps answers [with no address: 169.254.20.10]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = "169.254.20.10",
        value_parser = ranges::resolver)]
    pub(crate) node_local_dns: Option<IpAddr>,
    /// Record flows on all nodes and keep the recent past, for `podnet flows`
    #[arg(long)]
    pub(crate) flows: bool,
    /// How long they are kept: 90s, 30m, 6h [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = super::flows::seconds, requires = "flows")]
    pub(crate) flow_retention: Option<u32>,
    /// How many bytes of memory they may take on each node; the oldest go first [default: 64 MiB]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1_048_576..), requires = "flows")]
    pub(crate) flow_retention_bytes: Option<u64>,
    /// How many flows each node's kernel may count at once: those between two pods of a node take two places [default: 262144]
    #[arg(long, value_name = "NUMBER", value_parser = super::flows::entries())]
    pub(crate) flow_entries: Option<u32>,
    /// Keep the cluster's objects in this file, over `podnet down` too
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) datastore: Option<PathBuf>,
    /// How many seconds the cluster may take to become ready
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
}

/// How connections to Services come to their backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProxyMode {
    /// Those of pods at the socket, when they are opened; those from outside by rules
    Ebpf,
    /// By rules, which translate packets
    Nftables,
    /// By rules of iptables, in kube-proxy's chains
    Iptables,
    /// By the kernel's virtual servers
    Ipvs,
    /// By the agents, which take connections and pass them on
    Userspace,
}

impl From<ProxyMode> for podnet_model::proxy::Mode {
    fn from(mode: ProxyMode) -> Self {
        match mode {
            ProxyMode::Ebpf => Self::Ebpf,
            ProxyMode::Nftables => Self::Nftables,
            ProxyMode::Iptables => Self::Iptables,
            ProxyMode::Ipvs => Self::Ipvs,
            ProxyMode::Userspace => Self::Userspace,
        }
    }
}

impl std::fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(podnet_model::proxy::Mode::from(*self).name())
    }
}

/// Which addresses pods have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IpFamily {
    /// IPv4 alone
    Ipv4,
    /// One of IPv4 and one of IPv6
    Dual,
}

impl std::fmt::Display for IpFamily {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Dual => "dual",
        })
    }
}

/// How pods are joined to their node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PodLink {
    /// Each by a link of its own, to which the node routes
    #[default]
    Veth,
    /// All on the bridge cni0, where they are neighbours by Ethernet
    Bridge,
}

impl std::fmt::Display for PodLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Veth => "veth",
            Self::Bridge => "bridge",
        })
    }
}
