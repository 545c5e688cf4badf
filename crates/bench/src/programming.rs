//! One agent among many Services: how long until their rules are in the kernel, until the kernel follows one changed endpoint, and what
//! the first packet of a connection pays for their number.
//!
//! All Services but one have ten endpoints, none of which exists: nobody connects to them. That one leads to a server in a namespace
//! behind the node, and a client in another connects to it by turns through its ClusterIP and directly.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use podnet_kernel::{
    monitor::{Monitor, Notice},
    netns::NetNs,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Result,
    figures::Times,
    lab::{Lab, Place},
    stand_in::{Answers, cluster},
    targets::Target,
};

/// How many Services, from few to many. The first is what the others' first packets are compared with.
const COUNTS: [usize; 5] = [10, 1_000, 10_000, 30_000, 50_000];
pub(crate) const ENDPOINTS: usize = 10;
pub(crate) const CHANGES: usize = 100;
const CONNECTIONS: usize = 1_500;
pub(crate) const PORT: u16 = 8080;
/// The two ends, in the node's own block.
const ENDS: [(&str, Ipv4Addr); 2] =
    [("client", Ipv4Addr::new(100, 64, 0, 50)), ("server", Ipv4Addr::new(100, 64, 0, 51))];

#[derive(Serialize)]
pub(crate) struct Programming {
    among: Vec<Among>,
    targets: Vec<Target>,
}

/// Among so many Services.
#[derive(Serialize)]
struct Among {
    services: usize,
    endpoints: usize,
    /// From the agent's start until every rule is in the kernel and it is ready, in seconds.
    first_sync_s: f64,
    /// Of that, the time that applying everything to the kernel took, in seconds, as the agent says.
    apply_s: f64,
    /// From the watch event of a changed slice until the kernel tells of the changed rules.
    one_endpoint: Times,
    /// Memory of the agent's own (resident, less what is shared), at its most and at the end, in MiB.
    peak_mib: f64,
    memory_mib: f64,
    /// Time of a connect through the ClusterIP, and directly, in microseconds.
    connect_us: Connects,
    direct_us: Connects,
    /// The first by the second, of medians.
    connect_ratio: f64,
}

/// The fastest of a hundred, the middle one and the slowest of a hundred, as kube-proxy's developers tell theirs.
#[derive(Serialize)]
struct Connects {
    p01: f64,
    p50: f64,
    p99: f64,
}

pub(crate) fn measure(podnet: &str) -> Result<Programming> {
    let among: Vec<Among> = COUNTS.into_iter().map(|services| among(podnet, services)).collect::<Result<_>>()?;
    let targets = targets(&among);
    Ok(Programming { among, targets })
}

/// What is asked of an agent among 10,000 Services, and of the first packet among any number.
fn targets(among: &[Among]) -> Vec<Target> {
    let ratios = among.iter().map(|among| among.connect_ratio);
    let flat = ratios.clone().fold(0.0, f64::max) / ratios.fold(f64::INFINITY, f64::min);
    let of = |among: &Among| {
        [
            Target::below("seconds of the first sync of 10,000 Services, below", 1.0, among.first_sync_s),
            Target::below("milliseconds of one changed endpoint there, p50, below", 1.0, among.one_endpoint.p50_ms),
            Target::below("the same, p99, below", 5.0, among.one_endpoint.p99_ms),
            Target::below("MiB of the agent there, at its most, below", 80.0, among.peak_mib),
        ]
    };
    let there = among.iter().find(|among| among.services == 10_000).into_iter().flat_map(of);
    there.chain([Target::below("first packet beside direct, the most by the least, below", 1.1, flat)]).collect()
}

