//! Clients that connect all the time.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use podnet_kernel::{netlink::RtSocket, pod_interface::PodInterface, sysctl};
use podnet_model::Mac;
use podnet_testnet::eventually;

use super::cluster::{BACKENDS, CLIENT, PORT, Random, TALK_PORT, TALKING, TARGET_PORT, TARGET_TALK_PORT, cluster_ip};
use crate::{group::Group, namespace::Namespace};

const CLIENTS: u64 = 4;
/// Between two connections of a client.
const PAUSE: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_secs(15);

/// The node, and two pods.
pub(super) struct Network {
    pub(super) node: Namespace,
    pub(super) client: Namespace,
    pub(super) backends: Namespace,
}

impl Network {
    pub(super) fn new(tag: &str) -> Self {
        let [node, client, backends] =
            ["node", "client", "backends"].map(|name| Namespace::new(&format!("churn-{tag}-{name}")));
        let mut socket = RtSocket::open_in(&node.netns).unwrap();
        let gateway = Ipv4Addr::new(10, 250, 0, 2);
        for (number, pod, addr) in [(1, &client, CLIENT), (2, &backends, gateway)] {
            let interface = PodInterface {
                netns: pod.netns.clone(),
                container_ifname: "eth0".into(),
                host_ifname: format!("pod{number}").as_str().into(),
                addr: vec![IpAddr::V4(addr)],
                routes: Vec::new(),
                mtu: 1500,
                pod_mac: Mac([2, 0, 0, 2, 1, number]),
                host_mac: Mac([2, 0, 0, 2, 2, number]),
                bridge: None,
            };
            interface.create(&mut socket).unwrap();
        }
        node.command("ip addr add 192.0.2.1/32 dev lo");
        node.command(&format!("ip route add {BACKENDS} via {gateway} dev pod2 onlink"));
        // Services' addresses lead nowhere: the route is only there so that what is not translated gets as far as to be refused.
        node.command("ip route add 10.233.0.0/18 dev pod1");
        backends.command(&format!("ip route add local {BACKENDS} dev lo"));
        // Connections that have ended are forgotten at once: the table has room for those of some minutes only.
        for state in ["time_wait", "close", "close_wait", "last_ack", "fin_wait"] {
            sysctl::set(&node.netns, &format!("net.netfilter.nf_conntrack_tcp_timeout_{state}"), "1").unwrap();
        }
        Self { node, client, backends }
    }
}

/// A connection that was tried.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) service: u32,
    pub(super) begun: Instant,
    pub(super) ended: Instant,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) enum End {
    /// By this backend.
    Answered(Ipv4Addr),
    /// At once.
    Refused,
    Failed(String),
}

/// Clients at work.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<Connection>>>,
    talks: Vec<JoinHandle<Result<u32, String>>>,
}

/// What clients met.
pub(super) struct Met {
    /// All connections that were tried.
    pub(super) connections: Vec<Connection>,
    /// How many questions each lasting connection had answered, or how it ended.
    pub(super) talks: Vec<Result<u32, String>>,
}

impl Load {
    /// Returns when all lasting connections are made.
    pub(super) fn start(network: &Network, group: Option<&Arc<Group>>, services: u32) -> Self {
        serve(network, TARGET_PORT, answer);
        serve(network, TARGET_TALK_PORT, |stream| drop(thread::spawn(move || echo(&stream))));
        let stop = Arc::new(AtomicBool::new(false));
        let made = Arc::new(AtomicUsize::new(0));
        let talks: Vec<_> = (0..TALKING).map(|service| talk(network, service, group, &stop)).collect();
        let clients = (1..=CLIENTS).map(|number| {
            let (netns, group) = (network.client.netns.clone(), group.cloned());
            let (stop, made) = (Arc::clone(&stop), Arc::clone(&made));
            thread::spawn(move || {
                netns.enter_current_thread().unwrap();
                enter(group.as_ref());
                let mut random = Random(number);
                let mut connections = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    connections.push(connect(random.service(services)));
                    made.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
                connections
            })
        });
        Self { clients: clients.collect(), talks, stop, made }
    }

    /// Until so many more connections were tried.
    pub(super) fn wait_for(&self, more: usize) {
        let before = self.made.load(Ordering::Relaxed);
        let count = || match self.made.load(Ordering::Relaxed) - before {
            made if made >= more => Ok(()),
            made => Err(format!("{made} of {more}")),
        };
        eventually("connections", Duration::from_secs(60), count);
    }

    pub(super) fn stop(self) -> Met {
        self.stop.store(true, Ordering::Relaxed);
        let connections = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        Met { connections, talks: self.talks.into_iter().map(|talk| talk.join().unwrap()).collect() }
    }
}

/// Until the end of the test's process.
fn serve(network: &Network, port: u16, answer: impl Fn(TcpStream) + Send + 'static) {
    let listener = network.backends.netns.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    let listener = listener.unwrap().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
}

/// Says back what it hears.
fn echo(mut stream: &TcpStream) {
    let mut said = [0; 4];
    while stream.read_exact(&mut said).is_ok() && stream.write_all(&said).is_ok() {}
}

/// A connection that lasts, whatever becomes of its backend.
fn talk(
    network: &Network,
    service: u32,
    group: Option<&Arc<Group>>,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<Result<u32, String>> {
    let to = (cluster_ip(service), TALK_PORT).into();
    let open = || {
        enter(group);
        TcpStream::connect_timeout(&to, PATIENCE)
    };
    let stream = network.client.netns.run(open).unwrap();
    let (mut stream, stop) = (stream.unwrap(), Arc::clone(stop));
    let mut ask = move |number: u32| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&number.to_be_bytes())?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        if u32::from_be_bytes(answer) == number { Ok(()) } else { Err(std::io::Error::other("another answer")) }
    };
    thread::spawn(move || {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            ask(number).map_err(|error| format!("Service {service}: question {number}: {error}"))?;
            thread::sleep(Duration::from_millis(5));
        }
        Ok(number)
    })
}

/// Tells who was reached.
fn answer(mut stream: TcpStream) {
    if let Ok(SocketAddr::V4(own)) = stream.local_addr() {
        // A client that is gone needs no answer.
        let _ = stream.write_all(&own.ip().octets());
    }
}

/// Moves the calling thread to where clients are seen, if anything is done at their sockets.
pub(super) fn enter(group: Option<&Arc<Group>>) {
    if let Some(group) = group {
        group.enter();
    }
}

fn connect(service: u32) -> Connection {
    let begun = Instant::now();
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&(cluster_ip(service), PORT).into(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(answer.into())
    };
    let end = match ask() {
        Ok(backend) => End::Answered(backend),
        // A program has taken it before it knows of no backend.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => End::Refused,
        Err(error) => End::Failed(error.to_string()),
    };
    Connection { service, begun, ended: Instant::now(), end }
}
