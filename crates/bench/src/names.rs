//! Cluster DNS beside other servers: questions answered in a second by one processor, and what a large cluster costs.
//!
//! Each server runs on the first processor, and dnsperf, which asks, on the second; the servers take turns. The others have the same
//! names in a zone file, or forward to the same server. Those that are not installed are left out, which is said.

mod asking;
mod peers;
mod records;
mod verified;

use std::{
    fmt, fs,
    ops::RangeInclusive,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Result,
    figures::Times,
    lab::{Place, Running},
    programming::{self, CHANGES, ENDPOINTS},
    stand_in::{Answers, StandIn},
    targets::Target,
};
use asking::{Figure, LOADS, Load, Rate, addresses, ask, median, until_answered};
use peers::{CACHES, Kind, PEERS, Peer};
use records::{name, outside, service};
use verified::Verified;

/// Numbers of changes: each is one of another Service.
type Generations = RangeInclusive<usize>;

const SERVICES: usize = 10_000;
/// Names of the outside world that are forwarded, and then cached.
const OUTSIDE: usize = 1_000;
const ROUNDS: usize = 3;
/// Where podnet answers, the server that it forwards to, and the first of the others.
const PODNET: u16 = 5300;
const UPSTREAM: u16 = 5301;
const FIRST_PEER: u16 = 5310;
const PATIENCE: Duration = Duration::from_secs(60);
/// One in so many Services is asked for at every server, before they are measured.
const SAMPLE: usize = 97;
/// What CoreDNS's documentation says of names of a cluster (coredns/deployment, Scaling_CoreDNS): questions in a second on two processors.
const COREDNS: u32 = 34_000;

#[derive(Serialize)]
pub(crate) struct Names {
    services: usize,
    endpoints: usize,
    /// From the process' start until it answers for the last Service, in seconds.
    load_s: f64,
    /// Memory of its own then, and at its most, in MiB.
    memory_mib: f64,
    peak_mib: f64,
    /// From the watch event of a changed slice until a question has the new address.
    update: Times,
    verified: Verified,
    loads: Vec<Rates>,
    targets: Vec<Target>,
    /// CoreDNS's rate as it is published, of questions for names on two processors.
    coredns_published: u32,
    missing: Vec<&'static str>,
}

