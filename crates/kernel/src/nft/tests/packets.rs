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
fn cluster(tag: &str, family: Family) -> Cluster {
    let node = TestNs::new(&format!("{tag}-node"));
    for setting in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        sysctl::set(&node, setting, "1").unwrap();
    }
    node.command("ip addr add 192.0.2.1/32 dev lo");
    node.command("ip addr add 2001:db8::1/128 dev lo");
    let mut host = RtSocket::open_in(&node).unwrap();
    let mut pod = |number: u8| {
        let namespace = TestNs::new(&format!("{tag}-pod{number}"));
        let interface = PodInterface {
            netns: namespace.clone(),
            container_ifname: "eth0".into(),
            host_ifname: LinkName::from(format!("pod{number}")),
            addr: vec![pod_addr(family, number)],
            routes: Vec::new(),
            mtu: 1500,
            pod_mac: mac(1, number),
            host_mac: mac(2, number),
            bridge: None,
        };
        interface.create(&mut host).unwrap();
        namespace
    };
    let client = pod(100);
    let backends: Vec<TestNs> = (1..=3).map(&mut pod).collect();
    let addresses: Vec<BackendAddress> =
        (1..=3).map(|number| BackendAddress { addr: pod_addr(family, number), port: 8080 }).collect();
    for (name, (namespace, to)) in (1..).zip(backends.iter().zip(&addresses)) {
        let listener = namespace.run(|| TcpListener::bind((to.addr, to.port))).unwrap().unwrap();
        // Ends with the test's process; nothing of it outlives the namespaces that it listens in.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.and_then(|mut stream| stream.write_all(&[name]));
            }
        });
    }
    Cluster { node, client, _backends: backends, addresses }
}

fn fetch(from: &NetNs, family: Family, port: u16) -> std::io::Result<u8> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((vip(family), port)), Duration::from_secs(3))?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    })
    .unwrap()
}

fn answers(from: &NetNs, family: Family) -> BTreeMap<u8, u32> {
    let mut answers = BTreeMap::new();
    for _ in 0..60 {
        *answers.entry(fetch(from, family, 80).unwrap()).or_default() += 1;
    }
    answers
}

#[test]
fn a_service_spreads_connections_of_pods_and_of_the_node_over_its_backends() {
    for family in Family::ALL {
        let cluster = cluster(&format!("nft-spread-{}", family.bits()), family);
        let mut socket = NftSocket::open_in(&cluster.node).unwrap();
        socket.replace("podnet", &rules_of(family, &cluster.addresses)).unwrap();
        // The node's own packets are routed before they are translated.
        cluster.node.command(&format!("ip route add {} dev lo", vip(family)));
        for from in [&*cluster.client, &*cluster.node] {
            let answers = answers(from, family);
            assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [1, 2, 3], "{answers:?}");
        }
    }
}

#[test]
fn a_backend_that_left_gets_no_new_connections() {
    let cluster = cluster("nft-leave", Family::V4);
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
    socket.apply(Family::V4, "podnet", &edits).unwrap();
    assert_eq!(answers(&cluster.client, Family::V4).into_keys().collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    for family in Family::ALL {
        let cluster = cluster(&format!("nft-reject-{}", family.bits()), family);
        let mut socket = NftSocket::open_in(&cluster.node).unwrap();
        socket.replace("podnet", &rules_of(family, &cluster.addresses)).unwrap();
        // Where the Service's address leads nowhere, the packet has to get as far as the forward hook.
        cluster.node.command(&format!("ip route add {} dev pod1", vip(family)));
        for from in [&*cluster.client, &*cluster.node] {
            let start = Instant::now();
            let error = fetch(from, family, 81).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            assert!(start.elapsed() < Duration::from_secs(1));
        }
    }
}
