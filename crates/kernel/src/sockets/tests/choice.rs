//! Which backend a socket comes to, and what it is told.

use super::*;

fn mapped(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().into(),
        IpAddr::V6(_) => addr,
    }
}

#[test]
fn connections_of_tcp_come_to_all_backends_and_see_the_frontend() {
    let lab = Lab::new("tcp");
    assert!(lab.tcp((FRONTEND, 80)).is_err(), "nobody has told the programs of it");
    lab.serve(FRONTEND, 1, &[1, 2, 3]);
    lab.serve(FRONTEND6, 3, &[2, 3, 4]);
    for (to, backends) in [(FRONTEND, [1, 2, 3]), (FRONTEND6, [2, 3, 4]), (mapped(FRONTEND), [1, 2, 3])] {
        let to = SocketAddr::from((to, 80));
        let found: BTreeSet<u8> = (0..100).map(|_| lab.connect(to)).collect();
        assert_eq!(found, BTreeSet::from(backends), "{to}");
        assert_eq!(lab.tcp(to).unwrap().peer_addr().unwrap(), to);
    }
    // Other ports, other addresses and backends themselves are left alone.
    assert!(lab.tcp((FRONTEND, 81)).is_err());
    assert_eq!(lab.connect((v4(4), PORT)), 4);
    assert_eq!(lab.tcp((v4(4), PORT)).unwrap().peer_addr().unwrap(), (v4(4), PORT).into());
}

/// A pod that comes to itself has its own address at both ends, and needs no other.
#[test]
fn a_pod_reaches_itself() {
    let lab = Lab::new("hairpin");
    lab.serve(FRONTEND, 1, &[1]);
    let stream = lab.netns.run(|| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from((v4(1), 0))).unwrap();
        connect(&socket, &SocketAddr::from((FRONTEND, 80))).unwrap();
        TcpStream::from(socket)
    });
    let stream = stream.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), (FRONTEND, 80).into());
    assert_eq!(told(stream), 1);
}

#[test]
fn a_socket_of_udp_stays_with_its_backend_and_hears_the_frontend() {
    let lab = Lab::new("udp");
    lab.serve(FRONTEND, 1, &[1, 2, 3, 4]);
    lab.serve(FRONTEND6, 3, &[1, 2, 3, 4]);
    let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    for (own, to) in [(OWN, FRONTEND), (any6, FRONTEND6), (any6, mapped(FRONTEND))] {
        let to = SocketAddr::from((to, 80));
        let mut found = BTreeSet::new();
        for _ in 0..40 {
            let socket = lab.udp(own);
            let (first, from) = asked(&socket, to).unwrap();
            assert_eq!(from, to);
            for _ in 0..5 {
                assert_eq!(asked(&socket, to).unwrap(), (first, to), "one conversation");
            }
            // Who is no backend is told as he is.
            let other = SocketAddr::from((
                if own.is_ipv4() || to.ip() != FRONTEND6 { mapped_as(own, v4(2)) } else { v6(2) },
                PORT,
            ));
            if first != 2 {
                assert_eq!(asked(&socket, other).unwrap(), (2, other));
            }
            found.insert(first);
        }
        assert_eq!(found.len(), 4, "{to}: {found:?}");
    }
}

fn mapped_as(own: IpAddr, addr: IpAddr) -> IpAddr {
    if own.is_ipv4() { addr } else { mapped(addr) }
}

#[test]
fn a_backend_that_is_spoken_to_at_its_own_address_is_heard_as_itself() {
    let lab = Lab::new("direct");
    lab.serve(FRONTEND, 1, &[2]);
    lab.serve(FRONTEND6, 3, &[2]);
    let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    for (own, to, direct) in [(OWN, FRONTEND, v4(2)), (any6, FRONTEND6, v6(2)), (any6, mapped(FRONTEND), mapped(v4(2)))]
    {
        let (to, direct) = (SocketAddr::from((to, 80)), SocketAddr::from((direct, PORT)));
        let socket = lab.udp(own);
        for _ in 0..2 {
            assert_eq!(asked(&socket, to).unwrap(), (2, to));
            assert_eq!(asked(&socket, direct).unwrap(), (2, direct));
        }
    }
}

#[test]
fn one_socket_of_udp_speaks_with_many_services() {
    let lab = Lab::new("many");
    let frontends: Vec<IpAddr> = (1..=16).map(|number| Ipv4Addr::new(10, 96, 1, number).into()).collect();
    for (list, frontend) in (1..).step_by(2).zip(&frontends) {
        // Fewer backends than Services: one that several have is heard as one of those.
        lab.serve(*frontend, list, &[1, 2, 3, 4]);
    }
    let socket = lab.udp(OWN);
    let firsts: Vec<u8> = frontends.iter().map(|to| asked(&socket, (*to, 80)).unwrap().0).collect();
    for _ in 0..3 {
        for (to, first) in frontends.iter().zip(&firsts) {
            let (number, from) = asked(&socket, (*to, 80)).unwrap();
            assert_eq!(number, *first);
            assert!(frontends.contains(&from.ip()) && from.port() == 80, "{from}");
        }
    }
}

