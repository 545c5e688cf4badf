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
    Follower, NODE, PODS, load,
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
    connections: Account,
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

pub(super) fn measure(podnet: &str, cluster: &Cluster, ends: [&End; 2]) -> Result<Accounts> {
    let [client, server] = ends;
    let agent = Process(u32::try_from(cluster.pid(&format!("{NODE}-agent")))?);
    let ports = CONNECTIONS_PORT..CONNECTIONS_PORT + 1;
    let mut connections = Account { are_connections: true, ..Account::of(u64::from(RATE) * u64::from(SECONDS)) };
    connections.run(podnet, agent, &ports, false, || {
        script::connections(client, server, CONNECTIONS_PORT, RATE * SECONDS, f64::from(RATE))
    })?;
    Ok(Accounts { connections, datagrams: datagrams(podnet, agent, ends, false)?, datagrams_with_room: None })
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
        let agent = Process(u32::try_from(cluster.pid(&format!("{NODE}-agent")))?);
        self.datagrams_with_room = Some(datagrams(podnet, agent, ends, true)?);
        Ok(())
    }

    /// By what was sent.
    fn loads(&self) -> impl Iterator<Item = (&'static str, &Account)> {
        let both = [("connections", &self.connections), ("flows of datagrams", &self.datagrams)];
        both.into_iter()
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
        // What never was on its way is missing nowhere.
        let lost = Account { packets: 20, lost: 10, ..account(&[one.clone(), one.clone()]) };
        assert!(lost.faults("connections").is_empty());
        // One packet of a connection.
        let mut short = one.clone();
        short["sent"]["packets"] = json!(5);
        assert_eq!(
            account(&[one.clone(), one, short]).faults("connections"),
            ["of 30 packets of connections 1 are in no record and in no gap"]
        );
    }

    #[test]
    fn gaps_may_tell_of_somewhat_more_or_fewer_flows_of_datagrams_than_there_were() {
        let faults = |missing_flows| {
            let sent = Account { packets: 1000, recorded_packets: 100, recorded_flows: 100, ..Account::of(1000) };
            Account { missing_packets: 900, missing_flows, ..sent }.faults("flows")
        };
        for near in [880, 900, 920] {
            assert!(faults(near).is_empty(), "{near}");
        }
        assert_eq!(faults(800), ["of 1000 flows 100 are in no record and in no gap"]);
        assert_eq!(faults(1000), ["of 1000 flows records and gaps tell of 1100"]);
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
            let (connections, datagrams) = (connections.clone(), whole.clone());
            Accounts { connections, datagrams, datagrams_with_room: None }.check()
        };
        assert!(check(&whole).is_ok());
        let Err(error) = check(&twice) else { panic!("nothing was found") };
        assert!(error.to_string().starts_with("what was recorded is not what was sent: of 30 packets"), "{error}");
    }
}
