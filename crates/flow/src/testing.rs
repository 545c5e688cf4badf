//! Items for tests.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Cause, Class, Direction, Drops, Gap, Item, Numbered, PodIdentity, Record, RecordId, Report, Reporter, Transport,
    Verdict, Way,
    record::{Asked, End, FlowId, GapAt, Interface},
};

fn id(sequence: u64) -> RecordId {
    RecordId { node: "node1".into(), epoch: 1, sequence, missing: false }
}

fn end(ip: &str, port: u16, name: Option<&str>) -> End {
    let pod = |name: &str| PodIdentity {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid-{name}").into(),
        node: "node1".into(),
        labels: BTreeMap::from([("app".into(), "web".into())]),
        owner: None,
        service_account: None,
    };
    End { ip: ip.parse().unwrap(), port, pod: name.map(|name| Arc::new(pod(name))), node: None }
}

/// A flow of TCP from `shop/client` to `shop/web` through a Service, which has ended.
pub(crate) fn flow(sequence: u64) -> Numbered {
    let way = |packets, bytes| Way { packets, bytes, flags: Way::SYN | Way::FIN | 0x18, ..Way::default() };
    let record = Record {
        id: FlowId(uuid::Uuid::from_u128(0x0102_0304_0506_0708_0000_0000_0000_0000 + u128::from(sequence))),
        report: Report::End,
        start: "2026-01-01T00:00:00.123456789Z".parse().unwrap(),
        end: "2026-01-01T00:00:02.5Z".parse().unwrap(),
        protocol: Transport::TCP,
        source: end("10.0.0.1", 40000, Some("client")),
        destination: end("10.0.1.2", 8080, Some("web")),
        seen_as: None,
        service: Some(Asked {
            service: podnet_model::ServiceKey::new("shop", "web"),
            ip: "10.96.0.1".parse().unwrap(),
            port: 80,
        }),
        class: Class::PodService,
        verdict: Verdict::Forwarded,
        cause: None,
        node: "node1".into(),
        reporter: Reporter::Source,
        sent: way(6, 600),
        received: way(5, 5000),
        handshake_micros: Some(120),
        destination_counts: None,
    };
    Numbered { record: id(sequence), item: Item::Flow(Arc::new(record)) }
}

/// The same over IPv6, with somebody outside, dropped for lack of a route.
pub(crate) fn flow_v6(sequence: u64) -> Numbered {
    let mut numbered = flow(sequence);
    if let Item::Flow(record) = &mut numbered.item {
        let record = Arc::make_mut(record);
        record.source = end("fd00::1", 40000, Some("client"));
        record.destination = end("2001:db8::2", 443, None);
        (record.service, record.report) = (None, Report::Update);
        (record.verdict, record.cause) = (Verdict::Dropped, Some(Cause::NoRoute));
    }
    numbered
}

/// 3 flows with 40 packets are missing.
pub(crate) fn gap(sequence: u64) -> Numbered {
    let (start, end) = ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-01T00:00:01Z".parse().unwrap());
    let (node, at) = ("node1".into(), GapAt::Kernel);
    let device = Some(Interface { index: 7, name: Some("pn00c0ffee".into()) });
    let gap = Gap { start, end, node, at, device, pod: None, packets: 40, bytes: 4000, flows: 3 };
    Numbered { record: id(sequence), item: Item::Gap(gap) }
}

/// 12 packets from `shop/client` were beyond its limit.
pub(crate) fn drops(sequence: u64) -> Numbered {
    let device = Some(Interface { index: 7, name: Some("pn00c0ffee".into()) });
    let drops = Drops {
        start: "2026-01-01T00:00:00Z".parse().unwrap(),
        end: "2026-01-01T00:00:10Z".parse().unwrap(),
        node: "node1".into(),
        cause: Cause::Limit,
        direction: Direction::Egress,
        device,
        pod: end("10.0.0.1", 0, Some("client")).pod,
        packets: 12,
    };
    Numbered { record: id(sequence), item: Item::Drops(drops) }
}
