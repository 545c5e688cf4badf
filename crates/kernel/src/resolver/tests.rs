use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use podnet_model::{Family, Protocol};
use podnet_planner::{
    resolver::{PORT, Resolver, TABLE},
    ruleset::BackendAddress,
};

use super::*;
use crate::{
    nft::NftSocket,
    testing::{TestNs, eventually},
};

const PATIENCE: Duration = Duration::from_millis(100);

/// Somebody who answers whatever is asked with a word, over UDP and TCP, until the value is dropped.
struct Server {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn new(place: &TestNs, at: SocketAddr, word: &'static str) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let datagrams = place.run(|| UdpSocket::bind(at)).unwrap().unwrap();
        datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
        let listener = place.run(|| TcpListener::bind(at)).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (first, second) = (Arc::clone(&ends), Arc::clone(&ends));
        let udp = std::thread::spawn(move || {
            while !first.load(Ordering::Relaxed) {
                if let Ok((_, from)) = datagrams.recv_from(&mut [0; 64]) {
                    datagrams.send_to(word.as_bytes(), from).unwrap();
                }
            }
        });
        let tcp = std::thread::spawn(move || {
            while !second.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, _)) => drop(stream.write_all(word.as_bytes())),
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
        Self { ends, threads: vec![udp, tcp] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// A pod and cluster DNS, with the node between them: the node's end of the pod's link is called as pods' are, that of the other is not.
struct Lab {
    node: TestNs,
    pod: TestNs,
    dns: TestNs,
    at: SocketAddr,
    cluster: SocketAddr,
}

impl Lab {
    fn new(family: Family) -> Self {
        let (node, pod, dns) = match family {
            Family::V4 => ("resolver4-node", "resolver4-pod", "resolver4-dns"),
            Family::V6 => ("resolver6-node", "resolver6-pod", "resolver6-dns"),
        };
        let (node, pod, dns) = (TestNs::new(node), TestNs::new(pod), TestNs::new(dns));
        let net = |last: u8, link: u8| match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 0, link, last)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, link.into(), 0, 0, 0, last.into())),
        };
        let (bits, flags, setting) = match family {
            Family::V4 => (24, "", "net.ipv4.ip_forward"),
            Family::V6 => (64, " nodad", "net.ipv6.conf.all.forwarding"),
        };
        for (link, device, place) in [(1, "pn1", &pod), (2, "v2", &dns)] {
            let peer = place.path.file_name().unwrap().to_str().unwrap();
            node.command(&format!("ip link add {device} type veth peer name eth0 netns {peer}"));
            node.command(&format!("ip addr add {}/{bits} dev {device}{flags}", net(1, link)));
            node.command(&format!("ip link set {device} up"));
            place.command(&format!("ip addr add {}/{bits} dev eth0{flags}", net(2, link)));
            place.command("ip link set eth0 up");
            place.command(&format!("ip route add default via {}", net(1, link)));
        }
        crate::sysctl::set(&node, setting, "1").unwrap();
        let at = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0xaaaa, 0, 0, 0, 0, 0, 10)),
        };
        let cluster = SocketAddr::new(net(2, 2), 5353);
        Self { node, pod, dns, at: SocketAddr::new(at, PORT), cluster }
    }

    fn rules(&self) -> Resolver {
        let to = BTreeSet::from([BackendAddress { addr: self.cluster.ip(), port: self.cluster.port() }]);
        let endpoints = BTreeMap::from([(Protocol::Udp, to.clone()), (Protocol::Tcp, to)]);
        Resolver { addrs: BTreeSet::from([self.at.ip()]), endpoints, ..Resolver::default() }
    }

    /// A pod's socket that hears the resolver alone.
    fn client(&self) -> UdpSocket {
        self.client_in(&self.pod)
    }

    fn client_in(&self, place: &TestNs) -> UdpSocket {
        let any = if self.at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = place.run(|| UdpSocket::bind(any)).unwrap().unwrap();
        socket.connect(self.at).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn entries(&self) -> String {
        self.node.command(&format!("conntrack -L -f {}", if self.at.is_ipv4() { "ipv4" } else { "ipv6" }))
    }
}

