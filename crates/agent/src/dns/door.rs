//! Who is let in at a port with connections: how many, each for how long, and over TLS or not.

mod places;

use std::{
    io, iter,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use podnet_dns::{Arrival, Listener, Port, Scheme, Transport};
use rustix::net::{SocketFlags, accept_with};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use places::Place;
pub(super) use places::{Places, Rest};

use super::{Shared, identity::Identity, tcp, udp::canonical, unread::Unread, web};

/// Connections at once, for each port, where the Corefile says nothing else (`https`, `grpc_server`).
pub(super) const CONNECTIONS: usize = 1000;
/// Requests of one connection of HTTP at once.
pub(super) const STREAMS: u32 = 128;
/// How long a message may take to come in, or an answer to go out. CoreDNS's times are 3 s and 5 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may be silent; CoreDNS's.
const IDLE: Duration = Duration::from_secs(10);
/// How long it may be where three quarters of the places are taken (RFC 7766 §6.2.3).
const BUSY_IDLE: Duration = Duration::from_secs(1);

/// How connections to a port are treated.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    /// How long a message may take to come in, once it began.
    pub(super) read: Duration,
    /// How long an answer may take to go out.
    pub(super) write: Duration,
    /// How long nothing may come while nothing is asked.
    pub(super) idle: Duration,
    /// Queries that a connection may carry.
    pub(super) max_queries: Option<u32>,
    /// Connections at once.
    pub(super) connections: usize,
    /// Requests of one connection of HTTP at once.
    pub(super) streams: u32,
    /// The certificate that is shown; none: nothing is encrypted.
    pub(super) identity: Option<Arc<Identity>>,
}

impl Manners {
    /// As the Corefile says. A certificate that is there already is kept.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub(super) fn new(listener: &Listener, before: Option<&Self>) -> io::Result<Self> {
        let timeouts = listener.timeouts;
        let identity = match listener.tls.as_ref().filter(|_| listener.port.scheme != Scheme::Dns) {
            None => None,
            Some(tls) => match before.and_then(|before| before.identity.as_ref()).filter(|before| before.is(tls)) {
                Some(before) => Some(Arc::clone(before)),
                None => Some(Identity::read(tls, listener.port.scheme)?),
            },
        };
        Ok(Self {
            read: timeouts.read.unwrap_or(PATIENCE),
            write: timeouts.write.unwrap_or(PATIENCE),
            idle: timeouts.idle.unwrap_or(IDLE),
            max_queries: timeouts.max_queries,
            connections: listener.web.max_connections.unwrap_or(CONNECTIONS),
            streams: listener.web.max_streams.unwrap_or(STREAMS),
            identity,
        })
    }
}

/// The way into a port.
pub(super) struct Door {
    pub(super) shared: Arc<Shared>,
    pub(super) port: Port,
    manners: RwLock<Arc<Manners>>,
    places: Arc<Places>,
    /// What its clients have not read.
    pub(super) unread: Arc<Unread>,
}

/// Nobody is let in any more.
struct Closing<'a>(&'a Places);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Door {
    pub(super) fn new(shared: Arc<Shared>, port: Port, manners: Manners) -> Arc<Self> {
        Arc::new(Self {
            shared,
            port,
            places: Places::new(manners.connections, of_one(manners.connections)),
            manners: RwLock::new(Arc::new(manners)),
            unread: Arc::default(),
        })
    }

