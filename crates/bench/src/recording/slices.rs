//! What recording costs traffic: with the programs at pods' interfaces and without them, in slices of a second or less one after the other.
//!
//! To begin and to end recording takes many seconds, and a machine is another one in a minute. So for a slice without it both nodes' agents, which would mend what
//! was taken away and read what was counted, are stopped, and the programs taken away; then these are put back, over the same maps, and the agents go on: what
//! they have to do with what was counted falls into slices with recording. What is sent on one connection, and connections that are opened, have slices of their
//! own: the records of the ones would be told in those of the others.

use std::{fmt, thread, time::Duration};

use podnet_kernel::{
    fastpath::{self, Behind, FastPath},
    flows::{self, Flows, Sizes},
    link::{self, Link},
    netlink::RtSocket,
    netns::NetNs,
};
use podnet_testnet::Cluster;
use rustix::process::Pid;
use serde::Serialize;

use super::{Follower, stopped::Stopped};
use crate::{
    Result,
    ratios::{Ratios, by_turns},
    services::{self, Figures, Load},
    traffic::{End, SPAN},
};

/// Slices with and without recording, of each load on each way: half a minute to a minute.
const PAIRS: usize = 24;
/// New pods come to the fast path in the agents' rounds.
const SETTLING: Duration = Duration::from_secs(12);
/// For connections that have ended to be told: other nodes are asked about some for seconds.
const TELLING: Duration = Duration::from_secs(8);
/// For agents to see to their programs, and for flows to prove themselves to these.
const PROVING: Duration = Duration::from_millis(300);
/// For agents that were stopped to do whatever else was due meanwhile: that is none of what recording costs established connections.
const CATCHING_UP: Duration = Duration::from_millis(1500);
/// How long programs of the fast path work without anybody who cares for them.
const LIFE: Duration = Duration::from_secs(60);

/// Medians of all slices.
#[derive(Serialize)]
pub(super) struct Compared {
    on: Figures,
    off: Figures,
    /// Of the pairs' own ratios, on by off.
    ratios: Ratios,
}

/// From a client to a pod of its node, and to one of another node.
pub(super) fn measure(podnet: &str, cluster: &Cluster, ends: &[End]) -> Result<[Compared; 2]> {
    let follower = Follower::start(podnet, None)?;
    thread::sleep(SETTLING);
    let nodes = [Node::open(cluster, "node1")?, Node::open(cluster, "node2")?];
    let compared = [pairs(&nodes, &ends[0], &ends[1])?, pairs(&nodes, &ends[0], &ends[2])?];
    follower.end()?;
    Ok(compared)
}

fn pairs(nodes: &[Node], client: &End, server: &End) -> Result<Compared> {
    let established = turns(nodes, Load::Established, client, server)?;
    let connections = turns(nodes, Load::Connections, client, server)?;
    thread::sleep(TELLING);
    let pairs: Vec<_> = established
        .iter()
        .zip(&connections)
        .map(|(one, other)| (one.0.with_connections_of(&other.0), one.1.with_connections_of(&other.1)))
        .collect();
    Ok(compare(&pairs))
}

/// Each time with recording and without it.
fn turns(nodes: &[Node], load: Load, client: &End, server: &End) -> Result<Vec<(Figures, Figures)>> {
    // It warms up.
    services::ask_client(client, server.addr, load, SPAN)?;
    by_turns(PAIRS, || slice(nodes, true, load, client, server), || without(nodes, load, client, server))
}

fn without(nodes: &[Node], load: Load, client: &End, server: &End) -> Result<Figures> {
    let stopped: Vec<Stopped> = nodes.iter().map(|node| Stopped::stop(node.agent)).collect::<Result<_>>()?;
    let figures =
        nodes.iter().try_for_each(|node| node.count(false)).and_then(|()| slice(nodes, false, load, client, server));
    // Before anybody sees that anything was missing, whatever became of it.
    nodes.iter().try_for_each(|node| node.count(true))?;
    drop(stopped);
    figures
}

