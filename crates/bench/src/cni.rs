//! CNI ADD and DEL as a runtime does them, by executing plugins: podnet-cni beside Debian's containernetworking-plugins.
//!
//! Both make and remove an interface with an address in a fresh namespace, in turn, in the same run. Debian's chain is bridge with
//! host-local, then portmap, then bandwidth. Each is given the result of the one before on ADD and the whole ADD's result on DEL, as
//! `libcni` does it.

use std::{
    fmt,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use podnet_kernel::{
    link::{self, Veth, VethPeer},
    netlink::RtSocket,
    netns::NetNs,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Result, figures::Times, traffic::median};

const ROUNDS: usize = 60;
/// Sandboxes that are added, then removed, at the same time, and how often.
const BURST: usize = 50;
const BURSTS: usize = 4;
const DEBIAN: &str = "/usr/lib/cni";
/// The namespace that stands for the node of Debian's chain; podnet's is a node of the cluster.
const DEBIAN_NODE: &str = "/run/netns/podnet-bench-node";

#[derive(Serialize)]
pub(crate) struct Cni {
    /// One after the other.
    single: Side,
    /// [`BURST`] at once.
    burst: Side,
    /// What making and removing the same veth pair costs the kernel: one request on an open socket, no process, no address, no route.
    kernel_add: Times,
    kernel_del: Times,
    /// Median of the rounds' own ratios of podnet-cni to that.
    kernel_add_ratio: f64,
    /// podnet-cni VERSION: what starting the process costs.
    podnet_start: Times,
}

/// podnet beside Debian's chain.
#[derive(Serialize)]
struct Side {
    podnet_add: Times,
    podnet_del: Times,
    debian_add: Times,
    debian_del: Times,
    /// Median of the rounds' own ratios.
    add_ratio: f64,
    del_ratio: f64,
}

pub(crate) fn measure(podnet: &Path) -> Result<Cni> {
    let plugin = podnet.with_file_name("podnet-cni").display().to_string();
    let conflist: Value = serde_json::from_slice(&std::fs::read("/run/podnet/nodes/node1/net.d/10-podnet.conflist")?)?;
    let ours = Chain {
        name: "podnet",
        node: NetNs::open("/run/netns/podnet-node1")?,
        plugins: vec![(plugin.clone(), conflist["plugins"][0].clone())],
    };
    let peer = debian_chain(NetNs::create(DEBIAN_NODE)?);
    let result = compare(&ours, &peer, &plugin);
    drop(peer);
    NetNs::remove(DEBIAN_NODE)?;
    let _ = std::fs::remove_dir_all("/tmp/podnet-bench-ipam");
    result
}

fn compare(ours: &Chain, peer: &Chain, plugin: &str) -> Result<Cni> {
    let mut single = Sides::default();
    let (mut starts, mut kernel) = (Vec::new(), Pairs::default());
    for round in 0..=ROUNDS {
        let (our, their) = (ours.rounds(round, 1)?, peer.rounds(round, 1)?);
        let bare = bare_pair(&ours.node, round)?;
        let started = Instant::now();
        ours.execute(plugin, "VERSION", "", "", &json!({"cniVersion": "1.0.0"}))?;
        // The first round warms both up: the bridge is made, a block is claimed.
        if round > 0 {
            starts.push(started.elapsed());
            single.take(our, their);
            kernel.adds.push(bare.0);
            kernel.dels.push(bare.1);
        }
    }
    let mut burst = Sides::default();
    for round in 0..BURSTS {
        burst.take(ours.rounds(round, BURST)?, peer.rounds(round, BURST)?);
    }
    Ok(Cni {
        kernel_add_ratio: ratio(&single.ours.adds, &kernel.adds),
        kernel_add: Times::of(kernel.adds),
        kernel_del: Times::of(kernel.dels),
        single: single.done(),
        burst: burst.done(),
        podnet_start: Times::of(starts),
    })
}

/// Times of ADDs and of DELs.
#[derive(Default)]
struct Pairs {
    adds: Vec<Duration>,
    dels: Vec<Duration>,
}

#[derive(Default)]
struct Sides {
    ours: Pairs,
    theirs: Pairs,
}

impl Sides {
    fn take(&mut self, ours: Pairs, theirs: Pairs) {
        for (side, more) in [(&mut self.ours, ours), (&mut self.theirs, theirs)] {
            side.adds.extend(more.adds);
            side.dels.extend(more.dels);
        }
    }

    fn done(self) -> Side {
        Side {
            add_ratio: ratio(&self.ours.adds, &self.theirs.adds),
            del_ratio: ratio(&self.ours.dels, &self.theirs.dels),
            podnet_add: Times::of(self.ours.adds),
            podnet_del: Times::of(self.ours.dels),
            debian_add: Times::of(self.theirs.adds),
            debian_del: Times::of(self.theirs.dels),
        }
    }
}

fn ratio(ours: &[Duration], theirs: &[Duration]) -> f64 {
    median(ours.iter().zip(theirs).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect())
}

/// The kernel's own part: a veth pair between the node and a fresh namespace, made by one request and removed by another.
fn bare_pair(node: &NetNs, round: usize) -> Result<(Duration, Duration)> {
    let path = format!("/run/netns/podnet-bench-bare-{round}");
    let sandbox = NetNs::create(&path)?;
    let mut socket = RtSocket::open_in(&sandbox)?;
    let peer = VethPeer { name: "bench-bare", mac: None, netns: Some(node) };
    let started = Instant::now();
    link::create_veth(&mut socket, &Veth { name: "eth0", mac: None, peer, mtu: 1450 })?;
    let made = started.elapsed();
    let started = Instant::now();
    link::delete(&mut socket, "eth0")?;
    let removed = started.elapsed();
    NetNs::remove(&path)?;
    Ok((made, removed))
}

/// A conflist's plugins, and the namespace that they run in.
struct Chain {
    name: &'static str,
    node: NetNs,
    plugins: Vec<(String, Value)>,
}

fn debian_chain(node: NetNs) -> Chain {
    let plugin = |name: &str, config: Value| (format!("{DEBIAN}/{name}"), config);
    let range = json!([[{"subnet": "10.88.0.0/16"}]]);
    let ipam = json!({"type": "host-local", "ranges": range, "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/tmp/podnet-bench-ipam"});
    Chain {
        name: "debian",
        node,
        plugins: vec![
            plugin(
                "bridge",
                json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": ipam}),
            ),
            plugin("portmap", json!({"type": "portmap", "capabilities": {"portMappings": true}})),
            plugin("bandwidth", json!({"type": "bandwidth", "capabilities": {"bandwidth": true}})),
        ],
    }
}

impl Chain {
    /// So many ADDs at once, then so many DELs at once; the sandboxes' namespaces are there before and after.
    fn rounds(&self, round: usize, count: usize) -> Result<Pairs> {
        let names: Vec<String> =
            (0..count).map(|index| format!("podnet-bench-{}-{round}-{index}", self.name)).collect();
        let path = |name: &str| format!("/run/netns/{name}");
        let sandboxes: Vec<NetNs> =
            names.iter().map(|name| NetNs::create(path(name))).collect::<std::result::Result<_, _>>()?;
        let adds = at_once(&self.node, &names, |name| self.add(name, &path(name)));
        // Also after a failed ADD, as runtimes do.
        let results: Vec<(&String, Value)> = names
            .iter()
            .zip(&adds)
            .map(|(name, add)| (name, add.as_ref().map_or(Value::Null, |(_, result)| result.clone())))
            .collect();
        let dels = at_once(&self.node, &results, |(name, result)| self.del(name, &path(name), result));
        drop(sandboxes);
        for name in &names {
            NetNs::remove(path(name))?;
        }
        let adds = adds.into_iter().map(|add| Ok(add?.0)).collect::<std::result::Result<_, String>>()?;
        Ok(Pairs { adds, dels: dels.into_iter().collect::<std::result::Result<_, String>>()? })
    }

    /// Each plugin is given the result of the one before; the last result is the chain's.
    fn add(&self, id: &str, netns: &str) -> Result<(Duration, Value)> {
        let started = Instant::now();
        let mut result = Value::Null;
        for (plugin, config) in &self.plugins {
            let output = self.execute(plugin, "ADD", id, netns, &request(config, &result))?;
            result = serde_json::from_slice(&output)?;
        }
        Ok((started.elapsed(), result))
    }

    /// In reverse order, each plugin given the result of the whole ADD (CNI specification 1.1.0, section 4, "Deleting attachments").
    fn del(&self, id: &str, netns: &str, result: &Value) -> Result<Duration> {
        let started = Instant::now();
        for (plugin, config) in self.plugins.iter().rev() {
            self.execute(plugin, "DEL", id, netns, &request(config, result))?;
        }
        Ok(started.elapsed())
    }

    /// Executes a plugin in the node's namespace.
    fn execute(&self, plugin: &str, verb: &str, id: &str, netns: &str, config: &Value) -> Result<Vec<u8>> {
        let mut command = Command::new(plugin);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", DEBIAN)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // A plugin that reads nothing (VERSION) may be gone already.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(config.to_string().as_bytes()));
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            return Err(format!("{plugin} {verb} of {id}: {text}").into());
        }
        Ok(output.stdout)
    }
}

