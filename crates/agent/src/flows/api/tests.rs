//! Who is let in, who turns recording on, and how much one may have; over TLS on the loopback device, with an API server of a few lines.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use futures::future::join_all;
use kube::client::Body as Answer;
use podnet_flow::{Gap, record::GapAt};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    connections::{PATIENCE, accept, opened},
    *,
};
use crate::flows::past::Past;

mod api_server;
mod capture;
mod ends;
mod forwarding;
mod joined;
mod probe;
mod rights;

use api_server::ApiServer;

const DEADLINE: Duration = Duration::from_secs(30);
const RETENTION: Retention = Retention { time: SignedDuration::from_mins(10), bytes: 1 << 20 };

/// An agent's API, where flows are recorded.
struct Lab {
    directory: TempDir,
    address: SocketAddr,
    demand: Arc<Demand>,
    past: Arc<Past>,
    api: Arc<ApiServer>,
    here: Arc<capture::Pods>,
    own: Arc<forwarding::Node>,
}

impl Lab {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        certify(&directory);
        let api = Arc::new(ApiServer::new());
        let server = api.clone();
        let service = tower::service_fn(move |request: Request<Answer>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let demand = Demand::new(Scope::Nothing);
        let here = Arc::new(capture::Pods::default());
        let own = Arc::new(forwarding::Node::default());
        let past = Past::new(RETENTION, None);
        demand.set_past(past.clone());
        let (identity, listener) =
            opened(&config(&directory), (Ipv4Addr::LOCALHOST, 0).into(), |error| panic!("{error:?}")).await;
        let address = listener.local_addr().unwrap();
        let client = Client::new(service, "default");
        let (node, address_of_node) = ("node1".into(), Ipv4Addr::LOCALHOST.into());
        let (demand_of, here_of, own_of) = (demand.clone(), here.clone(), own.clone());
        let answers = Answers { node, address: address_of_node, client, demand: demand_of, here: here_of, own: own_of };
        tokio::spawn(accept(listener, identity, Server::new(answers)));
        Self { directory, address, demand, past, api, here, own }
    }

    async fn connect(&self, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        let own = std::fs::read(self.directory.path().join("own.der")).unwrap();
        roots.add(own.into()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await
    }

    /// The status of the answer to a question, and the connection.
    async fn ask(&self, token: &str, query: &str) -> (u16, TlsStream<TcpStream>) {
        let mut stream = self.connect(b"http/1.1").await.unwrap();
        let request = format!("GET /flows?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = until_read(&mut stream, "\r\n\r\n").await;
        (head.split(' ').nth(1).unwrap().parse().unwrap(), stream)
    }
}

fn certify(directory: &TempDir) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(directory.path().join(name), text).unwrap();
    write("own.der", made.cert.der());
    write("own.pem", made.cert.pem().as_bytes());
    write("own.key", made.signing_key.serialize_pem().as_bytes());
}

fn config(directory: &TempDir) -> FlowApi {
    let path = |name: &str| directory.path().join(name);
    let (certificate, key) = (path("own.pem"), path("own.key"));
    let client_ca = ClientAuthority::File(path("own.pem"));
    FlowApi { port: 0, certificate, key, client_ca, retention: None }
}

async fn until_read(stream: &mut TlsStream<TcpStream>, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let byte = timeout(DEADLINE, stream.read_u8()).await.unwrap_or_else(|_| panic!("only {text:?}"));
        text.push(char::from(byte.unwrap_or_else(|error| panic!("{error} after {text:?}"))));
    }
    text
}

