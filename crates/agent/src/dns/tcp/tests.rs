//! Connections whose clients do not read, and connections that give way, over pipes that hold next to nothing.

mod rfc7766;

use std::net::{Ipv4Addr, SocketAddr};

use axum::http::Request;
use http_body_util::Empty;
use hyper::{body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podnet_dns::{Config, Environment, Port, Server, Transport, zone::Cluster};
use tokio::{
    io::DuplexStream,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::dns::{
    Shared,
    door::{CONNECTIONS, Places, STREAMS},
    keeper::observer,
    outside::Network,
    unread::Unread,
    web,
};

const DEADLINE: Duration = Duration::from_secs(20);
/// The bounds in these tests, in bytes. `big` has an answer of 32 KB.
const OF_ONE: usize = 200_000;
const OF_ALL: usize = 400_000;
const BIG: usize = 2000;

fn port(scheme: Scheme) -> Port {
    Port { scheme, address: None, number: 53 }
}

/// A way in to a server that answers at once, or for `silent` after a minute.
fn door(scheme: Scheme, write: Duration) -> Arc<Door> {
    let names: String = (0..BIG).map(|n| format!("  10.1.{}.{} big\n", n / 250, n % 250)).collect();
    let corefile = format!(
        "{0}://silent:53 {{\n erratic {{\n  drop 0\n  delay 1 1m\n }}\n}}\n{0}://.:53 {{\n hosts /nowhere {{\n  10.0.0.1 small\n{names} }}\n}}\n",
        scheme.name()
    );
    let config = Config::load("Corefile", &corefile, &Environment::EMPTY).unwrap();
    let network = Arc::new(Network::new(Arc::default()));
    let server = Server::new(config, &Cluster::default(), 1, Arc::default(), network, observer());
    server.set_synced();
    let patience = Duration::from_secs(30);
    let (connections, streams) = (CONNECTIONS, STREAMS);
    let (max_queries, identity) = (None, None);
    let manners = Manners { read: patience, write, idle: patience, max_queries, connections, streams, identity };
    let mut door = Door::new(Arc::new(Shared::new(Arc::new(server))), port(scheme), manners);
    Arc::get_mut(&mut door).unwrap().unread = Arc::new(Unread::bounded(OF_ONE, OF_ALL));
    door
}

fn arrival(scheme: Scheme) -> Arrival {
    let from = SocketAddr::from((Ipv4Addr::new(10, 244, 1, 2), 4000));
    Arrival { from, transport: Transport::Tcp, port: 53, scheme, bound: None, local: None, keepalive: None }
}

/// A connection of DNS, and its client's end.
fn connect(door: &Arc<Door>, rest: Arc<Rest>) -> (DuplexStream, JoinHandle<()>) {
    let (client, server) = tokio::io::duplex(256);
    let door = Arc::clone(door);
    let serve = async move {
        let (reader, writer) = tokio::io::split(server);
        connection(&door, &door.manners(), reader, writer, arrival(Scheme::Dns), &rest).await;
    };
    (client, tokio::spawn(serve))
}

/// The place of a client that is alone.
async fn rest() -> Arc<Rest> {
    Places::new(1, 1).take(Ipv4Addr::LOCALHOST.into()).await.unwrap().rest()
}

fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
    message.extend_from_slice(name.as_bytes());
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

async fn ask(client: &mut (impl AsyncWrite + Unpin), name: &str) -> io::Result<()> {
    let message = query(name);
    client.write_u16(message.len() as u16).await?;
    client.write_all(&message).await
}

async fn answer(client: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut message = vec![0; client.read_u16().await.unwrap().into()];
    client.read_exact(&mut message).await.unwrap();
    message
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_holds_little_and_is_closed_while_others_are_answered() {
    let door = door(Scheme::Dns, Duration::from_millis(700));
    let (mut deaf, served) = connect(&door, rest().await);
    let asking = tokio::spawn(async move { while ask(&mut deaf, "big").await.is_ok() {} });
    until("its bound is not reached", || door.unread.bytes() > OF_ONE - 70_000).await;
    let (mut other, of_other) = connect(&door, rest().await);
    let mut most = 0;
    while !served.is_finished() {
        most = most.max(door.unread.bytes());
        ask(&mut other, "small").await.unwrap();
        let answer = tokio::time::timeout(DEADLINE, answer(&mut other)).await.expect("nobody is answered");
        assert_eq!(answer[3] & 15, 0);
    }
    assert!(most < OF_ONE + 70_000, "{most} bytes were kept");
    // The rest of what it asked leads nowhere.
    asking.await.unwrap();
    drop(other);
    of_other.await.unwrap();
    until("something is kept for nobody", || door.unread.bytes() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_reach_who_reads_them_however_many_are_asked_for_at_once() {
    let door = door(Scheme::Dns, Duration::from_secs(10));
    let (client, served) = connect(&door, rest().await);
    let (mut reader, mut writer) = tokio::io::split(client);
    let asking = tokio::spawn(async move {
        for _ in 0..60 {
            let message = query("big");
            writer.write_u16(message.len() as u16).await.unwrap();
            writer.write_all(&message).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    for _ in 0..60 {
        let mut message = vec![0; reader.read_u16().await.unwrap().into()];
        reader.read_exact(&mut message).await.unwrap();
        assert!(message.len() > BIG * 16 && message[3] & 15 == 0, "{} bytes", message.len());
    }
    asking.await.unwrap();
    drop(reader);
    served.await.unwrap();
    assert_eq!(door.unread.bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_no_responses_of_http_holds_little_and_is_closed() {
    let door = door(Scheme::Https, Duration::from_millis(700));
    let (client, server) = tokio::io::duplex(256);
    let (at, manners, rest) = (Arc::clone(&door), door.manners(), rest().await);
    let served =
        tokio::spawn(async move { web::connection(&at, manners, server, arrival(Scheme::Https), &rest).await });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1024);
    let (mut sender, connection) = builder.handshake(TokioIo::new(client)).await.unwrap();
    let connection = tokio::spawn(connection);
    let dns = data_encoding::BASE64URL_NOPAD.encode(&query("big"));
    let responses: Vec<_> = (0..60)
        .map(|_| {
            let uri = format!("http://dns/dns-query?dns={dns}");
            sender.send_request(Request::get(uri).body(Empty::<Bytes>::new()).unwrap())
        })
        .collect();
    // Their heads come; their bodies are not read.
    let responses = tokio::spawn(futures::future::join_all(responses));
    let mut most = 0;
    until("the connection is not closed", || {
        most = most.max(door.unread.bytes());
        served.is_finished()
    })
    .await;
    assert!(most > OF_ONE - 70_000 && most < OF_ONE + 70_000, "{most} bytes were kept");
    drop((sender, responses.await));
    let _ = connection.await;
    until("something is kept for nobody", || door.unread.bytes() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_nothing_to_do_gives_way_and_who_waits_for_an_answer_does_not() {
    let door = door(Scheme::Dns, Duration::from_secs(10));
    let places = Places::new(2, 2);
    let client = |last| Ipv4Addr::new(10, 0, 0, last).into();
    let (one, two) = (places.take(client(1)).await.unwrap(), places.take(client(1)).await.unwrap());
    let ((mut idle, of_idle), (mut busy, of_busy)) = (connect(&door, one.rest()), connect(&door, two.rest()));
    ask(&mut busy, "silent").await.unwrap();
    ask(&mut idle, "small").await.unwrap();
    answer(&mut idle).await;
    // Its place is free with its connection.
    let idle_ends = tokio::spawn(async move {
        of_idle.await.unwrap();
        drop(one);
    });
    let second = places.take(client(2)).await;
    assert!(second.is_some(), "nobody gave way");
    idle_ends.await.unwrap();
    assert!(idle.read_u8().await.is_err(), "the connection is not closed");
    assert!(places.take(client(3)).await.is_none(), "who waits for an answer gave way");
    assert!(!of_busy.is_finished());
    of_busy.abort();
    drop(two);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_to_be_let_in_when_a_port_closes_is_answered_and_who_comes_later_is_refused() {
    let door = door(Scheme::Dns, Duration::from_secs(10));
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    door.shared.sockets.note(&listener);
    let mut clients = Vec::new();
    for _ in 0..3 {
        // The kernel takes it in; nobody here has yet.
        let mut client = TcpStream::connect(address).await.unwrap();
        ask(&mut client, "small").await.unwrap();
        clients.push(client);
    }
    let token = CancellationToken::new();
    token.cancel();
    let served = tokio::spawn(Arc::clone(&door).serve(listener, token));
    for mut client in clients {
        let answer = tokio::time::timeout(DEADLINE, answer(&mut client)).await.expect("it is not answered");
        assert_eq!(answer[3] & 15, 0);
    }
    served.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
