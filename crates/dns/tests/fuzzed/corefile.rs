//! Corefiles: what can be loaded can be asked, whatever it says.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use podnet_dns::{Config, Environment, Transport, name::Name};

use super::{
    check,
    outside::{Upstreams, asked, server},
};

/// The text that every file has which a Corefile names.
const FILE: &str = "192.0.2.1 a.test b.test\n# comment\n(snippet) {\n log\n}\nwhoami\n";

/// An upstream's answer: an alias and an address behind the question.
const ANSWER: &[u8] = b"\0\0\x81\x80\0\x01\0\x02\0\0\0\0\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01b\xc0\x0c\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";

/// Questions of several types and classes for several names.
const QUESTIONS: &[(&str, u16, u8)] = &[
    ("a.test", 1, 1),
    ("a.example.org", 28, 1),
    ("version.bind", 16, 3),
    ("1.2.0.192.in-addr.arpa", 12, 1),
    ("kubernetes.default.svc.cluster.local", 1, 1),
    ("x.ns.svc.cluster.local.default.svc.cluster.local", 1, 1),
    ("web.default.svc.cluster.local", 1, 1),
    ("_http._tcp.db.default.svc.cluster.local", 33, 1),
    ("turn.default.svc.cluster.local", 28, 1),
    ("10-244-1-2.default.pod.cluster.local", 1, 1),
    ("example.com.default.svc.cluster.local", 1, 1),
    ("7.0.233.10.in-addr.arpa", 12, 1),
    ("example.org", 255, 1),
];

/// Loads a text; where that succeeds, questions are asked.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let file = |path: &str| {
        if path.len().is_multiple_of(3) { Ok(FILE.to_owned()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    let list = |_: &str| Ok(vec!["a".to_owned(), "b.conf".to_owned()]);
    let variable = |name: &str| Some(format!("{name} {{}}")).filter(|_| name.len() < 4);
    let interface = |_: &str| Ok(vec![IpAddr::from([192, 0, 2, 1])]);
    let resolve = |_: &[SocketAddr], _: &Name| Ok(vec![IpAddr::from([192, 0, 2, 2])]);
    let environment =
        Environment { variable: &variable, file: &file, list: &list, interface: &interface, resolve: &resolve };
    let checked = Config::check("Corefile", &text, &environment);
    for error in &checked.errors {
        assert!(error.place.line >= 1 && error.place.column >= 1, "an error without a place: {error}");
        assert!(!error.to_string().is_empty());
    }
    if !checked.errors.is_empty() {
        assert!(Config::load("Corefile", &text, &environment).is_err(), "checked as wrong and loaded as right");
        return;
    }
    let _ = checked.config.pod_labels();
    let waits = ["cancel", "erratic", "serve_stale"].iter().any(|plugin| text.contains(plugin));
    let upstreams = Upstreams { answer: ANSWER.to_vec().into(), behind_question: true, ..Upstreams::default() };
    let server = server(checked.config, upstreams);
    for &(name, qtype, class) in QUESTIONS {
        let packet = question(name, qtype, class);
        // Those wait on purpose, and time stands still.
        if !waits && let Some(response) = asked(&server, &packet, Transport::Udp) {
            check(&packet, &response, Transport::Udp);
        }
    }
}

fn question(name: &str, qtype: u16, class: u8) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0]);
    packet.extend_from_slice(&qtype.to_be_bytes());
    packet.extend_from_slice(&[0, class]);
    // An OPT record with a client's subnet (RFC 7871).
    packet.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2]);
    packet
}
