//! The entry points of a cluster's processes: each is put in its place, told what it needs, and run until it is told to stop.

use std::path::{Path, PathBuf};

use k8s_openapi::jiff::SignedDuration;
use podnet_agent::{
    AgentConfig,
    dns::DnsOptions as DnsSettings,
    flows::{ClientAuthority, FlowApi},
    proxy::userspace::{self, Launch},
    underlay::{Detection, UnderlaySettings, detection::expression},
};
use podnet_flow::store::Retention;
use podnet_kernel::{cgroup::Cgroup, heap, netns::NetNs};
use podnet_runtime::{
    NodeConfig,
    demoapp::{self, DemoappOptions},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    arguments::{AgentOptions, ApiserverOptions, DnsOptions, NodeOptions, Placement, PodLink, ProxyOptions},
    layout::{self, NodeLayout},
    report::{Doing, Failure},
};

/// The domain of every name in the cluster.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Where CNI plugins of others are looked for.
const CNI_BIN_DIRS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

pub(crate) fn apiserver(options: ApiserverOptions) -> Result<(), Failure> {
    keep_files_private();
    place(&options.placement)?;
    let config = podnet_apiserver::Config {
        store_path: options.store,
        listen: options.listen,
        service_cidr_v6: options.service_cidr_v6,
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
        ..podnet_apiserver::Config::in_directory(&options.data_dir, options.advertise, options.service_cidr)
    };
    run(async { podnet_apiserver::serve(config, stopped()?).await.doing(|| "the API server ended".into()) })
}

pub(crate) fn node(options: NodeOptions) -> Result<(), Failure> {
    place(&options.placement)?;
    let files = NodeLayout::new(&options.name);
    let binary = own_binary()?;
    let labels = options.labels.iter().map(|label| parse_label(label)).collect::<Result<_, _>>()?;
    let cgroup = Cgroup::v2(Path::new(layout::CGROUP).join(&options.name))
        .doing(|| "cannot find the cgroup v2 hierarchy".into())?;
    let (node_address, other_address) = match options.address[..] {
        [address] => (address, None),
        [address, other] if address.is_ipv4() != other.is_ipv4() => (address, Some(other)),
        _ => return Err(Failure::usage("--address is given once, or once for each family")),
    };
    let config = NodeConfig {
        node_address,
        other_address,
        kubeconfig: options.kubeconfig,
        state_dir: files.runtime_state(),
        run_dir: files.run.clone(),
        cni_bin_dirs: plugin_directories(&binary),
        cgroup_root: cgroup.path().to_path_buf(),
        podnet_binary: binary,
        serving_certificate: files.serving_certificate(),
        serving_key: files.serving_key(),
        client_ca: files.client_ca(),
        cluster_dns: options.cluster_dns,
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
        labels,
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
        image_dir: layout::data("images"),
        max_pods: NodeConfig::MAX_PODS,
        node_name: options.name,
    };
    run(async { podnet_runtime::run(config, stopped()?).await.doing(|| "the node ended".into()) })
}

