//! What is traced beside what the kernels of the nodes really have.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path as FilePath,
};

use podnet_kernel::{
    executor,
    link::{self, Link},
    netlink::RtSocket,
    netns::NetNs,
    nft::{NftSocket, Passing},
};
use podnet_model::{Family, NodeName, proxy::Mode};
use podnet_planner::{
    border,
    overlay::State as Observed,
    services::nftables,
    step::{Route, RouteTarget, Step},
    trace::{Hop, Kind, Place, Planned, Trace},
};

use super::state::State;
use crate::report::{Doing, Failure};

/// What a node's kernel has of what is compared.
struct Kernel {
    observed: Observed,
    links: Vec<Link>,
}

/// Something that is not as it is planned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deviation {
    pub(super) node: NodeName,
    /// In words.
    pub(super) what: String,
}

/// What differs on the ways of a trace, each once. Nodes that are not on this machine cannot be looked at; their names are the other part.
pub(super) fn compare(state: &State, trace: &Trace) -> Result<(Vec<Deviation>, BTreeSet<NodeName>), Failure> {
    let mut kernels: BTreeMap<NodeName, Kernel> = BTreeMap::new();
    let (mut found, mut elsewhere, mut ruled) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mut hops: Vec<&Hop> = Vec::new();
    for hop in trace.paths.iter().flat_map(|path| &path.hops) {
        if !hops.contains(&hop) {
            hops.push(hop);
        }
    }
    for hop in hops {
        let Place::Node(node) = &hop.place else { continue };
        let (Some(netns), Some(planned)) = (state.here.get(node), state.cluster.planned(node)) else {
            elsewhere.insert(node.clone());
            continue;
        };
        if !kernels.contains_key(node) {
            kernels.insert(node.clone(), look(node, netns, planned)?);
        }
        let what = of_hop(hop, &kernels[node]);
        found.extend(what.into_iter().map(|what| Deviation { node: node.clone(), what }));
        if matches!(hop.kind, Kind::Translated | Kind::Masqueraded | Kind::Judged | Kind::Routed)
            && ruled.insert(node.clone())
        {
            let what = of_rules(node, netns, planned)?;
            found.extend(what.into_iter().map(|what| Deviation { node: node.clone(), what }));
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|one| seen.insert(one.clone()));
    Ok((found, elsewhere))
}

fn look(node: &NodeName, netns: &FilePath, planned: &Planned) -> Result<Kernel, Failure> {
    let what = || format!("cannot look into the network of node {node}");
    let mut socket = RtSocket::open_in(&NetNs::open(netns).doing(what)?).doing(what)?;
    let vxlans = planned.overlay.config().vxlan_names();
    let observed = executor::observe(&mut socket, &vxlans).doing(what)?.into();
    Ok(Kernel { observed, links: link::list(&mut socket).doing(what)? })
}

fn of_hop(hop: &Hop, kernel: &Kernel) -> Vec<String> {
    let mut told: Vec<String> = hop.stands.iter().filter_map(|step| of_step(step, &kernel.observed)).collect();
    if let Some(device) = &hop.device {
        match kernel.links.iter().find(|link| link.name == *device) {
            None => told.push(format!("there is no device {device}")),
            Some(link) if !link.is_up => told.push(format!("device {device} is down")),
            Some(link) if hop.mtu.is_some_and(|mtu| mtu != link.mtu) => {
                let mtu = hop.mtu.unwrap_or_default();
                told.push(format!("device {device} has MTU {} and not {mtu}", link.mtu));
            }
            Some(_) => {}
        }
    }
    told
}

/// A step that would change something tells what is wrong.
fn of_step(step: &Step, observed: &Observed) -> Option<String> {
    let mut after = observed.clone();
    after.apply(step);
    if after == *observed {
        return None;
    }
    Some(match step {
        Step::SetRoute(Route { dst, target }) => {
            let found = observed
                .routes
                .get(dst)
                .map_or_else(|| "there is none".to_owned(), |it| format!("it goes {}", way(it)));
            format!("the route to {dst} should go {}: {found}", way(target))
        }
        Step::SetNeighbour(entry) => {
            let found = observed.neighbours.get(&(entry.device.clone(), entry.addr));
            let found = found.map_or_else(|| "there is none".to_owned(), |mac| format!("it is {mac}"));
            format!("the neighbour {} on {} should be {}: {found}", entry.addr, entry.device, entry.mac)
        }
        Step::SetFdb(entry) => {
            let found = observed.fdb.get(&(entry.device.clone(), entry.mac));
            let found = found.map_or_else(|| "there is none".to_owned(), |remote| format!("it leads to {remote}"));
            format!("the FDB entry of {} on {} should lead to {}: {found}", entry.mac, entry.device, entry.remote)
        }
        Step::SetVxlan(vxlan) => match observed.vxlans.get(&vxlan.name) {
            None => format!("there is no VXLAN device {} that is up", vxlan.name),
            Some(found) if found.mtu != vxlan.mtu => {
                format!("device {} has MTU {} and not {}", vxlan.name, found.mtu, vxlan.mtu)
            }
            Some(_) => format!(
                "the VXLAN device {} has other settings than VNI {} and port {}",
                vxlan.name, vxlan.vni, vxlan.port
            ),
        },
        Step::SetTunnel(tunnel) => format!("the tunnel {} is missing or has other settings", tunnel.name()),
        Step::SetPeer(peer) => format!("the WireGuard peer {} is missing or has other ranges", peer.endpoint),
        other => format!("{other:?} is not done"),
    })
}

fn way(target: &RouteTarget) -> String {
    match target {
        RouteTarget::Device(device) => format!("to {device}"),
        RouteTarget::OnLink { device, via, .. } => format!("to {device} via {via}"),
        RouteTarget::Via(via) => format!("via {via}"),
        RouteTarget::Blackhole => "to nowhere".to_owned(),
    }
}

/// The tables of nf_tables, and other people's chains that would drop what is forwarded.
fn of_rules(node: &NodeName, netns: &FilePath, planned: &Planned) -> Result<Vec<String>, Failure> {
    let what = || format!("cannot read the rules of node {node}");
    let mut socket = NftSocket::open_in(&NetNs::open(netns).doing(what)?).doing(what)?;
    let mut told = Vec::new();
    for family in Family::ALL {
        let [services, borders] = &planned.rules[family];
        let in_nftables = matches!(planned.facts.mode, Mode::Nftables | Mode::Ebpf);
        if in_nftables && planned.services[family].is_needed() {
            told.extend(socket.differences(nftables::TABLE, services).doing(what)?);
        }
        if family == Family::V4 {
            told.extend(socket.differences(border::TABLE, borders).doing(what)?);
        }
    }
    if planned.facts.mode == Mode::Userspace {
        // What is passed on there by the agent needs other rules in these chains.
        return Ok(told);
    }
    let all: Vec<Passing> = planned.overlay.pod_ranges().map(Passing::Range).collect();
    let own = [nftables::TABLE, border::TABLE, "podnet-pods", "podnet-limits", "podnet-dns"];
    for chain in socket.forward_chains(&own).doing(what)? {
        if chain.drops && !chain.lets_pass(&all) {
            told.push(format!("the host's firewall drops what is forwarded: chain {chain} has the policy drop"));
        }
    }
    Ok(told)
}
