//! What the API, the journals and the interfaces say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use podnet_kernel::{link, netlink::RtSocket, netns::NetNs};
use podnet_model::{
    BlockCidr, LinkName, NodeName, PodKey,
    crd::{IPAMBlock, IPPool},
};
use podnet_planner::ipam::{
    IpamConfig, NodeIpam, Occupancy,
    audit::{Facts, LocalFacts, PodFacts, PublishedBlock},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Machine;
use crate::report::{Doing, Failure};

/// How long the API server may take before it counts as away.
const PATIENCE: Duration = Duration::from_secs(10);

/// All objects of a kind.
pub(super) async fn list<K>(client: &Client) -> Result<Vec<K>, Failure>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let kind = K::plural(&()).into_owned();
    match timeout(PATIENCE, Api::<K>::all(client.clone()).list(&ListParams::default())).await {
        Ok(listed) => Ok(listed.doing(|| format!("cannot list the {kind}"))?.items),
        Err(_) => Err(Failure::new(format!("the API server does not answer within {} s", PATIENCE.as_secs()))
            .remedy("look at: podnet status")),
    }
}

pub(super) async fn gather(client: &Client, machines: &[Machine]) -> Result<Facts, Failure> {
    let pools = list::<IPPool>(client).await?;
    let blocks = list::<IPAMBlock>(client).await?;
    let nodes = list::<Node>(client).await?;
    let mut local = BTreeMap::new();
    for machine in machines {
        local.insert(NodeName::from(&machine.node), read(machine)?);
    }
    // Pods last: one that came meanwhile has its address in a journal that was read before, and is looked at again by `check`.
    let pods = list::<Pod>(client).await?;
    Ok(Facts {
        pools: pools.iter().filter_map(|pool| pool.spec.cidr.parse().ok()).chain(parts(&nodes, &blocks)).collect(),
        blocks: blocks.iter().filter_map(published).collect(),
        nodes: nodes.iter().map(|node| NodeName::from(&node.name_any())).collect(),
        pods: pods.iter().filter_map(pod).collect(),
        local,
    })
}

/// Nodes' `spec.podCIDR`s that podnet gives addresses of, in flannel's mode: each is a block as a whole.
fn parts<'a>(nodes: &'a [Node], blocks: &'a [IPAMBlock]) -> impl Iterator<Item = IpNet> + 'a {
    let cidrs = nodes.iter().filter_map(|node| node.spec.as_ref()?.pod_cidr.as_ref());
    cidrs.filter(|cidr| blocks.iter().any(|block| block.spec.cidr == **cidr)).filter_map(|cidr| cidr.parse().ok())
}

fn published(block: &IPAMBlock) -> Option<PublishedBlock> {
    let owner = block.spec.affinity.as_deref().and_then(|affinity| affinity.strip_prefix("host:"));
    Some(PublishedBlock {
        cidr: BlockCidr(block.spec.cidr.parse().ok()?),
        owner: owner.map(NodeName::from),
        occupancy: Occupancy::from_spec(&block.spec),
    })
}

/// A pod with a network of its own.
fn pod(pod: &Pod) -> Option<PodFacts> {
    let own = pod.spec.as_ref().is_none_or(|spec| !spec.host_network.unwrap_or_default());
    let status = pod.status.as_ref();
    let ended = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
    let addrs = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
    let addrs = addrs.iter().filter(|_| !ended).filter_map(|addr| addr.ip.parse::<IpAddr>().ok());
    own.then(|| PodFacts {
        key: PodKey::new(&pod.namespace().unwrap_or_default(), &pod.name_any()),
        uid: Arc::from(pod.uid().unwrap_or_default()),
        addrs: addrs.collect(),
    })
}

/// The journal and the interfaces of a node of this machine.
pub(super) fn read(machine: &Machine) -> Result<LocalFacts, Failure> {
    let path = machine.state.join("addresses.journal");
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        text => text.doing(|| format!("cannot read the address journal {}", path.display()))?,
    };
    let text = String::from_utf8_lossy(&text);
    let mut ipam = NodeIpam::new(NodeName::from(&machine.node), IpamConfig::default());
    // A torn last line is one that the agent is writing just now.
    let damaged = ipam.replay(text.lines()).damaged.len();
    Ok(LocalFacts { ipam, damaged, links: links(machine)? })
}

fn links(machine: &Machine) -> Result<BTreeSet<LinkName>, Failure> {
    let what = || format!("cannot list the interfaces of node {}", machine.node);
    let listed = with_socket(machine, link::list)?.doing(what)?;
    Ok(listed.into_iter().map(|link| link.name).filter(is_pod_link).collect())
}

/// Runs `work` with a netlink socket in the node's namespace.
pub(super) fn with_socket<T>(machine: &Machine, work: impl FnOnce(&mut RtSocket) -> T) -> Result<T, Failure> {
    let what = || format!("cannot look into the network of node {}", machine.node);
    let mut socket = match &machine.netns {
        Some(path) => RtSocket::open_in(&NetNs::open(path).doing(what)?).doing(what)?,
        None => RtSocket::open().doing(what)?,
    };
    Ok(work(&mut socket))
}

/// `pn` and twelve hexadecimal digits (see `podnet_kernel::cni_wire::host_ifname`).
fn is_pod_link(name: &LinkName) -> bool {
    let digits = name.as_str().strip_prefix("pn").unwrap_or_default();
    digits.len() == 12 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}
