//! `grpc`, and `forward` over HTTPS: what carries questions to others.

use super::rig;
use crate::{
    Carrier,
    message::rtype,
    server::{Transport, fixture::query},
};

#[test]
fn grpc_asks_for_its_names_and_lets_others_answer_for_what_does_not_exist() {
    let rig = rig("grpc . 192.0.2.1 {\n except example.net\n fallthrough example.org\n pool_size 3\n}\nwhoami");
    let (mut waiting, sent) = rig.forward(&query("www.example.com", rtype::A));
    assert_eq!((&sent.carrier, sent.transport, sent.keep.most), (&Carrier::Grpc, Transport::Tcp, Some(3)));
    assert!(sent.secure.is_none());
    sent.tells(3, &[]);
    assert_eq!(waiting.told(), ["NXDOMAIN"]);
    let (mut waiting, sent) = rig.forward(&query("www.example.org", rtype::A));
    sent.tells(3, &[]);
    assert_eq!(waiting.told().len(), 3, "whoami answers");
    let (mut waiting, sent) = rig.forward(&query("www.example.org", rtype::AAAA));
    sent.tells(0, &[]);
    assert_eq!(waiting.told(), ["NOERROR"], "there is the name");
    assert_eq!(rig.ask("www.example.net", rtype::A).len(), 3);
}

#[test]
fn forward_asks_over_https_with_the_method_that_it_is_told() {
    for (options, get) in [("", false), ("doh_method GET", true)] {
        let rig = rig(&format!("forward . https://192.0.2.1/q {{\n tls_servername dns.example.org\n {options}\n}}"));
        let (mut waiting, sent) = rig.forward(&query("www.example.com", rtype::A));
        assert_eq!(sent.carrier, Carrier::Https { path: "/q".to_owned(), get });
        assert_eq!(sent.secure.as_ref().unwrap().name, Some(crate::server::fixture::name("dns.example.org")));
        assert_eq!((sent.upstream.to_string().as_str(), sent.transport), ("192.0.2.1:443", Transport::Tcp));
        sent.tells(0, &[[192, 0, 2, 9]]);
        assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.9"]);
    }
}
