//! The resolver with a Corefile of its own.

use std::net::UdpSocket;

use super::*;

/// As NodeLocal DNSCache's ConfigMap has it.
const NODE_LOCAL: &str = "
__PILLAR__DNS__DOMAIN__:53 {
    errors
    cache {
        success 9984 30
        denial 9984 5
    }
    reload
    loop
    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__
    forward . __PILLAR__CLUSTER__DNS__ {
        force_tcp
    }
    prometheus :9253
    health 169.254.20.10:8080
}
.:53 {
    errors
    cache 30
    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__
    forward . __PILLAR__UPSTREAM__SERVERS__
    prometheus :9253
}
";

/// Options with a Corefile, in a directory that the test takes away.
fn with(name: &str, text: &str) -> (LocalOptions, PathBuf) {
    let directory = std::env::temp_dir().join(format!("pntest-dns-own-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("Corefile"), text).unwrap();
    std::fs::write(directory.join("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
    let corefile = Some(directory.join("Corefile"));
    (LocalOptions { corefile, resolv_conf: directory.join("resolv.conf"), ..options("k8s.example") }, directory)
}

#[test]
fn node_local_dnscache_s_corefile_is_taken_as_it_is() {
    let (options, directory) = with("pillars", NODE_LOCAL);
    let config = config(&options, &told(0, 2).upstreams).unwrap();
    let zones: Vec<String> = config.blocks.iter().map(|block| block.keys[0].zone.to_string()).collect();
    assert_eq!(zones, ["k8s.example.", "."]);
    let asked = |block: usize| {
        let forwards = config.blocks[block].forwards();
        forwards.flat_map(|forward| &forward.upstreams).map(|upstream| upstream.addr.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(asked(0), ["10.244.0.0:53", "10.244.0.1:53"]);
    assert_eq!(asked(1), ["192.0.2.53:53"]);
    let ports = config.listeners();
    assert_eq!(ports.len(), 1);
    assert_eq!(
        (ports[0].port.number, ports[0].port.address),
        (PORT, None),
        "its own addresses are the agent's to bind"
    );
    assert!(config.process.health.is_empty() && config.process.metrics.is_empty());
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn what_only_cluster_dns_can_do_is_refused() {
    let (options, directory) = with("refused", ".:53 {\n kubernetes cluster.local\n}\n");
    let error = config(&options, &told(0, 1).upstreams).unwrap_err();
    assert!(matches!(error, DnsError::NotOnNodes { plugin: "kubernetes" }), "{error}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn proofs_of_any_upstream_can_be_used_with_trust_anchors_of_a_file() {
    let (options, directory) = with("anchors", "");
    let anchors = directory.join("anchors");
    std::fs::write(&anchors, include_str!("../../../../../dns/testdata/p256.key")).unwrap();
    let corefile = format!(
        ".:53 {{\n forward . __PILLAR__UPSTREAM__SERVERS__ {{\n  nsec 500\n  trust_anchors {}\n }}\n}}\n",
        anchors.display()
    );
    std::fs::write(directory.join("Corefile"), corefile).unwrap();
    let config = config(&options, &told(0, 1).upstreams).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.blocks[0].forwards().map(|forward| forward.nsec).collect::<Vec<_>>(), [500]);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_changed_corefile_is_taken_over_and_a_wrong_one_is_not() {
    let (options, directory) = with("changed", ".:53 {\n bogus\n}\n");
    let write = |text: &str| {
        std::fs::write(directory.join("new"), text).unwrap();
        std::fs::rename(directory.join("new"), directory.join("Corefile")).unwrap();
    };
    let network = Arc::new(Network::of_node(Arc::default(), Arc::default()));
    let seat = Seat::default();
    let mut hears = seat.told.subscribe();
    seat.told.send_replace(told(0, 2));
    let begins = {
        let (options, network) = (options.clone(), Arc::clone(&network));
        tokio::spawn(async move { begin(&options, &mut hears, &network).await })
    };
    tokio::task::yield_now().await;
    write(NODE_LOCAL);
    let (asked, first, read) = tokio::time::timeout(Duration::from_secs(60), begins).await.unwrap().unwrap().unwrap();
    let shared = Arc::new(Shared::new(Arc::clone(&first)));
    let follows = {
        let (options, shared, network, seat) =
            (options.clone(), Arc::clone(&shared), Arc::clone(&network), seat.clone());
        let hears = seat.told.subscribe();
        let answers = AtomicBool::new(true);
        tokio::spawn(async move { follow(&options, &shared, &network, &seat, hears, (asked, read), &answers).await })
    };
    let replaced = async |before: &Arc<Server>| {
        let wait = async {
            while Arc::ptr_eq(&shared.server(), before) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    };
    write(&NODE_LOCAL.replace("30", "20"));
    replaced(&first).await;
    let second = shared.server();
    // With a wrong one it cannot follow cluster DNS: questions are led on meanwhile.
    write(".:53 {\n bogus\n}\n");
    seat.told.send_replace(told(1, 2));
    let mut yields = seat.gives_way.subscribe();
    tokio::time::timeout(Duration::from_secs(60), yields.wait_for(|yields| *yields)).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&shared.server(), &second));
    write(&NODE_LOCAL.replace("30", "10"));
    replaced(&second).await;
    tokio::time::timeout(Duration::from_secs(60), yields.wait_for(|yields| !*yields)).await.unwrap().unwrap();
    follows.abort();
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_corefile_whose_upstream_has_no_address_yet_is_tried_again() {
    let names = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = names.local_addr().unwrap();
    // For the first two times, A and AAAA, there is no such name.
    let serving = std::thread::spawn(move || {
        let mut asked = 0;
        loop {
            let mut query = [0; 512];
            let (length, from) = names.recv_from(&mut query).unwrap();
            if length == 0 {
                return asked;
            }
            let mut answer = query[..length].to_vec();
            let is_there = asked >= 4 && query[length - 3] == 1;
            answer[2..4].copy_from_slice(&[0x81, if asked < 4 { 0x83 } else { 0x80 }]);
            if is_there {
                answer[7] = 1;
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
            }
            names.send_to(&answer, from).unwrap();
            asked += 1;
        }
    });
    let text = format!(".:53 {{\n forward . later.example {{\n  resolver {addr}\n }}\n}}\n");
    let (options, directory) = with("waiting", &text);
    let (network, seat) = (Arc::new(Network::of_node(Arc::default(), Arc::default())), Seat::default());
    let mut hears = seat.told.subscribe();
    seat.told.send_replace(told(0, 1));
    let begun = tokio::time::timeout(Duration::from_secs(60), begin(&options, &mut hears, &network));
    assert!(begun.await.unwrap().is_some());
    // Nothing at all ends it: on a busy machine it may be asked more often than three times for both families.
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[], addr).unwrap();
    assert!(serving.join().unwrap() >= 6);
    std::fs::remove_dir_all(directory).unwrap();
}