pub(crate) fn agent(options: AgentOptions) -> Result<(), Failure> {
    keep_files_private();
    place(&options.placement)?;
    heap::share_one();
    let underlay = underlay(&options)?;
    let flow_api = flow_api(&options);
    let proxy_program = Some(proxy_program(&options));
    let config = AgentConfig {
        node: options.name.into(),
        kubeconfig: options.kubeconfig,
        state_dir: options.state_dir,
        socket: options.socket,
        cni_conf_dir: options.cni_conf_dir,
        underlay,
        no_nat_cidrs: options.non_masquerade_cidr,
        without_lost_nodes: options.drop_lost_nodes,
        service_cidr: options.service_cidr,
        subnet_file: options.subnet_file,
        pod_link: match options.pod_link {
            PodLink::Veth => podnet_agent::conflist::PodLink::Veth,
            PodLink::Bridge => podnet_agent::conflist::PodLink::Bridge,
        },
        forward_rules: options.iptables_forward_rules,
        fast_path: !options.no_fast_path,
        sockets_cgroup: options.sockets_cgroup.unwrap_or_default(),
        gives_addresses: !options.no_load_balancer_controller,
        health_address: options.health_address,
        node_local_dns: options.node_local_dns,
        node_local_dns_corefile: options.node_local_dns_corefile,
        cluster_domain: options.cluster_domain,
        proxy_config: options.proxy_config,
        proxy_program,
        flow_log: options.flow_log.map(|path| podnet_agent::flows::FlowLog {
            path,
            bytes: options.flow_log_bytes,
            between_pods: options.flow_pod_to_pod,
        }),
        flow_collectors: podnet_agent::flows::CollectorSettings {
            targets: options.flow_collector,
            spill_bytes: options.flow_spill_bytes,
        },
        flows_between_pods: options.flow_pod_to_pod,
        flow_pairs: options.flow_metrics_pairs,
        flow_entries: options.flow_entries,
        flow_labels: options.flow_labels,
        flow_api,
    };
    run(async { Box::pin(podnet_agent::run(config, stopped()?)).await.doing(|| "the agent ended".into()) })
}

/// In a cgroup beside the agent's, where that has one of its own: the agent is found by its cgroup, and is the one process in it.
fn proxy_program(options: &AgentOptions) -> Launch {
    let beside = |path: &PathBuf| {
        let mut name = path.file_name()?.to_owned();
        name.push("-proxy");
        Some(path.with_file_name(name))
    };
    Launch {
        // What this process runs, also when another version has taken the file's place: that one would not be understood.
        binary: PathBuf::from("/proc/self/exe"),
        socket: options.state_dir.join("proxy.sock"),
        cgroup: options.placement.cgroup.as_ref().and_then(beside),
    }
}

pub(crate) fn proxy(options: &ProxyOptions) -> Result<(), Failure> {
    keep_files_private();
    place(&options.placement)?;
    log();
    userspace::process::serve(&options.socket).doing(|| "connections to Services are passed on no more".into())
}

/// Where the files are given; clap asks for them where a time is.
fn flow_api(options: &AgentOptions) -> Option<FlowApi> {
    let bytes = usize::try_from(options.flow_retention_bytes).unwrap_or(usize::MAX);
    Some(FlowApi {
        port: options.flow_port,
        certificate: options.flow_certificate.clone()?,
        key: options.flow_key.clone()?,
        client_ca: options.flow_client_ca.clone().map_or_else(
            || ClientAuthority::Cluster(options.state_dir.join("flow-client-ca.crt")),
            ClientAuthority::File,
        ),
        retention: options
            .flow_retention
            .map(|seconds| Retention { time: SignedDuration::from_secs(seconds.into()), bytes }),
    })
}

/// Which of the options says how the node's address is found; clap lets no two be given.
fn underlay(options: &AgentOptions) -> Result<UnderlaySettings, Failure> {
    let read = |text: &String| text.parse::<Detection>().doing(|| "cannot read --ip-autodetection-method".into());
    let expression = |text: &String| expression(text).doing(|| "cannot read --iface-regex".into());
    let expressions = options.iface_regex.iter().map(expression).collect::<Result<Vec<_>, _>>()?;
    let detection = match options {
        AgentOptions { underlay_device: Some(name), .. } => Detection::Device(name.as_str().into()),
        AgentOptions { ip_autodetection_method: Some(method), .. } => read(method)?,
        AgentOptions { iface_can_reach: Some(destination), .. } => Detection::CanReach(destination.to_string()),
        AgentOptions { iface, .. } if !iface.is_empty() || !expressions.is_empty() => {
            Detection::Flannel { names: iface.clone(), expressions }
        }
        _ => Detection::DefaultRoute,
    };
    let by_v6 = |text: &String| text.parse().doing(|| "cannot read --ip6-autodetection-method".into());
    let detection6 = options.ip6_autodetection_method.as_ref().map(by_v6).transpose()?;
    Ok(UnderlaySettings { detection, detection6, public_ip: options.public_ip, pod_mtu: options.mtu })
}

