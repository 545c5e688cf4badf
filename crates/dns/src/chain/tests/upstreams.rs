//! Upstreams of `forward` and `grpc`, as they are written.

use super::{options, refused};
use crate::{chain::UpstreamTransport, name::Name};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn forward_takes_the_servers_of_any_file() {
    assert_eq!(options!(Forward, "forward . resolv.conf").upstreams[0].addr.to_string(), "192.0.2.53:53");
    refused(&[
        ("forward . /resolv.none", "2:11: cannot read /resolv.none"),
        ("forward . resolv..none", "2:11: an upstream cannot be \"resolv..none\"; allowed: an address, address:port"),
    ]);
}

#[test]
fn forward_asks_for_the_addresses_of_upstreams_that_are_named() {
    let upstreams = |text: &str| {
        let told = options!(Forward, text).upstreams.into_iter().map(|upstream| upstream.addr.to_string());
        told.collect::<Vec<_>>()
    };
    // Of a host each address, once, whoever leads there; the port is the one behind the name.
    assert_eq!(upstreams("forward . two.example"), ["192.0.2.7:53", "[2001:db8::7]:53"]);
    assert_eq!(upstreams("forward . one.example. 192.0.2.7 dns://two.example"), ["192.0.2.7:53", "[2001:db8::7]:53"]);
    assert_eq!(upstreams("forward . one.example:5353 one.example"), ["192.0.2.7:5353", "192.0.2.7:53"]);
    // Where the Corefile says whom to ask, it is asked.
    assert_eq!(upstreams("forward . asked.example {\n resolver 192.0.2.9 [::1]:54\n}"), ["192.0.2.9:53", "[::1]:53"]);
    assert_eq!(upstreams("forward . asked.example"), ["192.0.2.53:53"]);
    let forward = options!(Forward, "forward . tls://one.example%dns.example:8853 https://one.example/q");
    let told: Vec<_> = forward.upstreams.iter().map(|one| (one.addr.to_string(), one.transport.clone())).collect();
    assert_eq!(
        told,
        [
            ("192.0.2.7:8853".to_owned(), UpstreamTransport::Tls { server_name: Some(name("dns.example")) }),
            ("192.0.2.7:443".to_owned(), UpstreamTransport::Https { path: "/q".to_owned() }),
        ]
    );
    // A certificate is checked against the name that is written; without TLS there is none.
    let host = |text: &str| options!(Forward, text).upstreams.remove(0).host;
    assert_eq!(host("forward . tls://one.example:8853"), Some(name("one.example")));
    assert_eq!(host("forward . https://one.example/q"), Some(name("one.example")));
    assert_eq!(host("forward . tls://192.0.2.7"), None);
    assert_eq!(host("forward . one.example"), None);
    refused(&[
        (
            "forward . none.example",
            "2:11: no address of upstream \"none.example\" is known: it has none; write addresses",
        ),
        ("forward . lost.example", "2:11: no address of upstream \"lost.example\" is known: "),
        ("forward . 192.0.2", "2:11: an upstream cannot be \"192.0.2\""),
        ("forward . one.example:0", "2:11: an upstream cannot be \"one.example:0\""),
        ("forward . one_!.example", "2:11: an upstream cannot be \"one_!.example\""),
        ("forward . one.example {\n resolver\n}", "3:2: \"resolver\" ends here, needed: at least one address"),
        ("forward . one.example {\n resolver dns.example\n}", "3:11: a resolver cannot be \"dns.example\""),
    ]);
}

#[test]
fn grpc_asks_at_unix_sockets() {
    let grpc = options!(Grpc, "grpc . unix:///run/dns.sock 192.0.2.1 {\n tls\n tls_servername dns.example\n}");
    let upstreams: Vec<_> = grpc.upstreams.iter().map(ToString::to_string).collect();
    assert_eq!(upstreams, ["unix:///run/dns.sock", "192.0.2.1:53"]);
    refused(&[
        (
            "grpc . unix://dns.sock",
            "2:8: an upstream cannot be \"unix://dns.sock\"; allowed: unix:// and an absolute path",
        ),
        ("grpc . unix:///a {\n tls\n}", "2:8: \"grpc\" ends here, needed: { tls_servername <name> }"),
    ]);
}

#[test]
fn forward_asks_over_tls_and_https() {
    let forward = options!(
        Forward,
        "forward . tls://9.9.9.9 tls://9.9.9.9%dns.quad9.net:10853 https://9.9.9.9 https://9.9.9.9:444/q"
    );
    let told: Vec<_> = forward
        .upstreams
        .iter()
        .map(|upstream| (upstream.addr.socket_addr().unwrap().port(), &upstream.transport))
        .collect();
    assert_eq!(
        told,
        [
            (853, &UpstreamTransport::Tls { server_name: None }),
            (10853, &UpstreamTransport::Tls { server_name: Some(name("dns.quad9.net")) }),
            (443, &UpstreamTransport::Https { path: "/dns-query".to_owned() }),
            (444, &UpstreamTransport::Https { path: "/q".to_owned() }),
        ]
    );
}