fn among(podnet: &str, services: usize) -> Result<Among> {
    let place = Place::new()?;
    let _ends = Ends::make()?;
    let list = |object: fn(usize) -> Value| (0..services).map(object).collect::<Vec<_>>();
    let answers = Answers::new(cluster::single)
        .list("nodes", "v1", "NodeList", &[cluster::node(0, cluster::address(0))])
        .list("ipamblocks", "crd.projectcalico.org/v1", "IPAMBlockList", &[cluster::block(0)])
        .list("ippools", "crd.projectcalico.org/v1", "IPPoolList", &[cluster::pool()])
        .list("services", "v1", "ServiceList", &list(service))
        .list("endpointslices", "discovery.k8s.io/v1", "EndpointSliceList", &list(|number| slice(number, 0)));
    let lab = Lab::start(podnet, place, answers)?;
    let peak_mib = lab.peak_mib()?;
    let mut monitor = lab.monitor()?;
    let change = |at: usize| one_endpoint(&lab, &mut monitor, 1 + at % (services - 1), 1 + at / (services - 1));
    let times = (0..CHANGES).map(change).collect::<Result<_>>()?;
    let (connect_us, direct_us) = connects()?;
    Ok(Among {
        services,
        endpoints: services * ENDPOINTS,
        first_sync_s: lab.first_sync.as_secs_f64(),
        apply_s: lab.apply_s()?,
        one_endpoint: Times::of(times),
        peak_mib,
        memory_mib: lab.memory_mib()?,
        connect_ratio: connect_us.p50 / direct_us.p50,
        connect_us,
        direct_us,
    })
}

/// Gives a Service another endpoint in the place of one, and waits until the kernel tells that the rules changed.
fn one_endpoint(lab: &Lab, monitor: &mut Monitor, service: usize, generation: usize) -> Result<Duration> {
    let is_it = |notice: &Notice| match notice {
        Notice::Rules(transaction) => transaction.tables.iter().any(|(_, table)| table.starts_with("podnet")),
        _ => false,
    };
    let changed = slice(service, generation);
    let started = Instant::now();
    lab.api.change("endpointslices", &changed)?;
    // Where it never comes, whoever waits for the benchmark sees it stand.
    while !monitor.wait()?.iter().any(is_it) {}
    Ok(started.elapsed())
}

/// ClusterIPs lie in 172.16.0.0/12.
pub(crate) fn cluster_ip(number: usize) -> Ipv4Addr {
    (u32::from(Ipv4Addr::new(172, 16, 0, 1)) + number as u32).into()
}

pub(crate) fn service(number: usize) -> Value {
    let ip = cluster_ip(number);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": format!("service-{number:05}"), "namespace": "default", "resourceVersion": "1",
            "uid": format!("00000000-0000-0000-0002-{number:012}"), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": format!("application-{number}")},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "selector": {"app": format!("application-{number}")},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": PORT}],
        },
        "status": {"loadBalancer": {}},
    })
}

/// The slice of a Service, as the endpoints controller writes it; each generation has another last endpoint.
pub(crate) fn slice(number: usize, generation: usize) -> Value {
    let name = format!("service-{number:05}");
    let addr = |at: usize| -> IpAddr {
        if number == 0 {
            return ENDS[1].1.into();
        }
        let at = if at + 1 == ENDPOINTS { at + generation } else { at };
        let first = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + 1_000;
        Ipv4Addr::from(first + (number * (ENDPOINTS + CHANGES) + at) as u32 % 4_000_000).into()
    };
    let endpoint = |at: usize| {
        json!({
            "addresses": [addr(at)], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": cluster::name(1 + (number + at) % 100), "zone": format!("zone-{}", at % 3),
            "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("application-{number}-{at}"),
                          "uid": format!("00000000-0000-{at:04}-0003-{number:012}")},
        })
    };
    let endpoints: Vec<Value> = (0..if number == 0 { 1 } else { ENDPOINTS }).map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{name}-x7k2p"), "namespace": "default", "resourceVersion": (2 + generation).to_string(),
            "uid": format!("00000000-0000-0000-0004-{number:012}"), "generation": 1 + generation,
            "labels": {"app": format!("application-{number}"), "kubernetes.io/service-name": name,
                       "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": name, "controller": true, "blockOwnerDeletion": true,
                                 "uid": format!("00000000-0000-0000-0002-{number:012}")}],
        },
        "endpoints": endpoints, "ports": [{"name": "http", "protocol": "TCP", "port": PORT}],
    })
}

