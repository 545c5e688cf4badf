use std::sync::Arc;

use jiff::Timestamp;
use podnet_model::ServiceKey;
use uuid::Uuid;

use super::*;
use crate::{
    entry::Way,
    names::Owner,
    record::{Asked, FlowId, Report, Reporter},
};

pub(crate) fn end(at: &str, pod: Option<(&str, &str, &str)>) -> End {
    let at: std::net::SocketAddr = at.parse().unwrap();
    let pod = pod.map(|(namespace, name, owner)| {
        Arc::new(PodIdentity {
            namespace: namespace.into(),
            name: name.into(),
            uid: name.into(),
            node: "node1".into(),
            labels: [("app".into(), owner.into())].into(),
            owner: Some(Owner { kind: "Deployment".into(), name: owner.into() }),
            service_account: None,
        })
    });
    End { ip: at.ip(), port: at.port(), pod, node: None }
}

pub(crate) fn record(source: End, destination: End) -> Record {
    let way = Way { packets: 3, bytes: 180, ..Way::default() };
    Record {
        id: FlowId(Uuid::from_u128(1)),
        report: Report::End,
        start: Timestamp::from_second(1).unwrap(),
        end: Timestamp::from_second(3).unwrap(),
        protocol: Transport::TCP,
        source,
        destination,
        seen_as: None,
        service: None,
        class: Class::PodPodSameNode,
        verdict: Verdict::Forwarded,
        cause: None,
        node: "node1".into(),
        reporter: Reporter::Both,
        sent: way,
        received: way,
        handshake_micros: Some(77),
        destination_counts: None,
    }
}

fn wants(record: &Record, wanted: &[&str], unwanted: &[&str]) -> bool {
    let terms = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Filter { wanted: terms(wanted), unwanted: terms(unwanted), pod_to_pod: false }.wants(record)
}

#[test]
fn terms_pick_records_out() {
    let mut record = record(
        end("10.0.0.1:40000", Some(("shop", "web-1", "web"))),
        end("10.0.0.2:8080", Some(("shop", "cart-1", "cart"))),
    );
    record.service =
        Some(Asked { service: ServiceKey::new("shop", "cart"), ip: "10.96.0.7".parse().unwrap(), port: 80 });
    let met = [
        "from=pod/shop/web-1",
        "from=namespace/shop",
        "from=label/app=web",
        "from=10.0.0.0/8",
        "from=workload/shop/web",
        "from=workload/shop/Deployment/web",
        "from=workload/shop/deployment/web",
        "from=pods/shop/app=web",
        "from=pods/shop/app=web,statefulset.kubernetes.io/pod-name=web-1",
        "to=pods/shop/app=cart",
        "to=10.0.0.2",
        "to=10.96.0.7",
        "to=service/shop/cart",
        "to=svc/shop/cart",
        "port=80",
        "port=8080",
        "protocol=tcp",
        "verdict=forwarded",
        "class=pod-pod-same-node",
    ];
    let unmet = [
        "from=pod/shop/cart-1",
        "from=namespace/bank",
        "from=label/app=cart",
        "from=pods/bank/app=web",
        "from=pods/shop/app=web,tier=front",
        "from=pods/shop/app=web,statefulset.kubernetes.io/pod-name=web-2",
        "from=192.0.2.0/24",
        "from=service/shop/cart",
        "from=world",
        "from=node/node1",
        "to=workload/shop/web",
        "from=workload/shop/StatefulSet/web",
        "from=workload/shop/Deployment/cart",
        "from=workload/bank/Deployment/web",
        "to=10.96.0.8",
        "port=40000",
        "protocol=udp",
        "verdict=refused",
        "class=world-pod",
    ];
    for term in met {
        assert!(wants(&record, &[term], &[]) && !wants(&record, &[], &[term]), "{term}");
    }
    for term in unmet {
        assert!(!wants(&record, &[term], &[]) && wants(&record, &[], &[term]), "{term}");
    }
    assert!(wants(&record, &["port=80", "port=443", "from=namespace/shop"], &["protocol=udp"]), "one of each kind");
    assert!(!wants(&record, &["port=80", "from=namespace/bank"], &[]), "each kind");
    assert!(!wants(&record, &["cause=no-route"], &[]) && wants(&record, &[], &["cause=no-route"]));
    record.cause = Some(crate::Cause::NoRoute);
    assert!(wants(&record, &["cause=no-route"], &["cause=hop-limit"]) && !wants(&record, &[], &["cause=no-route"]));
    assert!(Filter { pod_to_pod: true, ..Filter::default() }.wants(&record));
    record.destination.pod = None;
    assert!(!Filter { pod_to_pod: true, ..Filter::default() }.wants(&record));
    assert!(wants(&record, &["to=world"], &[]));
}

#[test]
fn terms_are_read_as_they_are_written_and_what_is_none_says_what_is() {
    let terms = [
        "from=pod/a/b",
        "to=label/k=v",
        "to=workload/shop/web",
        "to=workload/shop/StatefulSet/web",
        "from=pods/shop/app.kubernetes.io/name=web,tier=front",
        "to=10.0.0.0/8",
        "port=53",
        "protocol=UDP",
        "class=pod-world",
        "verdict=refused",
        "cause=no-backend",
    ];
    for term in terms {
        let read = term.parse::<Term>().unwrap();
        assert_eq!(read.to_string(), term);
        assert_eq!(read.is_of_outcome(), term.starts_with("verdict") || term.starts_with("cause"), "{term}");
    }
    for (wrong, says) in [
        ("from", "NAME=VALUE"),
        ("colour=red", "NAME=VALUE"),
        ("from=pod/onlyname", "pod/NAMESPACE/NAME"),
        ("to=house/a/b", "pod/NAMESPACE/NAME"),
        ("to=workload/shop/Deployment/", "workload/NAMESPACE/KIND/NAME"),
        ("to=workload/shop//web", "workload/NAMESPACE/KIND/NAME"),
        ("to=workload/shop/apps/Deployment/web", "workload/NAMESPACE/KIND/NAME"),
        ("to=pods/shop", "pods/NAMESPACE/KEY=VALUE"),
        ("to=pods/shop/", "pods/NAMESPACE/KEY=VALUE"),
        ("to=pods/shop/web", "pods/NAMESPACE/KEY=VALUE"),
        ("to=pods//app=web", "pods/NAMESPACE/KEY=VALUE"),
        ("port=80000", "65535"),
        ("protocol=token-ring", "sctp"),
        ("verdict=guilty", "refused"),
        ("cause=fate", "packet-too-big"),
    ] {
        let error = wrong.parse::<Term>().unwrap_err().to_string();
        assert!(error.contains(says), "{wrong}: {error}");
    }
}

#[test]
fn whose_source_is_a_service_no_record_says() {
    let check = |term: &str| term.parse::<Term>().unwrap().check();
    let error = check("from=svc/shop/cart").unwrap_err().to_string();
    assert!(error.contains("from=service/shop/cart") && error.contains("from=pods/shop/KEY=VALUE"), "{error}");
    for term in ["to=service/shop/cart", "from=pods/shop/app=cart", "port=80"] {
        assert_eq!(check(term), Ok(()), "{term}");
    }
}