/// Whether the other end closes the connection in time.
async fn is_closed(stream: &mut TlsStream<TcpStream>) -> bool {
    let mut rest = Vec::new();
    // A connection may be closed in more ways than one.
    timeout(DEADLINE, stream.read_to_end(&mut rest)).await.is_ok()
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < DEADLINE, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn gap() -> Item {
    let (at, node) = (Timestamp::now(), "node1".into());
    Item::Gap(Gap {
        start: at,
        end: at,
        node,
        at: GapAt::Kernel,
        device: None,
        pod: None,
        packets: 77,
        bytes: 0,
        flows: 0,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn recording_is_turned_on_by_who_may_see_flows_of_this_node_and_by_nobody_else() {
    let lab = Lab::new().await;
    for (token, query, status) in [
        ("nobody", "follow=true", 401),
        ("elsewhere", "follow=true", 403),
        ("lister", "follow=true", 403),
        ("lister", "follow=true&is=to%3Dnamespace%2Fweb", 403),
        ("lister", "follow=true&pod-to-pod=true&is=to%3Dservice%2Fshop%2Fcart", 200),
        ("here", "follow=true&pod-to-pod=true", 200),
    ] {
        let (found, stream) = lab.ask(token, query).await;
        assert_eq!(found, status, "{token}: {query}");
        let scope = if status == 200 { Scope::PodToPod } else { Scope::Nothing };
        assert_eq!(lab.demand.scope(), scope, "{token}: {query}");
        drop(stream);
        until("who went away is still followed for", async || lab.demand.scope() == Scope::Nothing).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_nobody_is_reviewed_once_and_closes_the_connection_and_few_are_reviewed_at_once() {
    let lab = Lab::new().await;
    for _ in 0..3 {
        let (status, mut stream) = lab.ask("nobody", "").await;
        assert_eq!(status, 401);
        assert!(is_closed(&mut stream).await);
    }
    assert_eq!(lab.api.reviews.swap(0, Ordering::SeqCst), 1);
    let turned_away = AtomicUsize::new(0);
    let asked = join_all((0..7).map(|number| {
        let (lab, turned_away) = (&lab, &turned_away);
        async move {
            let (status, _) = lab.ask(&format!("slow-{number}"), "").await;
            turned_away.fetch_add(usize::from(status == 429), Ordering::SeqCst);
            status
        }
    }));
    let answered = async {
        until("nobody is turned away", async || turned_away.load(Ordering::SeqCst) == 3).await;
        lab.api.gate.add_permits(7);
    };
    let (mut statuses, ()) = tokio::join!(asked, answered);
    statuses.sort_unstable();
    assert_eq!(statuses, [401, 401, 401, 401, 429, 429, 429]);
    assert_eq!(lab.api.reviews.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_nothing_is_closed_and_who_follows_is_not() {
    let lab = Lab::new().await;
    let (status, mut following) = lab.ask("here", "follow=true").await;
    assert_eq!(status, 200);
    let begun = Instant::now();
    let mut silent = lab.connect(b"http/1.1").await.unwrap();
    assert!(is_closed(&mut silent).await, "before it says anything");
    let idle = lab.connect(b"h2").await.unwrap();
    let (sender, idle) = hyper::client::conn::http2::handshake::<_, _, Body>(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(idle),
    )
    .await
    .unwrap();
    assert!(timeout(DEADLINE, idle).await.is_ok(), "answers pings, and asks nothing");
    drop(sender);
    assert!(begun.elapsed() > PATIENCE);
    lab.past.add(&[gap()], Timestamp::now());
    until_read(&mut following, "77").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_its_share_of_the_connections() {
    let lab = Lab::new().await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(TcpStream::connect(lab.address).await.unwrap());
    }
    let mut one_more = TcpStream::connect(lab.address).await.unwrap();
    let mut byte = [0; 1];
    let first = async { silent[0].read(&mut [0; 1]).await };
    tokio::select! {
        biased;
        closed = one_more.read(&mut byte) => assert!(matches!(closed, Ok(0) | Err(_))),
        _ = first => panic!("the first one was closed"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pod_has_its_share_of_the_readers() {
    let lab = Lab::new().await;
    let mut following = Vec::new();
    for _ in 0..4 {
        let (status, stream) = lab.ask("here", "follow=true").await;
        assert_eq!(status, 200);
        following.push(stream);
    }
    assert_eq!(lab.ask("here", "follow=true").await.0, 429);
    assert_eq!(lab.ask("lister", "").await.0, 200, "others have theirs");
    following.pop();
    until("a reader who went away counts", async || lab.ask("here", "follow=true").await.0 == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_and_files_that_are_missing_are_told_once_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let opening = tokio::spawn({
        let (config, told) = (config(&directory), told.clone());
        async move {
            opened(&config, address, |error| {
                assert!(chain(error).contains("--flow-port"), "{error:?}");
                told.fetch_add(1, Ordering::SeqCst);
            })
            .await
        }
    });
    until("it is not told", async || told.load(Ordering::SeqCst) == 1).await;
    certify(&directory);
    drop(taken);
    let (_, listener) = timeout(DEADLINE, opening).await.unwrap().unwrap();
    assert_eq!((listener.local_addr().unwrap(), told.load(Ordering::SeqCst)), (address, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_hears_what_they_have_not_heard_and_nothing_twice() {
    let lab = Lab::new().await;
    lab.past.add(&[gap(), gap(), gap()], Timestamp::now());
    let epoch = lab.past.epoch();
    for (after, first) in [(format!("node1/{epoch}/0"), 1), (format!("node1/{}/7", epoch - 1), 0)] {
        let (status, mut stream) = lab.ask("here", &format!("follow=true&after={}", after.replace('/', "%2F"))).await;
        assert_eq!(status, 200);
        let text = until_read(&mut stream, &format!("\"node1/{epoch}/2\"")).await;
        // Of what an earlier recording counted this one knows nothing.
        let (ahead, items): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("\"type\":\"begun\""));
        assert_eq!(ahead.len(), usize::from(first == 0), "{after}: {text}");
        let heard = [0, 1].map(|number| items.concat().contains(&format!("\"node1/{epoch}/{number}\"")));
        assert_eq!(heard, [first == 0, true], "{after}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_is_told_of_no_beginning_where_another_agent_goes_on_with_what_was_counted() {
    let lab = Lab::new().await;
    let past = Past::new(RETENTION, Some(7));
    past.add(&[gap()], Timestamp::now());
    lab.demand.set_past(past);
    // Of one that was heard before the one before it nothing is known.
    for (heard, is_told) in [(7, false), (6, true)] {
        let (status, mut stream) = lab.ask("here", &format!("follow=true&after=node1%2F{heard}%2F7")).await;
        assert_eq!(status, 200);
        let text = until_read(&mut stream, "\"type\":\"gap\"").await;
        assert_eq!(text.contains("\"type\":\"begun\""), is_told, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_more_than_is_kept_is_told_that_and_when_recording_began() {
    let lab = Lab::new().await;
    let now = Timestamp::now();
    // The first one is forgotten as the second one comes.
    lab.past.add(&[gap()], now - SignedDuration::from_hours(1));
    lab.past.add(&[gap()], now);
    for (query, is_told) in [("since=300", true), ("", false)] {
        let (status, mut stream) = lab.ask("here", query).await;
        assert_eq!(status, 200);
        let text = until_read(&mut stream, "0\r\n\r\n").await;
        let told = ["\"type\":\"begun\"", "\"at\":\"store\"", "\"at\":\"kernel\""].map(|part| text.contains(part));
        assert_eq!(told, [is_told, is_told, true], "{query}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_waits_for_an_api_server_that_is_away_and_hears_all() {
    let lab = Lab::new().await;
    let (status, mut following) = lab.ask("here", "follow=true").await;
    assert_eq!(status, 200);
    lab.api.is_away.store(true, Ordering::SeqCst);
    lab.past.add(&[gap()], Timestamp::now());
    // Chunks of one byte, which is the end of a line.
    let silence = "1\r\n\n\r\n".repeat(2);
    until_read(&mut following, &silence).await;
    lab.api.is_away.store(false, Ordering::SeqCst);
    until_read(&mut following, "77").await;
}
