//! What traffic between pods costs, beside the same traffic over hand-made namespaces.
//!
//! The sender and the receiver are threads of this program, inside the namespaces that are compared, so that both sides run the same
//! code. Same node: two pods of one node beside two bare namespaces on a veth pair. Across nodes: two pods of two nodes beside two
//! namespaces behind a VXLAN that is made by hand, on an underlay of the same form (a bridge in a namespace of its own).

use std::{fmt, fs, process::Command, thread, time::Duration};

use podnet_kernel::netns::NetNs;
use podnet_testnet::Cluster;
use serde::Serialize;

use crate::{
    Result,
    traffic::{End, SPAN, ask, between, drain, echo, median, pod, send},
};

// Many short rounds, in turns: what else the machine does then meets both sides alike.
const ROUNDS: usize = 31;
/// New pods come to the fast path in the agents' rounds, which are 10 s apart.
const SETTLING: Duration = Duration::from_secs(12);
const PODS: [(&str, &str); 3] = [("wire-a", "node1"), ("wire-b", "node1"), ("wire-c", "node2")];

/// One pair of ends: what goes through, and how fast an answer comes.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    gbit_s: f64,
    requests_s: f64,
    latency_us: f64,
}

/// Medians of one way beside its peer.
#[derive(Serialize)]
struct Compared {
    podnet: Figures,
    peer: Figures,
    /// Medians of the rounds' own ratios; more is better.
    throughput_ratio: f64,
    request_ratio: f64,
}

#[derive(Serialize)]
pub(crate) struct Wire {
    same_node: Compared,
    across_nodes: Compared,
}

pub(crate) fn measure(cluster: &Cluster) -> Result<Wire> {
    let pods: Vec<End> = PODS.iter().map(|(name, node)| pod(cluster, name, node)).collect::<Result<_>>()?;
    let bench = HandMade::make()?;
    thread::sleep(SETTLING);
    let same_node = compare((&pods[0], &pods[1]), (&bench.bare[0], &bench.bare[1]))?;
    let across_nodes = compare((&pods[0], &pods[2]), (&bench.behind[0], &bench.behind[1]))?;
    Ok(Wire { same_node, across_nodes })
}

fn compare(ours: (&End, &End), peer: (&End, &End)) -> Result<Compared> {
    let (mut our, mut their) = (Vec::new(), Vec::new());
    // The first round warms both up.
    for round in 0..=ROUNDS {
        let pair = (figures(ours.0, ours.1)?, figures(peer.0, peer.1)?);
        if round > 0 {
            our.push(pair.0);
            their.push(pair.1);
        }
    }
    let ratio = |of: fn(&Figures) -> f64| median(our.iter().zip(&their).map(|(a, b)| of(a) / of(b)).collect());
    Ok(Compared {
        throughput_ratio: ratio(|figures| figures.gbit_s),
        request_ratio: ratio(|figures| figures.requests_s),
        podnet: typical(&our),
        peer: typical(&their),
    })
}

fn typical(rounds: &[Figures]) -> Figures {
    let of = |part: fn(&Figures) -> f64| median(rounds.iter().map(part).collect());
    Figures {
        gbit_s: of(|figures| figures.gbit_s),
        requests_s: of(|figures| figures.requests_s),
        latency_us: of(|figures| figures.latency_us),
    }
}

fn figures(client: &End, server: &End) -> Result<Figures> {
    let gbit_s = between(client, server, drain, |stream| send(stream, SPAN))?;
    let mut waits = between(client, server, echo, |stream| ask(stream, SPAN))?;
    waits.sort_unstable();
    let latency_us = waits.get(waits.len() / 2).map_or(0.0, |wait| wait.as_secs_f64() * 1e6);
    Ok(Figures { gbit_s, requests_s: waits.len() as f64 / SPAN.as_secs_f64(), latency_us })
}

/// The peers: two bare namespaces on a veth pair, and two behind a VXLAN. They go with this value.
struct HandMade {
    bare: [End; 2],
    behind: [End; 2],
}

const NAMESPACES: [&str; 7] = ["bare0", "bare1", "fabric", "node0", "node1", "pod0", "pod1"];
const SCRIPT: &str = "
-n bench-bare0 link add eth0 type veth peer name eth0 netns bench-bare1
-n bench-bare0 addr add 10.99.0.1/24 dev eth0
-n bench-bare1 addr add 10.99.0.2/24 dev eth0
-n bench-bare0 link set eth0 up
-n bench-bare1 link set eth0 up
-n bench-fabric link add pn0 type bridge
-n bench-fabric link set pn0 up
";

