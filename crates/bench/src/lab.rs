//! One agent, the real one, in a namespace of its own, before an API server that is nothing but its answers.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use podnet_kernel::{
    addr,
    link::{self, Veth, VethPeer},
    monitor::Monitor,
    netlink::RtSocket,
    netns::NetNs,
    nft::NftSocket,
};

use crate::{
    Result,
    stand_in::{Answers, StandIn, cluster},
};

const NETNS: &str = "/run/netns/podnet-bench";
/// Whose agent it is.
const OWN: usize = 0;
const PATIENCE: Duration = Duration::from_secs(120);

/// An agent that runs. All of it goes with the value.
pub(crate) struct Lab {
    pub(crate) place: Place,
    pub(crate) api: StandIn,
    agent: Running,
    /// From its start until it is ready: what it was told is in the kernel.
    pub(crate) first_sync: Duration,
}

impl Lab {
    /// Starts the agent and waits until it is ready.
    pub(crate) fn start(podnet: &str, place: Place, answers: Answers) -> Result<Self> {
        let api = place.netns.run(move || StandIn::serve(answers))??;
        fs::write(place.path("kubeconfig"), api.kubeconfig())?;
        let started = Instant::now();
        let agent = place.agent(podnet)?;
        let conflist = place.path("net.d/10-podnet.conflist");
        let deadline = started + PATIENCE;
        while !conflist.exists() {
            if Instant::now() > deadline {
                return Err(format!("the agent is not ready within {} s", PATIENCE.as_secs()).into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Self { first_sync: started.elapsed(), place, api, agent })
    }

    /// Tells what the kernel does from now on.
    pub(crate) fn monitor(&self) -> Result<Monitor> {
        let route = RtSocket::open_in(&self.place.netns)?;
        Ok(Monitor::open_in(&self.place.netns, &route, &NftSocket::open_in(&self.place.netns)?, &[])?)
    }

    /// What the agent's log says that putting the network in force took, in seconds.
    pub(crate) fn apply_s(&self) -> Result<f64> {
        let log = fs::read_to_string(self.place.path("log"))?;
        let line = log.lines().find(|line| line.contains("network in force"));
        let figure = line.and_then(|line| line.split("elapsed_ms=").nth(1)?.split_whitespace().next());
        let ms: f64 = figure.ok_or("the agent does not say how long it took")?.parse()?;
        Ok(ms / 1e3)
    }

    /// The most memory of its own that the agent had so far (resident, less what is shared), in MiB.
    pub(crate) fn peak_mib(&self) -> Result<f64> {
        self.agent.peak_mib()
    }

    /// The memory of its own that it has now, in MiB.
    pub(crate) fn memory_mib(&self) -> Result<f64> {
        self.agent.memory_mib()
    }
}

/// The agent's namespace and directory; both go with the value.
pub(crate) struct Place {
    pub(crate) netns: NetNs,
    directory: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Result<Self> {
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
        addr::add(&mut socket, device, format!("{}/8", cluster::address(OWN)).parse()?)?;
        Ok(place)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn agent(&self, podnet: &str) -> Result<Running> {
        let log = fs::File::create(self.path("log"))?;
        let mut agent = Command::new(podnet);
        agent.args(["agent", "--netns", NETNS, "--underlay-device", "eth0", "--name", &cluster::name(OWN)]);
        agent.arg("--kubeconfig").arg(self.path("kubeconfig")).arg("--state-dir").arg(self.path("state"));
        // One agent of a cluster gives load balancers their addresses; this is one of the others.
        agent.arg("--no-load-balancer-controller");
        agent.arg("--socket").arg(self.path("agent.sock")).arg("--cni-conf-dir").arg(self.path("net.d"));
        agent.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Running(agent.spawn()?))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        let _ = NetNs::remove(NETNS);
    }
}

/// A process that ends with the value.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    fn process(&self) -> Process {
        Process(self.0.id())
    }

    /// The most memory of its own that it had so far (resident, less what is shared), in MiB.
    pub(crate) fn peak_mib(&self) -> Result<f64> {
        Ok(self.process().status_mib("VmHWM")? - self.process().status_mib("RssFile")?)
    }

    /// The memory of its own that it has now, in MiB.
    pub(crate) fn memory_mib(&self) -> Result<f64> {
        Ok(self.process().status_mib("VmRSS")? - self.process().status_mib("RssFile")?)
    }

    /// How long it and the processes that it started have had a processor so far.
    pub(crate) fn processor(&self) -> Result<Duration> {
        let (mut spent, mut left) = (0.0, vec![self.process()]);
        while let Some(process) = left.pop() {
            spent += process.processor_s()?;
            for thread in fs::read_dir(Path::new("/proc").join(process.0.to_string()).join("task"))?.flatten() {
                let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                left.extend(children.split_whitespace().filter_map(|child| child.parse().ok().map(Process)));
            }
        }
        Ok(Duration::from_secs_f64(spent))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process, by its number.
#[derive(Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// How long it has had a processor so far, with its threads that have ended, in seconds: utime and stime of proc(5).
    pub(crate) fn processor_s(self) -> Result<f64> {
        const TICKS_S: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // Behind the name in parentheses; they are the 14th and 15th of all.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let [user, system] = [11, 12].map(|at| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0));
        Ok((user + system) / TICKS_S)
    }

    /// A figure of `/proc/<pid>/status`.
    pub(crate) fn status_mib(self, key: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib: f64 = line.and_then(|line| line.split_whitespace().next()).ok_or("no such figure")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// What the maps of eBPF hold that it has open.
    pub(crate) fn maps_mib(self) -> Result<f64> {
        let mut maps: BTreeMap<String, f64> = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.0))?.flatten() {
            let info = fs::read_to_string(entry.path()).unwrap_or_default();
            let value =
                |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned());
            if let (Some(map), Some(bytes)) = (value("map_id:"), value("memlock:")) {
                maps.insert(map, bytes.parse()?);
            }
        }
        Ok(maps.values().sum::<f64>() / 1_048_576.0)
    }
}