pub(crate) fn dns(options: DnsOptions) -> Result<(), Failure> {
    let corefile = options.file.unwrap_or(options.conf);
    if options.check {
        return check_corefile(&corefile);
    }
    let settings = DnsSettings {
        corefile,
        kubeconfig: options.kubeconfig,
        listen: None,
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
        handover: options.handover,
    };
    run(async {
        let reload = podnet_agent::dns::reloads().doing(|| "cannot listen to signals".into())?;
        podnet_agent::dns::run(settings, reload, stopped()?).await.doing(|| "cluster DNS ended".into())
    })
}

pub(crate) fn demoapp(arguments: Vec<String>) -> Result<(), Failure> {
    let options = DemoappOptions::from_args(arguments, |name| std::env::var(name).ok());
    let options = options.doing(|| "cannot start the demo application".into())?;
    run(async { demoapp::run(options).await.doing(|| "the demo application ended".into()) })
}

pub(crate) fn pause(dir: &Path) -> Result<(), Failure> {
    podnet_runtime::pause(dir).doing(|| format!("the sandbox in {} ended", dir.display()))
}

/// Tells all that is wrong with a Corefile, or would keep it from being served, and what has no effect.
fn check_corefile(path: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path).doing(|| format!("cannot read {}", path.display()))?;
    let checked = podnet_agent::dns::check(&text, &path.display().to_string());
    for warning in &checked.config.warnings {
        eprintln!("warning: {warning}");
    }
    let mut mistakes: Vec<String> = checked.errors.iter().map(ToString::to_string).collect();
    for obstacle in podnet_agent::dns::obstacles(&checked.config) {
        let cause = std::error::Error::source(&obstacle).map(|cause| format!(": {cause}"));
        mistakes.push(format!("{obstacle}{}", cause.unwrap_or_default()));
    }
    // Upstreams share their files.
    mistakes.dedup();
    match mistakes.as_slice() {
        [] => println!("{}: no mistake found", path.display()),
        [mistake] => return Err(Failure::new(mistake)),
        mistakes => {
            let what = format!("{} has {} mistakes", path.display(), mistakes.len());
            return Err(Failure::new(what).detail(mistakes.iter().cloned()));
        }
    }
    Ok(())
}

/// Into the cgroup and the namespace, before any other thread exists: threads inherit both.
fn place(placement: &Placement) -> Result<(), Failure> {
    if let Some(path) = &placement.cgroup {
        let cgroup = Cgroup::v2(path).doing(|| "cannot find the cgroup v2 hierarchy".into())?;
        cgroup
            .create()
            .and_then(|()| cgroup.add_self())
            .doing(|| format!("cannot enter the cgroup {}", path.display()))?;
    }
    if let Some(path) = &placement.netns {
        NetNs::open(path)
            .and_then(|namespace| namespace.enter_current_thread())
            .doing(|| format!("cannot enter the namespace {}", path.display()))?;
    }
    Ok(())
}

/// What the API server and the agents write is theirs alone. A node's files are also its pods', so it sets the mode of each itself.
fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

fn log() {
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("PODNET_LOG").unwrap_or_else(|_| "info,kube_client=off".into());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_target(false);
    // Who reads this may be gone, and standard error with it: to say so there would be a panic, and the end of all that is served.
    subscriber.log_internal_errors(false).init();
}

fn run(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    log();
    // Two workers: these processes wait most of the time, and there are many of them on one machine.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.doing(|| "cannot start".into())?.block_on(work)
}

/// Resolves when the process is asked to stop.
fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).doing(|| "cannot listen to signals".into());
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn own_binary() -> Result<PathBuf, Failure> {
    std::env::current_exe().doing(|| "cannot find the podnet binary itself".into())
}

