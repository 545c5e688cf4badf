//! Services that the stack translates on the way, with other sources than those that asked.

use podnet_flow::Transport;
use podnet_model::{ClusterIp, NodePort, Protocol, ServicePort, service::Port};

use super::*;

/// `shop/cart` at 10.96.0.7:53 and at port 30053 of the node; the pod is its backend.
fn served() -> Arc<Known> {
    let known = known();
    let (protocol, port, node_port) = (Protocol::Udp, ServicePort(53), Some(NodePort(30053)));
    let ports = vec![Port { name: "dns".into(), protocol, port, node_port }];
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp("10.96.0.7".parse().unwrap())] };
    let service = Service::new(ServiceKey::new("shop", "cart"), kind, ports);
    known.learn(&Change::Service(service.key.clone(), Some(service)));
    known
}

fn run(line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{line}");
}

/// Leads both of the Service's addresses to the pod, which sees the node in the place of itself and of who is outside.
fn translate(lab: &Lab) {
    let mut lines = vec![
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.pn0.send_redirects=0"
            .to_owned(),
        "ip addr add 203.0.113.9/32 dev lo".to_owned(),
        "ip route add 10.96.0.0/16 dev pn0".to_owned(),
        "nft add table ip t".to_owned(),
        "nft -- add chain ip t post { type nat hook postrouting priority 100 ; }".to_owned(),
    ];
    for (chain, hook) in [("pre", "prerouting"), ("out", "output")] {
        lines.push(format!("nft -- add chain ip t {chain} {{ type nat hook {hook} priority -100 ; }}"));
        for at in ["10.96.0.7 udp dport 53", "192.0.2.1 udp dport 30053"] {
            lines.push(format!("nft add rule ip t {chain} ip daddr {at} dnat to 192.0.2.7:5353"));
        }
    }
    for source in ["192.0.2.7", "203.0.113.9"] {
        lines.push(format!("nft add rule ip t post ip saddr {source} ip daddr 192.0.2.7 masquerade"));
    }
    lab.node.run(|| lines.iter().for_each(|line| run(line))).unwrap();
    lab.pod.run(|| run("ip route add 10.96.0.0/16 via 192.0.2.1")).unwrap();
}

#[test]
fn who_asked_and_who_answers_is_told_once_where_the_backend_sees_the_node_instead() {
    let lab = Lab::new();
    translate(&lab);
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: false };
    let device = LinkName::from("pn0");
    let recorder = lab.node.run(|| {
        let socket = &mut RtSocket::open().unwrap();
        let flows = Flows::open(socket, std::slice::from_ref(&device), None, Sizes { entries: 100, ring: 1 << 16 });
        let flows = Arc::new(flows.unwrap());
        assert!(flows.attach(socket, &device).unwrap());
        // Connection tracking is asked in the node's namespace.
        Recorder::new(flows, sinks(&settings), "node1".into(), (served(), ()))
    });
    let mut recorder = recorder.unwrap();
    let bind = |netns: &NetNs, at: &str| {
        let socket = netns.run(|| UdpSocket::bind(at).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    };
    let server = bind(&lab.pod, "192.0.2.7:5353");
    let rows = [
        // The pod meets itself.
        (&lab.pod, "192.0.2.7:4000", "10.96.0.7:53", Class::PodService),
        (&lab.pod, "192.0.2.7:4001", "192.0.2.1:30053", Class::PodService),
        // From outside, as far as anybody knows; and the node itself.
        (&lab.node, "203.0.113.9:4002", "192.0.2.1:30053", Class::WorldPod),
        (&lab.node, "192.0.2.1:4003", "10.96.0.7:53", Class::NodePod),
    ];
    for (netns, source, asked, _) in rows {
        let client = bind(netns, source);
        client.send_to(&[7; 100], asked).unwrap();
        let (_, seen) = server.recv_from(&mut [0; 200]).unwrap();
        assert_eq!(seen.ip().to_string(), "192.0.2.1");
        server.send_to(&[7; 50], seen).unwrap();
        client.recv_from(&mut [0; 200]).unwrap();
    }
    recorder.round(true, true);
    let text = std::fs::read_to_string(&settings.path).unwrap();
    let told = |line: &str| match serde_json::from_str(line).unwrap() {
        Item::Flow(record) if record.protocol == Transport::UDP => {
            let service = record.service.as_ref().unwrap();
            assert_eq!((service.service.to_string().as_str(), record.verdict), ("shop/cart", Verdict::Forwarded));
            assert_eq!((record.sent.bytes, record.received.bytes), (128, 78));
            let asked = service.at().to_string();
            let ends = [&record.source, &record.destination].map(|end| end.at().to_string());
            Some((ends, asked, record.class.to_string()))
        }
        Item::Flow(_) => None,
        item => panic!("{item:?}"),
    };
    let mut told: Vec<_> = text.lines().filter_map(told).collect();
    told.sort();
    let mut expected = rows.map(|(_, source, asked, class)| {
        ([source.to_owned(), "192.0.2.7:5353".to_owned()], asked.to_owned(), class.to_string())
    });
    expected.sort();
    assert_eq!(told, expected);
}
