//! What a change costs.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, NodePort, PodAddr, Protocol, Service, ServiceKey, ServicePort,
    SliceKey, TargetPort,
    endpoints::EndpointPort,
    service::{Port, ServiceKind},
};

use super::{on, rules_after};

fn service(number: u32) -> Change {
    let key = ServiceKey::new("default", &format!("s{number}"));
    let port = Port { name: "".into(), protocol: Protocol::Tcp, port: ServicePort(80), node_port: None::<NodePort> };
    let ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + number);
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(IpAddr::V4(ip))] };
    Change::Service(key.clone(), Some(Service::new(key, kind, vec![port])))
}

fn slice(service: u32, endpoints: impl IntoIterator<Item = u32>) -> Change {
    let key = SliceKey::new("default", &format!("s{service}-1"));
    let endpoint = |number: u32| Endpoint {
        node: Some("node1".into()),
        ..Endpoint::new(PodAddr(IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + number))))
    };
    let slice = EndpointSlice {
        key: key.clone(),
        service: ServiceKey::new("default", &format!("s{service}")),
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: TargetPort(8080) }],
        endpoints: endpoints.into_iter().map(endpoint).collect(),
        triggered: None,
        unproxied: false,
    };
    Change::Slice(key, Some(slice))
}

#[test]
fn one_endpoint_of_one_among_ten_thousand_services_costs_at_most_four_edits() {
    const SERVICES: u32 = 10_000;
    let mut services = on("node1");
    let endpoints = |number: u32| (0..3 + number % 3).map(move |endpoint| number * 8 + endpoint);
    let cluster: Vec<Change> =
        (0..SERVICES).flat_map(|number| [service(number), slice(number, endpoints(number))]).collect();
    let mut rules = rules_after(&mut services, &cluster);
    assert!(rules.0[0].chains.len() < 24, "{} chains", rules.0[0].chains.len());

    // One with 4 backends; others have 3 and 5, so that every chain that is needed is there.
    let of = 5_002;
    let steps = [
        ("one more", slice(of, endpoints(of).chain([of * 8 + 6]))),
        ("the first one gone", slice(of, endpoints(of).skip(1).chain([of * 8 + 6]))),
        ("one for another", slice(of, endpoints(of).skip(1).chain([of * 8 + 7]))),
        ("one less", slice(of, endpoints(of).skip(1))),
    ];
    let mut times = Vec::new();
    for (what, change) in &steps {
        let start = Instant::now();
        let (_, edits) = services.apply(change);
        let planned = start.elapsed();
        rules.apply(&edits).unwrap();
        println!("{what}: {} edits, planned in {planned:?}, applied in {:?}", edits.0.len(), start.elapsed() - planned);
        assert!(edits.0.len() <= 4, "{what}: {:?}", edits.0);
        times.push(planned);
    }
    // Unoptimised and on a busy machine it stays far below: what would scale with the number of Services takes far longer.
    assert!(times.iter().min() < Some(&Duration::from_millis(1)), "{times:?}");
}
