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
    time::{Duration, Instant},
};

use podnet_kernel::netns::NetNs;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Result, figures::Times};

const ROUNDS: usize = 60;
const DEBIAN: &str = "/usr/lib/cni";
/// The namespace that stands for the node of Debian's chain; podnet's is a node of the cluster.
const DEBIAN_NODE: &str = "podnet-bench-node";

#[derive(Serialize)]
pub(crate) struct Cni {
    podnet_add: Times,
    podnet_del: Times,
    debian_add: Times,
    debian_del: Times,
    /// Median of the rounds' own ratios.
    add_ratio: f64,
    del_ratio: f64,
    /// podnet-cni VERSION: what starting the process costs.
    podnet_start: Times,
}

pub(crate) fn measure(podnet: &Path) -> Result<Cni> {
    let plugin = podnet.with_file_name("podnet-cni");
    let conflist: Value = serde_json::from_slice(&std::fs::read("/run/podnet/nodes/node1/net.d/10-podnet.conflist")?)?;
    let ours = Chain {
        node: "podnet-node1".to_owned(),
        plugins: vec![(plugin.display().to_string(), conflist["plugins"][0].clone())],
    };
    let peer = debian_chain();
    let node = NetNs::create(format!("/run/netns/{DEBIAN_NODE}"))?;
    let result = compare(&ours, &peer, &plugin);
    drop(node);
    NetNs::remove(format!("/run/netns/{DEBIAN_NODE}"))?;
    let _ = std::fs::remove_dir_all("/tmp/podnet-bench-ipam");
    result
}

fn compare(ours: &Chain, peer: &Chain, plugin: &Path) -> Result<Cni> {
    let (mut our_adds, mut our_dels, mut peer_adds, mut peer_dels) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut starts = Vec::new();
    for round in 0..ROUNDS + 1 {
        let (our_add, our_del) = ours.round(round)?;
        let (peer_add, peer_del) = peer.round(round)?;
        let started = Instant::now();
        execute(&plugin.display().to_string(), None, "VERSION", "", "", &json!({"cniVersion": "1.0.0"}))?;
        // The first round warms both up: the bridge is made, a block is claimed.
        if round > 0 {
            starts.push(started.elapsed());
            our_adds.push(our_add);
            our_dels.push(our_del);
            peer_adds.push(peer_add);
            peer_dels.push(peer_del);
        }
    }
    let ratio = |ours: &[Duration], peer: &[Duration]| {
        let mut ratios: Vec<f64> = ours.iter().zip(peer).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        (ratios[ratios.len() / 2] * 1000.0).round() / 1000.0
    };
    Ok(Cni {
        add_ratio: ratio(&our_adds, &peer_adds),
        del_ratio: ratio(&our_dels, &peer_dels),
        podnet_add: Times::of(our_adds),
        podnet_del: Times::of(our_dels),
        debian_add: Times::of(peer_adds),
        debian_del: Times::of(peer_dels),
        podnet_start: Times::of(starts),
    })
}

/// A conflist's plugins, and the namespace that they run in.
struct Chain {
    node: String,
    plugins: Vec<(String, Value)>,
}

fn debian_chain() -> Chain {
    let plugin = |name: &str, config: Value| (format!("{DEBIAN}/{name}"), config);
    let range = json!([[{"subnet": "10.88.0.0/16"}]]);
    let ipam = json!({"type": "host-local", "ranges": range, "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/tmp/podnet-bench-ipam"});
    Chain {
        node: DEBIAN_NODE.to_owned(),
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
    /// One ADD and one DEL of a fresh sandbox; the namespace itself is not timed.
    fn round(&self, round: usize) -> Result<(Duration, Duration)> {
        let name = format!("podnet-bench-{}-{round}", self.node);
        let path = format!("/run/netns/{name}");
        let sandbox = NetNs::create(&path)?;
        let add = self.add(&name, &path);
        // Also after a failed ADD, as runtimes do.
        let result = add.as_ref().map_or(Value::Null, |(_, result)| result.clone());
        let del = self.del(&name, &path, &result);
        drop(sandbox);
        NetNs::remove(&path)?;
        Ok((add?.0, del?))
    }

    /// Each plugin is given the result of the one before; the last result is the chain's.
    fn add(&self, id: &str, netns: &str) -> Result<(Duration, Value)> {
        let started = Instant::now();
        let mut result = Value::Null;
        for (plugin, config) in &self.plugins {
            let output = execute(plugin, Some(&self.node), "ADD", id, netns, &request(config, &result))?;
            result = serde_json::from_slice(&output)?;
        }
        Ok((started.elapsed(), result))
    }

    /// In reverse order, each plugin given the result of the whole ADD (CNI specification 1.1.0, section 4, "Deleting attachments").
    fn del(&self, id: &str, netns: &str, result: &Value) -> Result<Duration> {
        let started = Instant::now();
        for (plugin, config) in self.plugins.iter().rev() {
            execute(plugin, Some(&self.node), "DEL", id, netns, &request(config, result))?;
        }
        Ok(started.elapsed())
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

/// Executes a plugin in a namespace by way of `nsenter`, whose own cost is the same for both sides.
fn execute(plugin: &str, node: Option<&str>, verb: &str, id: &str, netns: &str, config: &Value) -> Result<Vec<u8>> {
    let mut command = match node {
        Some(node) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{node}")).arg(plugin);
            command
        }
        None => Command::new(plugin),
    };
    let mut child = command
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", DEBIAN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // A plugin that reads nothing (VERSION) may be gone already.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(config.to_string().as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        return Err(format!("{plugin} {verb} of {id}: {text}").into());
    }
    Ok(output.stdout)
}

impl fmt::Display for Cni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CNI ADD  podnet-cni                     {}", self.podnet_add)?;
        writeln!(f, "CNI ADD  bridge+host-local+portmap+bw   {}", self.debian_add)?;
        writeln!(f, "CNI DEL  podnet-cni                     {}", self.podnet_del)?;
        writeln!(f, "CNI DEL  bridge+host-local+portmap+bw   {}", self.debian_del)?;
        writeln!(f, "podnet-cni VERSION (process start)      {}", self.podnet_start)?;
        write!(f, "ratio podnet : Debian, median of rounds   ADD {:.3}   DEL {:.3}", self.add_ratio, self.del_ratio)
    }
}
