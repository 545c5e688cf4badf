//! The addresses of upstreams that a Corefile names by host names: asked for while it is loaded, when nothing serves yet.

use std::{
    hash::{BuildHasher, RandomState},
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use podnet_dns::{
    Exchange, Transport,
    forward::{host_addrs, host_query},
    message::rtype,
    name::Name,
};
use tokio::runtime::{Handle, RuntimeFlavor};

/// How long a server may be silent.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How often all of them are asked.
const ROUNDS: usize = 2;
/// The largest datagram that is taken; without EDNS a server sends no larger one than 512 bytes (RFC 1035 §4.2.1).
const DATAGRAM: usize = 4096;

/// The addresses of a host, as the first of the servers tells them that answers; none: it has none. Takes a while.
///
/// # Errors
/// When none of them answers, with what the last one did.
pub(super) fn resolve(servers: &[SocketAddr], name: &Name) -> io::Result<Vec<IpAddr>> {
    aside(|| {
        let mut failed = io::Error::other("there is no server that could be asked");
        for server in std::iter::repeat_n(servers, ROUNDS).flatten() {
            match told(*server, name) {
                Ok(addrs) => return Ok(addrs),
                Err(error) => failed = io::Error::new(error.kind(), format!("{server}: {error}")),
            }
        }
        Err(failed)
    })
}

/// Waits without holding up the other tasks of this thread, where it has any.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// The addresses of both families that a server tells; one family is enough where it does not answer for the other. One that is silent
/// is not waited for twice.
fn told(server: SocketAddr, name: &Name) -> io::Result<Vec<IpAddr>> {
    let found = ask(server, name, rtype::A);
    if found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
        return found;
    }
    match (found, ask(server, name, rtype::AAAA)) {
        (Ok(mut found), Ok(more)) => {
            found.extend(more);
            Ok(found)
        }
        (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => Ok(found),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// Asks by a datagram, and over a connection where the answer is cut.
fn ask(server: SocketAddr, name: &Name, qtype: u16) -> io::Result<Vec<IpAddr>> {
    // SipHash with keys from the operating system: nobody can guess it.
    let id = RandomState::new().hash_one(qtype) as u16;
    let exchange = Exchange::plain(server, Transport::Udp, host_query(name, qtype, id), TIMEOUT);
    let answer = over_udp(server, &exchange)?;
    if let Some(addrs) = host_addrs(name, qtype, &answer).map_err(io::Error::other)? {
        return Ok(addrs);
    }
    let answer = over_tcp(server, &exchange)?;
    let addrs = host_addrs(name, qtype, &answer).map_err(io::Error::other)?;
    addrs.ok_or_else(|| io::Error::other("its answer is cut over a connection, too"))
}

fn over_udp(server: SocketAddr, exchange: &Exchange) -> io::Result<Vec<u8>> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.send(&exchange.message)?;
    let until = Instant::now() + TIMEOUT;
    let mut message = vec![0; DATAGRAM];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut message) {
            Ok(length) if exchange.accepts(&message[..length]) => {
                message.truncate(length);
                return Ok(message);
            }
            Ok(_) => {}
            // What Linux says where the time is over (socket(7), `SO_RCVTIMEO`).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn over_tcp(server: SocketAddr, exchange: &Exchange) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let length = u16::try_from(exchange.message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes()[..], &exchange.message].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    if exchange.accepts(&message) { Ok(message) } else { Err(io::Error::other("it answers something else")) }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread::JoinHandle};

    use super::*;

    /// The answer to a query: one address of the type; over UDP it is cut where that is wanted.
    fn answer(query: &[u8], cut: bool) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2..4].copy_from_slice(&(0x8180 | if cut { 0x0200 } else { 0_u16 }).to_be_bytes());
        if cut {
            return message;
        }
        message[7] = 1;
        let (qtype, addr): (u8, &[u8]) = match query[query.len() - 3] {
            1 => (1, &[192, 0, 2, 7]),
            _ => (28, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]),
        };
        message.extend_from_slice(&[0xc0, 12, 0, qtype, 0, 1, 0, 0, 0, 60, 0, addr.len() as u8]);
        message.extend_from_slice(addr);
        message
    }

    /// A server that answers the questions for one host, for both families, and ends.
    fn server(cut: bool) -> (SocketAddr, JoinHandle<()>) {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let addr = udp.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            for _ in 0..2 {
                let mut query = [0; 512];
                let (length, from) = udp.recv_from(&mut query).unwrap();
                // Somebody guesses before the true answer comes.
                let mut guess = answer(&query[..length], false);
                guess[0] ^= 1;
                udp.send_to(&guess, from).unwrap();
                udp.send_to(&answer(&query[..length], cut), from).unwrap();
                if cut {
                    let (mut stream, _) = tcp.accept().unwrap();
                    let mut length = [0; 2];
                    stream.read_exact(&mut length).unwrap();
                    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut query).unwrap();
                    let answer = answer(&query, false);
                    stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
                    stream.write_all(&answer).unwrap();
                }
            }
        });
        (addr, serving)
    }

    fn host() -> Name {
        Name::parse("host.example").unwrap()
    }

    fn both() -> Vec<IpAddr> {
        ["192.0.2.7", "2001:db8::7"].map(|addr| addr.parse().unwrap()).to_vec()
    }

    #[test]
    fn a_host_has_the_addresses_that_the_first_server_tells_which_answers() {
        // Nobody listens there any more, which the kernel says at once.
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (addr, serving) = server(false);
        assert_eq!(resolve(&[gone, addr], &host()).unwrap(), both());
        serving.join().unwrap();
        let error = resolve(&[gone], &host()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{gone}: ")), "{error}");
        assert!(resolve(&[], &host()).is_err());
    }

    #[test]
    fn an_answer_that_is_cut_is_asked_for_over_a_connection() {
        let (addr, serving) = server(true);
        assert_eq!(resolve(&[addr], &host()).unwrap(), both());
        serving.join().unwrap();
    }

    #[test]
    fn a_corefile_s_upstreams_are_asked_for_while_it_is_loaded() {
        let (addr, serving) = server(false);
        let text = format!(". {{\n forward . host.example:5353 {{\n resolver {addr}\n }}\n}}\n");
        let checked = crate::dns::check(&text, "Corefile");
        serving.join().unwrap();
        assert_eq!(checked.errors, []);
        let forward = checked.config.blocks[0].forwards().next().unwrap();
        let upstreams: Vec<String> = forward.upstreams.iter().map(|upstream| upstream.addr.to_string()).collect();
        assert_eq!(upstreams, ["192.0.2.7:5353", "[2001:db8::7]:5353"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_can_be_asked_from_a_task() {
        let (addr, serving) = server(false);
        assert_eq!(resolve(&[addr], &host()).unwrap(), both());
        serving.join().unwrap();
    }
}
