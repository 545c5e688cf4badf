//! Real sockets in a namespace and a cgroup of the test's own, whose process is in it for that time.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketType, bind, connect, connect_unspec, getpeername, socket};

use super::*;
use crate::testing::{TestNs, eventually};

mod change;
mod choice;
mod ending;
mod refused;

/// A node whose pods are one namespace: backends at addresses of its loopback device, each of which tells its number.
struct Lab {
    netns: TestNs,
    group: Group,
    sockets: Sockets,
}

/// A cgroup with this process in it. It goes with the value.
struct Group(Cgroup);

impl Group {
    fn new(tag: &str) -> Self {
        let cgroup = Cgroup::v2(format!("pntest-sockets-{tag}-{}", process::id())).unwrap();
        cgroup.create().unwrap();
        cgroup.add_self().unwrap();
        Self(cgroup)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = Cgroup::v2("").and_then(|root| root.add_self());
        let _ = std::fs::remove_dir(self.0.path());
    }
}

const BACKENDS: u8 = 4;
const PORT: u16 = 8080;
const FRONTEND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
const FRONTEND6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 2));
/// Of the clients.
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 100));

impl Lab {
    /// With the backends 1 to 4, and programs that know nothing.
    fn new(tag: &str) -> Self {
        Self::with(tag, &[])
    }

    /// The same, with other capacities of some of the programs' maps.
    fn with(tag: &str, capacities: &[(&str, u32)]) -> Self {
        let netns = TestNs::new(&format!("sk-{tag}"));
        netns.command("ip link set lo up");
        netns.command(&format!("ip addr add {OWN}/32 dev lo"));
        // What nobody translates leads nowhere, and not to another namespace.
        netns.command("ip route add unreachable default");
        for number in 1..=BACKENDS {
            netns.command(&format!("ip addr add {}/32 dev lo", v4(number)));
            netns.command(&format!("ip addr add {}/128 dev lo nodad", v6(number)));
            serve(&netns, number, v4(number));
            serve(&netns, number, v6(number));
        }
        let group = Group::new(tag);
        let sockets = Sockets::open_with(&group.0, Sizes::LEAST, capacities).unwrap();
        assert_eq!(sockets.attach().unwrap(), PROGRAMS.len());
        Self { netns, group, sockets }
    }

    /// A list of backends for a frontend of both protocols; the second list's number follows the first's.
    fn serve(&self, frontend: IpAddr, list: u32, backends: &[u8]) {
        for (list, protocol) in [(list, Protocol::Tcp), (list + 1, Protocol::Udp)] {
            self.set(frontend, protocol, list, backends, None);
        }
    }

    fn set(&self, addr: IpAddr, protocol: Protocol, list: u32, backends: &[u8], affinity: Option<Affinity>) {
        let of = |number: &u8| if addr.is_ipv4() { v4(*number) } else { v6(*number) };
        let target = |number: &u8| Target { at: BackendAddress { addr: of(number), port: PORT }, protocol };
        let serves = Serves::Backends(backends.len() as u32);
        let edits = Edits {
            fill: (0..).zip(backends).map(|(number, backend)| (Slot { list, number }, target(backend))).collect(),
            point: vec![(key(addr, protocol), Entry { list, serves, affinity })],
            ..Edits::default()
        };
        self.sockets.apply(&edits).unwrap();
    }

    fn refuse(&self, addr: IpAddr, serves: Serves) {
        let point = |protocol| (key(addr, protocol), Entry { list: 99, serves, affinity: None });
        let point = [Protocol::Tcp, Protocol::Udp].map(point).to_vec();
        self.sockets.apply(&Edits { point, ..Edits::default() }).unwrap();
    }

    fn tcp(&self, to: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let to = to.into();
        self.netns.run(|| TcpStream::connect(to)).unwrap()
    }

    fn udp(&self, own: IpAddr) -> UdpSocket {
        let socket = self.netns.run(|| UdpSocket::bind((own, 0))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    /// Which backend a new connection comes to.
    fn connect(&self, to: impl Into<SocketAddr>) -> u8 {
        told(self.tcp(to).unwrap())
    }
}

fn key(addr: IpAddr, protocol: Protocol) -> FrontendKey {
    FrontendKey { addr, protocol, port: 80 }
}

fn v4(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, 0, number).into()
}

fn v6(number: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, number.into()).into()
}

/// Tells its number to whoever connects or sends something. The threads end with the test's process.
fn serve(netns: &TestNs, number: u8, addr: IpAddr) {
    let sockets = netns.run(|| (TcpListener::bind((addr, PORT)).unwrap(), UdpSocket::bind((addr, PORT)).unwrap()));
    let (tcp, udp) = sockets.unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming() {
            use std::io::Write;
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.write_all(&[number]);
                // Until the client goes.
                let _ = stream.read(&mut [0; 1]);
            });
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&[number], peer);
        }
    });
}

fn told(mut stream: TcpStream) -> u8 {
    let mut number = [0];
    stream.read_exact(&mut number).unwrap();
    number[0]
}

/// What answers, and as whom.
fn asked(socket: &UdpSocket, to: impl Into<SocketAddr>) -> io::Result<(u8, SocketAddr)> {
    socket.send_to(&[0], to.into())?;
    answer(socket)
}

fn answer(socket: &UdpSocket) -> io::Result<(u8, SocketAddr)> {
    let mut number = [0];
    let (_, from) = socket.recv_from(&mut number)?;
    Ok((number[0], from))
}
