//! `rewrite`.

use super::{flags, of_chaos, rig};
use crate::{
    message::{flag, rtype},
    server::fixture::{query, told},
};

#[test]
fn names_are_rewritten_and_the_answer_is_for_the_name_that_was_asked() {
    for (rule, asked) in [
        ("name www.example.org web.web.svc.cluster.local", "WWW.example.org"),
        ("name prefix db- web.", "db-web.svc.cluster.local"),
        ("name suffix .example.org .svc.cluster.local answer auto", "web.web.example.org"),
        ("name substring foo web answer auto", "web.foo.svc.cluster.local"),
        ("name regex (.*)-(.*)\\.example\\.org {1}.{2}.svc.cluster.local answer auto", "web-web.example.org"),
    ] {
        let rig = rig(&format!("rewrite {rule}\nkubernetes cluster.local"));
        let packet = query(asked, rtype::A);
        let response = rig.answer(&packet);
        assert_eq!(told(&response), ["NOERROR", "A 10.233.0.7"], "{rule}");
        assert_eq!(response[12..packet.len()], packet[12..], "{rule}: the question is as it was");
        assert_eq!(response[packet.len()..packet.len() + 2], [0xc0, 12], "{rule}: the owner is the name asked");
        assert_ne!(flags(&response) & flag::AA, 0);
    }
    let rig = rig("rewrite name www.example.org web.web.svc.cluster.local\nkubernetes cluster.local\nwhoami");
    assert_eq!(rig.ask("web.web.svc.cluster.local", rtype::A), ["NOERROR", "A 10.233.0.7"]);
    assert_eq!(rig.ask("other.example.org", rtype::A).len(), 3, "whoami");
}

#[test]
fn answers_are_rewritten_by_name_and_by_value() {
    let rule = "rewrite {\n name suffix .example.org .svc.cluster.local\n \
                answer name (.*)\\.svc\\.cluster\\.local {1}.example.org\n \
                answer value (.*)\\.svc\\.cluster\\.local {1}.example.org\n}\nkubernetes cluster.local";
    let rig = rig(rule);
    let srv = rig.ask("_http._tcp.web.web.example.org", rtype::SRV);
    assert_eq!(srv[1], "SRV 0 100 80 web.web.example.org");
}

#[test]
fn a_rule_that_continues_leaves_the_question_to_the_next_one() {
    let chain = "rewrite continue name suffix .example.org .example.net\nrewrite name a.example.net \
                 web.web.svc.cluster.local\nrewrite name a.example.org other.example\nkubernetes cluster.local";
    let packet = query("a.example.org", rtype::A);
    let response = rig(chain).answer(&packet);
    assert_eq!(told(&response), ["NOERROR", "A 10.233.0.7"]);
    assert_eq!(response[packet.len()..packet.len() + 2], [0xc0, 12]);
    let stopped = rig(&chain.replace("continue", "stop"));
    assert_eq!(stopped.ask("a.example.org", rtype::A), ["SERVFAIL"]);
}

#[test]
fn types_classes_codes_and_times_are_rewritten() {
    let typed = rig("rewrite type ANY A\nkubernetes cluster.local");
    assert_eq!(typed.ask("web.web.svc.cluster.local", rtype::ANY), ["NOERROR", "A 10.233.0.7"]);
    let classed = rig("rewrite class CH IN\nkubernetes cluster.local");
    assert_eq!(told(&classed.answer(&of_chaos("web.web.svc.cluster.local", rtype::A))), ["NOERROR", "A 10.233.0.7"]);
    let coded = rig("rewrite rcode regex .*\\.cluster\\.local NXDOMAIN NOERROR\nrewrite rcode suffix example.org \
                     SERVFAIL REFUSED\nkubernetes cluster.local");
    assert_eq!(coded.ask("none.web.svc.cluster.local", rtype::A), ["NOERROR", "SOA"]);
    assert_eq!(coded.ask("www.example.org", rtype::A), ["REFUSED"]);
    assert_eq!(coded.ask("www.example.net", rtype::A), ["SERVFAIL"]);
    for (rule, expected) in [("60", 60), ("30-", 30), ("-3", 3), ("1-10", 5)] {
        let rig = rig(&format!("rewrite ttl suffix cluster.local {rule}\nkubernetes cluster.local"));
        let response = rig.answer(&query("web.web.svc.cluster.local", rtype::A));
        let ttl = response.len() - 10;
        assert_eq!(response[ttl..ttl + 4], u32::to_be_bytes(expected), "{rule}");
    }
}

