//! What it costs to watch connections: by podnet, by tcpdump, by conntrack.

use std::{
    collections::BTreeMap,
    fmt,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use podnet_testnet::Cluster;
use serde::Serialize;

use super::{Follower, agent, load};
use crate::{
    Result,
    lab::Process,
    services::{self, Figures, Load},
    traffic::{End, SPAN, median},
};

/// Connections each time, as fast as can be.
const CONNECTIONS: u32 = 20_000;
const TURNS: usize = 3;
const PORT: u16 = 9101;
/// For what was written or told to be taken in.
const TAKING_IN: Duration = Duration::from_secs(4);

/// By who watches, nobody first.
#[derive(Serialize)]
pub(crate) struct Watched(Vec<Watcher>);

#[derive(Serialize)]
struct Watcher {
    name: &'static str,
    /// Of the programs that watch and tell, in seconds for a million connections; what the kernel does in senders' time shows in the ratio.
    cpu_s_per_million: f64,
    /// By those when nobody watches.
    connections_ratio: f64,
    /// The same of what is sent, and of what is asked, on one connection.
    throughput_ratio: f64,
    requests_ratio: f64,
}

/// What was measured once while somebody watched.
struct Turn {
    cpu_s: f64,
    connections_s: f64,
    established: Figures,
}

impl Watcher {
    fn of(name: &'static str, turns: &[Turn], nobody: &[Turn]) -> Self {
        let ratio = |of: fn(&Turn) -> f64| median(turns.iter().zip(nobody).map(|(on, off)| of(on) / of(off)).collect());
        let cpu = turns.iter().map(|turn| turn.cpu_s * 1e6 / f64::from(CONNECTIONS));
        Self {
            name,
            cpu_s_per_million: median(cpu.collect()),
            connections_ratio: ratio(|turn| turn.connections_s),
            throughput_ratio: ratio(|turn| turn.established.gbit_s),
            requests_ratio: ratio(|turn| turn.established.requests_s),
        }
    }
}

/// Who watches in a round; it ends with the value.
enum Watching {
    Nobody,
    Podnet(Follower),
    Peer(Peer),
}

const NAMES: [&str; 4] = ["nobody", "podnet", "tcpdump", "conntrack"];

pub(super) fn measure(podnet: &str, cluster: &Cluster, [client, server]: [&End; 2]) -> Result<Watched> {
    let agent = agent(cluster)?;
    let mut all: BTreeMap<&str, Vec<Turn>> = BTreeMap::new();
    for _ in 0..TURNS {
        let mut idle = 0.0;
        for name in NAMES {
            let watching = match name {
                "podnet" => Watching::Podnet(Follower::start(podnet, None)?),
                "nobody" => Watching::Nobody,
                peer => Watching::Peer(Peer::start(peer, client)?),
            };
            // The agent does other things as well: what it does while nobody watches is taken off.
            let processes = match &watching {
                Watching::Nobody => vec![agent],
                Watching::Podnet(follower) => vec![agent, Process(follower.id())],
                Watching::Peer(peer) => vec![peer.process()],
            };
            let spent = || processes.iter().map(|process| process.processor_s()).sum::<Result<f64>>();
            let before = spent()?;
            let took = load::connections(client, server, PORT, CONNECTIONS, f64::INFINITY)?;
            thread::sleep(TAKING_IN);
            let cpu = spent()? - before;
            let established = services::ask_client(client, server.addr, Load::Established, SPAN)?;
            let cpu_s = match watching {
                Watching::Nobody => {
                    idle = cpu;
                    0.0
                }
                Watching::Podnet(follower) => {
                    follower.end()?;
                    cpu - idle
                }
                Watching::Peer(peer) => {
                    peer.end()?;
                    cpu
                }
            };
            let connections_s = f64::from(CONNECTIONS) / took.as_secs_f64();
            all.entry(name).or_default().push(Turn { cpu_s, connections_s, established });
        }
    }
    Ok(Watched(NAMES.into_iter().map(|name| Watcher::of(name, &all[name], &all[NAMES[0]])).collect()))
}

/// A program that watches in a pod's network namespace.
pub(super) struct Peer {
    child: Child,
    end: u32,
    /// Where connection tracking was turned on for it.
    tracked: bool,
}

const TRACK: &str = "add table inet benchtrack; add chain inet benchtrack tracked { type filter hook input priority 0; }; \
                     add rule inet benchtrack tracked ct state new counter";

impl Peer {
    pub(super) fn start(name: &str, at: &End) -> Result<Self> {
        let pid = at.process.ok_or("the client is no pod")?;
        let tracked = name == "conntrack";
        let words: &[&str] = match name {
            "tcpdump" => &["tcpdump", "-i", "eth0", "-s", "96", "-w", "/dev/null"],
            _ => &["conntrack", "-E", "-b", "16777216"],
        };
        if tracked {
            // Nothing tracks connections in a pod where no rule asks for them.
            inside(pid, &["nft", TRACK])?;
        }
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{pid}/ns/net")).args(words);
        // Replaced by the program itself, so that its process is the one that is measured.
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut peer = Self { child, end: pid, tracked };
        thread::sleep(Duration::from_secs(1));
        match peer.child.try_wait()? {
            None => Ok(peer),
            Some(status) => Err(format!("{name} ended: {status}").into()),
        }
    }

    pub(super) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// It watched until now.
    pub(super) fn end(mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("what watched ended before its time: {status}").into()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.tracked {
            let _ = inside(self.end, &["nft", "delete table inet benchtrack"]);
        }
    }
}

fn inside(pid: u32, words: &[&str]) -> Result<()> {
    let output = Command::new("nsenter").arg(format!("--net=/proc/{pid}/ns/net")).args(words).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |watcher: &Watcher| {
            let Watcher { name, cpu_s_per_million, connections_ratio, throughput_ratio, requests_ratio } = watcher;
            format!(
                "watched by {name:<10} {cpu_s_per_million:8.2} s of a processor for a million connections, {connections_ratio:5.2} of the rate; {throughput_ratio:5.2} of the throughput, {requests_ratio:5.2} of the requests"
            )
        };
        f.write_str(&self.0.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_watches_is_told_beside_nobody_in_the_same_turn() {
        let turn = |cpu_s, rate: f64| Turn { cpu_s, connections_s: rate, established: services::each(|_| rate / 2.0) };
        let nobody = [turn(0.0, 100.0), turn(0.0, 10.0), turn(0.0, 50.0)];
        let podnet = [turn(0.2, 90.0), turn(0.2, 9.0), turn(0.2, 10.0)];
        let watched = Watched(vec![Watcher::of("podnet", &podnet, &nobody)]);
        let Watcher { connections_ratio, throughput_ratio, requests_ratio, cpu_s_per_million, .. } = watched.0[0];
        assert_eq!([connections_ratio, throughput_ratio, requests_ratio, cpu_s_per_million], [0.9, 0.9, 0.9, 10.0]);
        assert!(watched.to_string().ends_with(" 0.90 of the throughput,  0.90 of the requests"), "{watched}");
    }
}
