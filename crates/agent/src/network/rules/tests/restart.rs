//! An agent that starts where another one was.

use std::{collections::BTreeSet, fs, net::UdpSocket, process::Command};

use podnet_kernel::{conntrack, datapath::KernelDatapath, netns::NetNs};
use podnet_model::{Endpoint, EndpointSlice, PodAddr, SliceKey, TargetPort, endpoints::EndpointPort};

use super::*;

/// A Service whose clients come to the same endpoint again, and its endpoint.
fn sticky() -> [Change; 2] {
    let Change::Service(key, Some(mut web)) = service(Some("10.96.0.1")) else { unreachable!() };
    web.affinity = Some(3600);
    let slice = serde_json::json!({
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "protocol": "TCP", "port": 8080}],
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}],
    });
    let slice: k8s_openapi::api::discovery::v1::EndpointSlice = serde_json::from_value(slice).unwrap();
    let slice = Change::Slice(SliceKey::new("default", "web-1"), Some(EndpointSlice::try_from(&slice).unwrap()));
    [Change::Service(key, Some(web)), slice]
}

/// What `iptables` remembers goes with the last rule that looks it up.
#[test]
fn chains_of_an_earlier_agent_stay_and_remember_their_clients() {
    let path = format!("/run/netns/podnet-test-restart-{}", std::process::id());
    let netns = NetNs::create(&path).unwrap();
    let done = netns.run(|| {
        let mut datapath = KernelDatapath::open().unwrap();
        let mut start = |mode| {
            let mut rules = rules();
            sticky().iter().for_each(|change| rules.learn(change));
            rules.begin_in(mode);
            rules.put(&mut datapath).unwrap();
            assert!(rules.serves());
            datapath.nft_socket().tables(Family::V4).unwrap().iter().any(|table| table == nftables::TABLE)
        };
        let memory = || {
            let mut lists = fs::read_dir("/proc/thread-self/net/xt_recent").unwrap();
            let list = lists.find(|list| list.as_ref().unwrap().file_name() != "DEFAULT").unwrap().unwrap();
            list.path()
        };
        assert!(start(Mode::Nftables));
        assert!(!start(Mode::Iptables), "what is of another mode goes");
        fs::write(memory(), "+192.0.2.9\n").unwrap();
        assert!(!start(Mode::Iptables));
        let remembered = fs::read_to_string(memory()).unwrap();
        assert!(remembered.contains("src=192.0.2.9 "), "{remembered}");
        assert!(start(Mode::Nftables));
        assert!(fs::read_dir("/proc/thread-self/net/xt_recent").unwrap().next().is_none(), "and so back");
    });
    NetNs::remove(&path).unwrap();
    done.unwrap();
}

/// A Service of UDP, and its endpoint.
fn datagrams(name: &str, ip: &str) -> [Change; 2] {
    let key = ServiceKey::new("default", name);
    let port = Port { name: "".into(), protocol: Protocol::Udp, port: ServicePort(53), node_port: None };
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(ip.parse().unwrap())] };
    let slice = EndpointSlice {
        key: SliceKey::new("default", name),
        service: key.clone(),
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Udp, port: TargetPort(8080) }],
        endpoints: vec![Endpoint::new(PodAddr([192, 0, 2, 1].into()))],
        triggered: None,
        unproxied: false,
    };
    let service = Service::new(key.clone(), kind, vec![port]);
    [Change::Service(key, Some(service)), Change::Slice(slice.key.clone(), Some(slice))]
}

/// The connections of UDP that the namespace remembers: what they were opened to, and who answers.
fn remembered() -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    let tell = |to: FrontendKey, by: BackendAddress| {
        all.insert((format!("{}:{}", to.addr, to.port), format!("{}:{}", by.addr, by.port)));
        false
    };
    assert_eq!(conntrack::forget_astray(Family::V4, tell).unwrap(), 0);
    all
}

/// Neither what is right, nor what somebody else translates.
#[test]
fn connections_of_services_that_went_while_no_agent_ran_are_forgotten_and_no_others() {
    let path = format!("/run/netns/podnet-test-bygone-{}", std::process::id());
    let netns = NetNs::create(&path).unwrap();
    let done = netns.run(|| {
        for line in [
            "ip address add 192.0.2.1/32 dev lo",
            "ip route add 10.96.0.0/16 dev lo src 192.0.2.1",
            "nft add table ip others",
            "nft -- add chain ip others out { type nat hook output priority -90 ; }",
            "nft add rule ip others out ip daddr 10.96.0.9 udp dport 53 dnat to 192.0.2.1:8080",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{line}");
        }
        let mut datapath = KernelDatapath::open().unwrap();
        let server = UdpSocket::bind("192.0.2.1:8080").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let ask = |at: &str| {
            let client = UdpSocket::bind("192.0.2.1:0").unwrap();
            client.send_to(b"there", at).unwrap();
            assert_eq!(server.recv(&mut [0; 9]).unwrap(), 5, "{at}");
        };
        let to = |at: &[&str]| -> BTreeSet<(String, String)> {
            at.iter().map(|at| ((*at).to_owned(), "192.0.2.1:8080".to_owned())).collect()
        };
        let [stays, goes, others, direct] = ["10.96.0.1:53", "10.96.0.2:53", "10.96.0.9:53", "192.0.2.1:8080"];
        for mode in [Mode::Nftables, Mode::Iptables] {
            let mut start = |services: &[[Change; 2]]| {
                let mut rules = rules();
                services.iter().flatten().for_each(|change| rules.learn(change));
                rules.begin_in(mode);
                rules.put(&mut datapath).unwrap();
                rules
            };
            let (web, dns) = (datagrams("web", "10.96.0.1"), datagrams("dns", "10.96.0.2"));
            start(&[web.clone(), dns.clone()]).forget_vanished().unwrap();
            [stays, goes, others, direct].into_iter().for_each(ask);
            assert_eq!(remembered(), to(&[stays, goes, others, direct]), "{mode}");
            assert_eq!(start(&[web.clone(), dns]).forget_vanished().unwrap(), 0, "{mode}: all is right");
            let mut rules = start(std::slice::from_ref(&web));
            assert_eq!(rules.forget_vanished().unwrap(), 1, "{mode}");
            assert!(!rules.forgets(Family::V4), "{mode}: they were all looked at");
            assert_eq!(start(std::slice::from_ref(&web)).forget_vanished().unwrap(), 0, "{mode}");
            assert_eq!(remembered(), to(&[stays, others, direct]), "{mode}");
        }
    });
    NetNs::remove(&path).unwrap();
    done.unwrap();
}
