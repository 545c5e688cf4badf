//! A small cluster, in which the client is a pod: a Service of each kind, endpoints with and without a name, aliases that go round.

use podnet_dns::zone::Cluster;
use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, Namespace, Pod, PodAddr, PodKey, PortName, Protocol, Service,
    ServiceKey, ServicePort, SliceKey, TargetPort,
    endpoints::EndpointPort,
    labels::Labels,
    service::{Port, ServiceKind},
};

/// The namespace of all of it.
pub const NAMESPACE: &str = "default";

/// The client's address.
pub const CLIENT: &str = "10.244.1.2";

/// All that there is.
#[must_use]
pub fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    let external = |name: &str| ServiceKind::External { name: name.into() };
    let addrs = ["10.233.0.7", "fd00::7"].map(|addr| ClusterIp(address(addr)));
    for change in [
        service("web", ServiceKind::Virtual { cluster_ips: addrs.to_vec() }),
        slice("web", vec![endpoint(CLIENT, true, None)]),
        service("db", ServiceKind::Headless),
        slice("db", vec![endpoint("10.244.1.3", true, Some("db-0")), endpoint("fd00:244::3", true, None)]),
        service("nobody", ServiceKind::Headless),
        slice("nobody", vec![endpoint("10.244.1.4", false, None)]),
        service("away", external("www.example.org")),
        service("inside", external("web.default.svc.cluster.local")),
        service("turn", external("round.default.svc.cluster.local")),
        service("round", external("turn.default.svc.cluster.local")),
        pod("web-0", CLIENT),
    ] {
        cluster.apply(&change);
    }
    cluster.namespace(&Namespace::from(NAMESPACE), Some(&Labels::default()));
    cluster
}

fn address(text: &str) -> std::net::IpAddr {
    text.parse().expect("it is an address")
}

fn service(name: &str, kind: ServiceKind) -> Change {
    let key = ServiceKey::new(NAMESPACE, name);
    let port = |name: &str, protocol, number| Port {
        name: PortName::from(name),
        protocol,
        port: ServicePort(number),
        node_port: None,
    };
    let ports = vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)];
    Change::Service(key.clone(), Some(Service::new(key, kind, ports)))
}

fn endpoint(addr: &str, ready: bool, hostname: Option<&str>) -> Endpoint {
    Endpoint {
        ready,
        serving: ready,
        hostname: hostname.map(Into::into),
        zone: Some("east".into()),
        ..Endpoint::new(PodAddr(address(addr)))
    }
}

fn slice(service: &str, endpoints: Vec<Endpoint>) -> Change {
    let key = SliceKey::new(NAMESPACE, &format!("{service}-abcde"));
    let port = EndpointPort { name: PortName::from("http"), protocol: Protocol::Tcp, port: TargetPort(8080) };
    let slice = EndpointSlice {
        key: key.clone(),
        service: ServiceKey::new(NAMESPACE, service),
        ports: vec![port],
        endpoints,
        triggered: None,
        unproxied: false,
    };
    Change::Slice(key, Some(slice))
}

fn pod(name: &str, addr: &str) -> Change {
    let key = PodKey::new(NAMESPACE, name);
    let pod = Pod {
        key: key.clone(),
        uid: "u".into(),
        static_uid: None,
        searches: None,
        ndots: None,
        node: None,
        labels: Labels::default(),
        host_network: false,
        addrs: vec![PodAddr(address(addr))],
        finished: false,
        request: Ok(podnet_model::pod::AddressRequest::default()),
        limits: Ok(podnet_model::limits::PodLimits::default()),
    };
    Change::Pod(key, Some(pod))
}
