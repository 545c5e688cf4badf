//! The command line.

pub(crate) mod capture;
mod daemons;
pub(crate) mod flows;
pub(crate) mod forwarding;
pub(crate) mod ipam;
pub(crate) mod manifests;
mod ranges;
mod up;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use daemons::{AgentOptions, ApiserverOptions, DnsOptions, NodeOptions, Placement, ProxyOptions};
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
    /// Follow a packet: names, translation, routes, tunnels, on every node on its way
    ///
    /// Each node is planned as its own agent does, from the objects of the API alone. A random choice is not made: every backend is followed,
    /// with the share of connections that come to it.
    #[command(after_help = "\
Examples:
  podnet trace web/client web/web:80          from a pod to a Service (or a pod) of that name
  podnet trace pod/client web.shop:80         a name, as the pod's resolver completes it
  podnet trace web/client world               out of the cluster
  podnet trace world node/node2:30080         from outside to a port of a node
  podnet trace web/client web/web --live      beside where a packet really passes
  podnet trace web/client web/web -o mermaid  as a graph")]
    Trace(forwarding::TraceOptions),
    /// Name the first broken link between two, and what to change
    ///
    /// Where the nodes are on this machine their kernels are looked at too, and a connection is tried. Exits with 1 where something is broken.
    #[command(after_help = "Example:\n  podnet why web/client web/web:80")]
    Why(forwarding::WhyOptions),
    /// Tell everything that the network did for a pod, and who decided it
    ///
    /// Its link, addresses with their pool and block, routes, rules, limits, names, and the Services that lead to it.
    #[command(after_help = "Example:\n  podnet explain pod/web/web-0")]
    Explain(forwarding::ExplainOptions),
    /// Tell what talks to what: flows, from all nodes, with names
    ///
    /// Whoever asks sees the flows of the pods that they may list, and a pod its own. A flow is told once, by the node of who began it where
    /// that is a pod. Nothing is recorded while nobody follows, unless the past is kept: podnet up --flows, podnet agent --flow-retention.
    #[command(after_help = "\
Examples:
  podnet flows --since 5m --pod-to-pod        between pods, of the last five minutes
  podnet flows --follow --to service/shop/web go on telling who asks a Service
  podnet flows --not class=pod-world -o csv   as values with commas between them")]
    Flows(Box<flows::FlowsOptions>),
    /// Capture packets of pods: pcapng for Wireshark and tcpdump, from all nodes in the order of time
    ///
    /// Nothing is needed in the pods. Whoever captures has to be allowed to create pods/capture of each (RBAC). It ends with the pods.
    #[command(after_help = "\
Examples:
  podnet capture shop/web shop/client tcp port 80 | tcpdump -nr -
  podnet capture shop/web 'host 10.233.64.3 and not port 53' -w web.pcapng --duration 1m
  podnet capture pod/web -i lo -w - | wireshark -k -i -")]
    Capture(capture::CaptureOptions),
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
    /// Pass on connections to Services in mode userspace (started by an agent, which it outlives)
    #[command(hide = true)]
    Proxy(ProxyOptions),
    /// Serve cluster DNS from a Corefile
    Dns(DnsOptions),
    /// Answer HTTP with the name of this pod: a backend to try Services with
    Demoapp {
        /// --port N, --listen [ADDRESS:]PORT,…, --name NAME, --text TEXT; also the arguments of the images that it stands in for
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
