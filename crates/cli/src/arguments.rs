//! The command line.

pub(crate) mod ipam;
pub(crate) mod manifests;
mod ranges;
mod up;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ipnet::Ipv4Net;

pub(crate) use up::{IpFamily, PodLink, ProxyMode, UpOptions};

/// The Kubernetes network in one program.
///
/// `podnet up` brings up a whole cluster network on this machine: an embedded control plane that real kubectl talks to, and nodes
/// that are network namespaces. `podnet down` removes every trace of it.
#[derive(Debug, Parser)]
#[command(
    name = "podnet",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Begin with, as root:
  podnet up
  eval \"$(podnet env)\"; kubectl get nodes

Exit codes: 0 done, 1 failed, 2 wrong usage"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring up a cluster on this machine (needs root)
    ///
    /// Returns when every node is Ready and cluster DNS answers. Running it again heals: what runs goes on running, what is missing
    /// is started. The settings of a cluster that is up are kept; to change them, remove it first.
    #[command(after_help = "\
Examples:
  podnet up                                   three nodes, one subnet
  podnet up --nodes 5 --subnets 2             five nodes on two subnets joined by a router
  podnet up --ip-family dual                  pods with IPv4 and IPv6 addresses
  podnet up --datastore ~/lab.redb            keep the cluster's objects over `podnet down`
  podnet up                                   again: heals what is up, with the settings that it has
  eval \"$(podnet env)\"; kubectl get nodes     point kubectl at it")]
    Up(UpOptions),
    /// Remove the cluster and every trace of it (needs root)
    ///
    /// Processes, namespaces, links, cgroups, mounts, sockets and files; also what a crash left behind. A datastore that
    /// `--datastore` named is kept.
    Down,
    /// Show the processes, nodes and pods of the cluster (needs root)
    ///
    /// Exits with 1 when a process does not run or the API server does not answer.
    Status(StatusOptions),
    /// Show the log of a process: apiserver, supervisor, a node or its agent (needs root)
    #[command(after_help = "\
Examples:
  podnet logs                  which logs there are
  podnet logs apiserver -f     follow the API server
  podnet logs node1            the node's runtime and agent together")]
    Logs(LogsOptions),
    /// Show, check and mend who holds which address (needs root)
    Ipam(ipam::IpamOptions),
    /// Print what a cluster of yours needs to run podnet on each of its nodes
    ///
    /// Definitions, the account and its roles, the DaemonSet of agents. podnet serves Services as well: kube-proxy is to be removed.
    #[command(after_help = "\
Examples:
  podnet manifests --image example.com/podnet:1 --api-server 192.0.2.10:6443 --pod-cidr 10.244.0.0/16 | kubectl apply -f -
  podnet manifests --image example.com/podnet:1 --api-server 192.0.2.10:6443 -- --no-load-balancer-controller
                                              where MetalLB's controller gives load balancers their addresses")]
    Manifests(manifests::ManifestsOptions),
    /// Print the path of the admin's kubeconfig (needs root, as its use does)
    Kubeconfig,
    /// Print shell commands that point kubectl here: eval "$(podnet env)"
    Env,
    /// Print the version
    Version,
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  podnet completions bash > /etc/bash_completion.d/podnet")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Keep the cluster's processes running (started by `up`)
    #[command(hide = true)]
    Supervisor,
    /// Serve the embedded Kubernetes API (started by `up`)
    #[command(hide = true)]
    Apiserver(ApiserverOptions),
    /// Run pods on an embedded node (started by `up`)
    #[command(hide = true)]
    Node(NodeOptions),
    /// Run the node daemon: CNI, routes and Services of one node
    ///
    /// `podnet up` starts one for each of its nodes; on a real cluster it is the DaemonSet's container.
    Agent(Box<AgentOptions>),
    /// Serve cluster DNS from a Corefile
    Dns(DnsOptions),
    /// Answer HTTP with the name of this pod: a backend to try Services with
    Demoapp {
        /// --port N, --listen ADDRESS:PORT, --name NAME, --text TEXT; also the arguments of the images that it stands in for
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Hold a sandbox's namespaces (started by a node)
    #[command(hide = true)]
    Pause {
        /// The sandbox's directory
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct LogsOptions {
    /// apiserver, supervisor, a node (`node1`), or one process of a node (`node1-agent`, `agent` for all agents)
    pub(crate) process: Option<String>,
    /// Go on printing what is added
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many of the last lines of each log
    #[arg(long, default_value_t = 200, value_name = "LINES")]
    pub(crate) tail: usize,
}

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
    /// The domain of the cluster's names
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// A KubeProxyConfiguration for this node; without it that of the ConfigMap kube-proxy in kube-system counts
    #[arg(long, value_name = "FILE")]
    pub(crate) proxy_config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DnsOptions {
    /// The Corefile
    #[arg(short, long, alias = "corefile", default_value = "/etc/coredns/Corefile")]
    pub(crate) conf: PathBuf,
    /// How to reach the API server; without it the pod's service account
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Check the Corefile, say what is wrong with it, and end
    #[arg(long)]
    pub(crate) check: bool,
}

/// A completion script. What is hidden from the help is not offered.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let all = Arguments::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut command = clap::Command::new("podnet").version(env!("CARGO_PKG_VERSION")).subcommands(shown);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "podnet", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Arguments, Command};
    use crate::cluster::Cluster;

    #[test]
    fn the_help_of_up_names_the_defaults_that_hold() {
        let mut arguments = Arguments::command();
        let help = arguments.find_subcommand_mut("up").unwrap().render_long_help().to_string();
        // Lines are broken to the terminal's width.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let up = |arguments: &[&str]| {
            let line = ["podnet", "up"].iter().chain(arguments);
            let Command::Up(options) = Arguments::parse_from(line).command else { panic!("not up") };
            Cluster::from_options(&options, None).unwrap()
        };
        let (cluster, dual) = (up(&[]), up(&["--ip-family", "dual"]));
        let defaults = [
            cluster.ip_family().to_string(),
            dual.pod_cidr_v6.unwrap().to_string(),
            dual.service_cidr_v6.unwrap().to_string(),
            cluster.nodes.to_string(),
            cluster.subnets.to_string(),
            cluster.pod_cidr.to_string(),
            cluster.service_cidr.to_string(),
            cluster.pod_link.to_string(),
        ];
        for default in defaults {
            assert!(help.contains(&format!("[default: {default}]")), "{default} in {help}");
        }
    }

    #[test]
    fn completion_offers_what_the_help_shows() {
        let script = String::from_utf8(super::completions(clap_complete::Shell::Bash)).unwrap();
        assert!(script.contains("podnet,kubeconfig") && !script.contains("podnet,supervisor"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn an_agent_needs_no_more_than_the_api_servers_address() {
        let line = ["podnet", "agent", "--kubeconfig", "k", "--name", "node1"];
        let Command::Agent(options) = Arguments::parse_from(line).command else { panic!("not an agent") };
        assert_eq!(options.sockets_cgroup, None);
    }
}
