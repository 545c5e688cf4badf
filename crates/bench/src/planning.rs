//! One agent in a large cluster: 5,000 nodes and 20,000 blocks, told by an API server that is nothing but its answers.
//!
//! The agent is the real one, in a namespace of its own: what is measured is what a node of such a cluster would need, from its start
//! until every route, neighbour and FDB entry is in the kernel, and from a changed node until the kernel's routes say so.

use std::{
    fmt,
    time::{Duration, Instant},
};

use podnet_kernel::{
    monitor::{Monitor, Notice},
    netlink::RtSocket,
    route,
};
use serde::Serialize;

use crate::{
    Result,
    figures::Times,
    lab::{Lab, Place},
    stand_in::{
        Answers,
        cluster::{self, BLOCKS, NODES},
    },
};

/// `podnet_planner::step::ROUTE_PROTOCOL`.
const PROTOCOL: u8 = 88;
const CHANGES: usize = 50;

#[derive(Serialize)]
pub(crate) struct Planning {
    nodes: usize,
    blocks: usize,
    /// From the agent's start until every route is in the kernel and it is ready, in seconds.
    first_sync_s: f64,
    /// Of that, the time that applying everything to the kernel took, in seconds, as the agent says.
    apply_s: f64,
    /// From the watch event of a node with another address until the kernel sends to it.
    one_node: Times,
    /// Memory of the agent's own (resident, less what is shared), at its most and at the end, in MiB.
    peak_mib: f64,
    memory_mib: f64,
}

pub(crate) fn measure(podnet: &str) -> Result<Planning> {
    let nodes: Vec<_> = (0..NODES).map(|number| cluster::node(number, cluster::address(number))).collect();
    let blocks: Vec<_> = (0..BLOCKS).map(cluster::block).collect();
    let answers = Answers::new(cluster::single)
        .list("nodes", "v1", "NodeList", &nodes)
        .list("ipamblocks", "crd.projectcalico.org/v1", "IPAMBlockList", &blocks)
        .list("ippools", "crd.projectcalico.org/v1", "IPPoolList", &[cluster::pool()]);
    drop((nodes, blocks));
    let lab = Lab::start(podnet, Place::new()?, answers)?;
    // Every block but the own ones is a route; the own ones are blackholes.
    let routes = route::list(&mut RtSocket::open_in(&lab.place.netns)?, PROTOCOL)?.len();
    if routes != BLOCKS {
        return Err(format!("{routes} routes are there, and {BLOCKS} blocks").into());
    }
    let peak_mib = lab.peak_mib()?;
    let mut monitor = lab.monitor()?;
    let times = (1..=CHANGES).map(|node| one_node(&lab, &mut monitor, node)).collect::<Result<_>>()?;
    Ok(Planning {
        nodes: NODES,
        blocks: BLOCKS,
        first_sync_s: lab.first_sync.as_secs_f64(),
        apply_s: lab.apply_s()?,
        one_node: Times::of(times),
        peak_mib,
        memory_mib: lab.memory_mib()?,
    })
}

/// Gives a node another address, and waits until the kernel tells that it sends the node's frames there.
fn one_node(lab: &Lab, monitor: &mut Monitor, node: usize) -> Result<Duration> {
    let moved = cluster::moved_address(node);
    let is_it = |notice: &Notice| matches!(notice, Notice::Fdb { remote: Some(remote), .. } if *remote == moved);
    let changed = cluster::node(node, moved);
    let started = Instant::now();
    lab.api.change("nodes", &changed)?;
    // Where it never comes, whoever waits for the benchmark sees it stand.
    while !monitor.wait()?.iter().any(is_it) {}
    Ok(started.elapsed())
}

impl fmt::Display for Planning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, blocks, first_sync_s, apply_s, one_node, peak_mib, memory_mib } = self;
        writeln!(
            f,
            "agent among {nodes} nodes and {blocks} blocks: first sync {first_sync_s:.2} s, of that {apply_s:.2} s in the kernel"
        )?;
        writeln!(f, "  one node changes, until the kernel follows  {one_node}")?;
        write!(f, "  memory {memory_mib:.1} MiB, at its most {peak_mib:.1} MiB")
    }
}
