//! What traffic through a ClusterIP costs in each mode of Services, beside the same traffic straight to the pod behind it.
//!
//! The client is a process of its own in the client pod's namespaces and control group, as a program of that pod is: modes that decide
//! at the socket know pods by that. The server is a thread in the server pod's namespace. Both ways are measured in turns.

mod client;

use std::{
    fmt,
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use podnet_kernel::sysctl;
use podnet_testnet::Cluster;
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    ratios::{Ratios, by_turns},
    targets::Target,
    traffic::{End, drain, echo, median, pod},
};
pub(crate) use client::{CLIENT, Load, ask_client, client};

/// Many short rounds tell more than few long ones: where the processors have a connection's two ends is drawn anew in each, and moves a figure more than
/// what is compared. Modes of which a part of the direct way is asked have as many as it takes to see some hundredths.
const ROUNDS: usize = 30;
const ROUNDS_ASKED: usize = 120;
/// How long each load of a round lasts.
const SLICE: Duration = Duration::from_millis(80);
const MODES: [&str; 4] = ["nftables", "ebpf", "iptables", "userspace"];
const PATIENCE: Duration = Duration::from_secs(30);
/// New pods come to the fast path in the agents' rounds, which are 10 s apart.
const SETTLING: Duration = Duration::from_secs(12);
const PODS: [(&str, &str); 3] = [("svc-client", "node1"), ("svc-near", "node1"), ("svc-far", "node2")];
/// What the servers' ports do, and the Service's ports.
const STREAM: u16 = 9001;
const ANSWER: u16 = 9002;
const CLOSE: u16 = 9003;
/// The client's own ports for each way. What came through virtual servers is remembered for minutes, and the kernel drops what is told apart
/// from that by nothing once it is translated.
const SERVICE_PORTS: &str = "20000 39999";
const DIRECT_PORTS: &str = "40000 60999";

/// What goes through one way; what was not measured is 0.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) gbit_s: f64,
    /// Requests on one connection.
    pub(crate) requests_s: f64,
    /// The 99th percentile of such a request, in microseconds.
    request_p99_us: f64,
    /// Connections that are opened for one request and closed.
    connections_s: f64,
    /// The 99th percentile of such a connection, in microseconds.
    connection_p99_us: f64,
}

impl Figures {
    /// Of what was measured apart.
    pub(crate) fn with_connections_of(self, other: &Self) -> Self {
        Self { connections_s: other.connections_s, connection_p99_us: other.connection_p99_us, ..self }
    }
}

/// Medians of the Service's way beside the direct one.
#[derive(Serialize, Deserialize)]
struct Compared {
    service: Figures,
    direct: Figures,
    /// Of the rounds' own ratios, Service by direct.
    ratios: Ratios,
}

