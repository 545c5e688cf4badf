//! `file`, `auto`, `secondary` and `transfer` over a whole chain.

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    authority::transfer::{Notify, notify_reply},
    server::Transport,
};

const SOA: &str = "@ 300 IN SOA ns admin (SERIAL 3600 600 86400 60)\n@ 300 NS ns\nns 300 A 192.0.2.1\n";

pub(super) fn zone(serial: u32, more: &str) -> String {
    format!("{}{more}\n", SOA.replace("SERIAL", &serial.to_string()))
}

/// A server with these files.
pub(super) fn served(corefile: &str, files: &[(&str, String)]) -> Rig {
    let mut rig = Rig::new(". {\n whoami\n}\n");
    reread(&mut rig, corefile, files);
    rig
}

/// The server after its files changed.
pub(super) fn reread(rig: &mut Rig, corefile: &str, files: &[(&str, String)]) {
    let files: BTreeMap<String, String> = files.iter().map(|(name, text)| ((*name).into(), text.clone())).collect();
    let before = Arc::clone(&rig.server);
    rig.reload_with(corefile, &files);
    rig.server.start(Some(&before), || ());
    rig.work();
}

/// A query of a transfer: AXFR, or IXFR since a serial number.
pub(super) fn transfer_query(zone: &str, since: Option<u32>) -> Vec<u8> {
    let mut packet = query(zone, if since.is_some() { rtype::IXFR } else { rtype::AXFR });
    if let Some(serial) = since {
        packet[9] = 1;
        packet.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 22, 0, 0]);
        packet.extend_from_slice(&serial.to_be_bytes());
        packet.extend_from_slice(&[0; 16]);
    }
    packet
}

/// What a client that asks over a connection gets: the code, and the types of the records in all messages.
fn fetch(rig: &Rig, packet: &[u8], from: [u8; 4]) -> Vec<String> {
    let arrival = Arrival { from: SocketAddr::from((from, 4000)), transport: Transport::Tcp, ..ARRIVAL };
    match rig.handle_from(packet, &arrival) {
        (Outcome::Transfer(transfer), _) => {
            let mut all = Vec::new();
            transfer.send(|message| {
                all.extend(told(&message).into_iter().skip(1));
                true
            });
            all
        }
        (Outcome::Answer, response) => told(&response),
        (outcome, _) => panic!("{outcome:?}"),
    }
}

pub(super) const FILE: &str = "example.org {\n file db\n transfer {\n to 192.0.2.9 198.51.100.0/24\n }\n}\n";

#[test]
fn file_answers_for_its_zone_with_authority() {
    let corefile =
        ". {\n file db example.org\n file sub a.example.org {\n fallthrough x.a.example.org\n }\n whoami\n}\n";
    let rig = served(
        corefile,
        &[
            (
                "db",
                zone(
                    1,
                    "www A 192.0.2.2\n*.w TXT wild\na NS ns.a\nout CNAME www.a.example.org.\nlost CNAME x.example.net.",
                ),
            ),
            ("sub", zone(1, "www A 192.0.2.3")),
        ],
    );
    assert_eq!(rig.ask("www.example.org", rtype::A), ["NOERROR", "A 192.0.2.2"]);
    let response = rig.answer(&query("www.example.org", rtype::A));
    assert_eq!(flags(&response) & (flag::AA | flag::RA), flag::AA);
    assert_eq!(rig.ask("b.w.example.org", rtype::TXT), ["NOERROR", "TXT \"wild\""]);
    assert_eq!(rig.ask("www.example.org", rtype::AAAA), ["NOERROR", "SOA"]);
    assert_eq!(rig.ask("none.example.org", rtype::A), ["NXDOMAIN", "SOA"]);
    // The child answers for itself, and aliases lead there.
    assert_eq!(rig.ask("www.a.example.org", rtype::A), ["NOERROR", "A 192.0.2.3"]);
    assert_eq!(rig.ask("out.example.org", rtype::A), ["NOERROR", "CNAME www.a.example.org", "A 192.0.2.3"]);
    // What does not exist goes on where the Corefile says so, and what is another's, too.
    assert_eq!(rig.ask("none.a.example.org", rtype::A)[0], "NXDOMAIN");
    assert_eq!(rig.ask("none.x.a.example.org", rtype::A).len(), 3);
    assert_eq!(rig.ask("www.example.net", rtype::A).len(), 3);
}

