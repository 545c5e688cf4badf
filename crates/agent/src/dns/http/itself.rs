//! `health` asks itself: how long the answer takes, which needs nobody else, says how busy the process is.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::{body::Bytes, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::warn;

use crate::dns::Shared;

/// How often; CoreDNS's.
const EVERY: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(1) };
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// What takes longer is told to who reads the log.
const LONG: Duration = Duration::from_secs(1);

/// Asks the port at `address` for the process's health, for good.
pub(in crate::dns) async fn ask_always(shared: Arc<Shared>, address: SocketAddr) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut well = true;
    loop {
        tick.tick().await;
        let asked = Instant::now();
        let answered = timeout(PATIENCE, ask(address)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let took = asked.elapsed();
        shared.server().metrics().health.asked(answered.is_ok().then_some(took));
        let was_well = std::mem::replace(&mut well, answered.is_ok() && took < LONG);
        if well || !was_well {
            // It is said once, until it is well again.
            continue;
        }
        let seconds = took.as_secs_f32();
        match answered {
            Ok(()) => warn!(%address, seconds, "the process is slow to say that it is well"),
            Err(error) => warn!(%address, %error, "the process cannot ask itself whether it is well"),
        }
    }
}

async fn ask(address: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect(&places(address)[..]).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with the response, and where nobody waits for one any more.
    tokio::spawn(connection);
    let request = Request::get("/health").header(header::HOST, "localhost").header(header::CONNECTION, "close");
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    match sender.send_request(request).await.map_err(io::Error::other)?.status() {
        StatusCode::OK => Ok(()),
        status => Err(io::Error::other(format!("it says {status}"))),
    }
}

/// Where a port is reached from this very machine: one at all addresses at the loopback, be it of the one family or the other.
fn places(address: SocketAddr) -> Vec<SocketAddr> {
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let loopbacks = match address.ip() {
        ip if !ip.is_unspecified() => return vec![address],
        IpAddr::V4(_) => vec![v4],
        IpAddr::V6(_) => vec![v6, v4],
    };
    loopbacks.into_iter().map(|ip| SocketAddr::new(ip, address.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_at_all_addresses_is_asked_at_the_loopback() {
        for (address, expected) in [
            ("192.0.2.1:8080", "192.0.2.1:8080"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080 127.0.0.1:8080"),
            ("[2001:db8::1]:8080", "[2001:db8::1]:8080"),
        ] {
            let places: Vec<String> = places(address.parse().unwrap()).iter().map(ToString::to_string).collect();
            assert_eq!(places.join(" "), expected);
        }
    }

    #[tokio::test]
    async fn whoever_does_not_say_that_it_is_well_is_not() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says = async |text: &'static str| {
            let play = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
                stream.write_all(text.as_bytes()).await.unwrap();
            };
            tokio::join!(ask(address), play).0
        };
        says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK").await.unwrap();
        let error = says("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await.unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
        assert!(says("SSH-2.0\r\n").await.is_err());
        drop(listener);
        assert!(ask(address).await.is_err());
    }
}