/// Connects by turns through the ClusterIP and directly.
fn connects() -> Result<(Connects, Connects)> {
    let [client, server] = [NetNs::open(path(ENDS[0].0))?, NetNs::open(path(ENDS[1].0))?];
    let listener = server.run(|| TcpListener::bind((ENDS[1].1, PORT)))??;
    let serving = thread::spawn(move || listener.incoming().take(2 * CONNECTIONS).for_each(drop));
    let measured = client.run(|| -> std::io::Result<_> {
        let [mut through, mut direct] = [Vec::new(), Vec::new()];
        for _ in 0..CONNECTIONS {
            for (to, times) in [((cluster_ip(0), 80), &mut through), ((ENDS[1].1, PORT), &mut direct)] {
                let started = Instant::now();
                let stream = TcpStream::connect_timeout(&SocketAddr::from(to), Duration::from_secs(5))?;
                times.push(started.elapsed());
                drop(stream);
            }
        }
        Ok((Connects::of(through), Connects::of(direct)))
    })??;
    serving.join().map_err(|_| "the server panicked")?;
    Ok(measured)
}

impl Connects {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let us = |hundredth: usize| times[times.len() * hundredth / 100].as_secs_f64() * 1e6;
        Self { p01: us(1), p50: us(50), p99: us(99) }
    }
}

/// The client's and the server's namespace, behind the node as its pods are. They go with this value.
struct Ends;

impl Ends {
    fn make() -> Result<Self> {
        let ends = Self;
        for (name, addr) in ENDS {
            // Who was killed left it.
            NetNs::remove(path(name))?;
            NetNs::create(path(name))?;
            for line in [
                format!("-n podnet-bench link add {name} type veth peer name eth0 netns podnet-bench-{name}"),
                format!("-n podnet-bench link set {name} up"),
                format!("-n podnet-bench addr add 169.254.1.1/32 dev {name}"),
                format!("-n podnet-bench route add {addr} dev {name}"),
                format!("-n podnet-bench-{name} addr add {addr}/32 dev eth0"),
                format!("-n podnet-bench-{name} link set eth0 up"),
                format!("-n podnet-bench-{name} route add 169.254.1.1 dev eth0"),
                format!("-n podnet-bench-{name} route add default via 169.254.1.1"),
            ] {
                let output = Command::new("ip").args(line.split_ascii_whitespace()).output()?;
                if !output.status.success() {
                    return Err(format!("ip {line}: {}", String::from_utf8_lossy(&output.stderr)).into());
                }
            }
        }
        Ok(ends)
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        for (name, _) in ENDS {
            if let Err(error) = NetNs::remove(path(name)) {
                eprintln!("bench: {error}");
            }
        }
    }
}

fn path(name: &str) -> String {
    format!("/run/netns/podnet-bench-{name}")
}

impl fmt::Display for Programming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "agent among Services of {ENDPOINTS} endpoints each")?;
        let few = self.among.first().map_or(1.0, |among| among.connect_ratio);
        for (at, among) in self.among.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{among}   beside the fewest: {:.2}", among.connect_ratio / few)?;
        }
        for target in &self.targets {
            write!(f, "{target}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Among {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { services, first_sync_s, apply_s, one_endpoint, peak_mib, memory_mib, .. } = self;
        writeln!(
            f,
            "{services:6}  first sync {first_sync_s:.2} s, of that {apply_s:.2} s in the kernel; memory {memory_mib:.1} MiB, at its most {peak_mib:.1} MiB"
        )?;
        writeln!(f, "        one endpoint changes, until the kernel follows  {one_endpoint}")?;
        let Connects { p01, p50, p99 } = &self.connect_us;
        let direct = &self.direct_us;
        write!(
            f,
            "        connect p01 {p01:.1}, p50 {p50:.1}, p99 {p99:.1} µs, directly {:.1}, {:.1}, {:.1} µs: {:.2}",
            direct.p01, direct.p50, direct.p99, self.connect_ratio
        )
    }
}