/// `podnet-cni` lies beside `podnet`.
fn plugin_directories(binary: &Path) -> Vec<PathBuf> {
    let beside = binary.parent().map(Path::to_path_buf);
    beside.into_iter().chain(CNI_BIN_DIRS.map(PathBuf::from)).collect()
}

fn parse_label(text: &str) -> Result<(String, String), Failure> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| Failure::new(format!("--label {text:?} is not KEY=VALUE")))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    #[test]
    fn the_program_of_services_is_beside_its_agent_and_found_by_the_next_one() {
        let launch = |more: &str| {
            let line = format!("podnet agent --name node1 --state-dir /state/agent {more}");
            let Command::Agent(options) = Arguments::parse_from(line.split_whitespace()).command else {
                panic!("not an agent")
            };
            proxy_program(&options)
        };
        let own = launch("--cgroup podnet/system/node1-agent");
        assert_eq!(own.cgroup, Some(PathBuf::from("podnet/system/node1-agent-proxy")));
        assert_eq!(own.socket, Path::new("/state/agent/proxy.sock"));
        assert_eq!(launch("").cgroup, None);
        let line = "podnet proxy --socket /state/agent/proxy.sock --cgroup podnet/system/node1-agent-proxy";
        let Command::Proxy(options) = Arguments::parse_from(line.split(' ')).command else { panic!("not a proxy") };
        assert_eq!((options.socket, options.placement.cgroup), (own.socket, own.cgroup));
    }

    #[test]
    fn the_kernel_counts_so_many_flows_at_once_and_no_less_than_a_few_nor_more_than_memory_has_room_for() {
        let entries = |more: &str| {
            let line = format!("podnet agent --name node1 {more}");
            let parsed = Arguments::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
            let Command::Agent(options) = parsed.command else { panic!("not an agent") };
            Ok::<_, String>(options.flow_entries)
        };
        assert_eq!(entries(""), Ok(podnet_kernel::flows::Sizes::default().entries));
        assert_eq!(entries("--flow-entries 1048576"), Ok(1 << 20));
        for wrong in ["1023", "16777217", "many"] {
            let refused = entries(&format!("--flow-entries {wrong}")).unwrap_err();
            assert!(refused.contains("--flow-entries"), "{refused}");
        }
    }

    /// As flannel's option of the name.
    #[test]
    fn rules_in_other_peoples_chains_are_made_unless_they_are_not_wanted() {
        let wanted = |more: &str| {
            let line = format!("podnet agent --name node1 {more}");
            let parsed = Arguments::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
            let Command::Agent(options) = parsed.command else { panic!("not an agent") };
            Ok::<_, String>(options.iptables_forward_rules)
        };
        for (more, expected) in [
            ("", true),
            ("--iptables-forward-rules", true),
            ("--iptables-forward-rules --drop-lost-nodes", true),
            ("--iptables-forward-rules=true", true),
            ("--iptables-forward-rules=false", false),
            ("--iptables-forward-rules=False", false),
            ("--iptables-forward-rules=0", false),
        ] {
            assert_eq!(wanted(more), Ok(expected), "{more}");
        }
        for wrong in ["--iptables-forward-rules=never", "--iptables-forward-rules=", "--iptables-forward-rules false"] {
            wanted(wrong).unwrap_err();
        }
    }

    #[test]
    fn the_past_of_flows_takes_no_more_memory_than_is_asked_for() {
        let kept = |more: &str| {
            let line = format!("podnet agent --name node1 --flow-certificate c --flow-key k --flow-client-ca a {more}");
            let Command::Agent(options) = Arguments::parse_from(line.split_whitespace()).command else {
                panic!("not an agent")
            };
            flow_api(&options).unwrap().retention.map(|retention| (retention.time.as_secs(), retention.bytes))
        };
        assert_eq!(kept(""), None);
        assert_eq!(kept("--flow-retention 90s"), Some((90, 64 << 20)));
        assert_eq!(kept("--flow-retention 2h --flow-retention-bytes 1048576"), Some((7200, 1 << 20)));
    }
}