/// Who answers, in the end.
fn answers(client: &UdpSocket, word: &str) {
    eventually(&format!("{word} answers"), || {
        let mut answer = [0; 64];
        let _ = client.send(b"?");
        client.recv(&mut answer).is_ok_and(|len| &answer[..len] == word.as_bytes())
    });
}

fn connects_to(lab: &Lab, word: &str) {
    eventually(&format!("{word} answers over TCP"), || {
        let stream = lab.pod.run(|| TcpStream::connect_timeout(&lab.at, Duration::from_millis(500))).unwrap();
        let mut answer = String::new();
        stream.is_ok_and(|mut stream| stream.read_to_string(&mut answer).is_ok() && answer == word)
    });
}

fn questions_go_past_connection_tracking_and_on_to_cluster_dns_while_nobody_is_here(family: Family) {
    let lab = Lab::new(family);
    let _cluster = Server::new(&lab.dns, lab.cluster, "cluster");
    let mut host = RtSocket::open_in(&lab.node).unwrap();
    let mut rules = NftSocket::open_in(&lab.node).unwrap();
    assert_eq!(hold(&mut host, &[lab.at.ip()]).unwrap(), 1);
    assert_eq!(hold(&mut host, &[lab.at.ip()]).unwrap(), 0);
    rules.replace(TABLE, &lab.rules().table(family).unwrap()).unwrap();

    let client = lab.client();
    answers(&client, "cluster");
    connects_to(&lab, "cluster");
    assert!(lab.entries().contains("dport=53"), "what is translated is tracked");
    lab.node.command("conntrack -F");

    let here = Server::new(&lab.node, lab.at, "here");
    // The same port, whose questions were led on a moment ago.
    answers(&client, "here");
    answers(&lab.client(), "here");
    connects_to(&lab, "here");
    assert_eq!(lab.entries(), "");

    // Whoever comes by another link than a pod's hears nothing, by whichever protocol; who is on the node does.
    let stranger = lab.client_in(&lab.dns);
    for _ in 0..3 {
        stranger.send(b"?").unwrap();
        assert!(stranger.recv(&mut [0; 64]).is_err(), "a stranger is answered");
    }
    let connected = lab.dns.run(|| TcpStream::connect_timeout(&lab.at, Duration::from_millis(500))).unwrap();
    assert!(connected.is_err(), "a stranger is let in");
    answers(&lab.client_in(&lab.node), "here");
    answers(&client, "here");

    // It gives way: its sockets are there still.
    let yielding = Resolver { gives_way: true, ..lab.rules() };
    rules.replace(TABLE, &yielding.table(family).unwrap()).unwrap();
    answers(&client, "cluster");
    connects_to(&lab, "here");
    rules.replace(TABLE, &lab.rules().table(family).unwrap()).unwrap();
    answers(&client, "here");

    // It is gone, and nobody said so.
    drop(here);
    answers(&client, "cluster");
    connects_to(&lab, "cluster");

    let listed = lab.node.command(&format!("nft list ruleset {}", if family == Family::V4 { "ip" } else { "ip6" }));
    assert!(listed.contains("socket transparent 0 notrack"), "{listed}");
    release(&mut host, &[lab.at.ip()]).unwrap();
    release(&mut host, &[lab.at.ip()]).unwrap();
    assert!(!lab.node.command("ip addr show dev lo").contains(&format!("{}/", lab.at.ip())));
}

#[test]
fn questions_go_past_connection_tracking_and_on_to_cluster_dns_while_nobody_is_here_by_ipv4() {
    questions_go_past_connection_tracking_and_on_to_cluster_dns_while_nobody_is_here(Family::V4);
}

#[test]
fn questions_go_past_connection_tracking_and_on_to_cluster_dns_while_nobody_is_here_by_ipv6() {
    questions_go_past_connection_tracking_and_on_to_cluster_dns_while_nobody_is_here(Family::V6);
}
