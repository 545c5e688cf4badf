//! The arguments of `podnet trace`, `podnet why` and `podnet explain`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::flows::PORT;

#[derive(Debug, Args)]
pub(crate) struct TraceOptions {
    #[command(flatten)]
    pub(crate) ends: Ends,
    /// Compare each hop with what the kernels of the nodes really have, which their agents tell who may get nodes/forwarding; exits with 1 where
    /// something differs, and with 3 where nothing does and not all could be compared
    #[arg(long)]
    pub(crate) compare: bool,
    /// Send a probe along (one SYN, INIT, datagram or ping) and tell where it really passes, with times, by the agents of the nodes on its way;
    /// exits with 1 where it dies. Needs to be allowed to create pods/exec of the sender, pods/capture of the pods and nodes/capture of the
    /// nodes on the way. From world it is sent by this machine, as root
    #[arg(long)]
    pub(crate) live: bool,
    /// The port of the agents
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    pub(crate) agent_port: u16,
    #[command(flatten)]
    pub(crate) cluster: ClusterOptions,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    pub(crate) output: Form,
}

#[derive(Debug, Args)]
pub(crate) struct WhyOptions {
    #[command(flatten)]
    pub(crate) ends: Ends,
    /// The port of the agents
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    pub(crate) agent_port: u16,
    #[command(flatten)]
    pub(crate) cluster: ClusterOptions,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainOptions {
    /// The pod: NAME, NAMESPACE/NAME or pod/[NAMESPACE/]NAME
    pub(crate) pod: String,
    /// The namespace of a pod that is named without one; `default` where nothing says
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The port of the agents
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    pub(crate) agent_port: u16,
    #[command(flatten)]
    pub(crate) cluster: ClusterOptions,
}

/// The two ends of a packet's way.
#[derive(Debug, Args)]
pub(crate) struct Ends {
    /// Who sends: a pod (NAMESPACE/NAME, pod/NAME, or its name of DNS, whole), node/NAME, an address, or world; a Service sends nothing
    pub(crate) from: String,
    /// To whom: NAMESPACE/NAME of a pod or else a Service, pod/NAME, svc/NAME, node/NAME, a name of DNS, an address, or world; with :PORT (80
    /// where nothing says which) and /tcp, /udp or /sctp, or with /icmp for a ping
    pub(crate) to: String,
    /// The node that packets from the world come to first, where the destination is no node's
    #[arg(long, value_name = "NODE")]
    pub(crate) via: Option<String>,
}

/// Which cluster is looked at.
#[derive(Debug, Args)]
pub(crate) struct ClusterOptions {
    /// How to reach the API server; without it the embedded cluster's
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The domain of the cluster's names
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Table,
    /// For programs
    Json,
    /// For Graphviz
    Dot,
    /// For Markdown
    Mermaid,
}
