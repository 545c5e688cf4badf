//! Whether what is recorded is what was sent.

use std::{
    fmt,
    fs::File,
    io::{BufRead, BufReader},
    ops::Range,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use podnet_testnet::Cluster;
use serde::{Deserialize, Serialize};

use super::{Follower, NODE, PODS, load};
use crate::{Result, lab::Process, traffic::End};

/// Connections of a second, and for how long.
const RATE: u32 = 20_000;
const SECONDS: u32 = 30;
const CONNECTIONS_PORT: u16 = 9100;
/// From so many ports to so many others: 1,000,000 flows.
const FROM: u16 = 50_000;
const TO: Range<u16> = 9200..9220;
/// For the last record to be told: a flow of datagrams ends 60 s after the last one.
const PATIENCE: Duration = Duration::from_secs(240);
/// Once all is told, whether anything more is.
const SETTLED: Duration = Duration::from_secs(5);
/// Where nothing more is told for so long it is all.
const QUIET: Duration = Duration::from_secs(75);

#[derive(Serialize)]
pub(crate) struct Accounts {
    connections: Account,
    datagrams: Account,
}

/// What was sent beside what was recorded.
#[derive(Default, Serialize)]
struct Account {
    flows: u64,
    /// That the client sent and got.
    packets: u64,
    seconds: f64,
    /// Of the client's node, packets of both directions.
    recorded_flows: u64,
    recorded_packets: u64,
    /// Flows that the server's node told besides: the same once more.
    told_twice: u64,
    /// What gaps of the client's node tell of the client: other pods there speak as well, and find no room either. Of datagrams that find none it
    /// cannot be told how many flows they are.
    missing_packets: u64,
    missing_flows: u64,
    /// Packets in gaps that name no pod: whose they are is not known.
    nameless_packets: u64,
    /// Of the client's node's agent, as the last one was sent, beside what there was before the first.
    agent_mib: f64,
    maps_mib: f64,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    node: String,
    pod: Option<Pod>,
    destination: Option<Destination>,
    sent: Option<Way>,
    received: Option<Way>,
    #[serde(default)]
    packets: u64,
    #[serde(default)]
    flows: u64,
}

#[derive(Deserialize)]
struct Pod {
    name: String,
}

#[derive(Deserialize)]
struct Destination {
    #[serde(default)]
    port: u16,
}

#[derive(Deserialize)]
struct Way {
    packets: u64,
}

pub(super) fn measure(podnet: &str, cluster: &Cluster, ends: [&End; 2]) -> Result<Accounts> {
    let [client, server] = ends;
    let agent = Process(u32::try_from(cluster.pid(&format!("{NODE}-agent")))?);
    let ports = CONNECTIONS_PORT..CONNECTIONS_PORT + 1;
    let segments = load::segments(client)?;
    let mut connections = Account::of(u64::from(RATE) * u64::from(SECONDS));
    connections.run(podnet, agent, &ports, || {
        load::connections(client, server, CONNECTIONS_PORT, RATE * SECONDS, f64::from(RATE))
    })?;
    connections.packets = load::segments(client)? - segments;
    let flows = u64::from(FROM) * u64::from(TO.end - TO.start);
    // None is answered.
    let mut datagrams = Account { packets: flows, ..Account::of(flows) };
    datagrams.run(podnet, agent, &TO, || load::datagrams(client, server, FROM, TO))?;
    Ok(Accounts { connections, datagrams })
}

impl Account {
    fn of(flows: u64) -> Self {
        Self { flows, ..Self::default() }
    }

    fn run(
        &mut self,
        podnet: &str,
        agent: Process,
        ports: &Range<u16>,
        send: impl FnOnce() -> Result<Duration>,
    ) -> Result<()> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("flows.jsonl");
        let follower = Follower::start(podnet, Some(&file.to_string_lossy()))?;
        let before = (agent.status_mib("VmRSS")?, agent.maps_mib()?);
        self.seconds = send()?.as_secs_f64();
        (self.agent_mib, self.maps_mib) = (agent.status_mib("VmRSS")? - before.0, agent.maps_mib()? - before.1);
        self.read(&file, ports)?;
        follower.end()
    }

    /// Reads what is told until it is all, or nothing more is.
    fn read(&mut self, file: &Path, ports: &Range<u16>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (mut reader, mut line, mut last) = (BufReader::new(File::open(file)?), String::new(), Instant::now());
        loop {
            let quiet = if self.is_whole() { SETTLED } else { QUIET };
            if Instant::now() > deadline || last.elapsed() > quiet {
                return Ok(());
            }
            if reader.read_line(&mut line)? == 0 || !line.ends_with('\n') {
                thread::sleep(Duration::from_millis(50));
                continue;
            }
            last = Instant::now();
            let told: Line = serde_json::from_str(&line)?;
            line.clear();
            self.add(told, ports);
        }
    }

    fn add(&mut self, told: Line, ports: &Range<u16>) {
        // The server's node counts the same packets.
        let is_own = told.node == NODE;
        match (told.kind.as_str(), told.destination, told.sent, told.received) {
            ("gap", ..) if is_own => match told.pod {
                Some(pod) if pod.name == PODS[0].0 => {
                    self.missing_packets += told.packets;
                    self.missing_flows += told.flows;
                }
                Some(_) => {}
                None => self.nameless_packets += told.packets,
            },
            ("flow", Some(to), ..) if !is_own && ports.contains(&to.port) => self.told_twice += 1,
            ("flow", Some(to), Some(sent), Some(received)) if ports.contains(&to.port) => {
                self.recorded_flows += 1;
                self.recorded_packets += sent.packets + received.packets;
            }
            _ => {}
        }
    }

    fn is_whole(&self) -> bool {
        let accounted = self.recorded_packets + self.missing_packets;
        self.recorded_flows >= self.flows || (self.packets > 0 && accounted >= self.packets)
    }

    /// Packets that are neither in records nor in gaps; less than none are there twice.
    fn unaccounted(&self) -> i128 {
        i128::from(self.packets) - i128::from(self.recorded_packets) - i128::from(self.missing_packets)
    }
}

impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, account) in [("connections", &self.connections), ("flows of datagrams", &self.datagrams)] {
            let Account { flows, packets, seconds, recorded_flows, recorded_packets, .. } = account;
            let Account { told_twice, missing_packets, missing_flows, nameless_packets, .. } = account;
            let Account { agent_mib, maps_mib, .. } = account;
            writeln!(
                f,
                "{flows} {what} in {seconds:.1} s: {recorded_flows} recorded, {told_twice} by the other node as well, gaps tell of \
                 {missing_flows}; of {packets} packets {recorded_packets} are in records, {missing_packets} in gaps, {} in \
                 neither; {nameless_packets} are in gaps of nobody known; agent {agent_mib:+.1} MiB, maps {maps_mib:+.1} MiB",
                account.unaccounted()
            )?;
        }
        Ok(())
    }
}
