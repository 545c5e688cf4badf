//! Cluster DNS beside other servers: questions answered in a second by one processor, and what a large cluster costs.
//!
//! Each server runs on the first processor, and dnsperf, which asks, on the second; the servers take turns. The others have the same
//! names in a zone file, or forward to the same server. Those that are not installed are left out, which is said.

mod peers;

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
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
};
use peers::{CACHES, Kind, PEERS, Peer};

const SERVICES: usize = 10_000;
/// Names of the outside world that are forwarded, and then cached.
const OUTSIDE: usize = 1_000;
const ROUNDS: usize = 3;
const SECONDS: &str = "3";
/// Where podnet answers, the server that it forwards to, and the first of the others.
const PODNET: u16 = 5300;
const UPSTREAM: u16 = 5301;
const FIRST_PEER: u16 = 5310;
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Load {
    /// Addresses of Services.
    Names,
    /// Names of the cluster that do not exist.
    Missing,
    /// Addresses of Services, over connections.
    Tcp,
    /// Names of the outside world, which are in the cache after the first time.
    Cached,
}

const LOADS: [Load; 4] = [Load::Names, Load::Missing, Load::Tcp, Load::Cached];

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
    loads: Vec<Rates>,
    missing: Vec<&'static str>,
}

/// How servers did, each round's median.
#[derive(Serialize)]
struct Rates {
    load: Load,
    podnet: Rate,
    lost: u64,
    peers: Vec<(&'static str, Rate)>,
}

/// How a server did.
#[derive(Clone, Copy, Default, Serialize)]
struct Rate {
    /// Questions answered in a second. Where the server is the faster one, it is dnsperf's rate.
    per_second: f64,
    /// Questions answered in a second of the server's on its processor, however long it had it.
    per_processor_second: f64,
}

/// The server that is measured, its surroundings, and the others.
struct Field {
    place: Place,
    api: StandIn,
    podnet: Running,
    load: Duration,
    peers: Vec<(Peer, u16, Running)>,
    _upstream: Option<Running>,
}

pub(crate) fn measure(podnet: &str) -> Result<Names> {
    if !peers::installed("dnsperf") || !peers::installed("taskset") {
        return Err("dnsperf and taskset are needed: scripts/setup bench".into());
    }
    let missing = PEERS.iter().chain(&CACHES).filter(|peer| !peers::installed(peer.program)).map(|peer| peer.name);
    let missing = missing.collect();
    let field = Field::lay_out(podnet)?;
    let (memory_mib, peak_mib) = (field.podnet.memory_mib()?, field.podnet.peak_mib()?);
    let update = field.updates()?;
    let loads = LOADS.into_iter().map(|load| field.rates(load)).collect::<Result<Vec<_>>>()?;
    let load_s = field.load.as_secs_f64();
    Ok(Names { services: SERVICES, endpoints: ENDPOINTS, load_s, memory_mib, peak_mib, update, loads, missing })
}

impl Field {
    fn lay_out(podnet: &str) -> Result<Self> {
        let place = Place::new()?;
        let services: Vec<Value> = (0..SERVICES).map(service).collect();
        let slices: Vec<Value> = (0..SERVICES).map(|number| programming::slice(number, 0)).collect();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "resourceVersion": "1", "uid": "n"}});
        let answers = Answers::new(|_, _| None)
            .list("services", "v1", "Service", &services)
            .list("namespaces", "v1", "Namespace", &[namespace])
            .list("endpointslices", "discovery.k8s.io/v1", "EndpointSlice", &slices);
        let api = place.netns.run(move || StandIn::serve(answers))??;
        fs::write(place.path("kubeconfig"), api.kubeconfig())?;
        let corefile =
            format!(".:{PODNET} {{\n kubernetes cluster.local\n cache 300\n forward . 127.0.0.1:{UPSTREAM}\n}}\n");
        fs::write(place.path("Corefile"), corefile)?;
        peers::write(&place.path(""), SERVICES, OUTSIDE)?;
        let knot = PEERS.iter().find(|peer| peers::installed(peer.program));
        let upstream = knot.map(|peer| start(&place, peer, Kind::Outside, UPSTREAM)).transpose()?;
        let started = Instant::now();
        let mut command = Command::new("taskset");
        command.args(["-c", "0", podnet, "dns", "--conf"]).arg(place.path("Corefile"));
        command.arg("--kubeconfig").arg(place.path("kubeconfig"));
        let running = spawn(&place, command, "podnet")?;
        let mut field =
            Self { place, api, podnet: running, load: Duration::ZERO, peers: Vec::new(), _upstream: upstream };
        field.until_answered(PODNET, &name(SERVICES - 2))?;
        field.load = started.elapsed();
        for (peer, port) in PEERS.iter().chain(&CACHES).zip(FIRST_PEER..) {
            if peers::installed(peer.program) {
                let running = start(&field.place, peer, peer.kind, port)?;
                field.peers.push((*peer, port, running));
                let asked = if peer.kind == Kind::Cache { outside(0) } else { name(0) };
                field.until_answered(port, &asked)?;
            }
        }
        Ok(field)
    }

    fn until_answered(&self, port: u16, name: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.place.netns.run(|| addresses(port, name))?.is_ok_and(|found| found.is_empty()) {
            if Instant::now() > deadline {
                return Err(format!("the server at port {port} does not answer for {name}").into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Changes one endpoint of a headless Service after the other.
    fn updates(&self) -> Result<Times> {
        let mut times = Vec::new();
        for generation in 1..=CHANGES {
            let number = 2 * generation;
            let before = self.place.netns.run(|| addresses(PODNET, &name(number)))??;
            let started = Instant::now();
            self.api.change("endpointslices", &programming::slice(number, generation))?;
            loop {
                let now = self.place.netns.run(|| addresses(PODNET, &name(number)))??;
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

    /// Asks the servers in turns.
    fn rates(&self, load: Load) -> Result<Rates> {
        let of_load = |peer: &Peer| (peer.kind == Kind::Cache) == (load == Load::Cached);
        let peers: Vec<&(Peer, u16, Running)> = self.peers.iter().filter(|(peer, ..)| of_load(peer)).collect();
        let mut podnet = Vec::new();
        let mut others = vec![Vec::new(); peers.len()];
        let mut lost = 0;
        for _ in 0..ROUNDS {
            let (rate, gone) = self.ask(&self.podnet, PODNET, load)?;
            podnet.push(rate);
            lost += gone;
            for ((_, port, running), rates) in peers.iter().zip(&mut others) {
                rates.push(self.ask(running, *port, load)?.0);
            }
        }
        let names = peers.iter().map(|(peer, ..)| peer.name);
        Ok(Rates {
            load,
            podnet: median(&podnet),
            lost,
            peers: names.zip(others.iter().map(|all| median(all))).collect(),
        })
    }

    /// How a server does, and how many questions it does not answer.
    fn ask(&self, server: &Running, port: u16, load: Load) -> Result<(Rate, u64)> {
        let questions = match load {
            Load::Names | Load::Tcp => "names",
            Load::Missing => "missing",
            Load::Cached => "outside",
        };
        let mut command = Command::new("taskset");
        command.args(["-c", "1", "dnsperf", "-s", "127.0.0.1", "-p", &port.to_string(), "-l", SECONDS, "-c", "16"]);
        command.args(["-T", "1", "-q", "200", "-m", if load == Load::Tcp { "tcp" } else { "udp" }, "-d"]);
        command.arg(self.place.path(questions));
        let before = server.processor()?;
        let output = self.place.netns.run(move || command.output())??;
        let spent = server.processor()?.saturating_sub(before);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let figure = |key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse::<f64>().ok())
        };
        let of_dnsperf = |key| {
            figure(key).ok_or_else(|| format!("dnsperf tells no {key} {}", String::from_utf8_lossy(&output.stderr)))
        };
        let rate = Rate {
            per_second: of_dnsperf("Queries per second:")?,
            per_processor_second: of_dnsperf("Queries completed:")? / spent.as_secs_f64(),
        };
        Ok((rate, figure("Queries lost:").unwrap_or(0.0) as u64))
    }
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

/// Services by number: every second one is headless, so that its endpoints are its addresses.
fn service(number: usize) -> Value {
    let mut service = programming::service(number);
    if number.is_multiple_of(2) && number > 0 {
        service["spec"]["clusterIP"] = json!("None");
        service["spec"]["clusterIPs"] = json!(["None"]);
    }
    service
}

fn name(number: usize) -> String {
    format!("service-{number:05}.default.svc.cluster.local")
}

fn outside(number: usize) -> String {
    format!("host-{number:05}.example.org")
}

/// The addresses that a server tells for a name; none where it knows none. Only the sections' sizes and the ends of records are read.
fn addresses(port: u16, name: &str) -> std::io::Result<Vec<Ipv4Addr>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    let mut answer = [0; 4096];
    let length = socket
        .send_to(&query, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .and_then(|_| socket.recv(&mut answer))
        .unwrap_or(0);
    let count = usize::from(answer[7]);
    // A pointer, type, class, time to live, length, address.
    let records = answer.get(query.len()..length).unwrap_or_default().chunks_exact(16).take(count);
    let mut found: Vec<Ipv4Addr> =
        records.map(|record| Ipv4Addr::new(record[12], record[13], record[14], record[15])).collect();
    found.sort_unstable();
    Ok(found)
}

type Figure = fn(&Rate) -> f64;

fn median(rates: &[Rate]) -> Rate {
    let of = |figure: Figure| {
        let mut all: Vec<f64> = rates.iter().map(figure).collect();
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    Rate { per_second: of(|rate| rate.per_second), per_processor_second: of(|rate| rate.per_processor_second) }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { services, endpoints, load_s, memory_mib, peak_mib, update, .. } = self;
        writeln!(f, "cluster DNS among {services} Services of {endpoints} endpoints, half of them headless")?;
        writeln!(
            f,
            "        answers {load_s:.2} s after its start; memory {memory_mib:.1} MiB, at its most {peak_mib:.1} MiB"
        )?;
        write!(f, "        one endpoint changes, until it is answered  {update}")?;
        for Rates { load, podnet, lost, peers } in &self.loads {
            let figures: [(_, Figure); 2] =
                [("s", |rate| rate.per_second), ("processor s", |rate| rate.per_processor_second)];
            for (unit, figure) in figures {
                write!(f, "\n{:10}  podnet {:8.0}/{unit}", format!("{load:?}"), figure(podnet))?;
                for (name, rate) in peers {
                    write!(f, "   {name} {:8.0}/{unit}: {:.2}", figure(rate), figure(podnet) / figure(rate))?;
                }
            }
            write!(f, "   lost {lost}")?;
        }
        if !self.missing.is_empty() {
            write!(f, "\nnot installed: {} (scripts/setup bench)", self.missing.join(", "))?;
        }
        Ok(())
    }
}
