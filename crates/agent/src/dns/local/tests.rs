use super::*;

#[test]
fn what_it_is_as_a_corefile_can_be_loaded_whatever_cluster_dns_is() {
    let options = LocalOptions { addrs: Vec::new(), domain: "k8s.example".to_owned(), resolv_conf: PathBuf::new() };
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
        assert!(process.health.is_none() && process.ready.is_none() && process.metrics.is_none());
    }
}

#[tokio::test]
async fn it_ends_though_cluster_dns_was_never_there() {
    let options = LocalOptions {
        addrs: vec!["127.0.0.1".parse().unwrap()],
        domain: "cluster.local".to_owned(),
        resolv_conf: "/nowhere".into(),
    };
    let local = Local::start(options, Seat::default(), Arc::default());
    assert_eq!((local.metrics())(), "");
    tokio::time::timeout(Duration::from_secs(60), local.end()).await.unwrap();
}
