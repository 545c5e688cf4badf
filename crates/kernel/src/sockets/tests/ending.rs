//! Connections to backends that are gone.

use std::io::Write;

use super::*;

fn is_aborted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::CONNABORTED.raw_os_error())
}

#[test]
fn connections_through_a_frontend_are_known_and_ended_one_by_one() {
    let lab = Lab::new("ending");
    lab.serve(FRONTEND, 1, &[1]);
    lab.serve(FRONTEND6, 3, &[2]);
    let mapped = match FRONTEND {
        IpAddr::V4(addr) => IpAddr::V6(addr.to_ipv6_mapped()),
        IpAddr::V6(_) => unreachable!("it is one of IPv4"),
    };
    // Some are the child's: of a process that is in the cgroup and in the namespace.
    let mut inside = process::Command::new("sleep");
    inside.arg("60");
    let mut inside = lab.netns.run(move || inside.spawn()).unwrap().unwrap();
    let connections = lab.sockets.connections().unwrap();
    assert_eq!(connections.list().unwrap().len(), 0);

    let mut streams = [FRONTEND, FRONTEND6, mapped].map(|to| lab.tcp((to, 80)).unwrap());
    let mut direct = lab.tcp((v4(1), PORT)).unwrap();
    let udp = lab.udp(OWN);
    udp.connect((FRONTEND, 80)).unwrap();
    let unconnected = lab.udp(OWN);
    asked(&unconnected, (FRONTEND, 80)).unwrap();
    for stream in streams.iter_mut().chain([&mut direct]) {
        stream.read_exact(&mut [0]).unwrap();
        stream.set_nonblocking(true).unwrap();
    }
    let began = Instant::now();
    let listed = connections.list().unwrap();
    println!("{} connections listed in {:?}", listed.len(), began.elapsed());
    let of = |key: FrontendKey, backend: IpAddr| {
        let is =
            |opened: &&Opened| opened.frontend == key && opened.backend == BackendAddress { addr: backend, port: PORT };
        listed.iter().filter(is).cloned().collect::<Vec<_>>()
    };
    let (v4s, v6s) = (of(key(FRONTEND, Protocol::Tcp), v4(1)), of(key(FRONTEND6, Protocol::Tcp), v6(2)));
    let udps = of(key(FRONTEND, Protocol::Udp), v4(1));
    assert_eq!((v4s.len(), v6s.len(), udps.len(), listed.len()), (2, 1, 1, 4));

    let mut still = |place: usize| streams[place].read(&mut [0]).unwrap_err();
    assert_eq!(connections.end(&v6s).unwrap(), 1);
    assert!(is_aborted(&still(1)));
    assert!([0, 2].iter().all(|place| still(*place).kind() == ErrorKind::WouldBlock));
    assert_eq!(connections.end(&v4s).unwrap(), 2);
    assert!([0, 2].iter().all(|place| is_aborted(&still(*place))));
    assert_eq!(connections.end(&udps).unwrap(), 1);
    assert!(is_aborted(&udp.recv(&mut [0]).unwrap_err()));
    // Those that went are no obstacle, and what was not opened through a frontend is not touched.
    assert_eq!(connections.end(&listed).unwrap(), 0);
    assert_eq!(direct.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(asked(&unconnected, (FRONTEND, 80)).is_ok());
    assert_eq!(connections.list().unwrap().len(), 0);
    // Those that stay when no backend is chosen any more are known to whoever asks for them then.
    let lasting = lab.tcp((FRONTEND, 80)).unwrap();
    assert!(detach(&lab.group.0, false).unwrap());
    assert_eq!(Connections::left(&lab.group.0).unwrap().unwrap().list().unwrap().len(), 1);
    lab.sockets.attach().unwrap();
    drop(lasting);
    // A socket of UDP that is closed, or connected elsewhere, is not kept in mind.
    let kept = || call::elements::<8, 44>(lab.sockets.maps.connected_udp.as_fd()).unwrap().len();
    drop(udp);
    assert_eq!(kept(), 0);
    unconnected.connect((FRONTEND, 80)).unwrap();
    assert_eq!(kept(), 1);
    unconnected.connect((v4(1), PORT)).unwrap();
    assert_eq!(kept(), 0);
    assert!(detach(&lab.group.0, true).unwrap());
    assert!(Connections::left(&lab.group.0).unwrap().is_none());
    inside.kill().unwrap();
    inside.wait().unwrap();
}

#[test]
fn a_socket_of_udp_that_finds_no_room_is_served_and_counted() {
    let lab = Lab::with("unfollowed", &[(abi::CONNECTED_UDP, 1)]);
    lab.serve(FRONTEND, 1, &[1]);
    let connected = || {
        let socket = lab.udp(OWN);
        socket.connect((FRONTEND, 80)).unwrap();
        socket.send(&[0]).unwrap();
        assert_eq!(answer(&socket).unwrap(), (1, SocketAddr::from((FRONTEND, 80))));
        socket
    };
    let kept = || call::elements::<8, 44>(lab.sockets.maps.connected_udp.as_fd()).unwrap().len();
    let first = connected();
    assert_eq!((kept(), lab.sockets.unfollowed().unwrap()), (1, 0));
    let others = [connected(), connected()];
    assert_eq!((kept(), lab.sockets.unfollowed().unwrap()), (1, 2));
    // What is known already needs no room.
    first.connect((FRONTEND, 80)).unwrap();
    assert_eq!(lab.sockets.unfollowed().unwrap(), 2);
    drop(first);
    let next = connected();
    assert_eq!((kept(), lab.sockets.unfollowed().unwrap()), (1, 2));
    drop((others, next));
    assert_eq!(kept(), 0);
    // Whoever comes next goes on counting.
    assert_eq!(Sockets::open(&lab.group.0, Sizes::LEAST).unwrap().unfollowed().unwrap(), 2);
}

/// The kernel goes on to send what the process left behind. Told to end such a socket, older kernels keep it for ever.
#[test]
fn a_connection_that_no_process_has_any_more_is_left_to_the_kernel() {
    let lab = Lab::new("orphan");
    let silent = v4(BACKENDS + 1);
    lab.netns.command(&format!("ip addr add {silent}/32 dev lo"));
    let _listener = lab.netns.run(|| TcpListener::bind((silent, PORT))).unwrap().unwrap();
    lab.serve(FRONTEND, 1, &[BACKENDS + 1]);
    let mut inside = process::Command::new("sleep");
    inside.arg("60");
    let mut inside = lab.netns.run(move || inside.spawn()).unwrap().unwrap();
    let connections = lab.sockets.connections().unwrap();
    let mut stream = lab.tcp((FRONTEND, 80)).unwrap();
    stream.set_nonblocking(true).unwrap();
    // Nobody reads, so its end cannot be sent.
    while stream.write(&[0; 65_536]).is_ok_and(|sent| sent > 0) {}
    assert_eq!(connections.list().unwrap().len(), 1);
    drop(stream);
    assert!(lab.netns.command("ss -tnH state fin-wait-1").contains(&silent.to_string()), "it is not there any more");
    assert_eq!(connections.list().unwrap().len(), 0);
    inside.kill().unwrap();
    inside.wait().unwrap();
}
