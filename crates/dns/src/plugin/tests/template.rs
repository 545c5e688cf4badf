//! `template`.

use super::{flags, of_chaos, rig};
use crate::{
    message::{flag, rtype},
    server::fixture::{query, told, with_edns},
};

const PTR_AND_A: &str = "
template IN A example.org {
    match \"^ip-(?P<a>[0-9]*)-(?P<b>[0-9]*)-(?P<c>[0-9]*)-(?P<d>[0-9]*)[.]example[.]org[.]$\"
    match ^two[.]
    answer \"{{ .Name }} 60 IN A {{ if .Group.a }}{{ .Group.a }}.{{ .Group.b }}.{{ .Group.c }}.{{ .Group.d }}{{ else }}10.0.0.2{{ end }}\"
    additional \"ns.example.org. 30 IN A 192.0.2.9\"
    authority \"example.org. 30 IN NS ns.example.org.\"
    fallthrough a.example.org
}
template IN PTR 10.in-addr.arpa {
    match \"^(?P<d>[0-9]*)[.](?P<c>[0-9]*)[.](?P<b>[0-9]*)[.]10[.]in-addr[.]arpa[.]$\"
    answer \"{{ .Name }} PTR ip-10-{{ .Group.b }}-{{ .Group.c }}-{{ .Group.d }}.example.org.\"
}
template ANY ANY local.example {
    rcode NXDOMAIN
    authority \"local.example. 60 IN SOA ns.local.example. host.local.example. (1 60 60 60 60)\"
    ederror 21 \"Blocked according to RFC2606\"
}
whoami
";

#[test]
fn answers_are_made_of_what_the_name_says() {
    let rig = rig(PTR_AND_A);
    let response = rig.answer(&query("IP-10-1-2-3.example.org", rtype::A));
    assert_eq!(told(&response), ["NOERROR", "A 10.1.2.3", "NS", "+A 192.0.2.9"]);
    assert_ne!(flags(&response) & flag::AA, 0);
    assert_eq!(rig.ask("two.example.org", rtype::A)[1], "A 10.0.0.2", "the first that matches");
    let ptr = rig.answer(&query("3.2.1.10.in-addr.arpa", rtype::PTR));
    assert_eq!(told(&ptr), ["NOERROR", "PTR ip-10-1-2-3.example.org"]);
    let ttl = ptr.windows(4).position(|window| window == 3600_u32.to_be_bytes());
    assert!(ttl.is_some(), "without a time to live it is an hour");
}

#[test]
fn what_matches_no_expression_fails_or_falls_through_and_other_types_and_zones_pass() {
    let rig = rig(PTR_AND_A);
    assert_eq!(rig.ask("three.example.org", rtype::A), ["SERVFAIL"]);
    assert_eq!(rig.ask("three.a.example.org", rtype::A).len(), 3, "whoami");
    assert_eq!(rig.ask("three.example.org", rtype::TXT).len(), 3);
    assert_eq!(rig.ask("three.example.net", rtype::A).len(), 3);
}

#[test]
fn names_can_be_denied_with_a_reason() {
    let rig = rig(PTR_AND_A);
    assert_eq!(rig.ask("www.local.example", rtype::TXT), ["NXDOMAIN", "SOA"]);
    let response = rig.answer(&with_edns(query("www.local.example", rtype::A), 1232, 0, false));
    let expected = [&[0, 34, 0, 15, 0, 30, 0, 21][..], b"Blocked according to RFC2606"].concat();
    assert_eq!(response[response.len() - expected.len()..], expected);
    assert_eq!(told(&response), ["NXDOMAIN", "SOA"]);
}

#[test]
fn aliases_are_followed_for_who_asks_for_addresses() {
    let rig = rig("template IN ANY example.org {\n match ^(.*)[.]example[.]org[.]$\n \
                   answer \"{{ .Name }} 60 IN CNAME {{ index .Match 1 }}.example.net.\"\n}\nforward . 192.0.2.1");
    assert_eq!(rig.ask("www.example.org", rtype::TXT), ["NOERROR", "CNAME www.example.net"]);
    let (mut waiting, sent) = rig.forward(&query("www.example.org", rtype::A));
    sent.tells(0, &[[192, 0, 2, 7]]);
    assert_eq!(waiting.told(), ["NOERROR", "CNAME www.example.net", "A 192.0.2.7"]);
}

#[test]
fn what_is_no_record_is_a_failure_that_is_told_and_no_way_to_other_files() {
    let rig = rig("errors\ntemplate IN A example.org {\n answer \"{{ .Name }} 60 IN A {{ .Type }}\"\n}\n\
                   template IN A example.net {\n answer \"$INCLUDE /etc/hostname\"\n}\n\
                   template IN A example.com {\n answer \"{{ index .Match 7 }}\"\n}");
    for name in ["www.example.org", "www.example.net", "www.example.com"] {
        assert_eq!(rig.ask(name, rtype::A), ["SERVFAIL"], "{name}");
    }
    assert_eq!(rig.events.lock().unwrap().iter().filter(|event| event.contains("no name or record")).count(), 3);
}

#[test]
fn questions_of_class_ch_have_templates_of_their_own() {
    let rig = rig("template CH TXT bind {\n answer \"{{ .Name }} 0 {{ .Class }} TXT ours\"\n}\nwhoami");
    let response = rig.answer(&of_chaos("version.bind", rtype::TXT));
    assert_eq!(told(&response), ["NOERROR", "TXT \"ours\""]);
    assert_eq!(response[response.len() - 13..response.len() - 11], [0, 3], "of the question's class");
    assert_eq!(rig.ask("version.bind", rtype::TXT).len(), 3);
}
