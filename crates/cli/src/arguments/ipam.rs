//! The arguments of `podnet ipam`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueHint};

use super::Output;

#[derive(Debug, Args)]
pub(crate) struct IpamOptions {
    /// How to reach the API server; without it the embedded cluster's
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// On a node of a real cluster: its name, so that its journal and interfaces are looked at
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Where that node's agent keeps its journal [default: /var/lib/podnet/agent]
    #[arg(long, value_name = "PATH", requires = "node", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) action: IpamAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IpamAction {
    /// Show how full pools and blocks are, or who holds an address
    #[command(after_help = "\
Examples:
  podnet ipam show                        the pools
  podnet ipam show --blocks               and the blocks that nodes took of them
  podnet ipam show --pool my-pool         one pool with its blocks
  podnet ipam show --ip 10.233.64.7       who holds this address")]
    Show(ShowOptions),
    /// Compare the API's blocks, the nodes' journals, their interfaces and the pods
    ///
    /// Names addresses that two have, that nobody uses, that nobody gave, blocks that say other than the journals, and interfaces of
    /// no sandbox. Exits with 1 when something is wrong and stays so.
    Check(CheckOptions),
    /// Free an address whose pod is gone, and remove its interface
    Release(ReleaseOptions),
    /// Split a pool into equal parts; pods and blocks stay as they are
    #[command(
        after_help = "Example:\n  podnet ipam split my-pool 4      my-pool-0 to my-pool-3 take the place of my-pool"
    )]
    Split(SplitOptions),
}

#[derive(Debug, Args)]
pub(crate) struct ShowOptions {
    /// Show the blocks too
    #[arg(long, conflicts_with = "ip")]
    pub(crate) blocks: bool,
    /// Show who holds this address
    #[arg(long, value_name = "ADDRESS", conflicts_with = "pool")]
    pub(crate) ip: Option<IpAddr>,
    /// Show this pool alone, with its blocks
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// Mend what can be mended without asking
    #[arg(long)]
    pub(crate) repair: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseOptions {
    /// The address
    pub(crate) address: IpAddr,
    /// Also where the pod is still there: it loses its network
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SplitOptions {
    /// The pool's name
    pub(crate) pool: String,
    /// Into how many parts: 2, 4, 8, …
    pub(crate) parts: u32,
}
