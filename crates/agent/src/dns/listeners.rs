//! The ports of a Corefile.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::Arc,
    thread::available_parallelism,
};

use podnet_dns::{Config, Listener, Port, Scheme};
use podnet_kernel::datagrams::tell_destinations;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    DnsError, Shared,
    door::{Door, Manners},
    handover::Inherited,
    http,
    http::{Role, Shown},
    identity::Identity,
    udp::{self, Answered},
};

/// What the kernel may queue for each socket while the threads are busy. Who may not administer the network gets at most
/// `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Connections that wait to be accepted.
const TCP_BACKLOG: i32 = 1024;

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    Dns(Port),
    Http(Role, SocketAddr),
}

/// A port that is open; it closes when this is dropped.
struct Open {
    /// Where it really is.
    address: SocketAddr,
    door: Option<Arc<Door>>,
    /// What a port of HTTP shows to its clients.
    shown: Shown,
    datagrams: Datagrams,
    _connections: DropGuard,
}

/// The sockets of a port that take datagrams. Those of IPv4 are sockets of IPv4 also where the port is at all addresses: a socket for both
/// families takes longer ways through the kernel, there and back.
#[derive(Default)]
struct Datagrams {
    /// At the port's address; of IPv6 alone, where that is all addresses.
    here: Vec<Answered>,
    /// At all addresses of IPv4, where the port's address is all of both families.
    v4: Vec<Answered>,
}

impl Datagrams {
    /// Adds some, and keeps so many.
    fn change(&mut self, more: Self, (here, v4): (usize, usize)) {
        self.here.extend(more.here);
        self.here.truncate(here);
        self.v4.extend(more.v4);
        self.v4.truncate(v4);
    }
}

/// A port of HTTP that a Corefile wants, and what it shows.
struct Web {
    role: Role,
    address: SocketAddr,
    identity: Option<Arc<Identity>>,
}

impl Web {
    fn plain(role: Role, address: SocketAddr) -> Self {
        Self { role, address, identity: None }
    }

    fn purpose(&self) -> Purpose {
        Purpose::Http(self.role, self.address)
    }
}

/// The ports that are open.
pub(super) struct Listeners {
    shared: Arc<Shared>,
    address: Option<IpAddr>,
    open: HashMap<Purpose, Open>,
    inherited: Inherited,
}

impl Listeners {
    /// No ports. `address` is where those are that the Corefile does not bind; none: everywhere.
    pub(super) fn new(shared: Arc<Shared>, address: Option<IpAddr>) -> Self {
        Self { shared, address, open: HashMap::new(), inherited: Inherited::default() }
    }

    /// Uses sockets of the process before, rather than new ones, for what [`Listeners::adopt`] opens next.
    pub(super) fn inherit(&mut self, sockets: Inherited) {
        self.inherited = sockets;
        self.shared.sockets.share();
    }

    /// Opens what a Corefile wants and is not open, then closes what is open and it does not want. When something cannot be
    /// opened, everything stays as it was.
    pub(super) async fn adopt(&mut self, config: &Config) -> Result<(), DnsError> {
        let web = self.web(config)?;
        let listeners = config.listeners();
        let (mut opened, mut changes) = (HashMap::new(), Vec::new());
        for listener in &listeners {
            let purpose = Purpose::Dns(listener.port);
            let beside = Beside::of(listener.port, &listeners, self.address);
            let before = self.open.get(&purpose);
            let manners = before.and_then(|open| open.door.as_ref()).map(|door| door.manners());
            let manners = Manners::new(listener, manners.as_deref())
                .map_err(|source| DnsError::Certificate { port: listener.port, source })?;
            match before {
                None => {
                    opened.insert(purpose, self.dns(listener, manners, beside)?);
                }
                Some(open) => {
                    let more = self.datagrams(listener, open.address, beside, &open.datagrams)?;
                    changes.push((purpose, wanted(listener, open.address, beside), more, manners));
                }
            }
        }
        for port in &web {
            if !self.open.contains_key(&port.purpose()) {
                opened.insert(port.purpose(), self.http(port).await?);
            }
        }
        self.open.retain(|purpose, _| match purpose {
            Purpose::Dns(port) => listeners.iter().any(|listener| listener.port == *port),
            Purpose::Http(..) => web.iter().any(|port| port.purpose() == *purpose),
        });
        for port in web {
            if let Some(open) = self.open.get(&port.purpose()) {
                open.shown.show(port.identity);
            }
        }
        for (purpose, sockets, more, manners) in changes {
            self.open.entry(purpose).and_modify(|open| {
                open.datagrams.change(more, sockets);
                if let Some(door) = &open.door {
                    door.change(manners);
                }
            });
        }
        self.open.extend(opened);
        self.inherited.close();
        Ok(())
    }

