//! What `log` and `errors` tell, and what is counted.

use super::super::{
    Transport,
    fixture::{ARRIVAL, Rig, query, with_edns},
};
use crate::message::rtype;

const HOSTS: &str = "hosts /nowhere {\n 10.0.0.1 a.example.org\n fallthrough\n}\n";

/// What was told since the last look.
fn told(rig: &Rig) -> Vec<String> {
    let mut events = std::mem::take(&mut *rig.events.lock().unwrap());
    events.iter_mut().map(|event| event.replace("\\\"", "'")).collect()
}

fn counted(rig: &Rig, line: &str) {
    let text = rig.server.metrics().render(&rig.server.gauges());
    assert!(text.lines().any(|found| found == line), "{line}\nin\n{text}");
}

#[test]
fn a_line_of_log_comes_with_the_response_and_tells_of_it() {
    let rig = Rig::new(&format!(".:53 {{\n log\n {HOSTS} forward . 192.0.2.1\n}}\n"));
    rig.answer(&query("A.example.org", rtype::A));
    let line = "10.244.1.2:4000 - 4660 'A IN a.example.org. udp 31 false 512' NOERROR qr,aa,rd,ra 60 0s";
    assert_eq!(told(&rig), [format!("Answered {{ line: \"{line}\" }}")]);
    let (mut waiting, sent) = rig.forward(&with_edns(query("b.example.org", 65400), 1400, 0, true));
    assert!(told(&rig).is_empty(), "there is no answer yet");
    rig.at(2);
    sent.tells(3, &[]);
    waiting.response().unwrap();
    let line = "10.244.1.2:4000 - 4660 'TYPE65400 IN b.example.org. udp 42 true 1400' NXDOMAIN qr,rd,ra 42 2s";
    assert_eq!(told(&rig), [format!("Answered {{ line: \"{line}\" }}")]);
}

#[test]
fn the_first_log_whose_names_fit_decides_by_class_and_duration() {
    let rig = Rig::new(&format!(
        ".:53 {{\n log example.org \"{{name}} {{local}} {{/a/b}}\" {{\n  class denial error\n }}\n \
         log . \"{{rcode}} {{>opcode}}\" {{\n  class success\n  minDuration 1s\n }}\n {HOSTS} forward . 192.0.2.1\n}}\n"
    ));
    rig.answer(&query("a.example.org", rtype::A));
    assert!(told(&rig).is_empty(), "a success of example.org is not logged");
    rig.answer(&query("a.example.org", rtype::TXT));
    assert_eq!(told(&rig), ["Answered { line: \"a.example.org. 10.233.0.10 -\" }"], "no records of that type");
    let (mut quick, sent) = rig.forward(&query("x.example.net", rtype::A));
    sent.tells(3, &[]);
    quick.response().unwrap();
    assert!(told(&rig).is_empty(), "neither a success nor slow");
    let (mut slow, sent) = rig.forward(&query("y.example.net", rtype::A));
    rig.at(3);
    sent.tells(3, &[]);
    slow.response().unwrap();
    assert_eq!(told(&rig), ["Answered { line: \"NXDOMAIN 0\" }"], "slow");
}

#[test]
fn errors_are_told_one_by_one_unless_they_are_consolidated() {
    let rig = Rig::new(
        ".:53 {\n errors {\n  consolidate 30s \"no plugin answers\" warning show_first\n  consolidate 5s .*TXT.* info\n }\n \
         hosts /nowhere {\n  10.0.0.1 a.example.org\n }\n}\n",
    );
    rig.ask("b.example.org", rtype::A);
    let message = "2 b.example.org. A: no plugin answers for this name";
    assert_eq!(told(&rig), [format!("Failed {{ level: Warning, message: \"{message}\" }}")]);
    rig.ask("c.example.org", rtype::A);
    rig.ask("c.example.org", rtype::TXT);
    rig.work();
    assert!(told(&rig).is_empty(), "told at the end of the period");
    rig.wake();
    rig.work();
    let message = "3 errors like 'no plugin answers' occurred in last 30s";
    assert_eq!(told(&rig), [format!("Failed {{ level: Warning, message: \"{message}\" }}")]);
    // The next one begins a period of its own; alone, it was told already.
    rig.ask("d.example.org", rtype::A);
    assert_eq!(told(&rig).len(), 1);
    rig.work();
    rig.wake();
    rig.work();
    assert!(told(&rig).is_empty());

    let plain = Rig::new(".:53 {\n errors\n hosts /nowhere {\n  10.0.0.1 a.example.org\n }\n}\n");
    plain.ask("b.example.org", rtype::A);
    plain.ask("b.example.org", rtype::A);
    assert_eq!(told(&plain).len(), 2);
}

#[test]
fn questions_are_counted_for_the_zone_and_the_plugin_that_answers() {
    let rig = Rig::new(&format!("example.org example.net {{\n {HOSTS} cache\n forward . 192.0.2.1\n}}\n"));
    rig.answer(&query("a.example.org", rtype::A));
    let (mut waiting, sent) = rig.forward(&query("b.example.net", rtype::A));
    sent.tells(0, &[[192, 0, 2, 7]]);
    waiting.response().unwrap();
    let over_tcp = crate::Arrival { transport: Transport::Tcp, ..ARRIVAL };
    rig.handle_from(&query("b.example.net", rtype::A), &over_tcp);
    rig.ask("c.example.com", rtype::A);
    let of = |zone: &str| format!("{{server=\"dns://:53\",zone=\"{zone}\",view=\"\"");
    for line in [
        format!("coredns_dns_responses_total{},rcode=\"NOERROR\",plugin=\"hosts\"}} 1", of("example.org.")),
        format!("coredns_dns_responses_total{},rcode=\"NOERROR\",plugin=\"forward\"}} 1", of("example.net.")),
        format!("coredns_dns_responses_total{},rcode=\"NOERROR\",plugin=\"cache\"}} 1", of("example.net.")),
        format!("coredns_dns_responses_total{},rcode=\"REFUSED\",plugin=\"\"}} 1", of("dropped")),
        format!("coredns_dns_requests_total{},proto=\"tcp\",family=\"1\",type=\"A\"}} 1", of("example.net.")),
        format!("coredns_dns_request_size_bytes_sum{},proto=\"udp\"}} 31", of("example.org.")),
        format!("coredns_dns_response_size_bytes_bucket{},proto=\"udp\",le=\"100\"}} 1", of("example.org.")),
        format!("coredns_dns_request_duration_seconds_count{}}} 2", of("example.net.")),
        format!("coredns_plugin_enabled{},name=\"cache\"}} 1", of("example.net.")),
    ] {
        counted(&rig, &line);
    }
}
