//! One agent in a large cluster: 5,000 nodes and 20,000 blocks, told by an API server that is nothing but its answers.
//!
//! The agent is the real one, in a namespace of its own: what is measured is what a node of such a cluster would need, from its start
//! until every route, neighbour and FDB entry is in the kernel, and from a changed node until the kernel's routes say so.

mod answers;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use podnet_kernel::{
    addr,
    link::{self, Veth, VethPeer},
    monitor::{Monitor, Notice},
    netlink::RtSocket,
    netns::NetNs,
    nft::NftSocket,
    route,
};
use serde::Serialize;

use crate::{Result, figures::Times};
use answers::{Answers, BLOCKS, NODES};

const NETNS: &str = "/run/netns/podnet-bench";
/// Whose agent it is.
const OWN: usize = 0;
const PATIENCE: Duration = Duration::from_secs(120);
/// `podnet_planner::step::ROUTE_PROTOCOL`.
const PROTOCOL: u8 = 88;
const CHANGES: usize = 50;

#[derive(Serialize)]
pub(crate) struct Planning {
    nodes: usize,
    blocks: usize,
    /// From the agent's start until every route is in the kernel and it is ready, in seconds.
    first_sync_s: f64,
    /// Of that, the time that applying everything to the kernel took, in seconds, as the agent says.
    apply_s: f64,
    /// From the watch event of a node with another address until the kernel sends to it.
    one_node: Times,
    /// Memory of the agent's own (resident, less what is shared), at its most and at the end, in MiB.
    peak_mib: f64,
    memory_mib: f64,
}

pub(crate) fn measure(podnet: &str) -> Result<Planning> {
    let place = Place::new()?;
    let answers = place.netns.run(Answers::serve)??;
    fs::write(place.directory.join("kubeconfig"), kubeconfig(answers.port()))?;
    let started = Instant::now();
    let agent = place.agent(podnet)?;
    let mut socket = RtSocket::open_in(&place.netns)?;
    // Every block but the own ones is a route; the own ones are blackholes.
    wait("the agent is ready", || Ok(place.directory.join("net.d/10-podnet.conflist").exists()))?;
    let first_sync_s = started.elapsed().as_secs_f64();
    let routes = route::list(&mut socket, PROTOCOL)?.len();
    if routes != BLOCKS {
        return Err(format!("{routes} routes are there, and {BLOCKS} blocks").into());
    }
    let peak_mib = mib(agent.id(), "VmHWM")? - mib(agent.id(), "RssFile")?;
    let mut monitor = Monitor::open_in(&place.netns, &socket, &NftSocket::open_in(&place.netns)?, &[])?;
    let mut times = Vec::new();
    for change in 0..CHANGES {
        times.push(one_node(&answers, &mut monitor, change + 1)?);
    }
    let memory_mib = mib(agent.id(), "VmRSS")? - mib(agent.id(), "RssFile")?;
    let apply_s = place.apply_s()?;
    Ok(Planning {
        nodes: NODES,
        blocks: BLOCKS,
        first_sync_s,
        apply_s,
        one_node: Times::of(times),
        peak_mib,
        memory_mib,
    })
}

/// Gives a node another address, and waits until the kernel tells that it sends the node's frames there.
fn one_node(answers: &Answers, monitor: &mut Monitor, node: usize) -> Result<Duration> {
    let moved = answers::moved_address(node);
    let is_it = |notice: &Notice| matches!(notice, Notice::Fdb { remote: Some(remote), .. } if *remote == moved);
    let started = Instant::now();
    answers.change_node(node)?;
    // Where it never comes, whoever waits for the benchmark sees it stand.
    while !monitor.wait()?.iter().any(is_it) {}
    Ok(started.elapsed())
}

/// The agent's namespace and directory; both go with the value.
struct Place {
    netns: NetNs,
    directory: PathBuf,
}

impl Place {
    fn new() -> Result<Self> {
        NetNs::remove(NETNS)?;
        let netns = NetNs::create(NETNS)?;
        let directory = std::env::temp_dir().join(format!("podnet-bench-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let place = Self { netns, directory };
        let mut socket = RtSocket::open_in(&place.netns)?;
        let peer = VethPeer { name: "eth1", mac: None, netns: None };
        link::create_veth(&mut socket, &Veth { name: "eth0", mac: None, peer, mtu: 1500 })?;
        for name in ["eth1", "eth0"] {
            link::set_up(&mut socket, name)?;
        }
        let device = link::index_of(&mut socket, "eth0")?;
        addr::add(&mut socket, device, format!("{}/8", answers::address(OWN)).parse()?)?;
        Ok(place)
    }

    fn agent(&self, podnet: &str) -> Result<Running> {
        let path = |name: &str| self.directory.join(name);
        let log = fs::File::create(path("log"))?;
        let mut agent = Command::new(podnet);
        agent.args(["agent", "--netns", NETNS, "--underlay-device", "eth0", "--name", &answers::name(OWN)]);
        agent.arg("--kubeconfig").arg(path("kubeconfig")).arg("--state-dir").arg(path("state"));
        agent.arg("--socket").arg(path("agent.sock")).arg("--cni-conf-dir").arg(path("net.d"));
        agent.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Running(agent.spawn()?))
    }

    /// What the agent's log says that putting the network in force took.
    fn apply_s(&self) -> Result<f64> {
        let log = fs::read_to_string(self.directory.join("log"))?;
        let line = log.lines().find(|line| line.contains("network in force"));
        let figure = line.and_then(|line| line.split("elapsed_ms=").nth(1)?.split_whitespace().next());
        let ms: f64 = figure.ok_or("the agent does not say how long it took")?.parse()?;
        Ok(ms / 1e3)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        let _ = NetNs::remove(NETNS);
    }
}

/// A process that ends with the value.
struct Running(Child);

impl Running {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            return Err(format!("not within {} s: {what}", PATIENCE.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A figure of `/proc/<pid>/status`.
fn mib(pid: u32, key: &str) -> Result<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib: f64 = line.and_then(|line| line.split_whitespace().next()).ok_or("no such figure")?.parse()?;
    Ok(kib / 1024.0)
}

fn kubeconfig(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \"http://127.0.0.1:{port}\"}}}}]\nusers: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\ncurrent-context: c\n"
    )
}

impl fmt::Display for Planning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, blocks, first_sync_s, apply_s, one_node, peak_mib, memory_mib } = self;
        writeln!(
            f,
            "agent among {nodes} nodes and {blocks} blocks: first sync {first_sync_s:.2} s, of that {apply_s:.2} s in the kernel"
        )?;
        writeln!(f, "  one node changes, until the kernel follows  {one_node}")?;
        write!(f, "  memory {memory_mib:.1} MiB, at its most {peak_mib:.1} MiB")
    }
}
