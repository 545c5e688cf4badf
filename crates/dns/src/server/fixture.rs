//! A server with its surroundings, for tests: questions as text, answers as text.

mod shelf;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use domain::{
    base::{Message, iana::Rtype, name::ParsedName},
    rdata::AllRecordData,
};
use futures::{FutureExt as _, channel::oneshot, future::BoxFuture};
use podnet_model::{Change, Namespace, labels::Labels};

use shelf::Shelf;

use super::{Arrival, ClientSearch, Exchange, Outcome, Outside, Server, Transport};
use crate::{
    Config, Environment, chain::EtcdOptions, etcd::Store, message, name::Name, plugin::Challenges, zone::Cluster,
};

pub(crate) const ARRIVAL: Arrival = Arrival {
    from: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 244, 1, 2)), 4000),
    transport: Transport::Udp,
    port: 53,
    scheme: crate::corefile::Scheme::Dns,
    bound: None,
    keepalive: None,
    local: Some(IpAddr::V4(Ipv4Addr::new(10, 233, 0, 10))),
};

/// Surroundings in which nothing happens by itself: time stands still, and messages wait to be answered by the test.
pub(crate) struct Still {
    start: Instant,
    elapsed: Mutex<Duration>,
    ids: AtomicU64,
    sent: Mutex<Vec<Sent>>,
    spawned: Mutex<Vec<BoxFuture<'static, ()>>>,
    asleep: Mutex<Vec<oneshot::Sender<()>>>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) challenges: Arc<Challenges>,
}

/// A message on its way to an upstream.
pub(crate) struct Sent {
    pub(crate) exchange: Exchange,
    back: oneshot::Sender<io::Result<Vec<u8>>>,
}

impl std::ops::Deref for Sent {
    type Target = Exchange;
    fn deref(&self) -> &Exchange {
        &self.exchange
    }
}

impl Outside for Still {
    fn exchange(&self, exchange: Exchange) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        let (back, answer) = oneshot::channel();
        self.sent.lock().unwrap().push(Sent { exchange, back });
        answer.map(|answer| answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))).boxed()
    }

    fn converse(&self, exchange: Exchange, mut take: super::Take) -> BoxFuture<'static, io::Result<()>> {
        let answer = self.exchange(exchange);
        // Messages follow each other with their lengths before them, as on a connection.
        let taken = answer.map(move |stream| {
            let stream = stream?;
            let mut rest = &stream[..];
            while let Some((length, more)) = rest.split_first_chunk::<2>() {
                let (message, more) = more.split_at(u16::from_be_bytes(*length).into());
                rest = more;
                if !take(message) {
                    return Ok(());
                }
            }
            Err(io::ErrorKind::UnexpectedEof.into())
        });
        taken.boxed()
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        let (wake, woken) = oneshot::channel();
        self.asleep.lock().unwrap().push(wake);
        woken.map(|_| ()).boxed()
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.spawned.lock().unwrap().push(work);
    }

    fn host(&self) -> String {
        "dns-1".to_owned()
    }

    fn now(&self) -> Instant {
        self.start + *self.elapsed.lock().unwrap()
    }

    fn unix(&self) -> u64 {
        1_800_000_000 + self.elapsed.lock().unwrap().as_secs()
    }

    fn random(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn store(&self, _: &EtcdOptions) -> Arc<dyn Store> {
        Arc::clone(&self.shelf) as Arc<dyn Store>
    }

    fn challenges(&self) -> Option<Arc<Challenges>> {
        Some(Arc::clone(&self.challenges))
    }

    /// One client is known: [`ARRIVAL`]'s, a pod of the namespace `web` on a node with a search path of its own.
    fn search_of(&self, client: IpAddr) -> Option<Arc<ClientSearch>> {
        let search = ClientSearch { namespace: "web".into(), behind: vec![name("corp.example")] };
        (client == ARRIVAL.from.ip()).then(|| Arc::new(search))
    }

    fn has_service(&self, namespace: &Namespace, name: &[u8]) -> bool {
        namespace.as_str() == "web" && [&b"db"[..], b"peers", b"shop"].contains(&name)
    }
}

pub(crate) struct Rig {
    pub(crate) server: Arc<Server>,
    pub(crate) cluster: Cluster,
    pub(crate) outside: Arc<Still>,
    pub(crate) events: Arc<Mutex<Vec<String>>>,
}

