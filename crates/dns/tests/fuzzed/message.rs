//! Messages: queries of anybody, answers of upstreams, transfers, signatures.

use std::sync::Arc;

use podnet_dns::{
    Transport,
    answer::composed,
    authority::{transfer, tsig},
    message::{HEADER, Request, Times, Upstream, expand, rtype, truncate, walk},
    name::{Name, QueryName},
};

use super::{
    check,
    outside::{NOW, Upstreams, asked, of_corefile},
    proof, question_end, split,
};

/// Chains of which each changes in its own way what an upstream said.
const COREFILES: [&str; 4] = [
    ". {\n any\n chaos\n nsid\n local\n whoami\n template IN A template.test {\n answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n fallthrough\n }\n \
     hosts {\n 192.0.2.7 host.test\n fallthrough\n }\n kubernetes cluster.local in-addr.arpa {\n pods insecure\n fallthrough in-addr.arpa\n }\n cache\n forward . 192.0.2.53\n}",
    ". {\n minimal\n bufsize 512\n loadbalance round_robin {\n prefer 192.0.2.0/24\n }\n dns64 {\n translate_all\n }\n cache {\n serve_stale\n prefetch 1\n }\n \
     forward . 192.0.2.53 192.0.2.54 {\n failover SERVFAIL REFUSED\n }\n}",
    ". {\n rewrite stop name regex (.*)\\.example\\.org {1}.example.net answer auto\n rewrite ttl example.net 30\n rewrite cname exact a.example.org. b.example.org.\n \
     header {\n response set aa\n }\n cache\n forward example.net 192.0.2.53 {\n next NXDOMAIN\n }\n forward . 192.0.2.54\n}",
    ". {\n autopath @kubernetes\n kubernetes cluster.local {\n pods verified\n }\n cache\n forward . tls://192.0.2.53\n}",
];

/// Chains that say who is answered, and how much, that sign and look at signatures, or answer for names that were not asked for. Those of
/// inputs whose first byte has its high bit, but for those that are for [`proof`].
const GUARDED: [&str; 5] = [
    ". {\n rrl . {\n responses-per-second 1\n nxdomains-per-second 1\n slip-ratio 2\n max-table-size 16\n }\n acl {\n allow type A net 10.244.0.0/16\n \
     filter type AAAA net *\n drop type TXT net *\n block net 10.244.0.0/16\n }\n kubernetes cluster.local\n forward . 192.0.2.53\n}",
    ". {\n tsig {\n secret k. c2VjcmV0 hmac-sha256\n require all\n }\n kubernetes cluster.local in-addr.arpa\n cache\n forward . 192.0.2.53\n}",
    ". {\n dnssec example {\n key file Kexample\n }\n cache\n forward . 192.0.2.53\n}",
    ". {\n cache\n forward . tls://192.0.2.53 {\n nsec 100\n }\n}",
    ". {\n searchpath cluster.local\n cache\n kubernetes cluster.local\n forward . 192.0.2.53\n}",
];

/// The chain of [`GUARDED`] that has a key.
const SIGNED: usize = 1;

/// The chain that an input is for, and whether it is asked with the right signature.
fn chosen(how: u8) -> (&'static str, bool) {
    let place = usize::from(how >> 2 & 0xf);
    if how & 0x80 == 0 {
        return (COREFILES[place % COREFILES.len()], false);
    }
    let place = place % GUARDED.len();
    (GUARDED[place], place == SIGNED && how & 0x40 != 0)
}

/// A query with the signature that [`GUARDED`] asks for.
fn signed(packet: &[u8]) -> Vec<u8> {
    let name = Name::parse("k").expect("it is a name");
    let key = tsig::Key::new(name, tsig::Algorithm::named("hmac-sha256").expect("it is one"), b"secret");
    let mut message = packet.to_vec();
    let _ = tsig::Session::request(Arc::new(key), &mut message, NOW);
    message
}