/// A plugin's configuration as it gets it on standard input.
fn request(config: &Value, previous: &Value) -> Value {
    let mut config = config.clone();
    config["cniVersion"] = "1.0.0".into();
    config["name"] = "bench".into();
    if !previous.is_null() {
        config["prevResult"] = previous.clone();
    }
    config
}

/// Does something for each of several, all at the same time, on threads inside a namespace.
fn at_once<I: Sync, T: Send>(
    inside: &NetNs,
    items: &[I],
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Vec<std::result::Result<T, String>> {
    let work = &work;
    let one = move |item| {
        inside.enter_current_thread().map_err(|error| error.to_string())?;
        work(item).map_err(|error| error.to_string())
    };
    thread::scope(|scope| {
        let running: Vec<_> = items.iter().map(|item| scope.spawn(move || one(item))).collect();
        let ended = running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())));
        ended.collect()
    })
}

impl fmt::Display for Cni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.single)?;
        writeln!(f, "the same veth pair, bare: made          {}", self.kernel_add)?;
        writeln!(f, "the same veth pair, bare: removed       {}", self.kernel_del)?;
        writeln!(f, "podnet-cni VERSION (process start)      {}", self.podnet_start)?;
        writeln!(f, "ratio podnet-cni ADD : bare veth pair     {:.2}", self.kernel_add_ratio)?;
        writeln!(f, "{BURST} at once")?;
        write!(f, "{}", self.burst)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CNI ADD  podnet-cni                     {}", self.podnet_add)?;
        writeln!(f, "CNI ADD  bridge+host-local+portmap+bw   {}", self.debian_add)?;
        writeln!(f, "CNI DEL  podnet-cni                     {}", self.podnet_del)?;
        writeln!(f, "CNI DEL  bridge+host-local+portmap+bw   {}", self.debian_del)?;
        writeln!(f, "ratio podnet : Debian, median of rounds   ADD {:.3}   DEL {:.3}", self.add_ratio, self.del_ratio)
    }
}