#[test]
fn targets_of_aliases_are_led_elsewhere_and_looked_up() {
    let mut rig = rig("rewrite cname suffix example.com web.svc.cluster.local.\nkubernetes cluster.local\n\
                       forward . 192.0.2.1");
    let external = podnet_model::service::ServiceKind::External { name: "web.example.com".into() };
    rig.apply(&crate::zone::tests::service("web", "far", external, vec![]));
    let (mut waiting, sent) = rig.forward(&query("far.web.svc.cluster.local", rtype::A));
    sent.tells(0, &[[192, 0, 2, 9]]);
    assert_eq!(waiting.told(), ["NOERROR", "CNAME web.web.svc.cluster.local", "A 10.233.0.7"]);
}

#[test]
fn what_is_rewritten_to_no_name_is_a_failure_that_is_told() {
    let long = "a".repeat(63);
    let rig = rig(&format!("errors\nrewrite name prefix x {long}\nwhoami"));
    assert_eq!(rig.ask("xy.example.org", rtype::A), ["SERVFAIL"]);
    assert!(rig.events.lock().unwrap().iter().any(|event| event.contains("no name or record")));
}

#[test]
fn answers_are_kept_under_the_name_that_the_question_is_rewritten_to() {
    let rig = rig("cache\nrewrite name a.example.org b.example.org\nforward . 192.0.2.1");
    let packet = query("a.example.org", rtype::A);
    let (mut waiting, sent) = rig.forward(&packet);
    assert_eq!(sent.message[12..27].to_ascii_lowercase(), *b"\x01b\x07example\x03org\0");
    sent.tells(0, &[[192, 0, 2, 9]]);
    assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.9"]);
    let again = rig.answer(&packet);
    assert_eq!(told(&again), ["NOERROR", "A 192.0.2.9"]);
    assert_eq!(again[12..packet.len()], packet[12..], "the question is as it was");
    assert_eq!(rig.ask("b.example.org", rtype::A), ["NOERROR", "A 192.0.2.9"]);
    assert!(rig.sent().is_empty());
}

#[test]
fn options_go_to_upstreams_and_answers_with_different_ones_are_asked_for_apart() {
    let rig = rig("rewrite continue edns0 subnet set 20 56\nrewrite continue edns0 local set 0xffee 0xabcd\n\
                   rewrite continue edns0 local append 0xffed {qname}\nrewrite continue edns0 local replace 0xffec x\n\
                   kubernetes cluster.local\nforward . 192.0.2.1");
    let subnet = [0, 8, 0, 7, 0, 1, 20, 0, 10, 244, 0];
    let local = [0xff, 0xee, 0, 2, 0xab, 0xcd];
    let appended = [&[0xff, 0xed, 0, 16][..], b"www.example.org."].concat();
    let expected = [&subnet[..], &local, &appended].concat();
    let packet = query("www.example.org", rtype::A);
    let (_first, sent) = rig.forward(&packet);
    assert!(sent.message.ends_with(&expected), "{:?}", sent.message);
    let size = usize::from(crate::message::u16_at(&sent.message, packet.len() + 9).unwrap());
    assert_eq!(packet.len() + 11 + size, sent.message.len());
    // Another client is somebody else's subnet.
    let other = crate::server::Arrival { from: ([10, 9, 9, 9], 4000).into(), ..crate::server::fixture::ARRIVAL };
    let (crate::Outcome::Later(later), _) = rig.handle_from(&packet, &other) else { panic!("answered at once") };
    let _second = rig.waiting(later);
    assert_eq!(rig.sent().len(), 1);
    // What is known here is answered at once.
    let (outcome, _) = rig.handle(&query("web.web.svc.cluster.local", rtype::A));
    assert!(matches!(outcome, crate::Outcome::Answer));
    // What the client sent is what append leaves and replace changes.
    let mut packet = crate::server::fixture::with_edns(query("www.example.net", rtype::A), 1232, 0, false);
    let length = packet.len() - 1;
    packet[length] = 11;
    packet.extend_from_slice(&[0xff, 0xed, 0, 2, b'o', b'k', 0xff, 0xec, 0, 1, b'y']);
    let (_third, sent) = rig.forward(&packet);
    assert!(sent.message.ends_with(&[0xff, 0xed, 0, 2, b'o', b'k', 0xff, 0xec, 0, 1, b'x']), "{:?}", sent.message);
}
