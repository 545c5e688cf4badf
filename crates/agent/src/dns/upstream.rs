//! Exchanges with upstreams, each from a socket of its own: its port is as unpredictable as the query's id.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use podnet_dns::{
    Exchange, Server, Transport,
    server::{Progress, Reply, Ticket},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tracing::debug;

use super::{Client, Shared, udp};

/// How often upstreams that failed are looked after.
const CHECK_TICK: Duration = Duration::from_millis(250);
/// The largest datagram that is taken: upstreams are told to send at most 1232 bytes; what is cut here cannot be read, and the
/// question is asked again.
const DATAGRAM: usize = 4096;

/// Performs an exchange and whatever follows from it, on a task of its own. How many there are is bounded by the server.
pub(super) fn start(shared: &Shared, server: Arc<Server<Client>>, exchange: Exchange) {
    shared.exchanges.spawn(async move {
        let mut next = Some(exchange);
        while let Some(exchange) = next {
            next = match perform(&server, exchange).await {
                Progress::Again(exchange) => Some(exchange),
                Progress::Done(replies) => {
                    for reply in replies {
                        answer(&server, reply).await;
                    }
                    None
                }
                Progress::Ignored => None,
            };
        }
    });
}

/// Has upstreams that failed checked, for good.
pub(super) async fn check(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(CHECK_TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let server = shared.server();
        for exchange in server.checks(Instant::now()) {
            start(&shared, Arc::clone(&server), exchange);
        }
    }
}

async fn perform(server: &Server<Client>, exchange: Exchange) -> Progress<Client> {
    let attempt = async {
        match exchange.transport {
            Transport::Udp => over_udp(server, &exchange).await,
            Transport::Tcp => over_tcp(server, &exchange).await,
        }
    };
    let result = match timeout(exchange.timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    };
    match result {
        Ok(progress) => progress,
        Err(error) => {
            debug!(upstream = %exchange.upstream, %error, "an upstream did not answer");
            failed(server, exchange.ticket)
        }
    }
}

fn failed(server: &Server<Client>, ticket: Ticket) -> Progress<Client> {
    server.upstream_failed(ticket, Instant::now())
}

async fn over_udp(server: &Server<Client>, exchange: &Exchange) -> io::Result<Progress<Client>> {
    let any = match exchange.upstream.ip() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    // Connected: the kernel passes on only what comes from there, and reports a port that nobody listens on.
    socket.connect(exchange.upstream).await?;
    socket.send(&exchange.message).await?;
    let mut message = vec![0; DATAGRAM];
    loop {
        let len = socket.recv(&mut message).await?;
        let now = Instant::now();
        match server.upstream_answered(exchange.ticket, exchange.upstream, &message[..len], now) {
            Progress::Ignored => {}
            progress => return Ok(progress),
        }
    }
}

async fn over_tcp(server: &Server<Client>, exchange: &Exchange) -> io::Result<Progress<Client>> {
    let mut stream = TcpStream::connect(exchange.upstream).await?;
    stream.set_nodelay(true)?;
    let len = u16::try_from(exchange.message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut message = len.to_be_bytes().to_vec();
    message.extend_from_slice(&exchange.message);
    stream.write_all(&message).await?;
    let len = stream.read_u16().await?;
    message.resize(usize::from(len), 0);
    stream.read_exact(&mut message).await?;
    match server.upstream_answered(exchange.ticket, exchange.upstream, &message, Instant::now()) {
        Progress::Ignored => Err(io::ErrorKind::InvalidData.into()),
        progress => Ok(progress),
    }
}

async fn answer(server: &Server<Client>, reply: Reply<Client>) {
    let since = match reply.client {
        Client::Udp { socket, to, since } => {
            udp::send(&socket, &reply.message, to).await;
            since
        }
        Client::Tcp { replies, since } => {
            // Who does not read its answers does without: it must not hold up the others.
            let _ = replies.try_send(reply.message);
            since
        }
    };
    server.metrics().took(since.elapsed());
}
