//! Catalogs of `secondary` over a whole chain, beside a primary that has them (RFC 9432).

use super::{
    zones::{reread, served, zone},
    *,
};
use crate::{
    name::{Name, QueryName},
    server::{Transport, fixture::Sent},
};

/// Two catalogs, and what answers for all that is in none of their zones.
const CONSUMER: &str = ". {\n secondary one.test {\n transfer from 192.0.2.1\n catalog\n }\n secondary two.test {\n transfer from \
                        192.0.2.2\n catalog\n }\n whoami\n}\n";

/// A server that gives these zones away.
fn primary(zones: &[(&str, String)]) -> Rig {
    let files: String = zones.iter().map(|(name, _)| format!(" file {name} {name}\n")).collect();
    served(&format!(". {{\n{files} transfer {{\n to *\n }}\n}}\n"), zones)
}

/// A catalog with these members: labels and zones.
fn catalog(serial: u32, members: &[(&str, &str)]) -> String {
    let lines: Vec<String> = members.iter().map(|(id, zone)| format!("{id}.zones PTR {zone}.")).collect();
    zone(serial, &format!("version TXT 2\n{}", lines.join("\n")))
}

fn with(serial: u32, last: u8) -> String {
    zone(serial, &format!("www A 192.0.2.{last}"))
}

/// Has a primary answer what it was asked; whom the consumer asked for what.
fn answered(sent: Sent, primary: &Rig) -> String {
    let (name, end) = QueryName::parse(&sent.message, 12).unwrap();
    let qtype = u16_at(&sent.message, end).unwrap();
    let asked = format!("{} {} {}", sent.upstream, Name::from_query(&name), rtype::mnemonic(qtype));
    if !matches!(qtype, rtype::AXFR | rtype::IXFR) {
        let answer = primary.answer(&sent.message);
        sent.answered(answer);
        return asked;
    }
    let mut stream = Vec::new();
    let mut frame = |message: &[u8]| {
        stream.extend_from_slice(&(message.len() as u16).to_be_bytes());
        stream.extend_from_slice(message);
    };
    match primary.handle_from(&sent.message, &Arrival { transport: Transport::Tcp, ..ARRIVAL }) {
        (Outcome::Transfer(transfer), _) => transfer.send(|message| {
            frame(&message);
            true
        }),
        (_, response) => frame(&response),
    }
    sent.delivered(stream);
    asked
}

/// Has everything go on while a primary answers; whom the consumer asked for what.
fn settle(rig: &Rig, primary: &Rig) -> Vec<String> {
    let mut asked = Vec::new();
    for _ in 0..20 {
        rig.work();
        asked.extend(rig.sent().into_iter().map(|sent| answered(sent, primary)));
    }
    asked
}

/// A primary tells of a new version of a zone.
fn notify(rig: &Rig, zone: &str, last: u8) {
    let mut note = query(zone, rtype::SOA);
    note[2] = 4 << 3;
    let from = Arrival { from: SocketAddr::from(([192, 0, 2, last], 4000)), ..ARRIVAL };
    let response = rig.handle_from(&note, &from).1;
    assert_eq!(told(&response), ["NOERROR"], "{zone} is not known");
}

fn address(rig: &Rig, name: &str) -> Vec<String> {
    rig.ask(name, rtype::A)
}

fn was_told(rig: &Rig, text: &str) -> bool {
    rig.events.lock().unwrap().iter().any(|event| event.contains(text))
}

/// A consumer that has this catalog `one.test` of the primary 192.0.2.1.
fn consumer(zones: &[(&str, String)]) -> Rig {
    let rig = served(CONSUMER, &[]);
    settle(&rig, &primary(zones));
    rig
}