    /// How connections that are accepted now are treated.
    pub(super) fn manners(&self) -> Arc<Manners> {
        Arc::clone(&self.manners.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Treats connections that are accepted from now on in another way.
    pub(super) fn change(&self, manners: Manners) {
        self.places.resize(manners.connections, of_one(manners.connections));
        *self.manners.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(manners);
    }

    /// How long a connection may be silent now: not so long where many are there.
    pub(super) fn idle(&self, manners: &Manners) -> Duration {
        if self.places.are_scarce() { manners.idle.min(BUSY_IDLE) } else { manners.idle }
    }

    /// How often a silent connection looks whether it has been so for too long.
    pub(super) fn tick(manners: &Manners) -> Duration {
        manners.idle.min(BUSY_IDLE)
    }

    /// Serves connections until `token` is cancelled, and then those that the kernel took in before. After it all that are open end as
    /// soon as they have nothing to do.
    pub(super) async fn serve(self: Arc<Self>, listener: Arc<TcpListener>, token: CancellationToken) {
        let _closing = Closing(&self.places);
        token.run_until_cancelled(self.accept(&listener)).await;
        self.serve_late(listener).await;
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(_) => {
                    // Out of descriptors: those that close meanwhile make room.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            self.let_in(stream, from).await;
        }
    }

    /// Serves those whom the kernel took in and nobody did here yet: they would be cut off with the socket. Where another process has
    /// the socket as well, they are that one's.
    async fn serve_late(self: &Arc<Self>, listener: Arc<TcpListener>) {
        if !self.shared.sockets.withdraw(&listener) {
            return;
        }
        let next = || accept_with(&*listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok();
        let late: Vec<_> = iter::from_fn(next).take(CONNECTIONS).collect();
        // Who comes from now on is refused at once.
        drop(listener);
        for stream in late {
            let stream = TcpStream::from_std(stream.into());
            if let Ok((stream, from)) = stream.and_then(|stream| stream.peer_addr().map(|from| (stream, from))) {
                self.let_in(stream, from).await;
            }
        }
    }

    /// Begins to serve a connection, once there is a place for it.
    async fn let_in(self: &Arc<Self>, stream: TcpStream, from: SocketAddr) {
        let from = canonical(from);
        if self.shared.neighbours.judges() {
            let shared = Arc::clone(&self.shared);
            if !spawn_blocking(move || shared.neighbours.may_ask(from.ip())).await.unwrap_or(false) {
                return;
            }
        }
        let Some(place) = self.places.take(from.ip()).await else { return };
        let door = Arc::clone(self);
        let serve = async move { door.admit(stream, from, &place).await };
        self.shared.ports.spawn(self.shared.cut.clone().run_until_cancelled_owned(serve));
    }

    /// Serves one connection to its end.
    async fn admit(self: &Arc<Self>, stream: TcpStream, from: SocketAddr, place: &Place) {
        let rest = place.rest();
        // Answers are small and complete: waiting to fill a segment only delays them.
        let _ = stream.set_nodelay(true);
        let arrival = self.arrival(from, stream.local_addr());
        let manners = self.manners();
        match &manners.identity {
            None if !self.speaks_http() => {
                let (reader, writer) = stream.into_split();
                tcp::connection(self, &manners, reader, writer, arrival, &rest).await;
            }
            None => self.speak(manners, stream, arrival, &rest).await,
            Some(identity) => {
                let acceptor = TlsAcceptor::from(identity.config().await);
                // Who cannot agree, or only wanted to hold a place, is not told more than TLS itself does.
                let Ok(Ok(stream)) = timeout(manners.read, acceptor.accept(stream)).await else { return };
                self.speak(manners, stream, arrival, &rest).await;
            }
        }
    }

    fn speaks_http(&self) -> bool {
        matches!(self.port.scheme, Scheme::Https | Scheme::Grpc)
    }

    async fn speak(
        self: &Arc<Self>,
        manners: Arc<Manners>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        arrival: Arrival,
        rest: &Rest,
    ) {
        if self.speaks_http() {
            return web::connection(self, manners, stream, arrival, rest).await;
        }
        let (reader, writer) = tokio::io::split(stream);
        tcp::connection(self, &manners, reader, writer, arrival, rest).await;
    }

    fn arrival(&self, from: SocketAddr, local: io::Result<SocketAddr>) -> Arrival {
        Arrival {
            from,
            transport: Transport::Tcp,
            port: self.port.number,
            scheme: self.port.scheme,
            bound: self.port.address,
            local: local.ok().map(|local| canonical(local).ip()),
            keepalive: (!self.speaks_http()).then(|| tenths(self.idle(&self.manners()))),
        }
    }
}

/// Connections of one client: nobody takes more than a quarter. Many clients may stand behind one address.
fn of_one(connections: usize) -> usize {
    (connections / 4).max(1)
}

/// A time as RFC 7828 tells it; what is longer than can be told is told as the longest.
fn tenths(time: Duration) -> u16 {
    u16::try_from(time.as_millis() / 100).unwrap_or(u16::MAX)
}
