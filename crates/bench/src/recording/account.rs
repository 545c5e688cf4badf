//! Whether what is recorded is what was sent.

use std::{
    fmt,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use podnet_testnet::Cluster;
use serde::{Deserialize, Serialize};

use super::{Follower, load};
use crate::{Result, lab::Process, traffic::End};

/// Connections of a second, and for how long.
const RATE: u32 = 20_000;
const SECONDS: u32 = 30;
const CONNECTIONS_PORT: u16 = 9100;
/// From so many ports to so many others: 1,000,000 flows.
const FROM: u16 = 50_000;
const TO: std::ops::Range<u16> = 9200..9220;
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
#[derive(Serialize)]
struct Account {
    flows: u64,
    /// That the client sent, where it is known how many.
    packets: Option<u64>,
    seconds: f64,
    recorded_flows: u64,
    recorded_packets: u64,
    /// Packets of both directions that gaps tell of, and their flows.
    missing_packets: u64,
    missing_flows: u64,
    /// Of the client's node, as the last one was sent, beside what there was before the first.
    agent_mib: f64,
    maps_mib: f64,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    destination: Option<Destination>,
    sent: Option<Way>,
    #[serde(default)]
    packets: u64,
    #[serde(default)]
    flows: u64,
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

pub(super) fn measure(podnet: &str, cluster: &Cluster, [client, server]: [&End; 2]) -> Result<Accounts> {
    let agent = Process(u32::try_from(cluster.pid("node1-agent"))?);
    let before = (agent.status_mib("VmRSS")?, agent.maps_mib()?);
    let run = |ports: std::ops::Range<u16>, flows: u64, send: &dyn Fn() -> Result<Duration>| -> Result<Account> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("flows.jsonl");
        let follower = Follower::start(podnet, Some(&file.to_string_lossy()))?;
        let seconds = send()?.as_secs_f64();
        let (agent_mib, maps_mib) = (agent.status_mib("VmRSS")? - before.0, agent.maps_mib()? - before.1);
        let mut account = Account {
            flows,
            packets: None,
            seconds,
            agent_mib,
            maps_mib,
            recorded_flows: 0,
            recorded_packets: 0,
            missing_packets: 0,
            missing_flows: 0,
        };
        account.read(&file, &ports)?;
        follower.end()?;
        Ok(account)
    };
    let connections = u64::from(RATE) * u64::from(SECONDS);
    let connections = run(CONNECTIONS_PORT..CONNECTIONS_PORT + 1, connections, &|| {
        load::connections(client, server, CONNECTIONS_PORT, RATE * SECONDS, f64::from(RATE))
    })?;
    let flows = u64::from(FROM) * u64::from(TO.end - TO.start);
    let mut datagrams = run(TO, flows, &|| load::datagrams(client, server, FROM, TO))?;
    datagrams.packets = Some(flows);
    Ok(Accounts { connections, datagrams })
}

impl Account {
    /// Reads what is told until it is all, or nothing more is.
    fn read(&mut self, file: &Path, ports: &std::ops::Range<u16>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (mut reader, mut line, mut last) = (BufReader::new(File::open(file)?), String::new(), Instant::now());
        loop {
            let quiet = if self.recorded_flows < self.flows { QUIET } else { SETTLED };
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
            match (told.kind.as_str(), told.destination, told.sent) {
                ("gap", ..) => {
                    self.missing_packets += told.packets;
                    self.missing_flows += told.flows;
                }
                ("flow", Some(to), Some(sent)) if ports.contains(&to.port) => {
                    self.recorded_flows += 1;
                    self.recorded_packets += sent.packets;
                }
                _ => {}
            }
        }
    }
}

impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, account) in [("connections", &self.connections), ("flows of datagrams", &self.datagrams)] {
            let Account { flows, seconds, recorded_flows, recorded_packets, missing_packets, missing_flows, .. } =
                account;
            writeln!(
                f,
                "{flows} {what} in {seconds:.1} s: {recorded_flows} recorded with {recorded_packets} packets from the client; gaps tell of \
                 {missing_flows} flows and {missing_packets} packets; agent {:+.1} MiB, maps {:+.1} MiB",
                account.agent_mib, account.maps_mib
            )?;
        }
        Ok(())
    }
}
