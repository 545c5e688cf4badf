mod own;

use podnet_planner::resolver::PORT;

use super::*;
use crate::dns::outside::Network;

fn options(domain: &str) -> LocalOptions {
    let addrs = vec!["127.0.0.1".parse().unwrap()];
    let resolv_conf = "/nowhere".into();
    LocalOptions { node: "node1".to_owned(), addrs, domain: domain.to_owned(), resolv_conf, corefile: None }
}

/// So many endpoints of cluster DNS, in a network of their own.
fn told(network: u8, endpoints: u8) -> Told {
    let upstreams = (0..endpoints).map(|last| SocketAddr::from(([10, 244, network, last], 53))).collect();
    Told { upstreams, held: BTreeSet::from(["127.0.0.1".parse().unwrap()]), gave_way: false, unguarded: None }
}

#[test]
fn what_it_is_as_a_corefile_can_be_loaded_whatever_cluster_dns_is() {
    let options = options("k8s.example");
    for upstreams in [&["10.244.0.2:53"][..], &["10.244.0.2:5353", "10.244.1.2:53"], &["[fd00::2]:53", "10.244.0.2:53"]]
    {
        let upstreams: BTreeSet<SocketAddr> = upstreams.iter().map(|upstream| upstream.parse().unwrap()).collect();
        let config = config(&options, &upstreams).unwrap();
        let ports: Vec<u16> = config.listeners().iter().map(|listener| listener.port.number).collect();
        assert_eq!((ports, &config.warnings), (vec![PORT], &Vec::new()));
        let zones: Vec<String> = config.blocks.iter().map(|block| block.keys[0].zone.to_string()).collect();
        assert_eq!(zones, ["k8s.example.", "."]);
        // It opens no ports of its own on the node beside that one.
        let process = &config.process;
        assert!(process.health.is_empty() && process.ready.is_empty() && process.metrics.is_empty());
    }
}

#[test]
fn of_many_endpoints_each_node_asks_its_own_few_and_keeps_to_them() {
    let first = options("k8s.example");
    let second = LocalOptions { node: "node2".to_owned(), ..first.clone() };
    for few in [1, 15] {
        assert_eq!(chosen(&first, &told(0, few)), told(0, few).upstreams);
    }
    let all = told(0, 100);
    let asked = chosen(&first, &all);
    assert_eq!(asked.len(), MAX_ASKED);
    assert!(config(&first, &asked).is_ok());
    assert_ne!(asked, chosen(&second, &all), "nodes share the load");
    let mut fewer = all.clone();
    let gone = *asked.first().unwrap();
    fewer.upstreams.remove(&gone);
    let kept = chosen(&first, &fewer);
    assert_eq!(asked.difference(&kept).collect::<Vec<_>>(), [&gone]);
    assert_eq!(kept.len(), MAX_ASKED);
}

#[test]
fn endpoints_of_the_family_that_it_answers_in_are_asked_first() {
    let addrs: Vec<IpAddr> = vec!["fd00::10".parse().unwrap(), "169.254.20.10".parse().unwrap()];
    let options = LocalOptions { addrs: addrs.clone(), ..options("k8s.example") };
    let mut told = told(0, 10);
    told.upstreams.extend((0..10).map(|last| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, last], 53))));
    for (held, ipv4) in [(vec![addrs[1]], 10), (vec![addrs[0]], 5), (addrs, 5)] {
        told.held = held.into_iter().collect();
        let asked = chosen(&options, &told);
        assert_eq!(asked.len(), MAX_ASKED);
        assert_eq!(asked.iter().filter(|asked| asked.is_ipv4()).count(), ipv4);
    }
}

#[tokio::test]
async fn it_begins_with_many_endpoints_and_follows_them_when_all_are_replaced() {
    let options = options("k8s.example");
    let network = Arc::new(Network::of_node(Arc::default(), Arc::default()));
    let seat = Seat::default();
    let mut hears = seat.told.subscribe();
    seat.told.send_replace(told(0, 16));
    let begun = tokio::time::timeout(Duration::from_secs(60), begin(&options, &mut hears, &network)).await;
    let (asked, server, read) = begun.unwrap().unwrap();
    assert!(asked.iter().all(|asked| told(0, 16).upstreams.contains(asked)));
    let shared = Arc::new(Shared::new(Arc::clone(&server)));
    let follows = {
        let (options, shared, network, seat) =
            (options.clone(), Arc::clone(&shared), Arc::clone(&network), seat.clone());
        let answers = AtomicBool::new(true);
        tokio::spawn(async move { follow(&options, &shared, &network, &seat, hears, (asked, read), &answers).await })
    };
    seat.told.send_replace(told(1, 16));
    let replaced = async {
        while Arc::ptr_eq(&shared.server(), &server) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), replaced).await.unwrap();
    assert!(!*seat.gives_way.borrow());
    follows.abort();
}

#[tokio::test]
async fn questions_are_led_on_while_it_cannot_follow() {
    let network = Arc::new(Network::of_node(Arc::default(), Arc::default()));
    let seat = Seat::default();
    let (good, bad) = (options("k8s.example"), options("not..a.name"));
    let asked = chosen(&good, &told(0, 2));
    let shared = Arc::new(Shared::new(server(&good, &asked, &network).unwrap()));
    let hears = seat.told.subscribe();
    let follows = {
        let (shared, seat) = (Arc::clone(&shared), seat.clone());
        let answers = AtomicBool::new(true);
        tokio::spawn(async move { follow(&bad, &shared, &network, &seat, hears, (asked, None), &answers).await })
    };
    let mut yields = seat.gives_way.subscribe();
    seat.told.send_replace(told(1, 2));
    tokio::time::timeout(Duration::from_secs(60), yields.wait_for(|yields| *yields)).await.unwrap().unwrap();
    // Where it was, everything is as before.
    seat.told.send_replace(told(0, 2));
    tokio::time::timeout(Duration::from_secs(60), yields.wait_for(|yields| !*yields)).await.unwrap().unwrap();
    follows.abort();
}

#[tokio::test]
async fn it_ends_though_cluster_dns_was_never_there() {
    let local = Local::start(options("cluster.local"), Seat::default(), Arc::default());
    assert_eq!((local.metrics())(), "");
    tokio::time::timeout(Duration::from_secs(60), local.end()).await.unwrap();
}
