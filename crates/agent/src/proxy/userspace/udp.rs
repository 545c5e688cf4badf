//! UDP: a flow for each client, which has its backend and a socket of its own.

use std::{
    cell::RefCell,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use podnet_kernel::datagrams::Datagrams;
use podnet_planner::{ruleset::BackendAddress, services::userspace::Choice};
use tokio::{
    io::Interest,
    net::UdpSocket,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{
    front::Front,
    program::{Life, Stay},
};

/// A flow in which nothing was said for so long is over, as kube-proxy's program had it.
const IDLE: Duration = Duration::from_secs(250);
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
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// When something was said last.
#[derive(Debug)]
struct Used {
    begun: Instant,
    last: AtomicU64,
}

impl Used {
    fn now(&self) {
        self.last.store(self.begun.elapsed().as_secs(), Ordering::Relaxed);
    }

    fn is_long_ago(&self) -> bool {
        self.begun.elapsed().saturating_sub(Duration::from_secs(self.last.load(Ordering::Relaxed))) >= IDLE
    }
}

/// Passes on what comes to a socket for ever, many datagrams at once.
pub(super) async fn serve(socket: Arc<UdpSocket>, front: Arc<Front>, life: Life) {
    loop {
        let taken = match socket.readable().await {
            Ok(()) => socket.try_io(Interest::READABLE, || {
                DATAGRAMS.with_borrow_mut(|datagrams| {
                    let count = datagrams.receive(socket.as_fd())?;
                    deliver(datagrams, count, &socket, &front, &life);
                    Ok(())
                })
            }),
            Err(error) => Err(error),
        };
        match taken {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                debug!(frontend = %front.key, %error, "datagrams were not taken");
                sleep(PAUSE).await;
            }
            _ => {}
        }
    }
}

/// Those of one client that came one after the other go on together.
fn deliver(datagrams: &mut Datagrams, count: usize, socket: &Arc<UdpSocket>, front: &Arc<Front>, life: &Life) {
    let mut at = 0;
    while at < count {
        let client = datagrams.sender(at);
        let next = (at..count).find(|number| datagrams.sender(*number) != client).unwrap_or(count);
        if let Some(client) = client {
            match flow(client, socket, front, life) {
                Ok(Some(backend)) => drop(datagrams.pass_on(at..next, backend.as_fd(), None)),
                Ok(None) => {}
                Err(error) => debug!(frontend = %front.key, %client, %error, "a flow cannot begin"),
            }
        }
        at = next;
    }
}

/// The socket of the client's flow, which begins where there is none; none where the client may not come or there are too many.
fn flow(
    client: SocketAddr,
    socket: &Arc<UdpSocket>,
    front: &Arc<Front>,
    life: &Life,
) -> io::Result<Option<Arc<UdpSocket>>> {
    let mut flows = front.flows();
    if let Some(flow) = flows.get(&client) {
        flow.used.now();
        return Ok(Some(flow.socket.clone()));
    }
    let Choice::To(at) = front.choose(client.ip(), &[]) else { return Ok(None) };
    let Some(stay) = life.flow() else { return Ok(None) };
    let unspecified = if at.addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let backend = std::net::UdpSocket::bind(SocketAddr::new(unspecified, 0))?;
    backend.connect(SocketAddr::new(at.addr, at.port))?;
    backend.set_nonblocking(true)?;
    let backend = Arc::new(UdpSocket::from_std(backend)?);
    let used = Arc::new(Used { begun: Instant::now(), last: AtomicU64::new(0) });
    let answers = answers(backend.clone(), client, socket.clone(), used.clone(), front.clone(), stay);
    let task = tokio::spawn(answers).abort_handle();
    flows.insert(client, Flow { at, socket: backend.clone(), used, task });
    Ok(Some(backend))
}

/// Passes on what the backend says until nothing is said for long, or the backend's host tells that there is none.
async fn answers(
    backend: Arc<UdpSocket>,
    client: SocketAddr,
    socket: Arc<UdpSocket>,
    used: Arc<Used>,
    front: Arc<Front>,
    _stay: Stay,
) {
    loop {
        match timeout(IDLE, backend.readable()).await {
            Err(_) if used.is_long_ago() => break,
            Err(_) => continue,
            Ok(Err(_)) => break,
            Ok(Ok(())) => {}
        }
        let passed = backend.try_io(Interest::READABLE, || {
            DATAGRAMS.with_borrow_mut(|datagrams| {
                let count = datagrams.receive(backend.as_fd())?;
                datagrams.pass_on(0..count, socket.as_fd(), Some(client));
                Ok(())
            })
        });
        match passed {
            Ok(()) => used.now(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let mut flows = front.flows();
    if flows.get(&client).is_some_and(|flow| Arc::ptr_eq(&flow.socket, &backend)) {
        flows.remove(&client);
    }
}