/// The chains of [`COREFILES`] and [`GUARDED`] are asked the input's question twice: the second time from the cache.
pub fn run(data: &[u8]) {
    let Some((&how, rest)) = data.split_first() else { return };
    if proof::takes(how) {
        proof::run(how, rest);
        return;
    }
    let (packet, answer) = split(rest);
    let (corefile, is_signed) = chosen(how);
    let transport = if how & 1 == 0 { Transport::Udp } else { Transport::Tcp };
    let upstreams = Upstreams { answer: answer.to_vec().into(), behind_question: how & 2 != 0, ..Upstreams::default() };
    let server = of_corefile(corefile, upstreams);
    // Only what can be read, and has room for one record more, can be signed.
    let is_signed = is_signed && packet.get(10..12) == Some(&[0, 0][..]) && Request::parse(packet, transport).is_ok();
    let query = if is_signed { signed(packet) } else { packet.to_vec() };
    for _ in 0..2 {
        if let Some(response) = asked(&server, &query, transport) {
            check(&query, &response, transport);
        }
    }
    upstream(packet, answer);
    others(answer);
}

/// An answer to a question is read, expanded, put together again and cut at every limit.
fn upstream(packet: &[u8], answer: &[u8]) {
    let end = question_end(packet);
    let (Some(question), Ok((name, _))) = (packet.get(HEADER..end), QueryName::parse(packet, HEADER)) else { return };
    let mut message = answer.to_vec();
    message.resize(message.len().max(HEADER), 0);
    message[2] |= 0x80;
    message[4..6].copy_from_slice(&[0, 1]);
    let spelled = [name.wire(), question.get(name.wire().len()..).unwrap_or_default()].concat();
    message.splice(HEADER..HEADER, spelled);
    for limit in [HEADER, 100, 512, 1232, 65_535] {
        let mut cut = message.clone();
        truncate(&mut cut, limit, false);
        assert!(cut.len() <= limit.max(question_end(&message)), "{} of {limit}", cut.len());
        assert!(walk(&cut, question_end(&cut)).all(|record| record.is_ok()), "what was cut is whole");
    }
    let Ok(parsed) = Upstream::parse(&message, question) else { return };
    let times = Times::of(question, &parsed.answer);
    assert!(times.ttls.iter().all(|(at, _)| usize::from(*at) + 4 <= parsed.answer.body.len()), "a time's place");
    let name = Name::from_query(&name);
    let records = expand(&name, &parsed.answer);
    let counts: usize = parsed.answer.counts.iter().map(|count| usize::from(*count)).sum();
    assert!(records.len() <= counts, "records from nowhere");
    let size: usize = records.iter().map(|record| record.owner.wire().len() + 10 + record.rdata.len()).sum();
    let whole = composed(&name, parsed.answer.rcode, &records);
    if size < 60_000 {
        assert_eq!(expand(&name, &whole), records, "taken apart, put together, taken apart");
    }
}

/// What a primary, a secondary or who signs with a key may send.
fn others(message: &[u8]) {
    let zone = Name::parse("example.org").expect("it is a name");
    let id = u16::from_be_bytes([message.first().copied().unwrap_or(0), message.get(1).copied().unwrap_or(0)]);
    let _ = transfer::Request::parse(message);
    let _ = transfer::Notify::parse(message);
    let _ = transfer::is_notify_reply(message, &zone, id);
    let _ = transfer::soa_answer(&zone, id, message);
    let mut incoming = transfer::Incoming::whole(&zone, id, 1 << 20);
    for _ in 0..2 {
        let _ = incoming.message(message);
    }
    let key =
        Arc::new(tsig::Key::new(zone.clone(), tsig::Algorithm::named("hmac-sha256").expect("it is one"), b"secret"));
    let mut signed = message.to_vec();
    if let Err(refused) = tsig::Session::accept(|_| Some(Arc::clone(&key)), &mut signed, 0) {
        let mut response = super::message::bare(id);
        refused.answer(&mut response, 0);
    }
    let mut query = bare(id);
    let _ = tsig::Session::request(key, &mut query, 0).verify(&mut message.to_vec(), 0);
}

/// A header, and the question for a root's addresses.
pub(super) fn bare(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let [kind_high, kind_low] = rtype::A.to_be_bytes();
    vec![high, low, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, kind_high, kind_low, 0, 1]
}