/// A client that waits.
pub(crate) struct Waiting(BoxFuture<'static, Option<Vec<u8>>>);

impl Waiting {
    pub(crate) fn new(response: impl Future<Output = Option<Vec<u8>>> + Send + 'static) -> Self {
        Self(response.boxed())
    }

    /// Its response, where there is one by now.
    pub(crate) fn response(&mut self) -> Option<Vec<u8>> {
        match self.0.poll_unpin(&mut Context::from_waker(futures::task::noop_waker_ref())) {
            Poll::Ready(response) => Some(response.expect("it is not answered")),
            Poll::Pending => None,
        }
    }

    pub(crate) fn told(&mut self) -> Vec<String> {
        told(&self.response().expect("no response yet"))
    }
}

fn server(
    corefile: &str,
    file: Option<&str>,
    cluster: &Cluster,
    outside: &Arc<Still>,
    events: &Arc<Mutex<Vec<String>>>,
) -> Arc<Server> {
    let file = |_: &str| file.map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into());
    let config = Config::load("Corefile", corefile, &Environment { file: &file, ..Environment::EMPTY }).unwrap();
    configured(config, cluster, outside, events)
}

fn configured(
    config: Config,
    cluster: &Cluster,
    outside: &Arc<Still>,
    events: &Arc<Mutex<Vec<String>>>,
) -> Arc<Server> {
    let events = Arc::clone(events);
    let observer = Box::new(move |event: &super::Event<'_>| events.lock().unwrap().push(format!("{event:?}")));
    Arc::new(Server::new(config, cluster, 1, Arc::default(), Arc::clone(outside) as Arc<dyn Outside>, observer))
}

impl Rig {
    pub(crate) fn new(corefile: &str) -> Self {
        Self::with_file(corefile, None)
    }

    /// A server for whose Corefile every file has the same text.
    pub(crate) fn with_file(corefile: &str, file: Option<&str>) -> Self {
        let (cluster, events) = (Cluster::default(), Arc::default());
        let outside = Arc::new(Still {
            start: Instant::now(),
            elapsed: Mutex::default(),
            ids: AtomicU64::new(1000),
            sent: Mutex::default(),
            spawned: Mutex::default(),
            asleep: Mutex::default(),
            shelf: Arc::default(),
            challenges: Arc::default(),
        });
        Self { server: server(corefile, file, &cluster, &outside, &events), cluster, outside, events }
    }

    pub(crate) fn reload(&mut self, corefile: &str) {
        self.server = server(corefile, None, &self.cluster, &self.outside, &self.events);
        self.server.set_synced();
    }

    /// The server of another Corefile, and of these files, a directory being what stands before a slash.
    pub(crate) fn reload_with(&mut self, corefile: &str, files: &BTreeMap<String, String>) {
        let read = |path: &str| files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into());
        let list = |directory: &str| {
            let below = files.keys().filter_map(|path| path.strip_prefix(directory)?.strip_prefix('/'));
            Ok(below.map(str::to_owned).collect())
        };
        let environment = Environment { variable: &|_| None, file: &read, list: &list, ..Environment::EMPTY };
        self.replace(Config::load("Corefile", corefile, &environment).unwrap());
    }

    /// The server of another configuration, which knows the same cluster.
    pub(crate) fn replace(&mut self, config: Config) {
        self.server = configured(config, &self.cluster, &self.outside, &self.events);
        self.server.set_synced();
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        self.cluster.apply(change);
    }

    pub(crate) fn namespace(&mut self, namespace: &Namespace, labels: Option<&Labels>) {
        self.cluster.namespace(namespace, labels);
    }

    /// From now on it is so many seconds after the start.
    pub(crate) fn at(&self, seconds: u64) {
        *self.outside.elapsed.lock().unwrap() = Duration::from_secs(seconds);
    }

    pub(crate) fn handle_from(&self, packet: &[u8], arrival: &Arrival) -> (Outcome, Vec<u8>) {
        let mut out = Vec::new();
        let outcome = self.server.handle(packet, arrival, self.outside.now(), &mut out);
        (outcome, out)
    }

    pub(crate) fn handle(&self, packet: &[u8]) -> (Outcome, Vec<u8>) {
        self.handle_from(packet, &ARRIVAL)
    }

    /// The response to a packet that is answered at once, or as soon as it is worked on.
    pub(crate) fn answer(&self, packet: &[u8]) -> Vec<u8> {
        match self.handle(packet) {
            (Outcome::Answer, response) => response,
            (Outcome::Later(later), _) => {
                let response = Arc::clone(&self.server).finish(later).now_or_never();
                response.expect("the answer takes time").expect("it is not answered")
            }
            (Outcome::Drop | Outcome::Transfer(_), _) => panic!("no answer"),
        }
    }

    pub(crate) fn ask(&self, name: &str, qtype: u16) -> Vec<String> {
        told(&self.answer(&query(name, qtype)))
    }

    /// A client that has to wait, its question being worked on as far as can be.
    pub(crate) fn wait(&self, packet: &[u8]) -> Waiting {
        let (Outcome::Later(later), _) = self.handle(packet) else { panic!("answered at once") };
        self.waiting(later)
    }

    pub(crate) fn waiting(&self, later: Box<super::Later>) -> Waiting {
        let mut waiting = Waiting(Arc::clone(&self.server).finish(later).boxed());
        assert_eq!(waiting.response(), None);
        waiting
    }

    /// What was sent since the last look.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.outside.sent.lock().unwrap())
    }

    /// A client that waits, and the one message that was sent for it.
    pub(crate) fn forward(&self, packet: &[u8]) -> (Waiting, Sent) {
        let waiting = self.wait(packet);
        (waiting, self.sent().pop().expect("nothing was sent"))
    }

    /// Whatever waits for a time has waited long enough.
    pub(crate) fn wake(&self) {
        self.outside.asleep.lock().unwrap().drain(..).for_each(|wake| {
            let _ = wake.send(());
        });
    }

    /// Goes on with what nobody waits for.
    pub(crate) fn work(&self) {
        let mut spawned = std::mem::take(&mut *self.outside.spawned.lock().unwrap());
        spawned
            .retain_mut(|work| work.poll_unpin(&mut Context::from_waker(futures::task::noop_waker_ref())).is_pending());
        self.outside.spawned.lock().unwrap().append(&mut spawned);
    }
}