/// How servers did, each round's median.
#[derive(Serialize)]
struct Rates {
    load: Load,
    podnet: Rate,
    peers: Vec<(&'static str, Rate)>,
}

/// The server that is measured, its surroundings, and the others.
struct Field {
    place: Place,
    api: StandIn,
    podnet: Running,
    load: Duration,
    peers: Vec<(Peer, u16, Running)>,
    upstream: Option<Running>,
}

pub(crate) fn measure(podnet: &str) -> Result<Names> {
    if !peers::installed("dnsperf") || !peers::installed("taskset") {
        return Err("dnsperf and taskset are needed: scripts/setup bench".into());
    }
    let missing = PEERS.iter().chain(&CACHES).filter(|peer| !peers::installed(peer.program)).map(|peer| peer.name);
    let missing = missing.collect();
    let field = Field::lay_out(podnet)?;
    let (memory_mib, peak_mib) = (field.podnet.memory_mib()?, field.podnet.peak_mib()?);
    field.compare()?;
    let update = updates(&field.place, &field.api, PODNET, 1..=CHANGES)?;
    // Without an upstream nothing can be forwarded.
    let loads = LOADS.into_iter().filter(|load| *load != Load::Cached || field.upstream.is_some());
    let loads = loads.map(|load| field.rates(load)).collect::<Result<Vec<_>>>()?;
    let verified = verified::measure(&field.place, &field.api, podnet, CHANGES + 1..=2 * CHANGES)?;
    let targets = targets(&loads, &verified, &update);
    Ok(Names {
        services: SERVICES,
        endpoints: ENDPOINTS,
        load_s: field.load.as_secs_f64(),
        memory_mib,
        peak_mib,
        update,
        verified,
        loads,
        targets,
        coredns_published: COREDNS,
        missing,
    })
}

/// What is asked of cluster DNS, by what a second of the server's processor answers: dnsperf's own is at its limit before.
fn targets(loads: &[Rates], verified: &Verified, update: &Times) -> Vec<Target> {
    let beside = |load: Load, name: &str| {
        let rates = loads.iter().find(|rates| rates.load == load)?;
        let (_, peer) = rates.peers.iter().find(|(peer, _)| *peer == name)?;
        Some(rates.podnet.per_processor_second / peer.per_processor_second)
    };
    let names = beside(Load::Names, "knot")
        .map(|ratio| Target::at_least("names of the cluster, of knot's rate at least", 1.0, ratio));
    let cached = beside(Load::Cached, "unbound");
    let cached =
        cached.map(|ratio| Target::at_least("forwarded names that are kept, of unbound's rate at least", 1.5, ratio));
    let whole = [
        Target::below("MiB with all pods, below", 100.0, verified.memory_mib),
        Target::below("seconds until all is answered, below", 1.0, verified.load_s),
        Target::below("milliseconds from update to answer, p99, below", 10.0, update.p99_ms),
        Target::below("milliseconds from update to answer with all pods, p99, below", 10.0, verified.update.p99_ms),
    ];
    names.into_iter().chain(cached).chain(whole).collect()
}

impl Names {
    /// # Errors
    ///
    /// Where a question was not answered.
    pub(crate) fn check(&self) -> Result<()> {
        match self.loads.iter().find(|rates| rates.podnet.lost > 0) {
            Some(rates) => Err(format!("{} questions of {:?} were lost", rates.podnet.lost, rates.load).into()),
            None => Ok(()),
        }
    }
}

impl Field {
    fn lay_out(podnet: &str) -> Result<Self> {
        let place = Place::new()?;
        let services: Vec<Value> = (0..SERVICES).map(service).collect();
        let slices: Vec<Value> = (0..SERVICES).map(|number| programming::slice(number, 0)).collect();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "resourceVersion": "1", "uid": "n"}});
        let pods = verified::pods();
        let answers = Answers::new(|_, _| None)
            .list_of("pods", "v1", "Pod", pods.len(), |at| verified::pod(pods[at]))
            .list("services", "v1", "Service", &services)
            .list("namespaces", "v1", "Namespace", &[namespace])
            .list("endpointslices", "discovery.k8s.io/v1", "EndpointSlice", &slices);
        let api = place.netns.run(move || StandIn::serve(answers))??;
        fs::write(place.path("kubeconfig"), api.kubeconfig())?;
        let corefile = format!(
            ".:{PODNET} {{\n kubernetes cluster.local in-addr.arpa\n cache 300\n forward . 127.0.0.1:{UPSTREAM}\n}}\n"
        );
        fs::write(place.path("Corefile"), corefile)?;
        records::write(&place.path(""), SERVICES, OUTSIDE)?;
        let knot = PEERS.iter().find(|peer| peers::installed(peer.program));
        let upstream = knot.map(|peer| start(&place, peer, Kind::Outside, UPSTREAM)).transpose()?;
        let started = Instant::now();
        let mut command = Command::new("taskset");
        command.args(["-c", "0", podnet, "dns", "--conf"]).arg(place.path("Corefile"));
        command.arg("--kubeconfig").arg(place.path("kubeconfig"));
        let running = spawn(&place, command, "podnet")?;
        let mut field = Self { place, api, podnet: running, load: Duration::ZERO, peers: Vec::new(), upstream };
        until_answered(&field.place, PODNET, &name(SERVICES - 2))?;
        field.load = started.elapsed();
        for (peer, port) in PEERS.iter().chain(&CACHES).zip(FIRST_PEER..) {
            let has_upstream = peer.kind != Kind::Cache || field.upstream.is_some();
            if peers::installed(peer.program) && has_upstream {
                let running = start(&field.place, peer, peer.kind, port)?;
                field.peers.push((*peer, port, running));
                let asked = if peer.kind == Kind::Cache { outside(0) } else { name(0) };
                until_answered(&field.place, port, &asked)?;
            }
        }
        Ok(field)
    }

    /// Sees that servers of the cluster's names tell what there is: addresses of some Services, with and without one of their own.
    fn compare(&self) -> Result<()> {
        let zones = self.peers.iter().filter(|(peer, ..)| peer.kind == Kind::Zone);
        let servers = zones.map(|(peer, port, _)| (peer.name, *port)).chain([("podnet", PODNET)]);
        for (server, port) in servers {
            for number in (0..SERVICES).step_by(SAMPLE) {
                let (told, expected) =
                    (self.place.netns.run(|| addresses(port, &name(number)))??, records::addresses(number));
                if told != expected {
                    return Err(format!("{server} tells {told:?} for {}, not {expected:?}", name(number)).into());
                }
            }
        }
        Ok(())
    }

    /// Asks the servers in turns.
    fn rates(&self, load: Load) -> Result<Rates> {
        let of_load = |peer: &Peer| (peer.kind == Kind::Cache) == (load == Load::Cached);
        let peers: Vec<&(Peer, u16, Running)> = self.peers.iter().filter(|(peer, ..)| of_load(peer)).collect();
        let mut podnet = Vec::new();
        let mut others = vec![Vec::new(); peers.len()];
        for _ in 0..ROUNDS {
            podnet.push(ask(&self.place, &self.podnet, PODNET, load)?);
            for ((_, port, running), rates) in peers.iter().zip(&mut others) {
                rates.push(ask(&self.place, running, *port, load)?);
            }
        }
        let names = peers.iter().map(|(peer, ..)| peer.name);
        let peers = names.zip(others.iter().map(|all| median(all))).collect();
        Ok(Rates { load, podnet: median(&podnet), peers })
    }
}

