//! Traffic of which it is known how much it is.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use crate::{Result, traffic::End};

/// Opens so many connections, each with one byte in each direction, at such a rate at most. Answers how long it took.
pub(super) fn connections(client: &End, server: &End, port: u16, count: u32, rate: f64) -> Result<Duration> {
    let to = SocketAddr::from((server.addr, port));
    let listener = server.netns.run(move || TcpListener::bind(to))??;
    let bell = listener.try_clone()?;
    thread::scope(|scope| {
        let serving = scope.spawn(move || -> std::io::Result<()> {
            for _ in 0..count {
                let (mut stream, _) = listener.accept()?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                stream.write_all(&byte)?;
            }
            Ok(())
        });
        let took = client.netns.run(move || -> std::io::Result<Duration> {
            let started = Instant::now();
            for number in 0..count {
                sleep_until(started, f64::from(number) / rate);
                let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(&[1])?;
                stream.read_exact(&mut [0])?;
                // Closed by a reset: neither side has to remember so many.
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
            }
            Ok(started.elapsed())
        });
        // A server that waits for what does not come any more is woken.
        rustix::net::shutdown(&bell, rustix::net::Shutdown::Both)?;
        let took = took??;
        serving.join().map_err(|_| "the server panicked")??;
        Ok(took)
    })
}

/// Waits until so many seconds after the start.
fn sleep_until(started: Instant, seconds: f64) {
    let due = Duration::from_secs_f64(seconds);
    if let Some(early) = due.checked_sub(started.elapsed()).filter(|early| *early > SHORT) {
        thread::sleep(early);
    }
}

/// For one step of one connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Less is not worth to sleep for.
const SHORT: Duration = Duration::from_millis(1);

/// Of the ports that datagrams come from.
const FIRST: u16 = 10_000;
/// Datagrams of a second, at most: agents read what found no room every second, or a little later, and an estimate is right up to 400,000 flows from
/// one reading to the next.
const DATAGRAMS_RATE: f64 = 150_000.0;

/// Sends a datagram from each of so many ports to each of these, where they are heard of and not read.
pub(super) fn datagrams(client: &End, server: &End, from: u16, to: std::ops::Range<u16>) -> Result<Duration> {
    let addr = server.addr;
    let bound = to.clone();
    let _open = server
        .netns
        .run(move || bound.map(|port| UdpSocket::bind((addr, port))).collect::<std::io::Result<Vec<_>>>())??;
    let source: IpAddr = client.addr;
    client
        .netns
        .run(move || -> std::io::Result<Duration> {
            let started = Instant::now();
            for (number, port) in (0_u32..).zip(FIRST..FIRST + from) {
                sleep_until(started, f64::from(number) * to.len() as f64 / DATAGRAMS_RATE);
                let socket = UdpSocket::bind((source, port))?;
                for port in to.clone() {
                    socket.send_to(b"x", (addr, port))?;
                }
            }
            Ok(started.elapsed())
        })?
        .map_err(Into::into)
}
