//! What the server core does for one question, without sockets, so that its instructions can be counted:
//!
//!     CARGO_PROFILE_RELEASE_STRIP=none cargo build --release -p podnet-dns --example answering
//!     valgrind --tool=callgrind --toggle-collect='*answering*ask_all*' target/release/examples/answering cached 100
//!
//! Arguments: what is asked (`names`, `missing`, `cached`, `denied`), and how often each of 1,000 questions is. It prints the time for
//! one, which says something on an idle machine only; instructions are the same on any.

use std::{
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, pending, ready},
};
use podnet_dns::{
    Arrival, Config, Environment, Exchange, Outcome, Outside, Scheme, Server, Transport, server::Take, zone::Cluster,
};
use podnet_model::{Change, ClusterIp, Namespace, Service, ServiceKey, service::ServiceKind};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A Corefile as clusters have it.
const COREFILE: &str = "
.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    prometheus :9153
    forward . 192.0.2.1
    cache 300
    loop
    reload
    loadbalance
}
";
const QUESTIONS: u16 = 1_000;

/// Upstreams know all names but those that begin with `no`, at once.
#[derive(Default)]
struct Upstream(AtomicU64);

impl Outside for Upstream {
    fn exchange(&self, exchange: Exchange) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        ready(Ok(answered(&exchange.message))).boxed()
    }

    fn converse(&self, _: Exchange, _: Take) -> BoxFuture<'static, io::Result<()>> {
        ready(Err(io::ErrorKind::Unsupported.into())).boxed()
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        pending().boxed()
    }

    fn spawn(&self, _: BoxFuture<'static, ()>) {}

    fn host(&self) -> String {
        "answering".to_owned()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix(&self) -> u64 {
        1_800_000_000
    }

    fn random(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let load = arguments.next().unwrap_or_else(|| "cached".to_owned());
    let rounds: u32 = arguments.next().unwrap_or_else(|| "1000".to_owned()).parse()?;
    let name = |number| match load.as_str() {
        "names" => Ok(format!("service-{number:05}.default.svc.cluster.local")),
        "missing" => Ok(format!("no-service-{number:05}.default.svc.cluster.local")),
        "cached" => Ok(format!("host-{number:05}.example.org")),
        "denied" => Ok(format!("no-host-{number:05}.example.org")),
        _ => Err(format!("{load:?} is nothing to ask; names, missing, cached, denied are")),
    };
    let questions = (0..QUESTIONS)
        .map(|number| name(number).map(|name| question(&name)))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let server = serve()?;
    for question in &questions {
        first(&server, question)?;
    }
    let started = Instant::now();
    let bytes = ask_all(&server, &questions, rounds);
    let each = started.elapsed() / (rounds.max(1) * u32::from(QUESTIONS));
    println!(
        "{load}: {} questions, {bytes} bytes of answers, {} ns each",
        rounds * u32::from(QUESTIONS),
        each.as_nanos()
    );
    Ok(())
}

/// Asks everything over and over; what is measured.
#[inline(never)]
fn ask_all(server: &Server, questions: &[Vec<u8>], rounds: u32) -> usize {
    let mut out = Vec::with_capacity(1280);
    let mut bytes = 0;
    for _ in 0..rounds {
        let now = Instant::now();
        for question in questions {
            if matches!(server.handle(question, &ARRIVAL, now, &mut out), Outcome::Answer) {
                bytes += out.len();
            }
        }
    }
    bytes
}

const ARRIVAL: Arrival = Arrival {
    from: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 244, 1, 2)), 4000),
    transport: Transport::Udp,
    port: 53,
    scheme: Scheme::Dns,
    bound: None,
    local: Some(IpAddr::V4(Ipv4Addr::new(10, 233, 0, 10))),
    keepalive: None,
};

fn serve() -> Result<Arc<Server>> {
    let mut cluster = Cluster::default();
    cluster.namespace(&Namespace::from("default"), Some(&Default::default()));
    for number in 0..QUESTIONS {
        let key = ServiceKey::new("default", &format!("service-{number:05}"));
        let [high, low] = number.to_be_bytes();
        let cluster_ips = [ClusterIp(IpAddr::from([10, 96, high, low]))].into_iter().collect();
        let service = Service::new(key.clone(), ServiceKind::Virtual { cluster_ips }, Vec::new());
        cluster.apply(&Change::Service(key, Some(service)));
    }
    let config = Config::load("Corefile", COREFILE, &Environment::EMPTY)?;
    let outside: Arc<dyn Outside> = Arc::new(Upstream::default());
    let server = Server::new(config, &cluster, 1, Arc::default(), outside, Box::new(|_| {}));
    server.set_synced();
    Ok(Arc::new(server))
}

/// Asks for the first time: what is forwarded is in the cache then.
fn first(server: &Arc<Server>, question: &[u8]) -> Result<()> {
    let mut out = Vec::new();
    match server.handle(question, &ARRIVAL, Instant::now(), &mut out) {
        Outcome::Answer => Ok(()),
        Outcome::Later(later) => {
            let answer = Arc::clone(server).finish(later).now_or_never().flatten();
            answer.map(drop).ok_or_else(|| "the upstream's answer did not come".into())
        }
        Outcome::Transfer(_) | Outcome::Drop => Err("a question was not answered".into()),
    }
}

/// A question for the address of a name, without an OPT record, as resolvers of C libraries ask.
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

/// What an upstream says to a query: one address, or that there is no such name.
fn answered(query: &[u8]) -> Vec<u8> {
    let missing = query.get(13..15) == Some(b"no");
    let end = query[12..].iter().position(|byte| *byte == 0).map_or(query.len(), |at| 12 + at + 5);
    let mut message = query[..end].to_vec();
    message[2..4].copy_from_slice(if missing { &[0x81, 0x83] } else { &[0x81, 0x80] });
    message[6..12].copy_from_slice(if missing { &[0, 0, 0, 1, 0, 0] } else { &[0, 1, 0, 0, 0, 0] });
    if missing {
        // example.org. SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 300
        let zone = query[12] + 13;
        let pointer = [0xc0, zone];
        message.extend_from_slice(&pointer);
        message.extend_from_slice(&[0, 6, 0, 1, 0, 0, 1, 44, 0, 38, 2, b'n', b's', 0xc0, zone, 10]);
        message.extend_from_slice(b"hostmaster");
        message.extend_from_slice(&pointer);
        for number in [1_u32, 7200, 1800, 86_400, 300] {
            message.extend_from_slice(&number.to_be_bytes());
        }
    } else {
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 7]);
    }
    message
}
