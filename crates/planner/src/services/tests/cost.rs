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

use super::{
    super::{Services, iptables::Iptables, packet_table},
    Tables, on, rules_after,
};

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
    // What else the machine does may take any of these times, so each step counts by the shortest of several.
    let mut times = [Duration::MAX; 4];
    for _ in 0..5 {
        for ((what, change), least) in steps.iter().zip(&mut times) {
            let start = Instant::now();
            let (_, edits) = services.apply(change);
            *least = start.elapsed().min(*least);
            rules.apply(&edits).unwrap();
            assert!(edits.0.len() <= 4, "{what}: {:?}", edits.0);
        }
        let (_, edits) = services.apply(&slice(of, endpoints(of)));
        rules.apply(&edits).unwrap();
    }
    // Unoptimised and on a busy machine it stays far below: what would scale with the number of Services takes far longer.
    assert!(times.iter().all(|time| *time < Duration::from_millis(1)), "{times:?}");
}

/// Whether a Service is served stands in chains that all share: these are rendered once for all changes that are written together.
#[test]
fn changes_of_many_services_render_the_shared_chains_of_iptables_once() {
    const SERVICES: u32 = 1_000;
    let mut services = Services::new(packet_table::config("node1").0);
    for number in 0..SERVICES {
        services.apply(&service(number));
        services.apply(&slice(number, [number]));
    }
    let mut iptables = Iptables::new(&services);
    let start = Instant::now();
    let all = iptables.whole(&services);
    let whole = start.elapsed();
    let start = Instant::now();
    for number in (0..SERVICES).step_by(5) {
        iptables.note(&services.apply(&slice(number, [])));
    }
    let rewrite = iptables.rewrite(&services);
    let took = start.elapsed();
    assert!(rewrite.chains.len() < 5 && rewrite.gone.len() == 400, "{}", rewrite.text());
    let left = all.chains.len() - rewrite.gone.len();
    assert_eq!(iptables.desired(&services).chains.len(), left);
    println!("all chains rendered in {whole:?}, 200 changes in {took:?}");
    assert!(took < whole * 20, "{took:?} for 200 changes, {whole:?} for all rules");
}

/// Every timeout of affinity is a chain of its own, and who may edit a Service may choose any.
#[test]
fn chains_that_nothing_uses_any_more_go() {
    let mut services = on("node1");
    let mut rules = rules_after(&mut services, &[service(1), slice(1, [1, 2]), service(2), slice(2, [3])]);
    let before = rules.0[0].chains.len();
    for seconds in 1..=200 {
        let Change::Service(key, Some(mut changed)) = service(1) else { unreachable!() };
        changed.affinity = Some(seconds);
        rules.apply(&services.apply(&Change::Service(key, Some(changed))).1).unwrap();
        rules.validate();
        assert!(rules.0[0].chains.len() <= before + 40, "{} chains", rules.0[0].chains.len());
    }
    rules.apply(&services.apply(&service(1)).1).unwrap();
    assert_eq!(rules, Tables(services.desired()));
}