impl HandMade {
    fn make() -> Result<Self> {
        let made = Self::make_parts();
        if made.is_err() {
            remove_namespaces();
        }
        made
    }

    fn make_parts() -> Result<Self> {
        for name in NAMESPACES {
            // Who was killed left it.
            NetNs::remove(path(name))?;
            NetNs::create(path(name))?;
        }
        SCRIPT.lines().filter(|line| !line.is_empty()).try_for_each(ip)?;
        for (this, other) in [(0, 1), (1, 0)] {
            for line in node_script(this, other) {
                ip(&line)?;
            }
            fs_in(&format!("node{this}"), "/proc/sys/net/ipv4/ip_forward")?;
        }
        let end = |name: &str, addr: &str| -> Result<End> {
            Ok(End { netns: NetNs::open(path(name))?, addr: addr.parse()?, process: None })
        };
        Ok(Self {
            bare: [end("bare0", "10.99.0.1")?, end("bare1", "10.99.0.2")?],
            behind: [end("pod0", "10.99.10.2")?, end("pod1", "10.99.11.2")?],
        })
    }
}

impl Drop for HandMade {
    fn drop(&mut self) {
        remove_namespaces();
    }
}

fn remove_namespaces() {
    for name in NAMESPACES {
        if let Err(error) = NetNs::remove(path(name)) {
            eprintln!("bench: {error}");
        }
    }
}

/// A node with one pod behind it: routed, with a VXLAN without learning to the other node.
fn node_script(this: u8, other: u8) -> Vec<String> {
    let node = format!("-n bench-node{this}");
    vec![
        format!("{node} link add eth0 type veth peer name port{this} netns bench-fabric"),
        format!("-n bench-fabric link set port{this} master pn0 up"),
        format!("{node} addr add 10.99.1.{}/24 dev eth0", this + 1),
        format!("{node} link set eth0 up"),
        format!(
            "{node} link add vx0 address 0e:00:00:00:00:0{this} mtu 1450 type vxlan id 4096 dstport 4789 local 10.99.1.{} nolearning",
            this + 1
        ),
        format!("{node} link set vx0 up"),
        format!("{node} link add p0 mtu 1450 type veth peer name eth0 mtu 1450 netns bench-pod{this}"),
        format!("{node} addr add 10.99.1{this}.1/24 dev p0"),
        format!("{node} link set p0 up"),
        format!("-n bench-pod{this} addr add 10.99.1{this}.2/24 dev eth0"),
        format!("-n bench-pod{this} link set eth0 up"),
        format!("-n bench-pod{this} route add default via 10.99.1{this}.1"),
        format!("{node} route add 10.99.1{other}.0/24 via 10.99.1.{} dev vx0 onlink", other + 1),
        format!("{node} neigh add 10.99.1.{} lladdr 0e:00:00:00:00:0{other} dev vx0", other + 1),
        format!("-n bench-node{this} link set lo up"),
    ]
    .into_iter()
    .chain([format!("fdb 0e:00:00:00:00:0{other} bench-node{this} 10.99.1.{}", other + 1)])
    .collect()
}

/// Runs `ip`, or `bridge` for what `ip` cannot do.
fn ip(line: &str) -> Result<()> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let output = match words.as_slice() {
        ["fdb", mac, namespace, dst] => {
            Command::new("bridge").args(["-n", namespace, "fdb", "append", mac, "dev", "vx0", "dst", dst]).output()?
        }
        _ => Command::new("ip").args(&words).output()?,
    };
    if !output.status.success() {
        return Err(format!("ip {line}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(())
}

fn fs_in(namespace: &str, file: &'static str) -> Result<()> {
    NetNs::open(path(namespace))?.run(move || fs::write(file, "1"))??;
    Ok(())
}

fn path(name: &str) -> String {
    format!("/run/netns/bench-{name}")
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pods of one node                        {}", self.same_node.podnet)?;
        writeln!(f, "two namespaces on a veth pair           {}", self.same_node.peer)?;
        writeln!(f, "pods of two nodes (VXLAN)               {}", self.across_nodes.podnet)?;
        writeln!(f, "hand-made VXLAN                         {}", self.across_nodes.peer)?;
        write!(
            f,
            "ratio, median of rounds   same node: throughput {:.2}, requests {:.2}   across: throughput {:.2}, requests {:.2}",
            self.same_node.throughput_ratio,
            self.same_node.request_ratio,
            self.across_nodes.throughput_ratio,
            self.across_nodes.request_ratio
        )
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.2} Gbit/s  {:8.0} requests/s  {:6.1} µs", self.gbit_s, self.requests_s, self.latency_us)
    }
}
