//! The surroundings of the server core: sockets, time and chance.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use podnet_dns::{
    Exchange, Outside, Transport,
    chain::EtcdOptions,
    etcd::Store,
    metrics::Metrics,
    plugin::Challenges,
    server::{ClientSearch, Take},
};
use podnet_model::Namespace;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tracing::debug;

use super::{Clients, Shared, connections::Connections, etcd::Etcd};

/// How often upstreams that failed are looked after.
const CHECK_TICK: Duration = Duration::from_millis(250);
/// The largest datagram that is taken: upstreams are told to send at most 1232 bytes; what is cut here cannot be read, and the
/// question is asked again.
const DATAGRAM: usize = 4096;

/// The network, the clock and the operating system's randomness.
#[derive(Debug)]
pub(super) struct Network {
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    /// Whose search paths are known.
    clients: Arc<Clients>,
    /// What authorities are told; none: nothing is proved to any.
    challenges: Option<Arc<Challenges>>,
    /// SipHash with keys from the operating system, over a counter: nobody can guess the next one.
    keyed: RandomState,
    counter: AtomicU64,
}

impl Network {
    /// A network without a connection. What goes over connections is counted.
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self::of_node(metrics, Arc::default())
    }

    /// As [`Network::new`], of a node whose pods' search paths are known.
    pub(super) fn of_node(metrics: Arc<Metrics>, clients: Arc<Clients>) -> Self {
        let connections = Arc::new(Connections::new(Arc::clone(&metrics)));
        let (keyed, counter) = (RandomState::new(), AtomicU64::new(0));
        Self { connections, metrics, clients, challenges: None, keyed, counter }
    }

    /// The same, whose server tells authorities this.
    pub(super) fn proving(self, challenges: Arc<Challenges>) -> Self {
        Self { challenges: Some(challenges), ..self }
    }

    /// What counts.
    pub(super) const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

impl Outside for Network {
    fn exchange(&self, exchange: Exchange) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        let (connections, metrics) = (Arc::clone(&self.connections), Arc::clone(&self.metrics));
        async move {
            let attempt = async {
                match exchange.transport {
                    Transport::Udp => over_udp(&exchange, &metrics).await,
                    Transport::Tcp => connections.exchange(&exchange).await,
                }
            };
            let answered = match timeout(exchange.timeout, attempt).await {
                Ok(answered) => answered,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            };
            answered.inspect_err(|error| {
                debug!(upstream = %exchange.upstream, %error, "an upstream did not answer");
                exchange.debug.tell(|| format!("{} did not answer: {error}", exchange.upstream));
            })
        }
        .boxed()
    }

    fn converse(&self, exchange: Exchange, take: Take) -> BoxFuture<'static, io::Result<()>> {
        over_connection(exchange, take).boxed()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(time).boxed()
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        tokio::spawn(work);
    }

    fn host(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }

    fn random(&self) -> u64 {
        self.keyed.hash_one(self.counter.fetch_add(1, Ordering::Relaxed))
    }

    fn store(&self, options: &EtcdOptions) -> Arc<dyn Store> {
        Arc::new(Etcd::new(options))
    }

    fn challenges(&self) -> Option<Arc<Challenges>> {
        self.challenges.clone()
    }

    fn search_of(&self, client: IpAddr) -> Option<Arc<ClientSearch>> {
        self.clients.search_of(client)
    }

    fn has_service(&self, namespace: &Namespace, name: &[u8]) -> bool {
        self.clients.has_service(namespace, name)
    }
}

/// Has upstreams that failed checked, for good.
pub(super) async fn check(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(CHECK_TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        shared.server().check_upstreams();
    }
}

/// Each exchange has a socket of its own: its port is as unpredictable as the query's id.
async fn over_udp(exchange: &Exchange, metrics: &Metrics) -> io::Result<Vec<u8>> {
    let upstream = exchange.upstream.socket_addr().ok_or(io::ErrorKind::Unsupported)?;
    let any = match upstream.ip() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    // Connected: the kernel passes on only what comes from there, and reports a port that nobody listens on.
    socket.connect(upstream).await?;
    socket.send(&exchange.message).await?;
    let mut message = vec![0; DATAGRAM];
    loop {
        let len = socket.recv(&mut message).await?;
        if exchange.accepts(&message[..len]) {
            message.truncate(len);
            return Ok(message);
        }
        metrics.mismatched();
        exchange.debug.dump(|| format!("what {} sends is for another question", exchange.upstream), &message[..len]);
    }
}

/// Hands on the messages of a long answer. The one who takes them checks that they belong to the question.
async fn over_connection(exchange: Exchange, mut take: Take) -> io::Result<()> {
    let within = exchange.timeout;
    let start = async {
        let upstream = exchange.upstream.socket_addr().ok_or(io::ErrorKind::Unsupported)?;
        let mut stream = TcpStream::connect(upstream).await?;
        send_framed(&mut stream, &exchange.message).await?;
        Ok::<_, io::Error>(stream)
    };
    let mut stream = BufReader::new(timeout(within, start).await??);
    let mut message = Vec::new();
    loop {
        let receive = async {
            let len = stream.read_u16().await?;
            message.resize(usize::from(len), 0);
            stream.read_exact(&mut message).await
        };
        timeout(within, receive).await??;
        // A large zone is put together at the end of its last message.
        if !tokio::task::block_in_place(|| take(&message)) {
            return Ok(());
        }
    }
}

async fn send_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = len.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

#[cfg(test)]
mod tests;
