//! Ways to collectors that do not speak HTTP.

use std::{io, time::Duration};

use futures::FutureExt;
use podnet_kernel::acknowledgement::unacknowledged;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket, UnixDatagram},
    time::sleep,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    target::{Host, Place},
    tls::tls,
};

/// Between two looks at what the other side acknowledged, at first and at most.
const LOOK: Duration = Duration::from_millis(1);
const SELDOM: Duration = Duration::from_millis(50);

/// An open way.
pub(super) struct Line {
    way: Way,
    /// Nothing was acknowledged on it yet.
    is_new: bool,
}

enum Way {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Line {
    /// One that was used before, where the other side still has it; else another one.
    pub(super) async fn usable(before: Option<Self>, place: &Place) -> io::Result<Self> {
        match before {
            Some(line) if line.is_usable() => Ok(line),
            _ => Ok(Self { way: open(place).await?, is_new: true }),
        }
    }

    /// Whether nothing was sent on it before.
    pub(super) const fn is_new(&self) -> bool {
        self.is_new
    }

    pub(super) const fn is_stream(&self) -> bool {
        matches!(self.way, Way::Tcp(_) | Way::Tls(_))
    }

    fn stream(&self) -> Option<&TcpStream> {
        match &self.way {
            Way::Tcp(stream) => Some(stream),
            Way::Tls(stream) => Some(stream.get_ref().0),
            Way::Unix(_) | Way::Udp(_) => None,
        }
    }

    /// One datagram, or more of a stream.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.way {
            Way::Unix(socket) => whole(socket.send(bytes).await?, bytes),
            Way::Udp(socket) => whole(socket.send(bytes).await?, bytes),
            Way::Tcp(stream) => stream.write_all(bytes).await,
            Way::Tls(stream) => stream.write_all(bytes).await,
        }
    }

    /// Adds what the other side of a stream says next.
    pub(super) async fn read(&mut self, to: &mut Vec<u8>) -> io::Result<()> {
        let read = match &mut self.way {
            Way::Tcp(stream) => stream.read_buf(to).await?,
            Way::Tls(stream) => stream.read_buf(to).await?,
            Way::Unix(_) | Way::Udp(_) => 0,
        };
        if read == 0 { Err(closed()) } else { Ok(()) }
    }

    /// Whether the other side still has it.
    pub(super) fn is_usable(&self) -> bool {
        self.is_open().is_ok()
    }

    /// Waits until the other side's kernel has all that was written to a stream. Of datagrams nobody knows.
    pub(super) async fn acknowledged(&mut self) -> io::Result<()> {
        match &mut self.way {
            Way::Tcp(stream) => stream.flush().await?,
            Way::Tls(stream) => stream.flush().await?,
            Way::Unix(_) | Way::Udp(_) => {}
        }
        let mut pause = LOOK;
        while let Some(stream) = self.stream()
            && unacknowledged(stream)? > 0
        {
            self.is_open()?;
            sleep(pause).await;
            pause = (pause * 2).min(SELDOM);
        }
        self.is_open()?;
        self.is_new = false;
        Ok(())
    }

    /// That the other side has not closed the connection.
    fn is_open(&self) -> io::Result<()> {
        let Some(stream) = self.stream() else { return Ok(()) };
        match stream.peek(&mut [0]).now_or_never() {
            None | Some(Ok(1..)) => Ok(()),
            Some(Ok(0)) => Err(closed()),
            Some(Err(error)) => Err(error),
        }
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the collector closed the connection")
}

fn whole(sent: usize, bytes: &[u8]) -> io::Result<()> {
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

async fn open(place: &Place) -> io::Result<Way> {
    match place {
        Place::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            let connected = socket.connect(path);
            connected.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            Ok(Way::Unix(socket))
        }
        Place::Udp(host) => udp(host).await.map(Way::Udp),
        Place::Tcp(host) => tcp(host).await.map(Way::Tcp),
        Place::Tls(host, authorities) => {
            let stream = tcp(host).await?;
            let name = ServerName::try_from(host.name.clone()).map_err(io::Error::other)?;
            let config = tls(authorities.as_deref())?;
            Ok(Way::Tls(Box::new(TlsConnector::from(config).connect(name, stream).await?)))
        }
    }
}

async fn tcp(host: &Host) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host.name.as_str(), host.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// From a port of any, so that refusals come back to it.
async fn udp(host: &Host) -> io::Result<UdpSocket> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((host.name.as_str(), host.port)).await? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        match socket.connect(address).await {
            Ok(()) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
