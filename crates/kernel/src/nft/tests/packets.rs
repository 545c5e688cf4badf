//! What the rules do to packets: a client pod, a node and backend pods, all namespaces.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use podnet_model::LinkName;

use super::{super::*, *};
use crate::{
    netlink::RtSocket,
    pod_interface::PodInterface,
    sysctl,
    testing::{TestNs, mac},
};

struct Cluster {
    node: TestNs,
    client: TestNs,
    _backends: Vec<TestNs>,
    addresses: Vec<BackendAddress>,
}

/// Each backend answers every connection with its own number.
fn cluster(tag: &str) -> Cluster {
    let node = TestNs::new(&format!("{tag}-node"));
    sysctl::set(&node, "net.ipv4.ip_forward", "1").unwrap();
    node.command("ip addr add 192.0.2.1/32 dev lo");
    let mut host = RtSocket::open_in(&node).unwrap();
    let mut pod = |number: u8| {
        let namespace = TestNs::new(&format!("{tag}-pod{number}"));
        let interface = PodInterface {
            netns: namespace.clone(),
            container_ifname: "eth0".into(),
            host_ifname: LinkName::from(format!("pod{number}")),
            addr: vec![Ipv4Addr::new(10, 0, 0, number).into()],
            routes: Vec::new(),
            mtu: 1500,
            pod_mac: mac(1, number),
            host_mac: mac(2, number),
        };
        interface.create(&mut host).unwrap();
        namespace
    };
    let client = pod(100);
    let backends: Vec<TestNs> = (1..=3).map(&mut pod).collect();
    let addresses: Vec<BackendAddress> = (1..=3).map(|number| backend([10, 0, 0, number], 8080)).collect();
    for (namespace, to) in backends.iter().zip(&addresses) {
        let listener = namespace.run(|| TcpListener::bind((to.addr, to.port))).unwrap().unwrap();
        let name = to.addr.octets()[3];
        // Ends with the test's process; nothing of it outlives the namespaces that it listens in.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.and_then(|mut stream| stream.write_all(&[name]));
            }
        });
    }
    Cluster { node, client, _backends: backends, addresses }
}

fn fetch(from: &NetNs, port: u16) -> std::io::Result<u8> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((VIP, port)), Duration::from_secs(3))?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    })
    .unwrap()
}

fn answers(from: &NetNs) -> BTreeMap<u8, u32> {
    let mut answers = BTreeMap::new();
    for _ in 0..60 {
        *answers.entry(fetch(from, 80).unwrap()).or_default() += 1;
    }
    answers
}

#[test]
fn a_service_spreads_connections_of_pods_and_of_the_node_over_its_backends() {
    let cluster = cluster("nft-spread");
    let mut socket = NftSocket::open_in(&cluster.node).unwrap();
    socket.replace("podnet", &rules(&cluster.addresses)).unwrap();
    // The node's own packets are routed before they are translated.
    cluster.node.command("ip route add 10.96.0.0/16 dev lo");
    for from in [&*cluster.client, &*cluster.node] {
        let answers = answers(from);
        assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [1, 2, 3], "{answers:?}");
    }
}

#[test]
fn a_backend_that_left_gets_no_new_connections() {
    let cluster = cluster("nft-leave");
    let mut socket = NftSocket::open_in(&cluster.node).unwrap();
    socket.replace("podnet", &rules(&cluster.addresses)).unwrap();
    let key = frontend(80);
    let (name, chain) = service_chain(2);
    let moved = cluster.addresses[2];
    let edits = [
        Edit::SetChain(name.clone(), chain),
        // The last slot's backend takes the place of the one that leaves.
        Edit::SetBackend { map: "backends".into(), key: slot(key, 0), to: moved, replaces: true },
        Edit::SetVerdict { map: "frontends".into(), key, chain: name, replaces: true },
        Edit::RemoveBackend { map: "backends".into(), key: slot(key, 2) },
    ];
    socket.apply("podnet", &edits).unwrap();
    assert_eq!(answers(&cluster.client).into_keys().collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let cluster = cluster("nft-reject");
    let mut socket = NftSocket::open_in(&cluster.node).unwrap();
    socket.replace("podnet", &rules(&cluster.addresses)).unwrap();
    // Where the Service's address leads nowhere, the packet has to get as far as the forward hook.
    cluster.node.command("ip route add 10.96.0.0/16 dev pod1");
    for from in [&*cluster.client, &*cluster.node] {
        let start = Instant::now();
        let error = fetch(from, 81).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}