#[test]
fn a_connected_socket_of_udp_sees_the_frontend_until_it_is_connected_elsewhere() {
    let lab = Lab::new("connected");
    lab.serve(FRONTEND, 1, &[1, 2, 3, 4]);
    lab.serve(FRONTEND6, 3, &[1, 2, 3, 4]);
    for (own, to, other) in [(OWN, FRONTEND, v4(1)), (Ipv6Addr::UNSPECIFIED.into(), FRONTEND6, v6(1))] {
        let (to, other) = (SocketAddr::from((to, 80)), SocketAddr::from((other, PORT)));
        let socket = lab.udp(own);
        socket.connect(to).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), to);
        let mut found = BTreeSet::new();
        for _ in 0..5 {
            socket.send(&[0]).unwrap();
            let (number, from) = answer(&socket).unwrap();
            assert_eq!(from, to);
            found.insert(number);
        }
        assert_eq!(found.len(), 1);
        socket.connect(other).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), other);
        socket.send(&[0]).unwrap();
        assert_eq!(answer(&socket).unwrap(), (1, other));
    }
}

#[test]
fn a_connected_socket_of_udp_that_names_the_frontend_again_stays_with_its_peer() {
    let lab = Lab::new("named");
    lab.serve(FRONTEND, 1, &[1, 2, 3, 4]);
    lab.serve(FRONTEND6, 3, &[1, 2, 3, 4]);
    for (own, to, list) in [(OWN, FRONTEND, 1), (Ipv6Addr::UNSPECIFIED.into(), FRONTEND6, 3)] {
        let to = SocketAddr::from((to, 80));
        // By chance it would be right for all of them once in 65,536 times.
        for _ in 0..8 {
            let socket = lab.udp(own);
            // What it spoke with before it was connected counts no more.
            let (before, _) = asked(&socket, to).unwrap();
            socket.connect(to).unwrap();
            socket.send(&[0]).unwrap();
            let (number, from) = answer(&socket).unwrap();
            assert_eq!(from, to);
            for _ in 0..3 {
                let again = asked(&socket, to);
                assert_eq!(again.unwrap(), (number, to), "{before} was the backend before");
            }
            // Hints or policies lead elsewhere: it goes on until it is connected to nobody any more, and of IPv6, which hears no other, then as well.
            let others: Vec<u8> = (1..=BACKENDS).filter(|other| *other != number).collect();
            lab.serve(to.ip(), list, &others);
            assert_eq!(asked(&socket, to).unwrap(), (number, to));
            connect_unspec(&socket).unwrap();
            let (after, from) = asked(&socket, to).unwrap();
            assert!(
                from == to && if to.is_ipv4() { others.contains(&after) } else { after == number },
                "{after} at {from}"
            );
            lab.serve(to.ip(), list, &[1, 2, 3, 4]);
        }
    }
}

#[test]
fn what_nobody_serves_fails_at_once() {
    let lab = Lab::new("refuse");
    for (serves, errno) in [(Serves::Nobody, Errno::CONNREFUSED), (Serves::NobodyHere, Errno::HOSTUNREACH)] {
        for (addr, own) in [(FRONTEND, OWN), (FRONTEND6, Ipv6Addr::UNSPECIFIED.into())] {
            lab.refuse(addr, serves);
            let is = |error: &io::Error| error.raw_os_error() == Some(errno.raw_os_error());
            let error = lab.tcp((addr, 80)).unwrap_err();
            assert!(is(&error), "{serves:?}: {error}");
            let socket = lab.udp(own);
            let error = socket.send_to(&[0], (addr, 80)).unwrap_err();
            assert!(is(&error), "{serves:?}: {error}");
            let error = socket.connect((addr, 80)).unwrap_err();
            assert!(is(&error), "{serves:?}: {error}");
            assert!(getpeername(&socket).is_err(), "it is not connected");
        }
    }
    // It is served again, and a socket that was refused may try again.
    let socket = lab.udp(OWN);
    assert!(socket.send_to(&[0], (FRONTEND, 80)).is_err());
    lab.serve(FRONTEND, 1, &[3]);
    assert_eq!(asked(&socket, (FRONTEND, 80)).unwrap(), (3, (FRONTEND, 80).into()));
    assert_eq!(lab.connect((FRONTEND, 80)), 3);
}