/// On this machine, beside what is asked.
#[derive(Serialize)]
pub(crate) struct Measured {
    modes: ThroughServices,
    targets: Vec<Target>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ThroughServices(Vec<InMode>);

#[derive(Serialize, Deserialize)]
struct InMode {
    mode: String,
    same_node: Compared,
    across_nodes: Compared,
}

pub(crate) fn measure(cluster: &Cluster) -> Result<Measured> {
    let rounds = |mode: &str| if ASKED.iter().any(|(asked, _)| *asked == mode) { ROUNDS_ASKED } else { ROUNDS };
    let modes = in_modes(cluster, &MODES.map(|mode| (mode, rounds(mode))))?;
    let targets = targets(&modes.0);
    Ok(Measured { modes, targets })
}

/// Of which modes it is asked which part of the direct way: of its throughput, of its requests, and of its connections that are opened for one
/// request.
const ASKED: [(&str, [f64; 3]); 2] = [("ebpf", [0.98, 0.98, 0.98]), ("nftables", [0.98, 0.98, 0.85])];

/// One of the figures.
type Of = fn(&Figures) -> f64;

fn targets(modes: &[InMode]) -> Vec<Target> {
    let figures: [(&str, Of); 3] = [
        ("throughput", |figures| figures.gbit_s),
        ("requests", |figures| figures.requests_s),
        ("connections", |figures| figures.connections_s),
    ];
    let mut targets = Vec::new();
    for (mode, asked) in ASKED {
        for InMode { same_node, across_nodes, .. } in modes.iter().filter(|one| one.mode == mode) {
            for ((figure, of), asked) in figures.into_iter().zip(asked) {
                for (place, Compared { ratios, .. }) in [("on one node", same_node), ("between nodes", across_nodes)] {
                    let what = format!("{figure} in mode {mode} {place} beside direct, at least");
                    let target = Target::at_least(what, asked, of(&ratios.median));
                    targets.push(match ratios.low.zip(ratios.high) {
                        Some((low, high)) => target.between(of(&low), of(&high)),
                        None => target,
                    });
                }
            }
        }
    }
    targets
}

/// One after the other, each with so many rounds.
pub(crate) fn in_modes(cluster: &Cluster, modes: &[(&str, usize)]) -> Result<ThroughServices> {
    let pods: Vec<End> = PODS.iter().map(|(name, node)| pod(cluster, name, node)).collect::<Result<_>>()?;
    let services = [service(cluster, PODS[1].0)?, service(cluster, PODS[2].0)?];
    pods[1..].iter().try_for_each(serve)?;
    thread::sleep(SETTLING);
    let in_mode = |&(mode, rounds): &(&str, usize)| -> Result<InMode> {
        // It is the client's node that counts.
        cluster.take_proxy_mode(mode, &["node1"], PATIENCE);
        let same_node = compare(&pods[0], pods[1].addr, services[0], rounds)?;
        let across_nodes = compare(&pods[0], pods[2].addr, services[1], rounds)?;
        Ok(InMode { mode: mode.to_owned(), same_node, across_nodes })
    };
    modes.iter().map(in_mode).collect::<Result<_>>().map(ThroughServices)
}

/// A Service with one pod behind it; answers with its ClusterIP.
fn service(cluster: &Cluster, name: &str) -> Result<IpAddr> {
    let ports = [STREAM, ANSWER, CLOSE].map(|port| format!(r#"{{"name":"p{port}","port":{port}}}"#)).join(",");
    cluster.apply(&format!(
        r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}"}},"spec":{{"selector":{{"bench":"{name}"}},"ports":[{ports}]}}}}"#
    ));
    Ok(cluster.json(&["service", name])["spec"]["clusterIP"].as_str().unwrap_or_default().parse()?)
}

type Serve = fn(TcpStream) -> std::io::Result<()>;

/// Serves until the program ends.
pub(crate) fn serve(end: &End) -> Result<()> {
    let ports: [(u16, Serve); 3] = [(STREAM, drain), (ANSWER, echo), (CLOSE, answer_once)];
    for (port, with) in ports {
        let addr = end.addr;
        let listener = end.netns.run(move || TcpListener::bind((addr, port)))??;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // One client asks at a time, but a former one may still end.
                if port == CLOSE { drop(with(stream)) } else { drop(thread::spawn(move || with(stream))) }
            }
        });
    }
    Ok(())
}

fn answer_once(mut stream: TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)?;
    // Until the client has closed: the side that closes first has to remember the connection.
    stream.read(&mut byte).map(drop)
}

fn ask_by(ports: &str, client: &End, server: IpAddr) -> Result<Figures> {
    sysctl::set(&client.netns, "net.ipv4.ip_local_port_range", ports)?;
    ask_client(client, server, Load::All, SLICE)
}

fn compare(client: &End, direct: IpAddr, service: IpAddr, rounds: usize) -> Result<Compared> {
    let through = || ask_by(SERVICE_PORTS, client, service);
    let beside = || ask_by(DIRECT_PORTS, client, direct);
    let mut pairs = by_turns(rounds + 1, through, beside)?;
    // The first round warms both up.
    pairs.remove(0);
    let (through, beside): (Vec<Figures>, Vec<Figures>) = pairs.iter().copied().unzip();
    Ok(Compared { ratios: Ratios::of(&pairs), service: typical(&through), direct: typical(&beside) })
}

