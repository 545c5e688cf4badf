//! Changes are put in force by the agent's own thread, as on a node: it takes what watches would tell it, and does all that it does besides.
//! Halfway another agent takes its place, but in mode `userspace`.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use http::{Request, Response};
use kube::{Client, client::Body};
use podnet_agent::{
    AgentConfig,
    addresses::Addresses,
    conflist::PodLink,
    flows::CollectorSettings,
    network::Network as Running,
    proxy::Told,
    underlay::{Detection, Finder, UnderlaySettings},
    view::View,
    ways::Ways,
};
use podnet_client::{events::Complaints, watch::Update};
use podnet_kernel::{
    iptables::{Iptables, Variant},
    ipvs::Ipvs,
};
use podnet_model::{Change, Dual, Family, Pool, ProxyConfig, proxy::Mode};
use podnet_planner::{
    ipvs::{Scheduler, difference},
    services::{
        ipvs::{Ipvs as Renderer, names},
        packet_table::NodeRules,
    },
};
use podnet_testnet::{eventually, vm};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::timeout,
};

use super::{
    FEW, Size, all_is_well, are_answered,
    cluster::{self, BACKENDS, Cluster},
    here,
    history::History,
    load::{Load, Network},
    questions::Questions,
    seconds, tell_pace,
};
use crate::{modes::nftables, namespace::Namespace};

/// A request may still come to a backend that has been gone for so long, whenever the agent says that the change is in force.
const GONE: Duration = Duration::from_secs(1);
/// For what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many seconds it goes on, where nobody says any: agents begin besides.
const SECONDS: u32 = 3;
/// As many updates wait for the agent as its watches let wait.
const BACKLOG: usize = 4096;
/// A slow machine makes few connections in the time.
const CONNECTIONS: usize = 1_001;
/// Where pods are, beside [`BACKENDS`].
const CLIENTS: &str = "10.250.0.0/24";
/// The device that would lead to other nodes.
const UNDERLAY: &str = "underlay";

/// An agent's network at work in a node's namespace, without the rest of an agent.
struct Agent {
    runtime: Runtime,
    updates: mpsc::Sender<Update>,
    running: Running,
    told: Told,
    /// So many EndpointSlices were told of at first.
    first: u64,
}

impl Agent {
    /// Begins with the cluster as it is: that is in force by now.
    fn start(node: &Namespace, state: &Path, mode: Mode, cluster: &Cluster) -> Self {
        let mut agent = node.netns.run(|| Self::begin(state)).unwrap();
        let pools = [("clients", CLIENTS), ("backends", BACKENDS)];
        let pools = pools.map(|(name, range)| Pool::new(name.into(), range.parse().unwrap()));
        pools.into_iter().for_each(|pool| agent.tell(Change::Pool(pool.name.clone(), Some(pool))));
        agent.tell(Change::Proxy(Some(Arc::new(proxy_config(mode)))));
        cluster.all().into_iter().for_each(|change| agent.tell(change));
        agent.updates.blocking_send(Update::Synced).unwrap();
        agent.wait(async { agent.running.takes_pods(false).await.unwrap() });
        assert_eq!(*agent.told.mode.borrow(), Some(mode));
        agent.first = agent.in_force();
        agent
    }

    /// In the calling thread's namespace.
    fn begin(state: &Path) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let nobody = tower::service_fn(|_: Request<Body>| async {
            Err::<Response<Body>, _>(io::Error::other("there is no API server"))
        });
        let (client, config) = (Client::new(nobody, "default"), config(state));
        let finder = Finder::new(config.underlay.clone());
        let underlay = finder.find(Dual::default()).unwrap();
        let addresses = Addresses::open(config.node.clone(), &state.join("addresses.journal"), client.clone()).unwrap();
        let ways = Ways::open(&state.join("wireguard.keys"), &config.subnet_file).unwrap();
        let (told, complaints) = (Told::new(), Complaints::new(client, config.node.clone()));
        let (updates, receiver) = mpsc::channel(BACKLOG);
        let running = Running::start(
            &config,
            (finder, underlay),
            Arc::new(addresses),
            Arc::new(View::new(config.node.clone())),
            Arc::new(ways),
            (Arc::default(), complaints, told.clone()),
            receiver,
        );
        let running = running.unwrap();
        drop(entered);
        Self { runtime, updates, running, told, first: 0 }
    }

    fn tell(&self, change: Change) {
        self.updates.blocking_send(Update::Change(change)).unwrap();
    }

    /// How many changed EndpointSlices of those that came since the beginning are in force, as its metrics tell it.
    fn in_force(&self) -> u64 {
        let metrics = self.told.programming.metrics();
        let count = |what: &str| -> u64 {
            let name = format!("kubeproxy_sync_proxy_rules_endpoint_changes_{what} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(name.as_str()));
            value.unwrap().parse().unwrap()
        };
        count("total") - count("pending") - self.first
    }

    fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { timeout(here(PATIENCE), what).await }).expect("it is done in time")
    }

    /// Ends its thread. What is in force stays.
    fn end(self) {
        let Self { runtime, updates, running, .. } = self;
        drop(updates);
        drop(runtime.block_on(async { timeout(here(PATIENCE), running.ended()).await }).expect("its thread ends"));
    }
}

