//! The ports of a Corefile.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
    thread::available_parallelism,
};

use podnet_dns::Config;
use podnet_kernel::datagrams::tell_destinations;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{DnsError, Shared, http, http::Role, tcp, udp};

/// What the kernel may queue for each socket while the threads are busy; it gives at most `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Connections that wait to be accepted.
const TCP_BACKLOG: u32 = 1024;

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    Dns(u16),
    Http(Role, SocketAddr),
}

/// The ports that are open; each is closed when it is dropped.
pub(super) struct Listeners {
    shared: Arc<Shared>,
    address: Option<IpAddr>,
    open: HashMap<Purpose, DropGuard>,
}

impl Listeners {
    /// No ports.
    pub(super) fn new(shared: Arc<Shared>, address: Option<IpAddr>) -> Self {
        Self { shared, address, open: HashMap::new() }
    }

    /// Opens what a Corefile wants and is not open, then closes what is open and it does not want. When something cannot be
    /// opened, everything stays as it was.
    pub(super) async fn adopt(&mut self, config: &Config) -> Result<(), DnsError> {
        let process = &config.process;
        let web = [
            (Role::Health, process.health.map(|(address, _)| address)),
            (Role::Ready, process.ready),
            (Role::Metrics, process.metrics),
        ];
        let web = web.into_iter().filter_map(|(role, address)| Some(Purpose::Http(role, address?)));
        let wanted: Vec<Purpose> = config.ports().into_iter().map(Purpose::Dns).chain(web).collect();
        let mut opened = HashMap::new();
        for purpose in wanted.iter().filter(|purpose| !self.open.contains_key(purpose)) {
            let guard = match *purpose {
                Purpose::Dns(port) => self.dns(port)?,
                Purpose::Http(role, address) => self.http(role, address).await?,
            };
            opened.insert(*purpose, guard);
        }
        self.open.retain(|purpose, _| wanted.contains(purpose));
        self.open.extend(opened);
        Ok(())
    }

    fn dns(&self, port: u16) -> Result<DropGuard, DnsError> {
        let token = CancellationToken::new();
        let threads = available_parallelism().map_or(1, usize::from);
        let (address, first) = bind(self.address, port, udp_socket)?;
        let mut sockets = vec![first];
        for _ in 1..threads {
            sockets.push(udp_socket(address).map_err(failed(address, "DNS over UDP"))?);
        }
        let listener = tcp_socket(address).map_err(failed(address, "DNS over TCP"))?;
        for socket in sockets {
            let serve = udp::serve(Arc::clone(&self.shared), Arc::new(socket), port);
            self.shared.ports.spawn(token.clone().run_until_cancelled_owned(serve));
        }
        let serve = tcp::serve(Arc::clone(&self.shared), listener, port, token.clone());
        self.shared.ports.spawn(token.clone().run_until_cancelled_owned(serve));
        Ok(token.drop_guard())
    }

    async fn http(&self, role: Role, address: SocketAddr) -> Result<DropGuard, DnsError> {
        let purpose = role.purpose();
        let listener = match TcpListener::bind(address).await {
            // Without IPv6 in the kernel, all addresses are all IPv4 addresses.
            Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
            }
            other => other,
        }
        .map_err(failed(address, purpose))?;
        let token = CancellationToken::new();
        self.shared.ports.spawn(http::serve(Arc::clone(&self.shared), listener, role, token.clone()));
        Ok(token.drop_guard())
    }
}

fn failed(address: SocketAddr, purpose: &'static str) -> impl FnOnce(io::Error) -> DnsError {
    move |source| DnsError::Listen { address, purpose, source }
}

/// Opens a socket on an address, or on all of them, IPv6 included where the kernel has it.
fn bind<S>(
    address: Option<IpAddr>,
    port: u16,
    open: impl Fn(SocketAddr) -> io::Result<S>,
) -> Result<(SocketAddr, S), DnsError> {
    if let Some(ip) = address {
        let address = SocketAddr::new(ip, port);
        return Ok((address, open(address).map_err(failed(address, "DNS over UDP"))?));
    }
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    if let Ok(socket) = open(all) {
        return Ok((all, socket));
    }
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    Ok((all, open(all).map_err(failed(all, "DNS over UDP"))?))
}

/// One of several sockets of a port: the kernel spreads clients over them (socket(7), `SO_REUSEPORT`).
fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    tell_destinations(socket.as_fd(), address.is_ipv6())?;
    rustix::net::bind(&socket, &address)?;
    UdpSocket::from_std(socket.into())
}

fn tcp_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(TCP_BACKLOG)
}
