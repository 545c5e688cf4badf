//! Frames without a socket.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;
use podnet_model::Protocol;
use podnet_planner::{
    ruleset::BackendAddress,
    services::{
        Backend, Backends, FrontendKind, Serving,
        userspace::{Led, Place},
    },
};

use super::*;

fn key(port: u16) -> FrontendKey {
    FrontendKey { addr: [10, 96, 0, 7].into(), protocol: Protocol::Tcp, port }
}

/// A frontend with so many backends inside and none outside.
fn front(backends: u16) -> Front {
    let at = |port| BackendAddress { addr: "fd00::1".parse().unwrap(), port };
    let backend = |port| Backend { at: at(port), local: port == 1, terminating: false };
    let sources = Some(Arc::new(BTreeSet::<IpNet>::from(["192.0.2.0/24".parse().unwrap()])));
    let serving = Serving {
        service: ServiceKey::new("default", "web"),
        port: "http".into(),
        kind: FrontendKind::LoadBalancer,
        inside: Backends::Of((1..=backends).map(backend).collect()),
        outside: Backends::Drop,
        keeps_source: true,
        affinity: Some(10_800),
        lasting: Arc::new([backend(9)]),
        sources: sources.clone(),
    };
    Front { place: Place::Node, guard: Some(Guard::Only { inside: true, sources }), serving: Arc::new(serving) }
}

fn arrives(message: &Request) -> Request {
    let mut sent = Vec::new();
    send(&mut sent, message).unwrap();
    receive(&*sent).unwrap().unwrap()
}

#[test]
fn what_is_said_arrives_as_it_was() {
    let led = Led::Port { addr: [203, 0, 113, 5].into(), protocol: Protocol::Udp, port: 53 };
    let work = Work {
        fronts: vec![(key(80), Some(front(3))), (key(81), None)],
        more: vec![Led::Address([10, 96, 0, 7].into())],
        fewer: vec![led],
        insiders: Some(BTreeSet::<IpAddr>::from(["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()])),
    };
    let all = [
        Request::Hello { purpose: Purpose::ServeV6, version: VERSION.to_owned() },
        Request::Piece(work),
        Request::Be { source: Some([192, 0, 2, 1].into()) },
        Request::Close(vec![key(80)]),
        Request::Remaining,
        Request::Retire,
    ];
    for request in all {
        assert_eq!(arrives(&request), request);
    }
}

#[test]
fn where_connections_are_is_answered_as_it_is() {
    let held = ["10.96.0.7", "fd00::1"].map(|addr| addr.parse::<IpAddr>().unwrap()).into();
    let remains = Remains { listens: false, held };
    let all = [
        Reply::Remaining(None),
        Reply::Remaining(Some(Remains::anywhere())),
        Reply::Done(State { remains: Some(remains), ..State::default() }),
    ];
    for reply in all {
        let mut sent = Vec::new();
        send(&mut sent, &reply).unwrap();
        assert_eq!(receive::<Reply>(&*sent).unwrap(), Some(reply));
    }
}

#[test]
fn a_frame_that_is_no_frame_is_refused_and_takes_no_memory() {
    assert_eq!(receive::<Request>(&b""[..]).unwrap(), None, "nobody is there any more");
    let kind = |bytes: &[u8]| receive::<Request>(bytes).unwrap_err().kind();
    assert_eq!(kind(&[9, 0]), io::ErrorKind::UnexpectedEof);
    // The largest is announced, and nothing comes.
    let [a, b, c, d] = u32::try_from(LARGEST).unwrap().to_le_bytes();
    assert_eq!(kind(&[a, b, c, d, b'"']), io::ErrorKind::UnexpectedEof);
    let error = receive::<Request>(&[255, 255, 255, 255][..]).unwrap_err();
    assert!(error.to_string().contains("longer than the largest"), "{error}");
    assert!(receive::<Request>(&[2, 0, 0, 0, b'{', b'}'][..]).is_err(), "it says nothing that is known");
    let mut sent = Vec::new();
    assert!(send(&mut sent, &"x".repeat(LARGEST)).is_err());
    assert!(sent.is_empty());
}

#[test]
fn work_that_no_frame_holds_comes_in_pieces_and_is_one_again() {
    let many = u16::try_from(PIECE / 2).unwrap();
    let work = Work {
        fronts: vec![(key(1), Some(front(many))), (key(2), None), (key(3), Some(front(many))), (key(4), None)],
        more: vec![Led::Address([10, 96, 0, 7].into())],
        fewer: vec![Led::Address([10, 96, 0, 8].into())],
        insiders: Some(BTreeSet::from([IpAddr::from([10, 0, 0, 1])])),
    };
    let pieces = pieces(work.clone());
    assert_eq!(pieces.len(), 5, "who is inside, frontends in two, what is more, what is fewer");
    let mut gathered = Gathered::default();
    for request in pieces {
        let Request::Piece(piece) = request else { panic!("not a piece") };
        gathered.add(piece).unwrap();
    }
    assert_eq!(gathered.take(), work);
    assert!(gathered.take().is_empty());
    assert!(super::pieces(Work::default()).is_empty());
}

#[test]
fn no_more_is_gathered_than_any_cluster_has() {
    let mut gathered = Gathered { size: MOST, ..Gathered::default() };
    let piece = Work { fewer: vec![Led::Address([10, 96, 0, 8].into())], ..Work::default() };
    assert!(gathered.add(piece).is_err());
}