#[test]
fn a_zone_whose_file_is_missing_is_a_failure_until_it_comes() {
    let mut rig = served(FILE, &[]);
    assert_eq!(rig.ask("www.example.org", rtype::A), ["SERVFAIL"]);
    assert_eq!(fetch(&rig, &transfer_query("example.org", None), [192, 0, 2, 9]), ["SERVFAIL"]);
    reread(&mut rig, FILE, &[("db", zone(1, "www A 192.0.2.2"))]);
    assert_eq!(rig.ask("www.example.org", rtype::A), ["NOERROR", "A 192.0.2.2"]);
    // Gone again: what is known is served on.
    reread(&mut rig, FILE, &[]);
    assert_eq!(rig.ask("www.example.org", rtype::A), ["NOERROR", "A 192.0.2.2"]);
}

#[test]
fn auto_serves_the_files_of_a_directory() {
    let corefile = ". {\n auto org {\n directory zones\n }\n whoami\n}\n";
    let files = [
        ("zones/db.example.org", zone(1, "www A 192.0.2.2")),
        ("zones/db.example.net", zone(1, "www A 192.0.2.3")),
        ("zones/other", "not read".to_owned()),
    ];
    let mut rig = served(corefile, &files);
    assert_eq!(rig.ask("www.example.org", rtype::A), ["NOERROR", "A 192.0.2.2"]);
    // Not below the zones of the plugin.
    assert_eq!(rig.ask("www.example.net", rtype::A).len(), 3);
    reread(&mut rig, corefile, &files[1..]);
    assert_eq!(rig.ask("www.example.org", rtype::A).len(), 3);
}

#[test]
fn a_zone_of_auto_whose_file_went_bad_is_served_as_it_was() {
    let corefile = ". {\n auto org {\n directory zones\n }\n whoami\n}\n";
    let files = |a: &str, b: &str| [("zones/db.a.org", a.to_owned()), ("zones/db.b.org", b.to_owned())];
    let good = zone(1, "www A 192.0.2.2");
    let mut rig = served(corefile, &files(&good, "nonsense"));
    assert_eq!(rig.ask("www.a.org", rtype::A), ["NOERROR", "A 192.0.2.2"]);
    assert_eq!(rig.ask("www.b.org", rtype::A), ["SERVFAIL"]);
    // Twice, so that what is served on is not what was read last.
    for _ in 0..2 {
        reread(&mut rig, corefile, &files("nonsense", &good));
        assert_eq!(rig.ask("www.a.org", rtype::A), ["NOERROR", "A 192.0.2.2"]);
        assert_eq!(rig.ask("www.b.org", rtype::A), ["NOERROR", "A 192.0.2.2"]);
    }
}

#[test]
fn erratic_leaves_the_last_record_of_every_second_zone_out() {
    let rig = served(". {\n erratic {\n drop 0\n truncate 2\n }\n}\n", &[]);
    let query = transfer_query("example.org", None);
    let [whole, cut] = [(); 2].map(|()| fetch(&rig, &query, [192, 0, 2, 9]));
    assert!(whole.len() == 6 && whole[0].starts_with("SOA") && whole[5] == whole[0], "{whole:?}");
    assert_eq!(cut, whole[..5]);
}

