//! HTTP servers that strangers may reach: so many connections and no more, each for a while.

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, serve::Listener};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep},
};

use super::guests::{Admitted, Guests};

/// How long a connection may say nothing that can be answered.
const ASKING: Duration = Duration::from_secs(5);
/// Whoever asks has an answer long before.
const LONGEST: Duration = Duration::from_secs(30);

/// Serves a port until it is dropped.
///
/// # Errors
/// Where the port cannot be had.
pub(super) async fn serve(address: SocketAddr, router: Router, guests: Guests) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    axum::serve(Bounded { listener, address, guests }, router).await
}

struct Bounded {
    listener: TcpListener,
    address: SocketAddr,
    guests: Guests,
}

impl Listener for Bounded {
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
struct Served {
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