    /// The ports of HTTP that a Corefile wants. A certificate that is shown already is kept.
    fn web(&self, config: &Config) -> Result<Vec<Web>, DnsError> {
        let process = &config.process;
        let health = process.health.iter().map(|(address, _)| Web::plain(Role::Health, *address));
        let ready = process.ready.iter().map(|address| Web::plain(Role::Ready, *address));
        let mut web: Vec<Web> = health.chain(ready).collect();
        for options in &process.metrics {
            let mut port = Web::plain(Role::Metrics, options.listen);
            if let Some(tls) = &options.tls {
                let before = self.open.get(&port.purpose()).and_then(|open| open.shown.now());
                let failed = |source| DnsError::MetricsCertificate { address: options.listen, source };
                port.identity = Some(Identity::of_web(tls, before).map_err(failed)?);
            }
            web.push(port);
        }
        Ok(web)
    }

    fn dns(&self, listener: &Listener, manners: Manners, beside: Beside) -> Result<Open, DnsError> {
        let port = listener.port;
        let (address, socket) =
            bind(port.address.or(self.address), port.number, |address| self.tcp_socket(address, beside))?;
        let datagrams = self.datagrams(listener, address, beside, &Datagrams::default())?;
        let token = CancellationToken::new();
        let door = Door::new(Arc::clone(&self.shared), port, manners);
        let socket = Arc::new(socket);
        self.shared.sockets.note(&socket);
        self.shared.ports.spawn(Arc::clone(&door).serve(socket, token.clone()));
        let (door, shown) = (Some(door), Shown::default());
        Ok(Open { address, door, shown, datagrams, _connections: token.drop_guard() })
    }

    /// The sockets for datagrams that are wanted and not there, each served by a thread of its own.
    fn datagrams(
        &self,
        listener: &Listener,
        address: SocketAddr,
        beside: Beside,
        there: &Datagrams,
    ) -> Result<Datagrams, DnsError> {
        let open = |address: SocketAddr, count: usize| {
            let serve = |_| udp::serve(&self.shared, self.udp_socket(address)?, listener.port);
            let served = (0..count).map(serve).collect::<io::Result<Vec<Answered>>>();
            served.map_err(failed(address, "DNS over UDP"))
        };
        let (here, v4) = wanted(listener, address, beside);
        let all_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        Ok(Datagrams {
            here: open(address, here.saturating_sub(there.here.len()))?,
            v4: open(all_v4, v4.saturating_sub(there.v4.len()))?,
        })
    }

