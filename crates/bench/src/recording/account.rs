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

use super::{
    Follower, NODE, PODS, agent, load,
    script::{self, Sent},
};
use crate::{Result, lab::Process, traffic::End};

/// Connections of a second, and for how long.
const RATE: u32 = 20_000;
const SECONDS: u32 = 30;
const CONNECTIONS_PORT: u16 = 9100;
/// The places for flows on nodes that have room for all.
pub(super) const ROOM: &str = "1048576";
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
    /// Within a node, where a packet's way is short enough for as many as are asked for.
    connections: Account,
    /// To another node: as many as the machine sends.
    connections_between: Account,
    datagrams: Account,
    /// The same, where there is room for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    datagrams_with_room: Option<Account>,
}

/// What was sent beside what was recorded.
#[derive(Clone, Default, Serialize)]
struct Account {
    /// Of connections gaps tell how many they are; of datagrams' flows they tell an estimate.
    #[serde(skip)]
    are_connections: bool,
    /// So many flows are to begin in a second; 0: as many as the machine sends.
    #[serde(skip)]
    wanted_rate: u32,
    flows: u64,
    /// That the client sent and got.
    packets: u64,
    /// Of those that the client was to send, what its device had no room for: each may be all that there was of a connection.
    lost: u64,
    seconds: f64,
    /// Flows that began in a second.
    rate: f64,
    /// Of the client's node, packets of both directions.
    recorded_flows: u64,
    recorded_packets: u64,
    /// Flows that the server's node told besides: the same once more.
    told_twice: u64,
    /// What gaps of the client's node tell of the client: other pods there speak as well, and find no room either.
    missing_packets: u64,
    missing_flows: u64,
    /// What is in gaps that name no pod: whose it is is not known.
    nameless_packets: u64,
    nameless_flows: u64,
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

/// From a client to a pod of its node, and to one of another node.
pub(super) fn measure(podnet: &str, cluster: &Cluster, [client, near, far]: [&End; 3]) -> Result<Accounts> {
    let agent = agent(cluster)?;
    Ok(Accounts {
        connections: connections(podnet, agent, [client, near], RATE)?,
        connections_between: connections(podnet, agent, [client, far], 0)?,
        datagrams: datagrams(podnet, agent, [client, far], false)?,
        datagrams_with_room: None,
    })
}

fn connections(podnet: &str, agent: Process, [client, server]: [&End; 2], wanted_rate: u32) -> Result<Account> {
    let ports = CONNECTIONS_PORT..CONNECTIONS_PORT + 1;
    let flows = Account::of(u64::from(RATE) * u64::from(SECONDS));
    let mut connections = Account { are_connections: true, wanted_rate, ..flows };
    connections.run(podnet, agent, &ports, false, || {
        script::connections(client, server, CONNECTIONS_PORT, RATE * SECONDS, f64::from(RATE))
    })?;
    Ok(connections)
}

fn datagrams(podnet: &str, agent: Process, [client, server]: [&End; 2], is_kept: bool) -> Result<Account> {
    let flows = u64::from(FROM) * u64::from(TO.end - TO.start);
    let mut datagrams = Account::of(flows);
    datagrams.run(podnet, agent, &TO, is_kept, || {
        let before = script::lost(&client.netns, "eth0")?;
        let took = load::datagrams(client, server, FROM, TO)?;
        let lost = script::lost(&client.netns, "eth0")? - before;
        // None is answered.
        Ok(Sent { packets: flows - lost, lost, took })
    })?;
    Ok(datagrams)
}

impl Account {
    fn of(flows: u64) -> Self {
        Self { flows, ..Self::default() }
    }