/// Of an agent that only has a network.
fn config(state: &Path) -> AgentConfig {
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
        fast_path: false,
        // There is no such group: no programs are looked for anywhere else.
        sockets_cgroup: PathBuf::from("pntest-churn-agent"),
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
fn proxy_config(mode: Mode) -> ProxyConfig {
    let text = format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n\
         conntrack: {{maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}\n"
    );
    ProxyConfig::parse(&text).unwrap()
}

/// Changes that the agent was told of.
#[derive(Default)]
struct Underway {
    /// Those that were not seen to be in force.
    told: VecDeque<Sent>,
    /// So many others there were.
    done: u64,
}

struct Sent {
    service: u32,
    at: Instant,
    /// The endpoints that the Service has from then on.
    ready: BTreeSet<Ipv4Addr>,
}

/// What became of changes.
struct Account {
    history: History,
    latencies: Vec<Duration>,
    /// So much later than it wanted to the test went on at most: the machine did something else, and nobody is quicker than it.
    held_up: Duration,
}

impl Underway {
    /// Looks which of them are in force.
    fn settle(&mut self, agent: &Agent, account: &mut Account) {
        let in_force = agent.in_force();
        let now = Instant::now();
        while self.done < in_force
            && let Some(Sent { service, at, ready }) = self.told.pop_front()
        {
            self.done += 1;
            account.latencies.push(now - at);
            let until = now.min(at + here(GONE) + account.held_up);
            account.history.changed(service, at, until, &ready);
        }
    }

    fn settle_all(&mut self, agent: &Agent, account: &mut Account) {
        eventually("all changes are in force", PATIENCE, || {
            self.settle(agent, account);
            if self.told.is_empty() { Ok(()) } else { Err(format!("{} are not", self.told.len())) }
        });
    }
}

/// A node, and the agent that changed what is in force there; this is the cluster as it is in the end.
struct Changed {
    network: Network,
    agent: Agent,
    cluster: Cluster,
}

/// Another agent takes the place of the first one where that can be without an end to connections.
fn churn(tag: &str, state: &Path, mode: Mode, Size { services, rate }: Size) -> Changed {
    let (network, mut cluster) = (place(tag), Cluster::new(services));
    let started = Instant::now();
    let mut agent = Agent::start(&network.node, state, mode, &cluster);
    println!("the first state, of {services} Services, in {:?}", started.elapsed());

    let mut account = Account { history: History::new(&cluster), latencies: Vec::new(), held_up: Duration::ZERO };
    let load = Load::start(&network, None, services);
    let questions = Questions::start(&network, None);
    let mut underway = Underway::default();
    let count = seconds(SECONDS) * rate;
    let mut start = Instant::now();
    for number in 0..count {
        // Those that an agent passes on itself end with it.
        if number == count / 2 && mode != Mode::Userspace {
            let ended = Instant::now();
            underway.settle_all(&agent, &mut account);
            agent.end();
            agent = Agent::start(&network.node, state, mode, &cluster);
            underway = Underway::default();
            start += ended.elapsed();
            println!("another agent began after {:?}", ended.elapsed());
        }
        let due = start + Duration::from_secs(1) * number / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let at = Instant::now();
        account.held_up = account.held_up.max(at.saturating_duration_since(due));
        let (service, change) = cluster.change();
        underway.told.push_back(Sent { service, at, ready: cluster.ready[&service].clone() });
        agent.tell(change);
        underway.settle(&agent, &mut account);
    }
    underway.settle_all(&agent, &mut account);
    let Account { history, latencies, .. } = account;
    tell_pace(start.elapsed(), latencies);
    load.wait_for(CONNECTIONS);
    all_is_well(&load.stop(), &history);
    are_answered(&questions.stop(), &history);
    Changed { network, agent, cluster }
}

/// A node with a device that other nodes could be behind.
fn place(tag: &str) -> Network {
    let network = Network::new(tag);
    for line in [
        format!("ip link add {UNDERLAY} type veth peer name beyond"),
        format!("ip addr add 198.51.100.1/24 dev {UNDERLAY}"),
        format!("ip link set {UNDERLAY} up"),
        "ip link set beyond up".to_owned(),
    ] {
        network.node.command(&line);
    }
    network
}

/// With rules of nftables, and in the end those that an agent makes which begins where nothing is.
pub(super) fn churn_in_tables(size: Size) {
    let states = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let Changed { network, agent, cluster } = churn("agent", states[0].path(), Mode::Nftables, size);
    let fresh = place("fresh");
    let other = Agent::start(&fresh.node, states[1].path(), Mode::Nftables, &cluster);
    let least = cluster.ready.values().map(BTreeSet::len).sum::<usize>();
    eventually("what a fresh start makes is there", PATIENCE, || {
        let [there, made] = [&network, &fresh].map(|place| nftables::contents_without_slots(&place.node));
        let differing: Vec<&String> = there.symmetric_difference(&made).take(5).collect();
        // A listing may leave out what the kernel is just moving.
        let is_whole = there.len() > least && differing.is_empty();
        if is_whole { Ok(()) } else { Err(format!("{} elements of over {least}; {differing:?}", there.len())) }
    });
    agent.end();
    other.end();
}

/// With chains of iptables, and in the end those that an agent makes which begins where nothing is.
pub(super) fn churn_in_chains(size: Size) {
    let states = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let Changed { network, agent, cluster } = churn("chains", states[0].path(), Mode::Iptables, size);
    let fresh = place("unchanged");
    let other = Agent::start(&fresh.node, states[1].path(), Mode::Iptables, &cluster);
    let [there, made] = [&network, &fresh].map(|place| {
        let netns = place.node.netns.clone();
        let variant = Variant::of_host(&netns).unwrap();
        Iptables::new(netns, Family::V4, variant).unwrap().saved().unwrap().chains
    });
    let differing: Vec<_> = there.iter().filter(|(key, rules)| made.get(*key) != Some(*rules)).take(5).collect();
    assert!(there == made, "{} chains instead of {}; {differing:?}", there.len(), made.len());
    assert!(there.len() > cluster.ready.len(), "{} chains", there.len());
    agent.end();
    other.end();
}

/// With a program that passes on, and in the end all is led to it that an agent leads there which begins where nothing is.
pub(super) fn churn_in_program(size: Size) {
    let states = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let ways = |place: &Network| {
        let ways = place.node.command("ip -4 route show table all proto 87");
        ways.lines().map(|way| way.trim().to_owned()).collect::<BTreeSet<String>>()
    };
    let Changed { network, agent, cluster } = churn("program", states[0].path(), Mode::Userspace, size);
    let there = ways(&network);
    // It has a socket open for each port.
    agent.end();
    let fresh = place("begun");
    let other = Agent::start(&fresh.node, states[1].path(), Mode::Userspace, &cluster);
    let made = ways(&fresh);
    let differing: Vec<_> = there.symmetric_difference(&made).take(5).collect();
    assert!(differing.is_empty(), "{} ways instead of {}; {differing:?}", there.len(), made.len());
    // To each address a way, and behind it one that tells that nobody serves.
    assert_eq!(there.len(), cluster.ready.len() * 2);
    other.end();
}

/// This machine's kernel may have no virtual servers.
#[test]
fn endpoints_of_virtual_servers_change_under_connections_in_the_virtual_machine() {
    let of_tables = [
        "nf_conntrack_netlink",
        "nft_chain_nat",
        "nft_ct",
        "nft_fib_ipv4",
        "nft_fib_ipv6",
        "nft_masq",
        "nft_nat",
        "nft_numgen",
    ];
    let modules = [&vm::VIRTUAL_SERVERS[..], &of_tables].concat();
    vm::run_tests_with("churned_", &modules, &vm::IPTABLES_LEGACY);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn churned_virtual_servers() {
    // So small a machine tracks few thousands of connections.
    podnet_kernel::sysctl::set_here("net.netfilter.nf_conntrack_max", "200000").unwrap();
    let states = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let Changed { network, agent, cluster } = churn("servers", states[0].path(), Mode::Ipvs, FEW);
    let fresh = place("apart");
    let other = Agent::start(&fresh.node, states[1].path(), Mode::Ipvs, &cluster);
    agent.end();
    other.end();
    let [there, made] = [&network, &fresh].map(|place| {
        let mut state = Ipvs::open(&place.node.netns, Family::V4).unwrap().read(&names(Family::V4)).unwrap();
        // What has no weight only stays for the sake of its connections.
        state.servers.values_mut().for_each(|server| server.reals.retain(|_, weight| *weight > 0));
        state
    });
    let differing: Vec<_> = difference(&made, &there).into_iter().take(5).collect();
    assert!(there == made, "what a fresh start makes is reached by {differing:?}, and more");
    let mut rules = NodeRules::new(cluster::config());
    cluster.all().iter().for_each(|change| drop(rules.apply(change)));
    assert_eq!(there.servers, Renderer::new(&rules.services, Scheduler::RoundRobin).state().servers);
}
