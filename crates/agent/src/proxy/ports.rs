//! HTTP servers that strangers may reach: so many connections and no more, each for a while.

use std::{
    future::Future as _,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, serve::Listener};
use rustix::{io::Errno, net::sockopt::set_ipv6_v6only};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, Sleep, sleep},
};

use super::guests::{Admitted, Guests};

/// How long a connection may say nothing that can be answered.
const ASKING: Duration = Duration::from_secs(5);
/// Whoever asks has an answer long before.
const LONGEST: Duration = Duration::from_secs(30);

/// How many connections wait at most at all addresses.
const BACKLOG: u32 = 1024;

/// Serves a port until it is dropped. At an address that stands for all of a node's it answers in both families, whichever of the two it is,
/// as kube-proxy does.
///
/// # Errors
/// Where the port cannot be had.
pub(super) async fn serve(address: SocketAddr, router: Router, guests: Guests) -> io::Result<()> {
    let all = address.ip().is_unspecified();
    let listener = if all { everywhere(address.port())? } else { TcpListener::bind(address).await? };
    axum::serve(bounded(listener, address, guests), router).await
}

/// At all addresses of both families; of IPv4 alone on a kernel without IPv6.
fn everywhere(port: u16) -> io::Result<TcpListener> {
    let (socket, all) = match TcpSocket::new_v6() {
        Ok(socket) => {
            set_ipv6_v6only(&socket, false)?;
            (socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        }
        Err(error) if error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) => {
            (TcpSocket::new_v4()?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        Err(error) => return Err(error),
    };
    socket.set_reuseaddr(true)?;
    socket.bind(all)?;
    socket.listen(BACKLOG)
}

/// A port at which so many are let in at once, each for a while. By its address it is told from other ports of the same guests.
pub(crate) fn bounded<L>(listener: L, address: SocketAddr, guests: Guests) -> Bounded<L> {
    Bounded { listener, address, guests }
}

/// A port that strangers may reach.
pub(crate) struct Bounded<L> {
    listener: L,
    address: SocketAddr,
    guests: Guests,
}

impl<L: Listener<Io = TcpStream, Addr = SocketAddr>> Listener for Bounded<L> {
    type Io = Served;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Served, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let admitted = self.guests.admit(self.address, peer.ip());
        let came = Instant::now();
        (Served { stream, came, answered: false, ends: Box::pin(sleep(ASKING)), admitted }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when its time is over, or when others need its place.
pub(crate) struct Served {
    stream: TcpStream,
    came: Instant,
    answered: bool,
    ends: Pin<Box<Sleep>>,
    admitted: Admitted,
}

impl Served {
    fn is_over(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let over = self.ends.as_mut().poll(context).is_ready() || self.admitted.is_shown_out(context);
        if over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Served {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_over(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Served {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !std::mem::replace(&mut self.answered, true) {
            let longest = self.came + LONGEST;
            self.ends.as_mut().reset(longest);
            self.admitted.asked();
        }
        self.is_over(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_over(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
