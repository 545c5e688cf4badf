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
use podnet_kernel::{cni_wire::host_ifname, link, netlink::RtSocket, netns::NetNs};
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

/// Nodes' `spec.podCIDR`s that podnet gives addresses of, in flannel's mode: of IPv4 each is a block as a whole, of IPv6 there are blocks in it.
fn parts<'a>(nodes: &'a [Node], blocks: &'a [IPAMBlock]) -> impl Iterator<Item = IpNet> + 'a {
    let spec = |node: &'a Node| node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr));
    let cidrs = nodes.iter().flat_map(spec).filter_map(|cidr| cidr.parse::<IpNet>().ok());
    let is_of = |block: &IPAMBlock, part: &IpNet| {
        let block = block.spec.cidr.parse::<IpNet>().ok();
        block.is_some_and(|block| block == *part || (block.addr().is_ipv6() && part.contains(&block)))
    };
    cidrs.filter(move |part| blocks.iter().any(|block| is_of(block, part)))
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
    let (text, is_there) = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match &machine.netns {
            Some(_) => (Vec::new(), false),
            // Read as empty it would make strays of all pods of a node whose agent keeps its journal elsewhere.
            None => {
                return Err(Failure::new(format!(
                    "node {} has no address journal at {}",
                    machine.node,
                    path.display()
                ))
                .remedy("--state-dir DIR names the directory that the node's agent was given as its state"));
            }
        },
        text => (text.doing(|| format!("cannot read the address journal {}", path.display()))?, true),
    };
    let text = String::from_utf8_lossy(&text);
    let mut ipam = NodeIpam::new(NodeName::from(&machine.node), IpamConfig::default());
    // A torn last line is one that the agent is writing just now.
    let damaged = ipam.replay(text.lines()).damaged.len();
    // Interfaces first: what is attached in between is recorded and not listed.
    let links = links(machine)?;
    let mut recorded = recorded(machine)?;
    recorded.retain(|link| links.contains(link));
    Ok(LocalFacts { ipam, damaged: is_there.then_some(damaged), links, recorded })
}

/// The interfaces that the agent's records of attachments name; one that was half written counts as well.
fn recorded(machine: &Machine) -> Result<BTreeSet<LinkName>, Failure> {
    let directory = machine.state.join("attachments");
    let what = || format!("cannot list {}", directory.display());
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.doing(what)?,
    };
    let mut links = BTreeSet::new();
    for entry in entries {
        let name = entry.doing(what)?.file_name();
        if let Some((sandbox, interface)) = name.to_string_lossy().split_once('@') {
            links.insert(host_ifname(sandbox.trim_start_matches('.'), interface));
        }
    }
    Ok(links)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_is_missing_where_a_node_was_named_is_an_error_that_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine { node: "n1".to_owned(), state: directory.path().into(), netns: None };
        let failure = format!("{:?}", read(&machine).map(|_| ()).unwrap_err());
        assert!(failure.contains("node n1 has no address journal at") && failure.contains("--state-dir"), "{failure}");
    }

    #[test]
    fn interfaces_of_recorded_attachments_are_known_by_the_records_names() {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine { node: "n1".to_owned(), state: directory.path().into(), netns: None };
        assert!(recorded(&machine).unwrap().is_empty());
        fs::create_dir(directory.path().join("attachments")).unwrap();
        for name in ["abc@eth0", ".def@eth1", "other"] {
            fs::write(directory.path().join("attachments").join(name), "").unwrap();
        }
        assert_eq!(recorded(&machine).unwrap(), [host_ifname("abc", "eth0"), host_ifname("def", "eth1")].into());
    }
}
