//! What it costs to record flows, and whether what is recorded is what was sent.
//!
//! Traffic between pods is measured with recording on and off, in slices one after the other. The same connections are recorded by podnet, by tcpdump that
//! writes headers to a file, and by conntrack that tells events, which both run beside the pod's own programs, as a capture container
//! does; and so is the memory that live flows take. Then many connections and many datagrams are made whose number is known, and the records of
//! `podnet flows --follow` counted: more than find room, and on a cluster that has room for them.

mod account;
mod live;
mod load;
mod peers;
mod script;
mod slices;
mod stopped;

use std::{
    fmt, fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use podnet_testnet::Cluster;
use serde::Serialize;

use crate::{
    Result,
    lab::Process,
    services,
    traffic::{End, pod},
};
use account::Accounts;
use live::Live;
use peers::Watched;
use slices::Compared;

/// For recording to begin, and to end after nobody asks any more.
const PATIENCE: Duration = Duration::from_secs(60);
/// The client's node.
const NODE: &str = "node1";
/// A client, a server on its node and one on another; servers serve what [`services::serve`] does.
const PODS: [(&str, &str); 3] = [("rec-client", NODE), ("rec-near", NODE), ("rec-far", "node2")];
/// What the agents log as recording begins and ends.
const ON: &str = "flows are recorded";
const OFF: &str = "flows are recorded no more";
/// What agents keep in bytes, for a reader that is slower than 1,000,000 flows end: the records of all their ends.
const KEPT: &str = "1073741824";
/// For agents that record anyway to count at pods that have just come: their rounds.
const SETTLING: Duration = Duration::from_secs(12);
/// What else begins with the words of [`ON`].
const OTHERS: [&str; 2] = [OFF, "flows are recorded before"];

#[derive(Serialize)]
pub(crate) struct Recording {
    same_node: Compared,
    across_nodes: Compared,
    /// What each way to watch costs for the same connections.
    watched: Watched,
    live: Live,
    accounts: Accounts,
}

pub(crate) fn measure(podnet: &str, cluster: &Cluster) -> Result<Recording> {
    let ends: Vec<End> = PODS.iter().map(|(name, node)| pod(cluster, name, node)).collect::<Result<_>>()?;
    ends[1..].iter().try_for_each(services::serve)?;
    let [same_node, across_nodes] = slices::measure(podnet, cluster, &ends)?;
    let watched = peers::measure(podnet, cluster, [&ends[0], &ends[1]])?;
    let live = live::measure(podnet, cluster, [&ends[0], &ends[2]])?;
    let accounts = account::measure(podnet, cluster, [&ends[0], &ends[1], &ends[2]])?;
    Ok(Recording { same_node, across_nodes, watched, live, accounts })
}

/// The agent of the client's node.
fn agent(cluster: &Cluster) -> Result<Process> {
    Ok(Process(u32::try_from(cluster.pid(&format!("{NODE}-agent")))?))
}

/// Somebody who follows flows, so that they are recorded.
struct Follower {
    child: Child,
    /// How often recording had ended before, on each node; none where it does not end.
    ended: Option<[usize; 2]>,
}

impl Follower {
    /// Returns when both nodes record. What is told is added to the file, where there is one.
    fn start(podnet: &str, file: Option<&str>) -> Result<Self> {
        let [began, ended] = [said(ON), said(OFF)];
        let follower = Self { child: Self::command(podnet, file).spawn()?, ended: Some(ended) };
        // Both nodes' agents say so.
        until("flows are recorded", || are_more(said(ON), began))?;
        Ok(follower)
    }

    /// On nodes that record and keep the past anyway: all of it is added to the file, whenever it is read.
    fn of_the_past(podnet: &str, file: &str) -> Result<Self> {
        let child = Self::command(podnet, Some(file)).args(["--since", "1h"]).spawn()?;
        Ok(Self { child, ended: None })
    }

    fn command(podnet: &str, file: Option<&str>) -> Command {
        let mut command = Command::new(podnet);
        command.args(["flows", "--follow", "--output", "jsonl"]).stdout(Stdio::null());
        if let Some(file) = file {
            command.args(["--file", file]);
        }
        command
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns when nothing is recorded any more, where it ends.
    fn end(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        let Some(ended) = self.ended else { return Ok(()) };
        until("flows are recorded no more", || are_more(said(OFF), ended))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Of one that has ended nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn are_more(now: [usize; 2], before: [usize; 2]) -> bool {
    now.iter().zip(before).all(|(now, before)| *now > before)
}

/// How often each of the two nodes' agents said so.
fn said(words: &str) -> [usize; 2] {
    ["node1", "node2"].map(|node| {
        let log = fs::read_to_string(format!("/run/podnet/log/{node}-agent.log")).unwrap_or_default();
        let says =
            |line: &&str| line.contains(words) && (words == OFF || !OTHERS.iter().any(|other| line.contains(other)));
        log.lines().filter(says).count()
    })
}

fn until(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(format!("{what}: not within {PATIENCE:?}").into());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

impl Recording {
    /// Records as many datagrams' flows once more, on a cluster of its own whose nodes have room for all of them, and keep them for a slow reader.
    pub(crate) fn with_room(&mut self, podnet: &str) -> Result<()> {
        let arguments = ["--flow-entries", account::ROOM, "--flows", "--flow-retention-bytes", KEPT];
        let cluster = Cluster::up(podnet, &arguments);
        let [client, server] = [pod(&cluster, PODS[0].0, PODS[0].1)?, pod(&cluster, PODS[2].0, PODS[2].1)?];
        thread::sleep(SETTLING);
        self.accounts.with_room(podnet, &cluster, [&client, &server])
    }

    /// Whether what was recorded is what was sent.
    ///
    /// # Errors
    /// Where it is not: by how much.
    pub(crate) fn check(&self) -> Result<()> {
        self.accounts.check()
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.same_node.lines("same node", f)?;
        self.across_nodes.lines("another node", f)?;
        write!(f, "{}\n{}\n{}", self.watched, self.live, self.accounts)
    }
}