#[test]
fn transfer_gives_zones_to_those_named_alone() {
    let rig = served(FILE, &[("db", zone(7, "www A 192.0.2.2"))]);
    let whole = fetch(&rig, &transfer_query("example.org", None), [192, 0, 2, 9]);
    assert_eq!(whole.len(), 5, "{whole:?}");
    assert!(whole[0].starts_with("SOA") && whole[4] == whole[0], "{whole:?}");
    assert_eq!(fetch(&rig, &transfer_query("example.org", None), [198, 51, 100, 7]), whole);
    assert_eq!(fetch(&rig, &transfer_query("example.org", None), [203, 0, 113, 1]), ["REFUSED"]);
    assert_eq!(fetch(&rig, &transfer_query("www.example.org", None), [192, 0, 2, 9]), ["NOTAUTH"]);
    assert_eq!(fetch(&rig, &transfer_query("example.net", None), [192, 0, 2, 9]), ["REFUSED"]);
    // Over UDP there is no AXFR; who asks for an IXFR is told the version.
    let udp = Arrival { from: SocketAddr::from(([192, 0, 2, 9], 4000)), ..ARRIVAL };
    assert_eq!(told(&rig.handle_from(&transfer_query("example.org", None), &udp).1), ["REFUSED"]);
    let current = told(&rig.handle_from(&transfer_query("example.org", Some(7)), &udp).1);
    assert_eq!((current.len(), &current[1]), (2, &whole[0]));
}

#[test]
fn acl_holds_for_transfers_too() {
    let corefile = FILE.replace(" file db", " acl {\n block type AXFR net 192.0.2.9\n }\n file db");
    let rig = served(&corefile, &[("db", zone(1, ""))]);
    assert_eq!(fetch(&rig, &transfer_query("example.org", None), [192, 0, 2, 9]), ["REFUSED"]);
    assert_eq!(fetch(&rig, &transfer_query("example.org", None), [198, 51, 100, 1]).len(), 4);
}

#[test]
fn secondaries_are_told_of_new_versions_and_get_what_changed() {
    let mut rig = served(FILE, &[("db", zone(1, "www A 192.0.2.2"))]);
    // They confirm it, so that they are not told again.
    let told_of = |rig: &Rig| {
        let notes = rig.sent().into_iter().map(|sent| {
            let note = Notify::parse(&sent.message).unwrap();
            let told = (sent.upstream.to_string(), note.serial);
            sent.answered(notify_reply(&note));
            told
        });
        notes.collect::<Vec<_>>()
    };
    assert_eq!(told_of(&rig), [("192.0.2.9:53".to_owned(), Some(1))]);
    // The same again is no news; a change is, once it has a higher serial number.
    reread(&mut rig, FILE, &[("db", zone(1, "www A 192.0.2.2"))]);
    assert_eq!(told_of(&rig), []);
    reread(&mut rig, FILE, &[("db", zone(1, "www A 192.0.2.3"))]);
    assert_eq!(told_of(&rig), []);
    assert!(rig.events.lock().unwrap().last().unwrap().contains("without a higher serial number"));
    reread(&mut rig, FILE, &[("db", zone(2, "www A 192.0.2.4"))]);
    assert_eq!(told_of(&rig), [("192.0.2.9:53".to_owned(), Some(2))]);
    let changes = fetch(&rig, &transfer_query("example.org", Some(1)), [192, 0, 2, 9]);
    assert_eq!(changes.len(), 6, "{changes:?}");
    assert_eq!((changes[2].as_str(), changes[4].as_str()), ("A 192.0.2.3", "A 192.0.2.4"));
    // From further back than is known, the whole zone comes.
    assert_eq!(fetch(&rig, &transfer_query("example.org", Some(0)), [192, 0, 2, 9]).len(), 5);
}

const SECONDARY: &str = "example.org {\n secondary {\n transfer from 192.0.2.1\n }\n transfer {\n to *\n }\n}\n";