/// Medians of rounds.
pub(crate) fn typical(rounds: &[Figures]) -> Figures {
    each(|of| median(rounds.iter().map(of).collect()))
}

pub(crate) fn each(value: impl Fn(fn(&Figures) -> f64) -> f64) -> Figures {
    Figures {
        gbit_s: value(|figures| figures.gbit_s),
        requests_s: value(|figures| figures.requests_s),
        request_p99_us: value(|figures| figures.request_p99_us),
        connections_s: value(|figures| figures.connections_s),
        connection_p99_us: value(|figures| figures.connection_p99_us),
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.modes)?;
        self.targets.iter().try_for_each(|target| write!(f, "{target}"))
    }
}

impl fmt::Display for ThroughServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, InMode { mode, same_node, across_nodes }) in self.0.iter().enumerate() {
            let before = if at > 0 { "\n" } else { "" };
            writeln!(f, "{before}mode {mode}")?;
            writeln!(f, "  through a ClusterIP, same node      {}", same_node.service)?;
            writeln!(f, "  directly                            {}", same_node.direct)?;
            writeln!(f, "  ratio, median of rounds             {}", same_node.ratios.median)?;
            writeln!(f, "  through a ClusterIP, another node   {}", across_nodes.service)?;
            writeln!(f, "  directly                            {}", across_nodes.direct)?;
            write!(f, "  ratio, median of rounds             {}", across_nodes.ratios.median)?;
        }
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gbit_s, requests_s, request_p99_us, connections_s, connection_p99_us } = self;
        write!(
            f,
            "{gbit_s:9.2} Gbit/s {requests_s:9.2} requests/s, p99 {request_p99_us:8.2} µs {connections_s:9.2} connections/s, p99 {connection_p99_us:8.2} µs"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(ratio: f64) -> Figures {
        each(|_| ratio)
    }

    fn compared(median: f64, connections_s: f64) -> Compared {
        let around = |by: f64| Figures { connections_s: connections_s + by, ..figures(median + by) };
        let ratios = Ratios { median: around(0.0), low: Some(around(-0.02)), high: Some(around(0.02)) };
        Compared { service: figures(1.0), direct: figures(1.0), ratios }
    }

    #[test]
    fn each_mode_has_targets_of_its_own_in_both_places() {
        let in_mode = |mode: &str, same_node, across_nodes| InMode { mode: mode.to_owned(), same_node, across_nodes };
        let modes = [
            in_mode("nftables", compared(0.99, 0.86), compared(0.99, 0.84)),
            in_mode("ebpf", compared(1.0, 0.97), compared(0.9, 0.99)),
            in_mode("iptables", compared(0.1, 0.1), compared(0.1, 0.1)),
        ];
        let told: Vec<String> = targets(&modes).iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 12, "{told:?}");
        for (what, verdict) in [
            ("throughput in mode ebpf on one node", "1.000 (0.980 to 1.020), held"),
            ("connections in mode ebpf on one node", "0.970 (0.950 to 0.990), MISSED, which may be chance"),
            ("requests in mode ebpf between nodes", "0.900 (0.880 to 0.920), MISSED, and not by chance"),
            ("connections in mode ebpf between nodes", "0.990 (0.970 to 1.010), held"),
            ("requests in mode nftables on one node", "0.990 (0.970 to 1.010), held"),
            ("connections in mode nftables on one node", "0.860 (0.840 to 0.880), held"),
            ("connections in mode nftables between nodes", "0.840 (0.820 to 0.860), MISSED, which may be chance"),
        ] {
            assert!(told.iter().any(|told| told.contains(what) && told.contains(verdict)), "{what}: {told:?}");
        }
    }
}
