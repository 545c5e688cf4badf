//! The cluster's objects, and what its nodes alone know.

use std::{collections::BTreeMap, fs, net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use podnet_agent::proxy::configured::BUILT;
use podnet_client::watch::{Interest, PodInterest, ProxySource, Update, watch};
use podnet_kernel::{addr, capabilities, cni_wire::host_ifname, executor, link, netlink::RtSocket, netns::NetNs};
use podnet_model::{Change, NodeName, ProxyConfig, proxy::Mode};
use podnet_planner::{
    proxy::{Capabilities, choose},
    trace::{Cluster, Facts, Link},
};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    api,
    arguments::forwarding::ClusterOptions,
    cluster,
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
    /// The nodes whose namespaces are on this machine.
    pub(super) here: BTreeMap<NodeName, PathBuf>,
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
    let cluster = Cluster::new(changes.clone(), facts);
    Ok(State { cluster, changes, domain: options.cluster_domain.clone(), here })
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
    let mut socket = RtSocket::open_in(&NetNs::open(netns).doing(what)?).doing(what)?;
    facts.support = executor::support(&mut socket).doing(what)?;
    if let Some(underlay) = link::find(&mut socket, facts.device.as_str()).doing(what)? {
        facts.mtu = underlay.mtu;
    }
    let is_usable = |addr: &IpAddr| match addr {
        IpAddr::V4(addr) => !addr.is_loopback() && !addr.is_link_local(),
        IpAddr::V6(addr) => !addr.is_loopback() && !addr.is_unicast_link_local(),
    };
    let listed = addr::list_lasting(&mut socket).doing(what)?;
    facts.addrs = listed.into_iter().map(|(_, net)| net.addr()).filter(is_usable).collect();
    facts.links = links(node);
    Ok(())
}

/// The links of pods, as the agent recorded them.
fn links(node: &NodeName) -> BTreeMap<IpAddr, Link> {
    let directory = NodeLayout::new(node.as_str()).agent_state().join("attachments");
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let records = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let (container, interface) = name.split_once('@').filter(|_| !name.starts_with('.'))?;
        // One that is being removed just now is no longer there.
        let record: Value = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
        let bridge = record["bridge"]["bridge"].as_str().map(Into::into);
        let link = Link { device: host_ifname(container, interface), bridge };
        let addrs = record["addrs"].as_array().cloned().unwrap_or_default();
        let addrs = addrs.iter().filter_map(|addr| addr.as_str()?.parse().ok()).collect::<Vec<IpAddr>>();
        Some(addrs.into_iter().map(move |addr| (addr, link.clone())))
    });
    records.flatten().collect()
}