/// The messages of a zone's transfer from another server, as they come over a connection.
fn transferred(zone: &str, query: &[u8]) -> Vec<u8> {
    let primary = served(&FILE.replace("to 192.0.2.9", "to *"), &[("db", zone.to_owned())]);
    let arrival = Arrival { transport: Transport::Tcp, ..ARRIVAL };
    let (Outcome::Transfer(transfer), _) = primary.handle_from(query, &arrival) else { panic!("refused") };
    let mut stream = Vec::new();
    transfer.send(|message| {
        stream.extend_from_slice(&(message.len() as u16).to_be_bytes());
        stream.extend_from_slice(&message);
        true
    });
    stream
}

#[test]
fn secondary_fetches_its_zone_and_serves_it_as_long_as_its_primary_allows() {
    let mut rig = served(SECONDARY, &[]);
    assert_eq!(rig.ask("www.example.org", rtype::A), ["SERVFAIL"]);
    let ask = rig.sent().pop().unwrap();
    assert_eq!((ask.upstream.to_string().as_str(), ask.transport), ("192.0.2.1:53", Transport::Tcp));
    let stream = transferred(&zone(1, "www A 192.0.2.2"), &ask.message);
    ask.delivered(stream);
    rig.work();
    assert_eq!(rig.ask("www.example.org", rtype::A), ["NOERROR", "A 192.0.2.2"]);
    assert_eq!(fetch(&rig, &transfer_query("example.org", None), [203, 0, 113, 1]).len(), 5);
    // What was fetched is not lost when the Corefile changes.
    reread(&mut rig, SECONDARY, &[]);
    assert_eq!(rig.ask("www.example.org", rtype::A), ["NOERROR", "A 192.0.2.2"]);
    // The primary does not answer, neither to a datagram nor over a connection, until the zone has expired.
    rig.at(3601);
    rig.wake();
    rig.work();
    for transport in [Transport::Udp, Transport::Tcp] {
        let ask = rig.sent().pop().unwrap();
        assert_eq!(ask.transport, transport);
        ask.failed();
        rig.work();
    }
    assert_eq!(rig.ask("www.example.org", rtype::A), ["NOERROR", "A 192.0.2.2"]);
    rig.at(86_401);
    rig.wake();
    rig.work();
    assert_eq!(rig.ask("www.example.org", rtype::A), ["SERVFAIL"], "it has expired, though a look is under way");
    assert_eq!(rig.sent().pop().unwrap().transport, Transport::Tcp, "the whole zone is asked for");
}

#[test]
fn a_notification_of_the_primary_brings_the_next_version_at_once() {
    let rig = served(SECONDARY, &[]);
    let ask = rig.sent().pop().unwrap();
    let stream = transferred(&zone(1, "www A 192.0.2.2"), &ask.message);
    ask.delivered(stream);
    rig.work();
    let mut note = query("example.org", rtype::SOA);
    note[2] = 4 << 3;
    let from = |last: u8| Arrival { from: SocketAddr::from(([192, 0, 2, last], 4000)), ..ARRIVAL };
    assert_eq!(told(&rig.handle_from(&note, &from(2)).1), ["REFUSED"]);
    rig.work();
    assert!(rig.sent().is_empty());
    assert_eq!(rig.handle_from(&note, &from(1)).1, notify_reply(&Notify::parse(&note).unwrap()));
    rig.work();
    let serial = rig.sent().pop().expect("the serial number is not asked for");
    let primary = served(&FILE.replace("to 192.0.2.9", "to *"), &[("db", zone(2, "www A 192.0.2.3"))]);
    let answer = primary.answer(&serial.message);
    serial.answered(answer);
    rig.work();
    let ask = rig.sent().pop().expect("the zone is not asked for");
    let stream = transferred(&zone(2, "www A 192.0.2.3"), &ask.message);
    ask.delivered(stream);
    rig.work();
    assert_eq!(rig.ask("www.example.org", rtype::A), ["NOERROR", "A 192.0.2.3"]);
}