#[test]
fn clients_stay_with_their_backend_for_as_long_as_they_should() {
    let lab = Lab::new("affinity");
    let all = [1, 2, 3, 4];
    let affinity = |seconds| Some(Affinity { seconds, group: 7 });
    let other: IpAddr = Ipv4Addr::new(10, 96, 0, 2).into();
    lab.set(FRONTEND, Protocol::Tcp, 1, &all, affinity(3600));
    lab.set(other, Protocol::Tcp, 2, &all, affinity(3600));
    let first = lab.connect((FRONTEND, 80));
    for to in [FRONTEND, other] {
        assert!((0..30).all(|_| lab.connect((to, 80)) == first), "the group has one backend for a client");
    }
    // The backend moved in its list: it is the same one.
    let moved: Vec<u8> = all.into_iter().rev().collect();
    lab.set(FRONTEND, Protocol::Tcp, 1, &moved, affinity(3600));
    assert!((0..30).all(|_| lab.connect((FRONTEND, 80)) == first));
    // It is gone.
    let rest: Vec<u8> = all.into_iter().filter(|number| *number != first).collect();
    lab.set(FRONTEND, Protocol::Tcp, 1, &rest, affinity(3600));
    let second = lab.connect((FRONTEND, 80));
    assert!(second != first && (0..30).all(|_| lab.connect((FRONTEND, 80)) == second));
    lab.set(FRONTEND, Protocol::Tcp, 1, &all, affinity(1));
    let began = Instant::now();
    let mut found = BTreeSet::new();
    while found.len() < 2 {
        found.insert(lab.connect((FRONTEND, 80)));
        assert!(began.elapsed() < Duration::from_secs(60), "the backend never changes");
        // The time counts from the last connection.
        thread::sleep(Duration::from_millis(1100));
    }
}

#[test]
fn each_namespace_is_a_client() {
    let lab = Lab::new("clients");
    lab.set(FRONTEND, Protocol::Tcp, 1, &[1, 2, 3, 4], Some(Affinity { seconds: 3600, group: 7 }));
    let chosen = |number: u8| {
        let client = TestNs::new(&format!("sk-client{number}"));
        client.command("ip link set lo up");
        client.command("ip route add local 10.1.0.0/24 dev lo");
        let all = client.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))).unwrap().unwrap();
        let connect = || {
            let stream = client.run(|| TcpStream::connect((FRONTEND, 80))).unwrap().unwrap();
            assert_eq!(stream.peer_addr().unwrap(), (FRONTEND, 80).into());
            all.accept().unwrap().0.local_addr().unwrap()
        };
        let first = connect();
        assert!((0..10).all(|_| connect() == first));
        first
    };
    assert!((0..12).map(chosen).collect::<BTreeSet<_>>().len() > 1, "one backend for all of twelve clients");
}

#[test]
fn the_loopback_is_the_nodes_only_in_the_nodes_namespace() {
    let netns = TestNs::new("sk-loop-node");
    netns.command("ip link set lo up");
    netns.command(&format!("ip addr add {}/32 dev lo", v4(1)));
    serve(&netns, 1, v4(1));
    let group = Group::new("loop");
    let sockets = netns.run(|| Sockets::open(&group.0, Sizes::LEAST)).unwrap().unwrap();
    sockets.attach().unwrap();
    let target = Target { at: BackendAddress { addr: v4(1), port: PORT }, protocol: Protocol::Tcp };
    let entry = Entry { list: 1, serves: Serves::Backends(1), affinity: None };
    let edits = Edits {
        fill: vec![(Slot { list: 1, number: 0 }, target)],
        point: [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 3, 2, 1)]
            .map(|addr| (key(addr.into(), Protocol::Tcp), entry))
            .into(),
        ..Edits::default()
    };
    sockets.apply(&edits).unwrap();
    for to in ["127.0.0.1:80", "127.3.2.1:80"] {
        let to: SocketAddr = to.parse().unwrap();
        assert_eq!(told(netns.run(|| TcpStream::connect(to)).unwrap().unwrap()), 1, "{to}");
        let pod = TestNs::new("sk-loop-pod");
        pod.command("ip link set lo up");
        let error = pod.run(|| TcpStream::connect(to)).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "its own loopback");
        let own = pod.run(|| TcpListener::bind(to)).unwrap().unwrap();
        let stream = pod.run(|| TcpStream::connect(to)).unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), own.local_addr().unwrap());
    }
    let error = netns.run(|| TcpStream::connect("127.3.2.2:80")).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "an address of the loopback that is no frontend");
}

/// An address with a scope is one of a device and no frontend.
#[test]
fn other_sockets_of_the_cgroup_and_those_outside_are_left_alone() {
    let lab = Lab::new("others");
    lab.serve(FRONTEND, 1, &[1]);
    let link_local = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 80, 0, 1);
    assert!(lab.tcp(link_local).is_err());
    let root = Cgroup::v2("").unwrap();
    root.add_self().unwrap();
    assert!(lab.tcp((FRONTEND, 80)).is_err(), "a process outside");
    lab.group.0.add_self().unwrap();
    assert_eq!(lab.connect((FRONTEND, 80)), 1);
}
