//! Services at the socket on an older kernel than most machines run: that of the virtual machine.
#![allow(clippy::unwrap_used)]

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
};

use podnet_kernel::{
    cgroup::Cgroup,
    sockets::{self, Sizes, Sockets},
};
use podnet_model::Protocol;
use podnet_planner::{
    ruleset::{BackendAddress, FrontendKey},
    services::ebpf::{Edits, Entry, Serves, Slot, Target},
};
use podnet_testnet::vm;

#[test]
fn services_are_at_the_sockets_of_the_virtual_machines_kernel() {
    vm::run_tests("inside_", &["tcp_diag", "udp_diag"]);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn inside_services_are_at_the_sockets() {
    let mounted = Command::new("mount").args(["-t", "cgroup2", "none", "/sys/fs/cgroup"]).status().unwrap();
    assert!(mounted.success());
    let cgroup = Cgroup::v2("services").unwrap();
    let sockets = Sockets::open(&cgroup, Sizes::LEAST).unwrap();
    cgroup.add_self().unwrap();
    sockets.attach().unwrap();
    for (list, own, frontend) in [(1, "127.0.0.1", "10.96.0.1"), (2, "::1", "fd00:96::1")] {
        let (own, frontend): (IpAddr, IpAddr) = (own.parse().unwrap(), frontend.parse().unwrap());
        let tcp = TcpListener::bind((own, 0)).unwrap();
        let at = BackendAddress { addr: own, port: tcp.local_addr().unwrap().port() };
        let udp = UdpSocket::bind((own, at.port)).unwrap();
        for (list, protocol) in [(list, Protocol::Tcp), (10 + list, Protocol::Udp)] {
            let entry = Entry { list, serves: Serves::Backends(1), affinity: None };
            let edits = Edits {
                fill: vec![(Slot { list, number: 0 }, Target { at, protocol })],
                point: vec![(FrontendKey { addr: frontend, protocol, port: 80 }, entry)],
                ..Edits::default()
            };
            sockets.apply(&edits).unwrap();
        }
        let frontend = SocketAddr::from((frontend, 80));
        let mut stream = TcpStream::connect(frontend).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), frontend);
        let connected = UdpSocket::bind((own, 0)).unwrap();
        connected.connect(frontend).unwrap();
        // Both are known, and are ended.
        let connections = sockets.connections().unwrap();
        let listed = connections.list().unwrap();
        assert!(listed.len() == 2 && listed.iter().all(|opened| opened.backend == at), "{listed:?}");
        assert_eq!(connections.end(&listed).unwrap(), 2);
        let aborted = |error: io::Error| error.kind() == io::ErrorKind::ConnectionAborted;
        assert!(aborted(stream.read(&mut [0]).unwrap_err()) && aborted(connected.recv(&mut [0]).unwrap_err()));
        let client = UdpSocket::bind((own, 0)).unwrap();
        client.send_to(&[1], frontend).unwrap();
        let (_, from) = udp.recv_from(&mut [0]).unwrap();
        udp.send_to(&[2], from).unwrap();
        assert_eq!(client.recv_from(&mut [0]).unwrap(), (1, frontend));
    }
    let refused = FrontendKey { addr: [10, 96, 0, 2].into(), protocol: Protocol::Tcp, port: 80 };
    let entry = Entry { list: 20, serves: Serves::Nobody, affinity: None };
    sockets.apply(&Edits { point: vec![(refused, entry)], ..Edits::default() }).unwrap();
    let error = TcpStream::connect((refused.addr, refused.port)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    // Another agent goes on with what is there.
    let next = Sockets::open(&cgroup, Sizes::LEAST).unwrap();
    assert_eq!(next.tables().unwrap(), sockets.tables().unwrap());
    assert_eq!(next.tables().unwrap().frontends.len(), 5);
    next.attach().unwrap();
    assert!(sockets::detach(&cgroup, true).unwrap());
}