/// Changes one endpoint of a headless Service after the other, and asks the server at this port until it tells so.
fn updates(place: &Place, api: &StandIn, port: u16, generations: Generations) -> Result<Times> {
    let mut times = Vec::new();
    for generation in generations {
        let number = 2 * generation;
        let before = place.netns.run(|| addresses(port, &name(number)))??;
        let started = Instant::now();
        // The first change of each: no Service changes twice.
        api.change("endpointslices", &programming::slice(number, 1))?;
        loop {
            let now = place.netns.run(|| addresses(port, &name(number)))??;
            if now != before && !now.is_empty() {
                break;
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("the changed endpoint of {} is not answered", name(number)).into());
            }
        }
        times.push(started.elapsed());
    }
    Ok(Times::of(times))
}

fn spawn(place: &Place, mut command: Command, log: &str) -> Result<Running> {
    let log = fs::File::create(place.path(&format!("{log}.log")))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Running(place.netns.run(move || command.spawn())??))
}

fn start(place: &Place, peer: &Peer, kind: Kind, port: u16) -> Result<Running> {
    let directory = place.path("");
    let arguments = (peer.arguments)(&directory, kind, port, UPSTREAM)?;
    let mut command = Command::new("taskset");
    command.args(["-c", "0", peer.program]).args(arguments);
    spawn(place, command, &format!("{}-{port}", peer.name))
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { services, endpoints, load_s, memory_mib, peak_mib, update, verified, .. } = self;
        writeln!(f, "cluster DNS among {services} Services of {endpoints} endpoints, half of them headless")?;
        writeln!(
            f,
            "        answers {load_s:.2} s after its start; memory {memory_mib:.1} MiB, at its most {peak_mib:.1} MiB"
        )?;
        writeln!(f, "        one endpoint changes, until it is answered  {update}")?;
        let Verified { pods, load_s, memory_mib, peak_mib, update } = verified;
        writeln!(
            f,
            "        with {pods} pods verified: {load_s:.2} s; memory {memory_mib:.1} MiB, at its most {peak_mib:.1} MiB"
        )?;
        write!(f, "        one endpoint changes, until it is answered  {update}")?;
        for Rates { load, podnet, peers } in &self.loads {
            let figures: [(_, Figure); 2] =
                [("s", |rate| rate.per_second), ("processor s", |rate| rate.per_processor_second)];
            for (unit, figure) in figures {
                write!(f, "\n{:10}  podnet {:8.0}/{unit}", format!("{load:?}"), figure(podnet))?;
                for (name, rate) in peers {
                    write!(f, "   {name} {:8.0}/{unit}: {:.2}", figure(rate), figure(podnet) / figure(rate))?;
                }
            }
            write!(f, "   lost {}", podnet.lost)?;
            for (name, rate) in peers.iter().filter(|(_, rate)| rate.lost > 0) {
                write!(f, ", {name} {}", rate.lost)?;
            }
            if *load == Load::Names {
                write!(f, "\n            CoreDNS, as published: about {}/s on two processors", self.coredns_published)?;
            }
        }
        for target in &self.targets {
            write!(f, "{target}")?;
        }
        if !self.missing.is_empty() {
            write!(f, "\nnot installed: {} (scripts/setup bench)", self.missing.join(", "))?;
        }
        Ok(())
    }
}
