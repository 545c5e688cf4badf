//! What becomes of connections.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use podnet_kernel::ipvs::{self, Settings};
use podnet_model::{Family, Protocol};
use podnet_planner::{
    ipvs::{Edit, Scheduler, Scheduling, Server, ServerKey, State, difference},
    ruleset::{BackendAddress, FrontendKey},
};
use podnet_testnet::eventually;

use crate::{
    namespace::Namespace,
    open,
    wanted::{addr, plain, reals},
};

/// A client that goes on from the same port is led by the rules that take the virtual server's place.
#[test]
#[ignore = "runs in the virtual machine"]
fn machine_datagrams_follow_to_the_rules_of_another_mode() {
    let place = Namespace::new("datagrams");
    let mut ipvs = open(&place, Family::V4);
    let frontend = FrontendKey { addr: addr(Family::V4, 96, 1), protocol: Protocol::Udp, port: 53 };
    let real = BackendAddress { addr: addr(Family::V4, 1, 1), port: 5353 };
    place.command(&format!("ip addr add {} dev lo", real.addr));
    // A way for what nobody translates, into nothing.
    place.command(&format!("ip route add {} dev lo", frontend.addr));
    let server = Server { scheduling: plain(Scheduler::RoundRobin), reals: [(real, 1)].into() };
    let addrs = [frontend.addr].into();
    let wanted = State { servers: [(ServerKey::Address(frontend), server)].into(), addrs, ..State::default() };
    ipvs::configure(&place.netns, &Settings::default()).unwrap();
    ipvs.apply(&difference(&wanted, &State::default())).unwrap();
    let socket = |at: (IpAddr, u16)| place.netns.run(|| UdpSocket::bind(at)).unwrap().unwrap();
    let (listener, client) = (socket((real.addr, real.port)), socket((real.addr, 4000)));
    listener.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let arrives = || {
        client.send_to(b"x", (frontend.addr, frontend.port)).unwrap();
        listener.recv_from(&mut [0; 8]).is_ok()
    };
    assert!(arrives());
    place.command(
        "iptables-legacy -t nat -A OUTPUT -d 10.96.0.1 -p udp --dport 53 -j DNAT --to-destination 10.1.0.1:5353",
    );
    ipvs.apply(&difference(&State::default(), &wanted)).unwrap();
    // The kernel forgets what it translated for a real server that is gone (`expire_nodest_conn`), a moment later.
    let look = || if arrives() { Ok(()) } else { Err("nothing arrives") };
    eventually("a datagram by the rules", Duration::from_secs(30), look);
}

/// A client comes to the real server that it came to first, until it had no connection for as long as is said.
#[test]
#[ignore = "runs in the virtual machine"]
fn machine_affinity_ends_when_its_time_without_a_connection_is_over() {
    let place = Namespace::new("affinity");
    let mut ipvs = open(&place, Family::V4);
    // Connections are forgotten before affinity is: the kernel looks again a minute later where some are left.
    let settings = Settings { udp_timeout: Some(Duration::from_secs(1)), ..Settings::default() };
    ipvs::configure(&place.netns, &settings).unwrap();
    let listeners = [1, 2].map(|number| {
        let at = addr(Family::V4, 1, number);
        place.command(&format!("ip addr add {at} dev lo"));
        let listener = place.netns.run(|| UdpSocket::bind((at, 8080))).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    });
    let [short, long] = [(1, 5), (2, 3600)].map(|(number, seconds)| {
        let frontend = FrontendKey { addr: addr(Family::V4, 96, number), protocol: Protocol::Udp, port: 53 };
        let scheduling = Scheduling { persistence: Some(seconds), ..plain(Scheduler::RoundRobin) };
        let server = Server { scheduling, reals: reals(Family::V4, &[1, 1]) };
        let (servers, addrs) = ([(ServerKey::Address(frontend), server)].into(), [frontend.addr].into());
        let wanted = State { servers, addrs, ..State::default() };
        ipvs.apply(&difference(&wanted, &State::default())).unwrap();
        frontend.addr
    });
    let client = addr(Family::V4, 1, 1);
    // Always from another port: a new connection.
    let asked = |at: IpAddr| {
        let socket = place.netns.run(|| UdpSocket::bind((client, 0))).unwrap().unwrap();
        socket.send_to(b"x", (at, 53)).unwrap();
        eventually("a datagram", Duration::from_secs(30), || {
            let found = listeners.iter().position(|listener| listener.recv_from(&mut [0; 8]).is_ok());
            found.ok_or("it does not arrive")
        })
    };
    let stays = |at| {
        let first = asked(at);
        assert!((0..5).all(|_| asked(at) == first), "{at}");
        first
    };
    let (by_short, by_long) = (stays(short), stays(long));
    // What is left is what remembers the client of the one.
    eventually("connections and the shorter affinity are over", Duration::from_secs(120), || {
        let told = place.netns.run(|| fs::read_to_string("/proc/thread-self/net/ip_vs_conn")).unwrap().unwrap();
        if told.lines().count() == 2 { Ok(()) } else { Err(told) }
    });
    assert_ne!(asked(short), by_short, "it is the next one's turn");
    assert_eq!(asked(long), by_long);
}

/// What drains keeps its connections, which are counted, and gets no new ones.
#[test]
#[ignore = "runs in the virtual machine"]
fn machine_a_real_server_of_weight_0_drains() {
    for family in Family::ALL {
        let place = Namespace::new("drain");
        let mut ipvs = open(&place, family);
        let frontend = FrontendKey { addr: addr(family, 96, 1), protocol: Protocol::Tcp, port: 80 };
        let key = ServerKey::Address(frontend);
        let listeners: Vec<TcpListener> = (1..=2)
            .map(|number| {
                let at = addr(family, 1, number);
                place.command(&format!("ip addr add {at} dev lo{}", if family == Family::V6 { " nodad" } else { "" }));
                place.netns.run(|| TcpListener::bind((at, 8080))).unwrap().unwrap()
            })
            .collect();
        let reals = reals(family, &[1, 0]);
        let server = Server { scheduling: plain(Scheduler::RoundRobin), reals: reals.clone() };
        let wanted = State { servers: [(key, server)].into(), addrs: [frontend.addr].into(), ..State::default() };
        ipvs::configure(&place.netns, &Settings::default()).unwrap();
        ipvs.apply(&difference(&wanted, &State::default())).unwrap();
        let connect = || {
            let to = SocketAddr::from((frontend.addr, frontend.port));
            place.netns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5))).unwrap().unwrap()
        };
        let [first, second] = [1, 2].map(|number| BackendAddress { addr: addr(family, 1, number), port: 8080 });
        let mut lasting = connect();
        let (served, _) = listeners[0].accept().unwrap();
        ipvs.apply(&[Edit::Weigh(key, first, 0), Edit::Weigh(key, second, 1)]).unwrap();
        let _next = connect();
        drop(listeners[1].accept().unwrap());
        let counted = ipvs.connections(&[key, ServerKey::Mark(9)]).unwrap();
        assert_eq!(counted, [((key, first), 1), ((key, second), 1)].into(), "{family:?}");
        // The one that lasts is still led to where it began.
        (&served).write_all(b"x").unwrap();
        lasting.read_exact(&mut [0]).unwrap();
    }
}