#[test]
fn zones_come_change_and_go_as_their_catalog_says() {
    let first = [("one.test", catalog(1, &[("a", "a.example")])), ("a.example", with(1, 2))];
    let rig = consumer(&first);
    assert_eq!(address(&rig, "www.a.example"), ["NOERROR", "A 192.0.2.2"]);
    assert_eq!(address(&rig, "www.b.example").len(), 3, "whoami answers");
    // One more; what is there is not fetched again.
    let both = catalog(2, &[("a", "a.example"), ("b", "b.example")]);
    let second = primary(&[("one.test", both), ("a.example", with(1, 2)), ("b.example", with(1, 3))]);
    notify(&rig, "one.test", 1);
    let asked = settle(&rig, &second);
    assert!(asked.contains(&"192.0.2.1:53 b.example. AXFR".to_owned()), "{asked:?}");
    assert!(!asked.iter().any(|ask| ask.contains("a.example")), "{asked:?}");
    assert_eq!(address(&rig, "www.b.example"), ["NOERROR", "A 192.0.2.3"]);
    assert_eq!(address(&rig, "no.b.example"), ["NXDOMAIN", "SOA"]);
    // A member's own versions follow its primary.
    let third = primary(&[("b.example", with(2, 4))]);
    notify(&rig, "b.example", 1);
    settle(&rig, &third);
    assert_eq!(address(&rig, "www.b.example"), ["NOERROR", "A 192.0.2.4"]);
    // The first one goes, and its data with it.
    let last = primary(&[("one.test", catalog(3, &[("b", "b.example")]))]);
    notify(&rig, "one.test", 1);
    settle(&rig, &last);
    assert_eq!(address(&rig, "www.a.example").len(), 3, "whoami answers");
    assert_eq!(address(&rig, "www.b.example"), ["NOERROR", "A 192.0.2.4"]);
}

#[test]
fn a_broken_catalog_changes_nothing_and_that_is_said() {
    let rig = consumer(&[("one.test", catalog(1, &[("a", "a.example")])), ("a.example", with(1, 2))]);
    for (serial, broken, why) in [
        (2, "a.zones PTR b.example.".to_owned(), "TXT records at version.one.test."),
        (3, "version TXT 3".to_owned(), "is not \\\"2\\\""),
        (4, "version TXT 2\na.zones PTR a.example.\nb.zones PTR a.example.".to_owned(), "a.example. is listed twice"),
    ] {
        notify(&rig, "one.test", 1);
        settle(&rig, &primary(&[("one.test", zone(serial, &broken))]));
        assert!(was_told(&rig, why), "{why}: {:?}", rig.events.lock().unwrap());
        assert_eq!(address(&rig, "www.a.example"), ["NOERROR", "A 192.0.2.2"], "{broken}");
    }
    // Mended, it counts again.
    notify(&rig, "one.test", 1);
    settle(&rig, &primary(&[("one.test", catalog(5, &[]))]));
    assert_eq!(address(&rig, "www.a.example").len(), 3, "whoami answers");
}

#[test]
fn a_member_under_another_label_is_fetched_anew() {
    let rig = consumer(&[("one.test", catalog(1, &[("a", "a.example")])), ("a.example", with(1, 2))]);
    // The version is the same, so that only a zone without data takes it.
    let again = primary(&[("one.test", catalog(2, &[("x", "a.example")])), ("a.example", with(1, 3))]);
    notify(&rig, "one.test", 1);
    settle(&rig, &again);
    assert_eq!(address(&rig, "www.a.example"), ["NOERROR", "A 192.0.2.3"]);
}

#[test]
fn a_member_goes_over_to_another_catalog_with_its_data_where_its_own_gives_it_away() {
    let rig = consumer(&[
        ("one.test", catalog(1, &[("a", "a.example")])),
        ("two.test", catalog(1, &[("a", "a.example")])),
        ("a.example", with(1, 2)),
    ]);
    assert!(was_told(&rig, "a.example.: catalog one.test. has it"), "{:?}", rig.events.lock().unwrap());
    let given = format!("{}coo.a.zones PTR two.test.\n", catalog(2, &[("a", "a.example")]));
    notify(&rig, "one.test", 1);
    settle(&rig, &primary(&[("one.test", given)]));
    notify(&rig, "two.test", 2);
    // Nobody has the zone to give: what is answered is what was there before.
    let asked = settle(&rig, &primary(&[("two.test", catalog(2, &[("a", "a.example")]))]));
    assert!(asked.contains(&"192.0.2.2:53 a.example. SOA".to_owned()), "{asked:?}");
    assert_eq!(address(&rig, "www.a.example"), ["NOERROR", "A 192.0.2.2"]);
    // The one before has no say in it any more.
    notify(&rig, "one.test", 1);
    settle(&rig, &primary(&[("one.test", catalog(3, &[]))]));
    assert_eq!(address(&rig, "www.a.example"), ["NOERROR", "A 192.0.2.2"]);
}

