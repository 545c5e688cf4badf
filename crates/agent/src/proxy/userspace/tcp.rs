//! TCP: connections are taken, and passed on byte for byte.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use podnet_planner::services::userspace::Choice;
use rustix::net::{
    SocketFlags,
    sockopt::{set_socket_keepalive, set_tcp_keepidle},
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{
    front::Front,
    passed::Known,
    program::{Held, Life, Stay},
    splice,
};

/// How long a backend has to answer, before the next one is tried, as kube-proxy's program had it.
const PATIENCE: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// After so long it is asked whether a silent peer is there.
const SILENCE: Duration = Duration::from_secs(300);
/// When the kernel has no more sockets to give.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes the connections of a socket until it is closed. Where there is no room one waits, and those behind it; who has too many is
/// refused.
pub(super) async fn serve(listener: Arc<TcpListener>, front: Arc<Front>, life: Life) {
    loop {
        match poll_fn(|context| take(context, &listener, &front, &life)).await {
            Ok(Some((client, from, held))) => admit(client, from, held, &front, &life).await,
            Ok(None) => return,
            Err(_) if front.is_closed() => return,
            Err(error) => {
                debug!(frontend = %front.key, %error, "a connection was not taken");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Takes a connection, which is counted at once; none where the frontend is closed, or the program is over.
fn take(
    context: &mut Context<'_>,
    listener: &TcpListener,
    front: &Front,
    life: &Life,
) -> Poll<io::Result<Option<(TcpStream, SocketAddr, Held)>>> {
    // Who closes it waits until what is taken is counted.
    let flows = front.flows();
    if flows.closed {
        return Poll::Ready(Ok(None));
    }
    let (client, from) = ready!(listener.poll_accept(context))?;
    let held = life.hold(front.key.addr);
    drop(flows);
    Poll::Ready(Ok(held.map(|held| (client, from, held))))
}

/// Takes what waits at a socket that is about to be closed: who is connected need not know of that.
pub(super) fn take_all(listener: &TcpListener, front: &Arc<Front>, life: &Life, runtime: &Handle) {
    let _entered = runtime.enter();
    while let Ok(client) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        let Ok(client) = TcpStream::from_std(client.into()) else { return };
        let Ok(from) = client.peer_addr() else { continue };
        let Some(held) = life.hold(front.key.addr) else { return };
        let (front, life) = (front.clone(), life.clone());
        runtime.spawn(async move { admit(client, from, held, &front, &life).await });
    }
}

async fn admit(client: TcpStream, from: SocketAddr, held: Held, front: &Arc<Front>, life: &Life) {
    match life.connection(front.origin(from.ip()), held).await {
        Some(stay) => drop(tokio::spawn(connection(client, from, front.clone(), stay))),
        None => reset(&client),
    }
}

async fn connection(mut client: TcpStream, from: SocketAddr, front: Arc<Front>, _stay: Stay) {
    let Some(mut backend) = dial(&front, from).await else {
        return reset(&client);
    };
    let ends = backend.local_addr().and_then(|node| Ok((node, backend.peer_addr()?)));
    let _known = ends.ok().map(|(node, at)| Known::new(from, &front.key, node, at));
    drop(front);
    for stream in [&client, &backend] {
        let _ = stream.set_nodelay(true);
        let _ = set_socket_keepalive(stream, true).and_then(|()| set_tcp_keepidle(stream, SILENCE));
    }
    let carried = {
        let ((from_client, to_client), (from_backend, to_backend)) = (client.split(), backend.split());
        let there = splice::carry(from_client, to_backend.as_ref());
        let back = splice::carry(from_backend, to_client.as_ref());
        tokio::try_join!(there, back)
    };
    if let Err(error) = carried {
        debug!(%from, %error, "a connection broke");
        reset(&client);
        reset(&backend);
    }
}

/// A connection to a backend; none where there is none, or none answers.
async fn dial(front: &Front, from: SocketAddr) -> Option<TcpStream> {
    let mut without = Vec::new();
    for patience in PATIENCE {
        let at = match front.choose(from.ip(), &without) {
            Choice::To(at) => at,
            // All were tried: they may answer later.
            Choice::Refused if !without.is_empty() => {
                without.clear();
                match front.choose(from.ip(), &without) {
                    Choice::To(at) => at,
                    Choice::Refused | Choice::Dropped => return None,
                }
            }
            Choice::Refused | Choice::Dropped => return None,
        };
        match timeout(patience, TcpStream::connect((at.addr, at.port))).await {
            Ok(Ok(backend)) => return Some(backend),
            answer => debug!(frontend = %front.key, backend = %at, ?answer, "a backend does not answer"),
        }
        without.push(at);
    }
    None
}

/// Ends a connection so that its peer knows that not all was said.
fn reset(stream: &TcpStream) {
    let told: io::Result<()> = stream.set_zero_linger();
    if let Err(error) = told {
        debug!(%error, "a connection is closed, though it should be reset");
    }
}
