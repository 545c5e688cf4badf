//! How long a client stays with its backend, by connections.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, NodeAddr, PodAddr, Service, ServicePort, SliceKey, TargetPort,
    endpoints::EndpointPort,
    service::{Port, ServiceKind},
};
use podnet_planner::services::{Services, ServicesConfig, iptables::Iptables as Chains};

use super::*;

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));
const BACKENDS: [u8; 3] = [1, 2, 3];

fn pod(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

/// A Service of all backends, whose clients stay for so many seconds.
fn sticky(seconds: u32) -> Services {
    let node = NodeAddr("192.0.2.1".parse().unwrap());
    let mut services = Services::new(ServicesConfig::new(Family::V4, "node1".into(), vec![node]));
    let key = ServiceKey::new("default", "web");
    let port = Port { name: "".into(), protocol: Protocol::Tcp, port: ServicePort(80), node_port: None };
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(VIP)] };
    let service = Service { affinity: Some(seconds), ..Service::new(key.clone(), kind, vec![port]) };
    let slice = EndpointSlice {
        key: SliceKey::new("default", "web-1"),
        service: key.clone(),
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: TargetPort(8080) }],
        endpoints: BACKENDS.map(|number| Endpoint::new(PodAddr(pod(number)))).into(),
        triggered: None,
        unproxied: false,
    };
    services.apply(&Change::Service(key, Some(service)));
    services.apply(&Change::Slice(slice.key.clone(), Some(slice)));
    services
}

/// The backend that a new connection comes to.
fn connect(ns: &TestNs) -> u8 {
    let connected = ns.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(VIP, 80), Duration::from_secs(20)).unwrap();
        let mut number = [0];
        stream.read_exact(&mut number).unwrap();
        number[0]
    });
    connected.unwrap()
}

#[test]
fn a_client_is_forgotten_some_time_after_its_last_connection() {
    for variant in [Variant::Legacy, Variant::Nft] {
        let ns = TestNs::new(&format!("ipt-forgets-{variant}").to_lowercase());
        ns.command("ip link set lo up");
        ns.command("ip addr add 192.0.2.1/32 dev lo");
        ns.command(&format!("ip route add {VIP} dev lo src 192.0.2.1"));
        for number in BACKENDS {
            ns.command(&format!("ip addr add {}/32 dev lo", pod(number)));
            let listener = ns.run(|| TcpListener::bind((pod(number), 8080))).unwrap().unwrap();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let _ = stream.unwrap().write_all(&[number]);
                }
            });
        }
        let mut iptables = Iptables::new(ns.clone(), Family::V4, variant).unwrap();
        let mut put = |seconds| {
            let services = sticky(seconds);
            iptables.put(&Chains::new(&services).desired(&services)).unwrap();
        };
        put(3600);
        let first = connect(&ns);
        thread::sleep(Duration::from_millis(1500));
        assert!((0..15).all(|_| connect(&ns) == first), "{variant}: it stays for an hour");
        put(1);
        let began = Instant::now();
        let mut found = BTreeSet::new();
        while found.len() < 2 {
            assert!(began.elapsed() < Duration::from_secs(60), "{variant}: the backend never changes");
            // The time counts from the last connection.
            thread::sleep(Duration::from_millis(1500));
            found.insert(connect(&ns));
        }
    }
}