#[test]
fn members_outlive_a_changed_corefile_as_long_as_it_has_their_catalog() {
    let mut rig = consumer(&[("one.test", catalog(1, &[("a", "a.example")])), ("a.example", with(1, 2))]);
    reread(&mut rig, CONSUMER, &[]);
    assert_eq!(address(&rig, "www.a.example"), ["NOERROR", "A 192.0.2.2"], "it is not fetched yet");
    assert!(!settle(&rig, &primary(&[])).iter().any(|ask| ask.contains("a.example")));
    // The Corefile has such a zone now.
    let own = CONSUMER.replace(" whoami", " file own a.example\n whoami");
    reread(&mut rig, &own, &[("own", with(9, 9))]);
    assert_eq!(address(&rig, "www.a.example"), ["NOERROR", "A 192.0.2.9"]);
    reread(&mut rig, &CONSUMER.replace(" catalog\n", ""), &[]);
    assert_eq!(address(&rig, "www.a.example").len(), 3, "whoami answers");
    assert_eq!(rig.ask("version.one.test", rtype::TXT), ["NOERROR", "TXT \"2\""], "it is a zone like others");
    // A catalog that is there already is taken in at once.
    reread(&mut rig, CONSUMER, &[]);
    settle(&rig, &primary(&[("a.example", with(1, 3))]));
    assert_eq!(address(&rig, "www.a.example"), ["NOERROR", "A 192.0.2.3"]);
}

/// A number of the metrics.
fn counted(rig: &Rig, metric: &str) -> u64 {
    let text = rig.server.metrics().render(&rig.server.gauges());
    let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{metric}: {text}")).parse().unwrap()
}

const BYTES: &str = "podnet_dns_catalog_bytes";
const REFUSED: &str = "podnet_dns_catalog_refused_total";
/// What `with` makes of a zone with a name of one letter below `example`: SOA, NS and two addresses.
const ZONE: u64 = 72 + 35 + 28 + 29;

#[test]
fn members_have_no_more_bytes_together_than_they_may_and_others_go_on() {
    let corefile = CONSUMER.replacen(" catalog\n", " catalog\n catalog_bytes 400\n", 1);
    let mut rig = served(&corefile, &[]);
    let listed = |serial, members: &[&str]| {
        let zones: Vec<String> = members.iter().map(|id| format!("{id}.example")).collect();
        let members: Vec<(&str, &str)> = members.iter().copied().zip(zones.iter().map(String::as_str)).collect();
        ("one.test", catalog(serial, &members))
    };
    let zones = |serial| ["a.example", "b.example", "c.example"].map(|name| (name, with(serial, 2)));
    settle(&rig, &primary(&[&[listed(1, &["a", "b", "c"])][..], &zones(1)].concat()));
    assert_eq!((counted(&rig, BYTES), counted(&rig, REFUSED)), (2 * ZONE, 1));
    let events = rig.events.lock().unwrap().clone();
    let names_it = |event: &String| event.contains("more than 400 bytes") && event.contains("c.example.");
    assert!(events.iter().any(names_it), "{events:?}");
    let answers = |rig: &Rig| ["a", "b", "c"].map(|zone| address(rig, &format!("www.{zone}.example"))[0].clone());
    assert_eq!(answers(&rig), ["NOERROR", "NOERROR", "SERVFAIL"]);
    // A new version for which there is no room is not taken, and what was there is served on.
    let large = zone(2, &format!("www A 192.0.2.9\ntext TXT {}", "x".repeat(200)));
    notify(&rig, "b.example", 1);
    settle(&rig, &primary(&[("b.example", large)]));
    assert_eq!((counted(&rig, BYTES), counted(&rig, REFUSED)), (2 * ZONE, 2));
    assert_eq!(address(&rig, "www.b.example"), ["NOERROR", "A 192.0.2.2"]);
    // One that is as large is, though there is no room for what changed.
    notify(&rig, "b.example", 1);
    settle(&rig, &primary(&[("b.example", with(3, 3))]));
    assert_eq!(counted(&rig, BYTES), 2 * ZONE);
    assert_eq!(address(&rig, "www.b.example"), ["NOERROR", "A 192.0.2.3"]);
    // Another Corefile counts what it takes over.
    reread(&mut rig, &corefile, &[]);
    assert_eq!((counted(&rig, BYTES), answers(&rig)[1].as_str()), (2 * ZONE, "NOERROR"));
    // Who goes leaves room for who waits.
    notify(&rig, "one.test", 1);
    settle(&rig, &primary(&[listed(2, &["b", "c"])]));
    assert_eq!(counted(&rig, BYTES), ZONE);
    rig.at(30);
    rig.wake();
    settle(&rig, &primary(&zones(1)));
    assert_eq!(counted(&rig, BYTES), 2 * ZONE);
    assert_eq!(answers(&rig)[1..], ["NOERROR", "NOERROR"]);
    // Where less is allowed, what does not fit any more is not served.
    reread(&mut rig, &corefile.replace("400", "200"), &[]);
    assert_eq!(counted(&rig, BYTES), ZONE);
    assert_eq!(answers(&rig)[1..], ["NOERROR", "SERVFAIL"]);
}

