//! Surroundings of a server in which everything happens at once: upstreams answer with what the input has for them.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, pending, ready},
};
use podnet_dns::{
    Arrival, Config, Environment, Exchange, Outcome, Outside, Server, Transport,
    corefile::Scheme,
    message::HEADER,
    name::Name,
    server::{ClientSearch, Event, Take},
};
use podnet_model::Namespace;

use super::{
    cluster::{CLIENT, NAMESPACE, cluster},
    question_end,
    signing::Signing,
};

/// What time it is, in seconds since 1970.
pub const NOW: u64 = 1_800_000_000;

/// How many conversations upstreams take part in: a catalog that lists many zones costs no more than one that lists few.
const MOST_CONVERSATIONS: usize = 8;

/// What every upstream answers.
#[derive(Debug, Default)]
pub struct Upstreams {
    /// The bytes.
    pub answer: Mutex<Vec<u8>>,
    /// They stand behind the header and the question that were asked, so that they are heard.
    pub behind_question: bool,
    /// Signs them, and has its own for questions about keys. They stand behind the question, too.
    pub signing: Option<Signing>,
    /// How many conversations there were.
    pub conversations: AtomicUsize,
    /// The last number.
    pub random: AtomicU64,
}

impl Outside for Upstreams {
    fn exchange(&self, exchange: Exchange) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        let told = self.answer.lock().map(|answer| answer.clone()).unwrap_or_default();
        let mut message = match &self.signing {
            Some(signing) => signing.answer(&exchange.message, &told),
            None if self.behind_question => behind_question(&exchange.message, &told),
            None => told,
        };
        if message.len() > 2 {
            message[..2].copy_from_slice(&exchange.message[..2]);
            message[2] |= 0x80;
        }
        let heard = exchange.accepts(&message);
        Box::pin(ready(if heard { Ok(message) } else { Err(io::ErrorKind::TimedOut.into()) }))
    }

    fn converse(&self, exchange: Exchange, mut take: Take) -> BoxFuture<'static, io::Result<()>> {
        if self.conversations.fetch_add(1, Ordering::Relaxed) >= MOST_CONVERSATIONS {
            return Box::pin(ready(Err(io::ErrorKind::TimedOut.into())));
        }
        let said_twice = move |message: Vec<u8>| {
            // No more often: a message that ends nothing would never be the last one.
            for _ in 0..2 {
                if !take(&message) {
                    break;
                }
            }
        };
        self.exchange(exchange).map(move |answered| answered.map(said_twice)).boxed()
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(pending())
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        let _ = work.now_or_never();
    }

    fn host(&self) -> String {
        "host".to_owned()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix(&self) -> u64 {
        NOW
    }

    fn random(&self) -> u64 {
        self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    fn search_of(&self, _: IpAddr) -> Option<Arc<ClientSearch>> {
        let behind = Name::parse("corp.example").ok().into_iter().collect();
        Some(Arc::new(ClientSearch { namespace: NAMESPACE.into(), behind }))
    }

    fn has_service(&self, _: &Namespace, name: &[u8]) -> bool {
        [&b"web"[..], b"db"].contains(&name)
    }
}

/// The header and the records of an answer with the question of a query between them.
#[must_use]
pub fn behind_question(query: &[u8], answer: &[u8]) -> Vec<u8> {
    let mut whole = query[..question_end(query)].to_vec();
    let (head, records) = answer.split_at(answer.len().min(HEADER));
    whole[..head.len()].copy_from_slice(head);
    whole[4..6].copy_from_slice(&[0, 1]);
    whole.extend_from_slice(records);
    whole
}

/// The key of the zone `example`.
pub const KEY: &str = "example. IN DNSKEY 257 3 13 5qb5yppGtrOhOyQgrY9HZqw9YV+DzjtamKELj6Sc0qUE7B7EvFiwhI4I \
                       DLY4uD6/X46XkaBfJJinUQitMw2xug==\n";

/// The same that signs.
pub const PRIVATE_KEY: &str = "Private-key-format: v1.3\nAlgorithm: 13 (ECDSAP256SHA256)\n\
                               PrivateKey: 6z5D3z/78u86QsY1YYXL2VW8z7XkbCPEHe9xS77yfkU=\n";

/// What Corefiles name: that key, and whom to trust.
const FILES: [(&str, &str); 3] = [("Kexample.key", KEY), ("Kexample.private", PRIVATE_KEY), ("anchors", KEY)];

/// A server of a Corefile that knows all there is of a small cluster.
#[must_use]
pub fn server(config: Config, upstreams: Upstreams) -> Arc<Server> {
    let server = Server::new(config, &cluster(), 1, Arc::default(), Arc::new(upstreams), Box::new(heard));
    server.set_synced();
    Arc::new(server)
}

/// A panic on the way to an answer, which the server survives, is a fault all the same.
fn heard(event: &Event<'_>) {
    if let Event::Failed { message, .. } = event {
        assert!(!message.contains(" led to a panic, which was survived: "), "{message}");
    }
}

/// The server of a Corefile that names no other files than the keys of a zone.
#[must_use]
pub fn of_corefile(corefile: &str, upstreams: Upstreams) -> Arc<Server> {
    let file = |path: &str| {
        let known = FILES.iter().find(|(name, _)| path.ends_with(name));
        known.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    let environment = Environment { file: &file, ..Environment::EMPTY };
    let config = Config::load("Corefile", corefile, &environment).expect("the fuzzed Corefile is right");
    server(config, upstreams)
}

/// The response to a packet, where there is one.
#[must_use]
pub fn asked(server: &Arc<Server>, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let from = format!("{CLIENT}:4000").parse().expect("it is an address");
    let local = "10.96.0.10".parse().ok();
    let arrival = Arrival { from, transport, port: 53, scheme: Scheme::Dns, bound: None, local, keepalive: None };
    let mut out = Vec::new();
    match server.handle(packet, &arrival, Instant::now(), &mut out) {
        Outcome::Answer => Some(out),
        Outcome::Later(later) => {
            let finished = Arc::clone(server).finish(later).now_or_never();
            finished.unwrap_or_else(|| panic!("a question waits although everything happens at once: {packet:02x?}"))
        }
        Outcome::Transfer(_) | Outcome::Drop => None,
    }
}