/// What passes in a slice, in which it is counted or not.
fn slice(nodes: &[Node], counts: bool, load: Load, client: &End, server: &End) -> Result<Figures> {
    // What agents have to do with connections that were counted is to fall into slices, all of it.
    thread::sleep(if load == Load::Established { CATCHING_UP } else { PROVING });
    let figures = services::ask_client(client, server.addr, load, SPAN)?;
    for node in nodes {
        if node.counts()? != counts {
            return Err("somebody else changes what counts at pods' interfaces".into());
        }
    }
    Ok(figures)
}

fn compare(pairs: &[(Figures, Figures)]) -> Compared {
    let (on, off): (Vec<Figures>, Vec<Figures>) = pairs.iter().copied().unzip();
    Compared { on: services::typical(&on), off: services::typical(&off), ratios: Ratios::of(pairs) }
}

/// A node whose agent records, and what counts there, and what leads past the stack with it and without.
struct Node {
    agent: Pid,
    netns: NetNs,
    devices: Vec<(Link, Behind)>,
    flows: Flows,
    counting: FastPath,
    plain: FastPath,
}

impl Node {
    fn open(cluster: &Cluster, name: &str) -> Result<Self> {
        let agent = Pid::from_raw(cluster.pid(&format!("{name}-agent"))).ok_or("an agent has no number")?;
        let netns = NetNs::open(format!("/run/netns/podnet-{name}"))?;
        let mut socket = RtSocket::open_in(&netns)?;
        let mut devices = Vec::new();
        for link in link::list(&mut socket)? {
            if fastpath::is_attached(&mut socket, &link.name)? {
                let behind = if link.kind.as_deref() == Some("veth") { Behind::Pod } else { Behind::Nodes };
                devices.push((link, behind));
            }
        }
        let pods: Vec<_> = Self::pods(&devices).map(|link| link.name.clone()).collect();
        let flows = Flows::open(&mut socket, &pods, None, Sizes::default())?;
        if !flows.goes_on() {
            return Err(format!("nothing is counted on {name}").into());
        }
        let (counting, plain) = (flows.fast_path()?, FastPath::load()?);
        Ok(Self { agent, netns, devices, flows, counting, plain })
    }

    fn pods(devices: &[(Link, Behind)]) -> impl Iterator<Item = &Link> {
        devices.iter().filter(|(_, behind)| *behind == Behind::Pod).map(|(link, _)| link)
    }

    /// Counts from now on, or no more.
    fn count(&self, counts: bool) -> Result<()> {
        let mut socket = RtSocket::open_in(&self.netns)?;
        let programs = if counts { &self.counting } else { &self.plain };
        programs.live_for(LIFE)?;
        for (link, behind) in &self.devices {
            programs.attach(&mut socket, &link.name, *behind)?;
        }
        for link in Self::pods(&self.devices) {
            match counts {
                true => self.flows.attach(&mut socket, &link.name)?,
                false => flows::detach(&mut socket, &link.name)?,
            };
        }
        Ok(())
    }

    /// Whether it counts at any pod's interface.
    fn counts(&self) -> Result<bool> {
        let mut socket = RtSocket::open_in(&self.netns)?;
        for link in Self::pods(&self.devices) {
            if flows::is_at(&mut socket, &link.name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Compared {
    pub(super) fn lines(&self, to: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { on, off, ratios: Ratios { median, low, high } } = self;
        writeln!(f, "recording on, {to:<22}{on}")?;
        writeln!(f, "recording off, {to:<21}{off}")?;
        writeln!(f, "ratio, median of slices, {to:<11}{median}")?;
        let Some((low, high)) = low.as_ref().zip(high.as_ref()) else { return Ok(()) };
        writeln!(f, "  with 95 % certainty at least      {low}")?;
        writeln!(f, "  and at most                       {high}")
    }
}