impl Sent {
    /// The upstream answers.
    pub(crate) fn answered(self, message: Vec<u8>) {
        assert!(self.exchange.accepts(&message), "the exchange does not take this answer");
        let _ = self.back.send(Ok(message));
    }

    /// The upstream answers with a code and addresses.
    pub(crate) fn tells(self, rcode: u16, addrs: &[[u8; 4]]) {
        let answer = upstream_answer(&self.exchange.message, rcode, addrs);
        self.answered(answer);
    }

    /// A primary sends these messages over the connection.
    pub(crate) fn delivered(self, stream: Vec<u8>) {
        let _ = self.back.send(Ok(stream));
    }

    /// The upstream is silent.
    pub(crate) fn failed(self) {
        let _ = self.back.send(Err(io::ErrorKind::TimedOut.into()));
    }
}

/// A query over the name as it is spelled.
pub(crate) fn query(name: &str, qtype: u16) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&qtype.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet
}

/// The query with an OPT record.
pub(crate) fn with_edns(mut packet: Vec<u8>, size: u16, version: u8, dnssec_ok: bool) -> Vec<u8> {
    packet[11] += 1;
    packet.extend_from_slice(&[0, 0, 41]);
    packet.extend_from_slice(&size.to_be_bytes());
    packet.extend_from_slice(&[0, version, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    packet
}

/// What an upstream answers to a query: A records.
pub(crate) fn upstream_answer(query: &[u8], rcode: u16, addrs: &[[u8; 4]]) -> Vec<u8> {
    let (name, end) = crate::name::QueryName::parse(query, 12).unwrap();
    let _ = name;
    let mut message = query[..end + 4].to_vec();
    message[2..4].copy_from_slice(&(0x8180 | rcode).to_be_bytes());
    message[6..8].copy_from_slice(&(addrs.len() as u16).to_be_bytes());
    message[10..12].copy_from_slice(&[0, 0]);
    for addr in addrs {
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend_from_slice(addr);
    }
    message
}

/// A response as text: code, records of the answer; `SOA` for one in the authority section; `+` before additional ones.
pub(crate) fn told(response: &[u8]) -> Vec<String> {
    let message = Message::from_octets(response).unwrap();
    let mut told = vec![message::Rcode(message.header().rcode().to_int().into()).mnemonic().to_owned()];
    let (_, answers, authority, additional) = message.sections().unwrap();
    for (section, records) in [(0, answers), (1, authority), (2, additional)] {
        for record in records {
            let record = record.unwrap();
            if record.rtype() == Rtype::OPT {
                continue;
            }
            let record = record.to_record::<AllRecordData<_, ParsedName<_>>>().unwrap().unwrap();
            told.push(match section {
                0 => format!("{} {}", record.rtype(), record.data()),
                1 => record.rtype().to_string(),
                _ => format!("+{} {}", record.rtype(), record.data()),
            });
        }
    }
    told.iter().map(|line| line.replace(". ", " ").trim_end_matches('.').to_owned()).collect()
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}