    async fn http(&self, port: &Web) -> Result<Open, DnsError> {
        let Web { role, address, .. } = *port;
        let purpose = role.purpose();
        let all_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        let inherited = |address| self.inherited.take(SocketType::STREAM, address, false);
        let listener = match inherited(address).or_else(|| inherited(all_v4)) {
            Some(socket) => TcpListener::from_std(socket.into()),
            None => match TcpListener::bind(address).await {
                // Without IPv6 in the kernel, all addresses are all IPv4 addresses.
                Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => TcpListener::bind(all_v4).await,
                other => other,
            },
        };
        let listener = Arc::new(listener.map_err(failed(address, purpose))?);
        self.shared.sockets.note(&listener);
        let (token, shown) = (CancellationToken::new(), Shown::new(port.identity.clone()));
        if role == Role::Health {
            let at = listener.local_addr().map_err(failed(address, purpose))?;
            let asking = http::itself::ask_always(Arc::clone(&self.shared), at);
            self.shared.ports.spawn(token.clone().run_until_cancelled_owned(asking));
        }
        let shared = Arc::clone(&self.shared);
        self.shared.ports.spawn(http::serve(shared, listener, (role, address), shown.clone(), token.clone()));
        Ok(Open { address, door: None, shown, datagrams: Datagrams::default(), _connections: token.drop_guard() })
    }
}

impl Listeners {
    fn udp_socket(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let inherited = |v6_only| self.inherited.take(SocketType::DGRAM, address, v6_only);
        // Versions before had sockets for both families. What waits in one is answered, and from then on what comes by IPv4 is led to the
        // sockets of IPv4: the kernel prefers them.
        match inherited(true).or_else(|| inherited(false)) {
            Some(socket) => Ok(socket.into()),
            None => udp_socket(address),
        }
    }

    fn tcp_socket(&self, address: SocketAddr, beside: Beside) -> io::Result<TcpListener> {
        match self.inherited.take(SocketType::STREAM, address, beside.all_v4) {
            Some(socket) => TcpListener::from_std(socket.into()),
            None => tcp_socket(address, beside),
        }
    }
}

/// How many sockets take datagrams at a port's address, and how many at all of IPv4 beside that: of the schemes only plain DNS has any.
/// Without `multisocket` there is one for each processor.
fn wanted(listener: &Listener, address: SocketAddr, beside: Beside) -> (usize, usize) {
    let processors = || available_parallelism().map_or(1, usize::from);
    let count = if listener.port.scheme == Scheme::Dns { listener.sockets.unwrap_or_else(processors) } else { 0 };
    let both_families = address.ip() == Ipv6Addr::UNSPECIFIED && !beside.all_v4;
    (count, if both_families { count } else { 0 })
}

/// What else listens at a port's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beside {
    /// Somebody at all addresses, and somebody at one: who is called there is the second one's.
    whole_and_part: bool,
    /// Somebody at all addresses of IPv4.
    all_v4: bool,
}

impl Beside {
    /// `address` is where those are that the Corefile does not bind; none: everywhere.
    fn of(port: Port, listeners: &[Listener], address: Option<IpAddr>) -> Self {
        let same = || listeners.iter().map(|listener| listener.port).filter(|other| other.number == port.number);
        let at = |port: Port| port.address.or(address);
        let whole = |port: Port| at(port).is_none_or(|address| address.is_unspecified());
        Self {
            whole_and_part: same().any(whole) && same().count() > 1,
            all_v4: same().any(|port| at(port) == Some(Ipv4Addr::UNSPECIFIED.into())),
        }
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
        return Ok((address, open(address).map_err(failed(address, "DNS"))?));
    }
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    if let Ok(socket) = open(all) {
        return Ok((all, socket));
    }
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    Ok((all, open(all).map_err(failed(all, "DNS"))?))
}

/// One of several sockets of a port: the kernel spreads clients over them (socket(7), `SO_REUSEPORT`). At all addresses of IPv6 it takes
/// nothing of IPv4.
fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let (ip, flags) = (address.ip().to_canonical(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
    let socket = rustix::net::socket_with(family(address), SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, ip.is_ipv6())?;
    }
    // From one at a single address answers come from there anyway.
    if ip.is_unspecified() {
        tell_destinations(socket.as_fd(), address.is_ipv6())?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket.into())
}

fn tcp_socket(address: SocketAddr, beside: Beside) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family(address), SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if beside.whole_and_part {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, beside.all_v4)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, TCP_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

#[cfg(test)]
mod tests;
