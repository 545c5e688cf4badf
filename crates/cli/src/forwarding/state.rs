//! The cluster's objects, and what its nodes alone know.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use kube::Api;
use podnet_agent::{attach, proxy::configured::BUILT};
use podnet_client::watch::{Interest, PodInterest, ProxySource, Update, watch};
use podnet_kernel::{addr, capabilities, executor, link, netlink::RtSocket, netns::NetNs, sysctl};
use podnet_model::{Change, NodeName, PodKey, ProxyConfig, proxy::Mode};
use podnet_planner::{
    proxy::{Capabilities, choose},
    trace::{Cluster, Facts},
};
use tokio::time::timeout;

use crate::{
    api,
    arguments::forwarding::ClusterOptions,
    cluster,
    forwarding::why,
    layout::{self, NodeLayout},
    report::{Doing, Failure, require_root},
};

/// How long the API server may take to tell all objects.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of nodes that are not on this machine.
const USUAL: (&str, u32) = ("eth0", 1500);

/// What is known of the cluster.
pub(super) struct State {
    pub(super) cluster: Cluster,
    pub(super) changes: Vec<Change>,
    pub(super) domain: String,
    /// Whom pods ask for names, where it is known from elsewhere than the Service of cluster DNS.
    pub(super) nameserver: Option<IpAddr>,
    /// The nodes whose namespaces are on this machine.
    pub(super) here: BTreeMap<NodeName, PathBuf>,
    facts: BTreeMap<NodeName, Facts>,
    /// The nodes of which agents told what they are.
    told: BTreeSet<NodeName>,
}

impl State {
    /// Whom pods ask for names: their node, or cluster DNS.
    pub(super) fn asked_for_names(&self) -> Option<IpAddr> {
        self.nameserver.or_else(|| why::cluster_dns(self))
    }

    /// Whether a node's device, MTU and mode are known, and not only taken for the usual ones.
    pub(super) fn is_known(&self, node: &NodeName) -> bool {
        self.here.contains_key(node) || self.told.contains(node)
    }

    /// Plans nodes by what was told of them.
    pub(super) fn learn(&mut self, told: BTreeMap<NodeName, Facts>) {
        self.told.extend(told.keys().cloned());
        if told.iter().all(|(node, facts)| self.facts.get(node) == Some(facts)) {
            return;
        }
        self.facts.extend(told);
        self.cluster = Cluster::new(self.changes.clone(), self.facts.clone());
    }
}

#[cfg(test)]
impl State {
    /// Of these objects, as somebody knows it who is elsewhere.
    pub(super) fn of(changes: Vec<Change>, facts: BTreeMap<NodeName, Facts>) -> Self {
        let cluster = Cluster::new(changes.clone(), facts.clone());
        let (domain, here, told) = ("cluster.local".to_owned(), BTreeMap::new(), BTreeSet::new());
        Self { cluster, changes, domain, nameserver: None, here, facts, told }
    }
}

/// Asks the API server, and this machine where the nodes are its namespaces.
pub(super) fn gather(options: &ClusterOptions, command: &str) -> Result<State, Failure> {
    if options.kubeconfig.is_none() {
        require_root(command)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing(|| "cannot start".into())?;
    let changes = runtime.block_on(async {
        let client = api::connect(options.kubeconfig.as_deref(), command).await?;
        match timeout(PATIENCE, objects(client)).await {
            Ok(changes) => Ok(changes),
            Err(_) => {
                let what = format!("the API server does not tell its objects within {} s", PATIENCE.as_secs());
                Err(Failure::new(what).remedy("look at: podnet status"))
            }
        }
    })?;
    let embedded = if options.kubeconfig.is_none() { cluster::Cluster::load()? } else { None };
    let proxy = changes.iter().find_map(|change| match change {
        Change::Proxy(Some(config)) => Some((**config).clone()),
        _ => None,
    });
    let mode = mode(&proxy.unwrap_or_default(), embedded.is_some());
    let nodes = changes.iter().filter_map(|change| match change {
        Change::Node(name, Some(_)) => Some(name.clone()),
        _ => None,
    });
    let (mut facts, mut here) = (BTreeMap::new(), BTreeMap::new());
    for node in nodes {
        let netns = layout::netns(node.as_str());
        let mut known = Facts::new(USUAL.0.into(), USUAL.1, mode);
        if let Some(cluster) = embedded.as_ref().filter(|_| netns.exists()) {
            known.no_nat_cidrs = vec![IpNet::V4(cluster.service_cidr)];
            look(&node, &netns, &mut known)?;
            here.insert(node.clone(), netns);
        } else {
            // Agents serve the whole machine's sockets where nothing else is said.
            known.serves_node_at_sockets = true;
        }
        facts.insert(node, known);
    }
    let cluster = Cluster::new(changes.clone(), facts.clone());
    let nameserver = embedded.as_ref().map(cluster::Cluster::nameserver);
    let (domain, told) = (options.cluster_domain.clone(), BTreeSet::new());
    Ok(State { cluster, changes, domain, nameserver, here, facts, told })
}

/// What a pod asks for, of which the plan keeps only what it needs. `command` is who asks.
pub(super) fn spec(options: &ClusterOptions, command: &str, key: &PodKey) -> Result<core::PodSpec, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing(|| "cannot start".into())?;
    let pod = runtime.block_on(async {
        let client = api::connect(options.kubeconfig.as_deref(), command).await?;
        let pods: Api<core::Pod> = Api::namespaced(client, key.namespace.as_str());
        pods.get(&key.name).await.doing(|| format!("cannot get pod {key}"))
    })?;
    Ok(pod.spec.unwrap_or_default())
}

async fn objects(client: kube::Client) -> Vec<Change> {
    let interest = Interest {
        nodes: true,
        pods: PodInterest::All,
        services: true,
        slices: true,
        pools: true,
        address_pools: true,
        blocks: true,
        ipam: true,
        ways: true,
        proxy: ProxySource::ConfigMap,
        ..Interest::default()
    };
    let mut updates = watch(client, interest);
    let mut changes = Vec::new();
    while let Some(update) = updates.recv().await {
        match update {
            Update::Change(change) => changes.push(change),
            Update::Synced => break,
        }
    }
    changes
}

/// The mode that agents are in: what is asked for, or the best that this machine's kernel has where they are on it.
fn mode(config: &ProxyConfig, is_here: bool) -> Mode {
    let has = if is_here && config.mode.is_none() { capabilities::probe() } else { Capabilities::default() };
    choose(config.mode, &BUILT, &has).map_or(Mode::Nftables, |choice| choice.mode)
}

/// What the node's namespace and its agent's records tell.
fn look(node: &NodeName, netns: &std::path::Path, facts: &mut Facts) -> Result<(), Failure> {
    let what = || format!("cannot look into the network of node {node}");
    let netns = NetNs::open(netns).doing(what)?;
    let mut socket = RtSocket::open_in(&netns).doing(what)?;
    facts.support = executor::support(&mut socket).doing(what)?;
    if let Some(underlay) = link::find(&mut socket, facts.device.as_str()).doing(what)? {
        facts.mtu = underlay.mtu;
    }
    facts.addrs = addr::list_reachable(&mut socket).doing(what)?;
    facts.shows_bridged = sysctl::shows_bridged(&netns);
    let records = NodeLayout::new(node.as_str()).agent_state().join("attachments");
    facts.links = attach::links(&records).doing(|| format!("cannot read which pods are on node {node}"))?;
    Ok(())
}