    /// Sends and reads, where agents keep what they tell, or tell it as somebody follows.
    fn run(
        &mut self,
        podnet: &str,
        agent: Process,
        ports: &Range<u16>,
        is_kept: bool,
        send: impl FnOnce() -> Result<Sent>,
    ) -> Result<()> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("flows.jsonl");
        let name = file.to_string_lossy();
        let follower =
            if is_kept { Follower::of_the_past(podnet, &name)? } else { Follower::start(podnet, Some(&name))? };
        let before = (agent.status_mib("VmRSS")?, agent.maps_mib()?);
        let sent = send()?;
        (self.packets, self.lost, self.seconds) = (sent.packets, sent.lost, sent.took.as_secs_f64());
        self.rate = self.flows as f64 / self.seconds;
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
                None => {
                    self.nameless_packets += told.packets;
                    self.nameless_flows += told.flows;
                }
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

impl Accounts {
    /// Sends and reads datagrams once more, where there is room for all of their flows.
    pub(super) fn with_room(&mut self, podnet: &str, cluster: &Cluster, ends: [&End; 2]) -> Result<()> {
        self.datagrams_with_room = Some(datagrams(podnet, agent(cluster)?, ends, true)?);
        Ok(())
    }

    /// By what was sent.
    fn loads(&self) -> impl Iterator<Item = (&'static str, &Account)> {
        let all = [
            ("connections", &self.connections),
            ("connections between nodes", &self.connections_between),
            ("flows of datagrams", &self.datagrams),
        ];
        all.into_iter()
            .chain(self.datagrams_with_room.as_ref().map(|account| ("flows of datagrams with room", account)))
    }

    /// Whether all that was sent is in records or in gaps, and nothing twice.
    ///
    /// # Errors
    /// What is not.
    pub(super) fn check(&self) -> Result<()> {
        let faults: Vec<String> = self.loads().flat_map(|(what, account)| account.faults(what)).collect();
        if faults.is_empty() {
            return Ok(());
        }
        Err(format!("what was recorded is not what was sent: {}", faults.join("; ")).into())
    }
}

impl Account {
    /// What is neither in records nor in gaps, what is there more than once, and that it was sent too slowly to show anything. What gaps of nobody
    /// known tell may be the client's.
    fn faults(&self, what: &str) -> Vec<String> {
        let Self { flows, packets, recorded_flows, told_twice, rate, wanted_rate, .. } = *self;
        let told_flows = recorded_flows + self.missing_flows + self.nameless_flows;
        let unaccounted = self.unaccounted();
        let mut faults = Vec::new();
        if unaccounted > i128::from(self.nameless_packets) {
            faults.push(format!("of {packets} packets of {what} {unaccounted} are in no record and in no gap"));
        }
        if unaccounted < 0 {
            let surplus = -unaccounted;
            faults.push(format!("of {packets} packets of {what} {surplus} more than these are in records and gaps"));
        }
        // What nobody saw is nowhere. An estimate is right within some hundredths.
        let estimated = if self.are_connections { 0 } else { (self.missing_flows + self.nameless_flows) * 3 / 100 };
        if told_flows + self.lost + estimated < flows {
            let missing = flows - told_flows;
            faults.push(format!("of {flows} {what} {missing} are in no record and in no gap"));
        }
        if !self.are_connections && told_flows > flows + estimated {
            faults.push(format!("of {flows} {what} records and gaps tell of {told_flows}"));
        }
        if recorded_flows > flows {
            faults.push(format!("of {flows} {what} there are {recorded_flows} records"));
        }
        if told_twice > 0 {
            faults.push(format!("{told_twice} {what} are told by the other node as well"));
        }
        // The last packets of the last connections are sent behind them.
        if rate < f64::from(wanted_rate) * 0.98 {
            faults.push(format!("{what}: {rate:.0} of a second and not {wanted_rate}"));
        }
        faults
    }
}

impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, account) in self.loads() {
            let Account { flows, packets, lost, seconds, rate, recorded_flows, recorded_packets, .. } = account;
            let Account { told_twice, missing_packets, missing_flows, nameless_packets, .. } = account;
            let Account { agent_mib, maps_mib, .. } = account;
            writeln!(
                f,
                "{flows} {what} in {seconds:.1} s ({rate:.0} of a second): {recorded_flows} recorded, {told_twice} by the other node as well, gaps tell \
                 of {missing_flows}; {lost} packets found no room at the client; of {packets} packets {recorded_packets} are in records, {missing_packets} in gaps, {} in \
                 neither; {nameless_packets} are in gaps of nobody known; agent {agent_mib:+.1} MiB, maps {maps_mib:+.1} MiB",
                account.unaccounted()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
