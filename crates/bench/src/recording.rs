//! What it costs to record flows, and whether what is recorded is what was sent.
//!
//! Traffic between pods is measured with recording off and on, in turns. The same connections are recorded by podnet, by tcpdump that
//! writes headers to a file, and by conntrack that tells events, which both run beside the pod's own programs, as a capture container
//! does. Then many connections and many datagrams are made whose number is known, and the records of `podnet flows --follow` counted.

mod account;
mod load;
mod peers;

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
    services::{self, Figures},
    traffic::{End, median, pod},
};
use account::Accounts;
use peers::Watched;

/// Times that recording is turned on. What is compared is a few seconds apart.
const TURNS: usize = 7;
/// Rounds of traffic each time.
const ROUNDS: usize = 5;
/// New pods come to the fast path in the agents' rounds, which are 10 s apart; as recording begins and ends other programs take its place,
/// and what was told last is still taken in.
const SETTLING: Duration = Duration::from_secs(12);
/// For recording to begin, and to end after nobody asks any more.
const PATIENCE: Duration = Duration::from_secs(60);
/// The client's node.
const NODE: &str = "node1";
/// A client, a server on its node and one on another; servers serve what [`services::serve`] does.
const PODS: [(&str, &str); 3] = [("rec-client", NODE), ("rec-near", NODE), ("rec-far", "node2")];
/// What the agents log as recording begins and ends.
const ON: &str = "flows are recorded";
const OFF: &str = "flows are recorded no more";
/// What else begins with the words of [`ON`].
const OTHERS: [&str; 2] = [OFF, "flows are recorded before"];

#[derive(Serialize)]
pub(crate) struct Recording {
    same_node: Compared,
    across_nodes: Compared,
    /// What each way to watch costs for the same connections.
    watched: Watched,
    accounts: Accounts,
}

/// Medians of all turns.
#[derive(Serialize)]
struct Compared {
    on: Figures,
    off: Figures,
    /// Medians of the turns' own ratios, on by off.
    ratios: Figures,
}

pub(crate) fn measure(podnet: &str, cluster: &Cluster) -> Result<Recording> {
    let ends: Vec<End> = PODS.iter().map(|(name, node)| pod(cluster, name, node)).collect::<Result<_>>()?;
    ends[1..].iter().try_for_each(services::serve)?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let both = || -> Result<_> {
            thread::sleep(SETTLING);
            Ok([rounds(&ends, 1)?, rounds(&ends, 2)?])
        };
        let before = if turn % 2 == 0 { Some(both()?) } else { None };
        let follower = Follower::start(podnet, None)?;
        let on = both()?;
        follower.end()?;
        // Each is the first one every other time.
        let off = before.map_or_else(both, Ok)?;
        let [on, off] = [on, off].map(|both| both.map(|rounds| services::typical(&rounds)));
        near.push((on[0], off[0]));
        far.push((on[1], off[1]));
    }
    let watched = peers::measure(podnet, cluster, [&ends[0], &ends[1]])?;
    let accounts = account::measure(podnet, cluster, [&ends[0], &ends[2]])?;
    Ok(Recording { same_node: compare(&near), across_nodes: compare(&far), watched, accounts })
}

fn rounds(ends: &[End], to: usize) -> Result<Vec<Figures>> {
    // It warms up.
    services::ask_client(&ends[0], ends[to].addr)?;
    (0..ROUNDS).map(|_| services::ask_client(&ends[0], ends[to].addr)).collect()
}

fn compare(turns: &[(Figures, Figures)]) -> Compared {
    let (on, off): (Vec<Figures>, Vec<Figures>) = turns.iter().copied().unzip();
    let ratios = services::each(|of| median(turns.iter().map(|(on, off)| of(on) / of(off)).collect()));
    Compared { on: services::typical(&on), off: services::typical(&off), ratios }
}

/// Somebody who follows flows, so that they are recorded.
struct Follower {
    child: Child,
    /// How often recording had ended before, on each node.
    ended: [usize; 2],
}

impl Follower {
    /// Returns when both nodes record. What is told is added to the file, where there is one.
    fn start(podnet: &str, file: Option<&str>) -> Result<Self> {
        let [began, ended] = [said(ON), said(OFF)];
        let mut command = Command::new(podnet);
        command.args(["flows", "--follow", "--output", "jsonl"]).stdout(Stdio::null());
        if let Some(file) = file {
            command.args(["--file", file]);
        }
        let follower = Self { child: command.spawn()?, ended };
        // Both nodes' agents say so.
        until("flows are recorded", || are_more(said(ON), began))?;
        Ok(follower)
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns when nothing is recorded any more.
    fn end(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        let ended = self.ended;
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
        for (to, Compared { on, off, ratios }) in [("same node", &self.same_node), ("another node", &self.across_nodes)]
        {
            writeln!(f, "recording on, {to:<22}{on}")?;
            writeln!(f, "recording off, {to:<21}{off}")?;
            writeln!(f, "ratio, median of turns, {to:<12}{ratios}")?;
        }
        write!(f, "{}\n{}", self.watched, self.accounts)
    }
}
