//! UDP: a flow for each client, which has its backend and a socket of its own.

use std::{
    cell::RefCell,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use podnet_kernel::datagrams::Datagrams;
use podnet_planner::{ruleset::BackendAddress, services::userspace::Choice};
use tokio::{
    io::Interest,
    net::UdpSocket,
    task::{AbortHandle, yield_now},
    time::sleep,
};
use tracing::debug;

use super::{
    front::Front,
    passed::Known,
    room::{Flowing, Room},
};

/// A flow in which nothing was said for so long is over, as connection tracking has it (`nf_conntrack_udp_timeout`): most are one question
/// and its answer.
const IDLE: Duration = Duration::from_secs(30);
/// One in which the client spoke again after an answer, and later than a moment (`nf_conntrack_udp_timeout_stream`).
const IDLE_THAT_LASTS: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_secs(2);
/// When a socket is in trouble.
const PAUSE: Duration = Duration::from_millis(50);

thread_local! {
    /// Nothing is in it from one call to the next.
    static DATAGRAMS: RefCell<Datagrams> = RefCell::default();
}

/// A client's flow; dropping it ends it.
#[derive(Debug)]
pub(super) struct Flow {
    /// Where it leads.
    pub(super) at: BackendAddress,
    socket: Arc<UdpSocket>,
    used: Arc<Used>,
    task: AbortHandle,
    _known: Option<Known>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// When something was said last, in seconds since it began.
#[derive(Debug)]
struct Used {
    begun: Instant,
    last: Arc<AtomicU64>,
    answered: AtomicBool,
    lasts: AtomicBool,
}

impl Used {
    fn new() -> Self {
        let (answered, lasts) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { begun: Instant::now(), last: Arc::new(AtomicU64::new(clock())), answered, lasts }
    }

    fn asked(&self) {
        self.last.store(clock(), Ordering::Relaxed);
        if self.answered.load(Ordering::Relaxed) && self.begun.elapsed() >= SHORT {
            self.lasts.store(true, Ordering::Relaxed);
        }
    }

    fn answered(&self) {
        self.last.store(clock(), Ordering::Relaxed);
        self.answered.store(true, Ordering::Relaxed);
    }

    /// For how long it may be silent still.
    fn left(&self) -> Duration {
        let idle = if self.lasts.load(Ordering::Relaxed) { IDLE_THAT_LASTS } else { IDLE };
        idle.saturating_sub(Duration::from_secs(clock().saturating_sub(self.last.load(Ordering::Relaxed))))
    }
}

/// Seconds, the same for all flows.
fn clock() -> u64 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGUN.elapsed().as_secs()
}

/// Passes on what comes to a socket for ever, many datagrams at once. However much comes, others have their turn in between.
pub(super) async fn serve(socket: Arc<UdpSocket>, front: Arc<Front>, room: Arc<Room>) {
    loop {
        let taken = socket.async_io(Interest::READABLE, || {
            DATAGRAMS.with_borrow_mut(|datagrams| {
                let count = datagrams.receive(socket.as_fd())?;
                Ok(deliver(datagrams, count, &socket, &front, &room))
            })
        });
        match taken.await {
            // Flows in whose place they begin have to end first.
            Ok(begun) if begun > 0 => yield_now().await,
            Ok(_) => {}
            Err(error) => {
                debug!(frontend = %front.key, %error, "datagrams were not taken");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Those of one client that came one after the other go on together. Answers how many flows began.
fn deliver(
    datagrams: &mut Datagrams,
    count: usize,
    socket: &Arc<UdpSocket>,
    front: &Arc<Front>,
    room: &Arc<Room>,
) -> usize {
    let (mut at, mut begun) = (0, 0);
    while at < count {
        let client = datagrams.sender(at);
        let next = (at..count).find(|number| datagrams.sender(*number) != client).unwrap_or(count);
        if let Some(client) = client {
            match flow(client, socket, front, room) {
                Ok(Some((backend, is_new))) => {
                    begun += usize::from(is_new);
                    datagrams.pass_on(at..next, backend.as_fd(), None);
                }
                Ok(None) => {}
                Err(error) => debug!(frontend = %front.key, %client, %error, "a flow cannot begin"),
            }
        }
        at = next;
    }
    begun
}

/// The socket of the client's flow, which begins where there is none, and whether it did; none where the client may not come, too many are
/// about to end, or nothing is served any more.
fn flow(
    client: SocketAddr,
    socket: &Arc<UdpSocket>,
    front: &Arc<Front>,
    room: &Arc<Room>,
) -> io::Result<Option<(Arc<UdpSocket>, bool)>> {
    let mut flows = front.flows();
    if flows.closed {
        return Ok(None);
    }
    if let Some(flow) = flows.of.get(&client) {
        flow.used.asked();
        return Ok(Some((flow.socket.clone(), false)));
    }
    let Choice::To(at) = front.choose(client.ip(), &[]) else { return Ok(None) };
    let used = Arc::new(Used::new());
    let Some(room) = room.flow(front.origin(client.ip()), used.last.clone()) else { return Ok(None) };
    let unspecified = if at.addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let backend = std::net::UdpSocket::bind(SocketAddr::new(unspecified, 0))?;
    let to = SocketAddr::new(at.addr, at.port);
    backend.connect(to)?;
    let known = backend.local_addr().ok().map(|node| Known::new(client, &front.key, node, to));
    backend.set_nonblocking(true)?;
    let backend = Arc::new(UdpSocket::from_std(backend)?);
    let answers = answers(backend.clone(), client, socket.clone(), used.clone(), front.clone(), room);
    let task = tokio::spawn(answers).abort_handle();
    flows.of.insert(client, Flow { at, socket: backend.clone(), used, task, _known: known });
    Ok(Some((backend, true)))
}

/// Passes on what the backend says until nothing is said for long, the backend's host tells that there is none, or there are too many flows.
async fn answers(
    backend: Arc<UdpSocket>,
    client: SocketAddr,
    socket: Arc<UdpSocket>,
    used: Arc<Used>,
    front: Arc<Front>,
    mut room: Flowing,
) {
    loop {
        let answer = backend.async_io(Interest::READABLE, || {
            DATAGRAMS.with_borrow_mut(|datagrams| {
                let count = datagrams.receive(backend.as_fd())?;
                datagrams.pass_on(0..count, socket.as_fd(), Some(client));
                Ok(())
            })
        });
        tokio::select! {
            () = room.shown_out() => break,
            answered = answer => match answered {
                Ok(()) => used.answered(),
                Err(_) => break,
            },
            () = sleep(used.left()) => if used.left().is_zero() { break },
        }
    }
    let mut flows = front.flows();
    if flows.of.get(&client).is_some_and(|flow| Arc::ptr_eq(&flow.socket, &backend)) {
        flows.of.remove(&client);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use podnet_kernel::netns::NetNs;
    use podnet_model::{Protocol, ServiceKey};
    use podnet_planner::{
        ruleset::FrontendKey,
        services::{Backend, Backends, FrontendKind, Serving, userspace::Guard},
    };
    use rustix::net::sockopt::set_socket_recv_buffer_size_force;

    use super::*;
    use crate::proxy::userspace::front::Insiders;

    #[test]
    fn a_flow_lasts_longer_once_the_client_came_back() {
        let used = Used::new();
        used.asked();
        used.answered();
        assert!(used.left() <= IDLE);
        let older = Used { begun: Instant::now().checked_sub(SHORT).unwrap(), ..Used::new() };
        older.asked();
        assert!(older.left() <= IDLE, "nobody answered");
        older.answered();
        older.asked();
        assert!(older.left() > IDLE);
    }

    fn backend(to: &SocketAddr) -> Backend {
        Backend { at: BackendAddress { addr: to.ip(), port: to.port() }, local: true, terminating: false }
    }

    fn side(to: &[SocketAddr]) -> Backends {
        Backends::Of(to.iter().map(backend).collect())
    }

    fn serving(inside: &[SocketAddr], outside: &[SocketAddr], lasting: &[SocketAddr]) -> Arc<Serving> {
        Arc::new(Serving {
            service: ServiceKey::new("default", "web"),
            port: "u".into(),
            kind: FrontendKind::ClusterIp,
            inside: side(inside),
            outside: side(outside),
            keeps_source: false,
            affinity: None,
            lasting: lasting.iter().map(backend).collect(),
            sources: None,
        })
    }

    const EVERYBODY: Guard = Guard::Only { inside: false, sources: None };

    fn front(at: SocketAddr, to: SocketAddr, insiders: Insiders) -> Arc<Front> {
        let key = FrontendKey { addr: at.ip(), protocol: Protocol::Udp, port: at.port() };
        Arc::new(Front::new(key, EVERYBODY, serving(&[to], &[to], &[]), insiders))
    }

    /// On one thread, in a namespace with an address.
    fn alone(work: impl Future<Output = ()> + Send) {
        let run = || {
            for line in ["ip link set lo up", "ip addr add 192.0.2.1/32 dev lo", "ip route add 198.51.100.0/24 dev lo"]
            {
                let words: Vec<&str> = line.split(' ').collect();
                assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{line}");
            }
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
        };
        NetNs::with_scratch(run).unwrap();
    }

    #[test]
    fn a_flow_ends_where_its_backend_answers_no_more_and_not_where_others_are_chosen() {
        alone(async {
            let at = |text: &str| text.parse::<SocketAddr>().unwrap();
            let [here, there] = ["198.51.100.1:9", "198.51.100.2:9"].map(at);
            let [pod, stranger, newcomer] = ["10.0.0.1:9", "10.0.0.2:9", "10.0.0.3:9"].map(at);
            let insiders = Insiders::default();
            *insiders.write().unwrap() = Arc::new([pod.ip()].into());
            let front = front(at("192.0.2.1:9"), there, insiders);
            let socket = Arc::new(UdpSocket::bind("192.0.2.1:9").await.unwrap());
            let room = Arc::new(Room::new(1_000));
            for client in [pod, stranger] {
                assert!(flow(client, &socket, &front, &room).unwrap().unwrap().1);
            }
            front.serve(EVERYBODY, &serving(&[here, there], &[there], &[]));
            assert_eq!(front.flows().of.len(), 2);
            // As when the policy for clients inside becomes Local.
            front.serve(EVERYBODY, &serving(&[here], &[here, there], &[]));
            assert_eq!(front.flows().of.len(), 2);
            // It ends: what is asked is answered still, and who comes anew comes to another one.
            front.serve(EVERYBODY, &serving(&[here], &[here], &[there]));
            let (kept, is_new) = flow(pod, &socket, &front, &room).unwrap().unwrap();
            assert!(!is_new && kept.peer_addr().unwrap() == there);
            assert_eq!(front.flows().of.len(), 2);
            let (other, is_new) = flow(newcomer, &socket, &front, &room).unwrap().unwrap();
            assert!(is_new && other.peer_addr().unwrap() == here);
            // It is gone.
            front.serve(EVERYBODY, &serving(&[here], &[here], &[]));
            assert_eq!(front.flows().of.keys().collect::<Vec<_>>(), [&newcomer]);
        });
    }

    /// One thread has a socket to serve at which much waits, and another task.
    #[test]
    fn a_flood_leaves_others_their_turn() {
        alone(flooded());
    }

    async fn flooded() {
        const MUCH: usize = 40_000;
        let bound = || std::net::UdpSocket::bind("192.0.2.1:0").unwrap();
        let (client, socket, backend) = (bound(), bound(), bound());
        set_socket_recv_buffer_size_force(&socket, MUCH * 2_048).unwrap();
        let at = socket.local_addr().unwrap();
        let front = front(at, backend.local_addr().unwrap(), Insiders::default());
        for _ in 0..MUCH {
            client.send_to(b"?", at).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        let socket = Arc::new(UdpSocket::from_std(socket).unwrap());
        let serving = tokio::spawn(serve(socket.clone(), front.clone(), Arc::new(Room::new(1_000))));
        while front.flows().of.is_empty() {
            yield_now().await;
        }
        for _ in 0..3 {
            yield_now().await;
        }
        assert!(socket.try_recv(&mut [0]).is_ok(), "nothing is left to serve");
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
    }
}