#[test]
fn what_changed_counts_and_goes_over_with_a_member() {
    let rig = consumer(&[("one.test", catalog(1, &[("a", "a.example")])), ("a.example", with(1, 2))]);
    notify(&rig, "a.example", 1);
    settle(&rig, &primary(&[("a.example", with(2, 3))]));
    // Both SOA records, and the address before and after.
    let changed = ZONE + 2 * 72 + 2 * 29;
    assert_eq!(counted(&rig, BYTES), changed);
    let given = format!("{}coo.a.zones PTR two.test.\n", catalog(2, &[("a", "a.example")]));
    notify(&rig, "one.test", 1);
    settle(&rig, &primary(&[("one.test", given)]));
    notify(&rig, "two.test", 2);
    settle(&rig, &primary(&[("two.test", catalog(1, &[("a", "a.example")]))]));
    assert_eq!(counted(&rig, BYTES), changed);
}

#[test]
fn of_members_and_zones_of_a_store_the_longest_name_answers_and_the_corefile_s_of_two_that_are_alike() {
    let corefile = CONSUMER.replace(" whoami", " etcd skydns.example\n whoami");
    let rig = served(&corefile, &[]);
    for key in ["a", "east/a"] {
        rig.outside.shelf.put(&format!("/skydns/example/skydns/{key}"), r#"{"host":"10.0.0.1"}"#, None);
    }
    let members = [("a", "example"), ("b", "skydns.example"), ("c", "east.skydns.example")];
    let zones = members.map(|(_, zone)| (zone, with(1, 2)));
    settle(&rig, &primary(&[&[("one.test", catalog(1, &members))][..], &zones].concat()));
    assert!(was_told(&rig, "skydns.example.: the Corefile itself names it"), "{:?}", rig.events.lock().unwrap());
    for (name, answer) in
        [("www.example", "A 192.0.2.2"), ("a.skydns.example", "A 10.0.0.1"), ("www.east.skydns.example", "A 192.0.2.2")]
    {
        assert_eq!(address(&rig, name), ["NOERROR", answer], "{name}");
    }
    assert_eq!(address(&rig, "www.skydns.example"), ["NXDOMAIN", "SOA"]);
    assert_eq!(address(&rig, "a.east.skydns.example"), ["NXDOMAIN", "SOA"]);
}

#[test]
fn members_are_handed_on_as_are_catalogs_to_those_who_may_fetch_them() {
    let corefile = CONSUMER.replace(" whoami", " transfer {\n to 192.0.2.9\n }");
    let rig = served(&corefile, &[]);
    let zones = [("one.test", catalog(1, &[("a", "a.example")])), ("a.example", with(1, 2))];
    settle(&rig, &primary(&zones));
    let ask = |zone: &str, last: u8| {
        let packet = super::zones::transfer_query(zone, None);
        let from = SocketAddr::from(([192, 0, 2, last], 4000));
        rig.handle_from(&packet, &Arrival { from, transport: Transport::Tcp, ..ARRIVAL })
    };
    for zone in ["one.test", "a.example"] {
        assert!(matches!(ask(zone, 9), (Outcome::Transfer(_), _)), "{zone}");
        assert_eq!(told(&ask(zone, 8).1), ["REFUSED"], "{zone}");
    }
}

#[test]
fn of_many_members_a_bounded_number_is_fetched_at_once() {
    let names: Vec<(String, String)> = (0..100).map(|n| (format!("m{n}"), format!("z{n}.example"))).collect();
    let members: Vec<(&str, &str)> = names.iter().map(|(id, zone)| (id.as_str(), zone.as_str())).collect();
    let from = primary(&[("one.test", catalog(1, &members))]);
    let rig = served(CONSUMER, &[]);
    for sent in rig.sent() {
        answered(sent, &from);
    }
    rig.work();
    rig.work();
    let asked = rig.sent();
    assert_eq!(asked.len(), 64);
    // The Corefile's own zones do not wait behind them.
    notify(&rig, "two.test", 2);
    rig.work();
    assert_eq!(rig.sent().len(), 1);
    // These fail, and those whose turn it is then are asked for.
    drop(asked);
    rig.work();
    assert_eq!(rig.sent().len(), 36);
}
