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
#[derive(Clone, Default, Serialize)]
struct Account {
    /// Of connections gaps tell how many they are.
    #[serde(skip)]
    are_connections: bool,
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

pub(super) fn measure(podnet: &str, cluster: &Cluster, ends: [&End; 2]) -> Result<Accounts> {
    let [client, server] = ends;
    let agent = Process(u32::try_from(cluster.pid(&format!("{NODE}-agent")))?);
    let ports = CONNECTIONS_PORT..CONNECTIONS_PORT + 1;
    let segments = load::segments(client)?;
    let mut connections = Account { are_connections: true, ..Account::of(u64::from(RATE) * u64::from(SECONDS)) };
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
    /// Whether all that was sent is in records or in gaps, and nothing twice.
    ///
    /// # Errors
    /// What is not.
    pub(super) fn check(&self) -> Result<()> {
        let loads = [("connections", &self.connections), ("flows of datagrams", &self.datagrams)];
        let faults: Vec<String> = loads.iter().flat_map(|(what, account)| account.faults(what)).collect();
        if faults.is_empty() {
            return Ok(());
        }
        Err(format!("what was recorded is not what was sent: {}", faults.join("; ")).into())
    }
}

impl Account {
    /// What is neither in records nor in gaps, and what is there more than once. What gaps of nobody known tell may be the client's.
    fn faults(&self, what: &str) -> Vec<String> {
        let Self { flows, packets, recorded_flows, told_twice, .. } = *self;
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
        if self.are_connections && told_flows < flows {
            let missing = flows - told_flows;
            faults.push(format!("of {flows} {what} {missing} are in no record and in no gap"));
        }
        if recorded_flows > flows {
            faults.push(format!("of {flows} {what} there are {recorded_flows} records"));
        }
        if told_twice > 0 {
            faults.push(format!("{told_twice} {what} are told by the other node as well"));
        }
        faults
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PORTS: Range<u16> = 80..81;

    /// What `podnet flows` told of three connections of ten packets each.
    fn account(lines: &[Value]) -> Account {
        let mut account = Account { are_connections: true, packets: 30, ..Account::of(3) };
        for line in lines {
            match serde_json::from_value(line.clone()) {
                Ok(told) => account.add(told, &PORTS),
                Err(error) => panic!("{line}: {error}"),
            }
        }
        account
    }

    fn record(node: &str) -> Value {
        let (sent, received) = (json!({"packets": 6}), json!({"packets": 4}));
        json!({"type": "flow", "node": node, "destination": {"port": 80}, "sent": sent, "received": received})
    }

    fn gap(pod: Option<&str>) -> Value {
        let pod = pod.map(|name| json!({"name": name}));
        json!({"type": "gap", "node": NODE, "pod": pod, "packets": 10, "flows": 1})
    }

    #[test]
    fn a_record_that_is_missing_is_found_unless_a_gap_tells_of_it() {
        let (one, client) = (record(NODE), PODS[0].0);
        let mut other_port = one.clone();
        other_port["destination"]["port"] = json!(81);
        let dropped = json!({"type": "drops", "node": NODE, "pod": {"name": client}, "packets": 3});
        let whole = [one.clone(), one.clone(), one.clone(), other_port, dropped];
        assert!(account(&whole).faults("connections").is_empty());
        assert_eq!(
            account(&whole[1..]).faults("connections"),
            [
                "of 30 packets of connections 10 are in no record and in no gap",
                "of 3 connections 1 are in no record and in no gap"
            ]
        );
        for pod in [Some(client), None] {
            assert!(account(&[one.clone(), one.clone(), gap(pod)]).faults("connections").is_empty(), "{pod:?}");
        }
        assert_eq!(account(&[one.clone(), one.clone(), gap(Some("another"))]).faults("connections").len(), 2);
        // One packet of a connection.
        let mut short = one.clone();
        short["sent"]["packets"] = json!(5);
        assert_eq!(
            account(&[one.clone(), one, short]).faults("connections"),
            ["of 30 packets of connections 1 are in no record and in no gap"]
        );
    }

    #[test]
    fn what_is_there_twice_is_found_as_well_and_ends_the_run() {
        let one = record(NODE);
        let twice = account(&[one.clone(), one.clone(), one.clone(), one.clone()]);
        assert_eq!(
            twice.faults("connections"),
            [
                "of 30 packets of connections 10 more than these are in records and gaps",
                "of 3 connections there are 4 records"
            ]
        );
        let by_both = account(&[one.clone(), one.clone(), one.clone(), record("node2")]);
        assert_eq!(by_both.faults("connections"), ["1 connections are told by the other node as well"]);
        let whole = account(&[one.clone(), one.clone(), one]);
        let check = |connections: &Account| {
            let accounts = Accounts { connections: connections.clone(), datagrams: whole.clone() };
            accounts.check()
        };
        assert!(check(&whole).is_ok());
        let Err(error) = check(&twice) else { panic!("nothing was found") };
        assert!(error.to_string().starts_with("what was recorded is not what was sent: of 30 packets"), "{error}");
    }
}
