use std::time::{Duration, Instant};

use super::*;
use crate::authority::{Soa, Zone, zone::tests::zone};

const LIMIT: usize = 1 << 20;

fn origin() -> Name {
    Name::parse("example").unwrap()
}

/// A version of the zone.
fn version(serial: u32, rest: &str) -> Zone {
    zone("example", &format!("$TTL 5\n@ SOA ns host {serial} 3600 600 86400 30\n@ NS ns\nns A 192.0.2.1\n{rest}"))
}

fn request(incoming: &Incoming, base: Option<&Zone>) -> Request {
    let soa = base.map(Zone::soa_record);
    Request::parse(&incoming.request(soa.as_ref())).unwrap()
}

fn feed(mut incoming: Incoming, messages: impl Iterator<Item = Vec<u8>>) -> Result<Progress, TransferError> {
    let mut last = Progress::More;
    for message in messages {
        assert!(matches!(last, Progress::More), "the transfer goes on");
        assert!(message.len() <= 65_535 - 300, "a TSIG record has room");
        last = incoming.message(&message)?;
    }
    Ok(last)
}

fn done(progress: Result<Progress, TransferError>) -> Zone {
    match progress.unwrap() {
        Progress::Done(zone, _) => *zone,
        other => panic!("{other:?}"),
    }
}

/// A zone with another serial number.
fn numbered(origin: &Name, mut records: Vec<crate::authority::Record>, serial: u32) -> Zone {
    let at = records[0].rdata.len() - 20;
    records[0].rdata[at..at + 4].copy_from_slice(&serial.to_be_bytes());
    Zone::from_records(origin, &records).unwrap().0
}

#[test]
fn rfc1982_3_2_serial_numbers_go_round() {
    assert!(newer(1, 0) && newer(44, 0) && newer(100, 0) && newer(100, 44) && newer(200, 100));
    assert!(newer(0, 0xffff_ffff) && newer(5, 0xffff_fff0));
    assert!(!newer(0, 1) && !newer(7, 7) && !newer(0x8000_0000, 0), "half the circle apart: neither is newer");
}

#[test]
fn rfc5936_2_2_a_whole_zone_goes_in_many_messages() {
    let rest: String = (0..4000).map(|n| format!("host-{n}.some.branch TXT \"the text of number {n}\"\n")).collect();
    let zone = version(7, &rest);
    let incoming = Incoming::whole(&origin(), 0x1234, LIMIT);
    let request = request(&incoming, None);
    assert_eq!((request.id, &request.zone, request.serial), (0x1234, &origin(), None));
    let messages: Vec<Vec<u8>> = axfr(&zone, &request).collect();
    assert!(messages.len() > 5, "{}", messages.len());
    // Names are compressed: less than the records' bytes.
    let bytes: usize = messages.iter().map(Vec::len).sum();
    let plain: usize = zone.records().map(|record| record.owner.wire().len() + record.rdata.len() + 10).sum();
    assert!(bytes < plain, "{bytes} of {plain}");
    let received = done(feed(incoming, messages.into_iter()));
    assert_eq!(received.to_text(), zone.to_text());
}

#[test]
fn rfc5936_2_2_a_transfer_begins_and_ends_with_the_same_soa() {
    let zone = version(7, "a A 192.0.2.2\n");
    let message = |change: &dyn Fn(&mut Vec<u8>)| {
        let incoming = Incoming::whole(&origin(), 9, LIMIT);
        let mut message = axfr(&zone, &request(&incoming, None)).next().unwrap();
        change(&mut message);
        feed(incoming, std::iter::once(message)).map(|progress| matches!(progress, Progress::More))
    };
    assert_eq!(message(&|_| ()), Ok(false));
    assert_eq!(message(&|message| message[1] = 8), Err(TransferError::NotOurs));
    assert_eq!(message(&|message| message[2] = 0), Err(TransferError::NotOurs));
    assert_eq!(message(&|message| message[3] = 5), Err(TransferError::Refused(crate::message::Rcode::REFUSED)));
    assert_eq!(message(&|message| message[13] = b'x'), Err(TransferError::NotOurs));
    assert_eq!(message(&|message| message.truncate(message.len() - 1)), Err(TransferError::Malformed));
    // Without the last record, it goes on.
    assert_eq!(message(&|message| message[7] -= 1), Ok(true));
    let serial = |message: &mut Vec<u8>| {
        let at = message.len() - 17;
        message[at] = 8;
    };
    assert_eq!(message(&serial), Err(TransferError::OtherSoa { found: 8, expected: 7 }));
    let last_is_first = |message: &mut Vec<u8>| message[HEADER + 9 + 4 + 3] = 16;
    assert!(message(&last_is_first).is_err());
}

#[test]
fn a_transfer_has_bounds() {
    let zone = version(7, "a A 192.0.2.2\n");
    let incoming = Incoming::whole(&origin(), 9, 100);
    let messages = axfr(&zone, &request(&incoming, None)).collect::<Vec<_>>();
    assert!(matches!(feed(incoming, messages.into_iter()), Err(TransferError::TooLarge { limit: 100 })));
    let mut incoming = Incoming::whole(&origin(), 9, LIMIT);
    let messages: Vec<_> = axfr(&zone, &request(&incoming, None)).collect();
    assert!(matches!(incoming.message(&messages[0]), Ok(Progress::Done(..))));
    assert!(matches!(incoming.message(&messages[0]), Err(TransferError::Trailing)));
}

#[test]
fn rfc1995_4_what_is_new_goes_as_differences() {
    let versions = [
        version(1, "nezu A 133.69.136.5\n"),
        version(2, "jain-bb A 133.69.136.4\njain-bb A 192.41.197.2\n"),
        version(3, "jain-bb A 133.69.136.3\njain-bb A 192.41.197.2\n"),
    ];
    let mut journal = Journal::new(100);
    for pair in versions.windows(2) {
        journal.push(Difference::between(&pair[0], &pair[1]));
    }
    for base in &versions[..2] {
        let incoming = Incoming::since(base, 4, LIMIT);
        let request = request(&incoming, Some(base));
        assert_eq!(request.serial, Some(base.soa().serial));
        let messages: Vec<_> = ixfr(&versions[2], &journal, &request, None).collect();
        let received = done(feed(incoming, messages.into_iter()));
        assert_eq!(received.to_text(), versions[2].to_text());
    }
    // Nothing is new: the SOA record alone.
    let incoming = Incoming::since(&versions[2], 4, LIMIT);
    let request = request(&incoming, Some(&versions[2]));
    let messages: Vec<_> = ixfr(&versions[2], &journal, &request, None).collect();
    assert_eq!(u16_at(&messages[0], 6), Some(1));
    assert!(matches!(feed(incoming, messages.into_iter()), Ok(Progress::UpToDate)));
}

#[test]
fn rfc1995_2_what_does_not_fit_a_datagram_is_the_soa_alone() {
    let (old, new) = (version(1, ""), version(2, "a A 192.0.2.9\n"));
    let mut journal = Journal::new(100);
    journal.push(Difference::between(&old, &new));
    let incoming = Incoming::since(&old, 4, LIMIT);
    let request = request(&incoming, Some(&old));
    let fits: Vec<_> = ixfr(&new, &journal, &request, Some(512)).collect();
    assert_eq!((fits.len(), u16_at(&fits[0], 6)), (1, Some(5)));
    let cut: Vec<_> = ixfr(&new, &journal, &request, Some(100)).collect();
    assert_eq!(u16_at(&cut[0], 6), Some(1));
    // It is newer than what is there, so it does not say that nothing is new.
    assert!(matches!(feed(incoming, cut.into_iter()), Ok(Progress::More)));
}

#[test]
fn rfc1995_4_the_whole_zone_goes_when_the_journal_does_not_reach_back() {
    let versions = [version(1, "a A 192.0.2.2\n"), version(2, "b A 192.0.2.2\n"), version(3, "")];
    let mut journal = Journal::new(5);
    journal.push(Difference::between(&versions[0], &versions[1]));
    assert!(journal.since(1, 2).is_some());
    journal.push(Difference::between(&versions[1], &versions[2]));
    assert!(journal.since(1, 3).is_none() && journal.since(2, 3).is_some() && journal.since(2, 4).is_none());
    let incoming = Incoming::since(&versions[0], 4, LIMIT);
    let request = request(&incoming, Some(&versions[0]));
    let received = done(feed(incoming, ixfr(&versions[2], &journal, &request, None)));
    assert_eq!(received.to_text(), versions[2].to_text());
    // A change that does not follow the last one begins anew.
    journal.push(Difference::between(&versions[0], &versions[1]));
    assert!(journal.since(2, 3).is_none() && journal.since(1, 2).is_some());
}

#[test]
fn rfc1995_4_versions_that_have_come_apart_are_noticed() {
    let (old, new, other) = (version(1, "a A 192.0.2.2\n"), version(2, ""), version(1, ""));
    let mut journal = Journal::new(100);
    journal.push(Difference::between(&old, &new));
    let incoming = Incoming::since(&other, 4, LIMIT);
    let messages: Vec<_> = ixfr(&new, &journal, &request(&incoming, Some(&other)), None).collect();
    let error = feed(incoming, messages.clone().into_iter()).unwrap_err();
    assert!(matches!(error, TransferError::NothingToDelete(_)), "{error}");
    // Changes that start elsewhere.
    let elsewhere = version(0, "");
    let error = feed(Incoming::since(&elsewhere, 4, LIMIT), messages.into_iter()).unwrap_err();
    assert_eq!(error, TransferError::Gap { found: 1, expected: 0 });
}

#[test]
fn a_zone_of_its_soa_alone_is_transferred_too() {
    let text = |serial| format!("@ 5 SOA ns host {serial} 3600 600 86400 30\n");
    let (old, new) = (zone("example", &text(1)), zone("example", &text(2)));
    let incoming = Incoming::since(&old, 4, LIMIT);
    let request = request(&incoming, Some(&old));
    let received = done(feed(incoming, ixfr(&new, &Journal::new(10), &request, None)));
    assert_eq!(received.soa().serial, 2);
}

#[test]
fn rfc1996_notifications_are_made_and_read() {
    let zone = version(7, "");
    let message = notify(&zone.soa_record(), 77);
    let read = Notify::parse(&message).unwrap();
    assert_eq!(read, Notify { id: 77, zone: origin(), serial: Some(7) });
    let reply = notify_reply(&read);
    assert!(is_notify_reply(&reply, &origin(), 77));
    assert!(!is_notify_reply(&reply, &origin(), 78) && !is_notify_reply(&message, &origin(), 77));
    assert_eq!(Notify::parse(&reply), None);
    assert_eq!(Notify::parse(&soa_query(&origin(), 1)), None);
    assert_eq!(Request::parse(&message), None);
}

#[test]
fn rfc1034_4_3_5_the_serial_is_asked_for() {
    let zone = version(7, "");
    let found = zone.lookup(&crate::name::QueryName::from(&origin()), rtype::SOA, false).unwrap().answer;
    let mut message = head(3, flag::QR | flag::AA, found.counts, &origin(), rtype::SOA);
    message.extend_from_slice(&found.body);
    assert_eq!(soa_answer(&origin(), 3, &message), Ok(7));
    assert_eq!(soa_answer(&origin(), 4, &message), Err(TransferError::NotOurs));
    message[2] &= !4;
    assert_eq!(soa_answer(&origin(), 3, &message), Err(TransferError::NotAuthoritative));
    message[3] |= 3;
    assert!(matches!(soa_answer(&origin(), 3, &message), Err(TransferError::Refused(_))));
}

#[test]
fn rfc1034_4_3_5_timers_tell_when_to_look_and_when_to_stop_serving() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut zone = Secondary::new(start);
    assert!(zone.next_due() == start && zone.is_expired(start));
    zone.failed(start, 0);
    assert_eq!(zone.next_due(), after(5));
    zone.failed(after(5), 0);
    assert_eq!(zone.next_due(), after(15));
    let soa = Soa { serial: 7, refresh: 3600, retry: 600, expire: 86_400, minimum: 30 };
    zone.refreshed(soa, after(15), 0);
    assert_eq!(zone.next_due(), after(3615));
    assert!(!zone.is_expired(after(86_414)) && zone.is_expired(after(86_415)));
    zone.failed(after(3615), u16::MAX);
    assert_eq!(zone.next_due(), after(3615 + 540));
    assert!(!zone.notified(Some(7), after(3700)) && !zone.notified(Some(6), after(3700)));
    assert!(zone.notified(Some(8), after(3700)) && zone.next_due() == after(3700));
    assert!(zone.notified(None, after(3700)));
    // What is told while it looks makes it look once more, unless it is what was found.
    let told = |serial| {
        let mut zone = zone.clone();
        zone.begins();
        assert!(zone.notified(serial, after(3700)));
        zone.refreshed(Soa { serial: 8, ..soa }, after(3701), 0);
        zone.next_due()
    };
    assert_eq!([told(Some(9)), told(None), told(Some(8))], [after(3701), after(3701), after(7301)]);
    zone.begins();
    zone.refreshed(Soa { serial: 8, ..soa }, after(3701), 0);
    assert_eq!(zone.next_due(), after(7301));
    // Times of nought do not make it look all the time.
    zone.refreshed(Soa { refresh: 0, retry: 0, ..soa }, start, 0);
    assert_eq!(zone.next_due(), after(2));
}

proptest::proptest! {
    #[test]
    fn rfc1995_4_differences_lead_from_any_zone_to_any_other(
        versions in proptest::collection::vec(crate::authority::zone::tests::reference::any_zone(), 2..5),
        from in 0_usize..5,
    ) {
        let origin = Name::parse("z").unwrap();
        let zones: Vec<Zone> = versions
            .into_iter()
            .enumerate()
            .map(|(index, records)| numbered(&origin, records, (u32::MAX - 1).wrapping_add(index as u32)))
            .collect();
        let mut journal = Journal::new(1000);
        for pair in zones.windows(2) {
            journal.push(Difference::between(&pair[0], &pair[1]));
        }
        let (base, last) = (&zones[from % (zones.len() - 1)], &zones[zones.len() - 1]);
        let incoming = Incoming::since(base, 4, LIMIT);
        let request = request(&incoming, Some(base));
        let messages: Vec<_> = ixfr(last, &journal, &request, None).collect();
        proptest::prop_assert_eq!(done(feed(incoming, messages.into_iter())).to_text(), last.to_text());
    }

    #[test]
    fn a_changed_transfer_is_an_error_or_a_zone_and_never_a_panic(
        at in 0_usize..400, value in proptest::num::u8::ANY, differences in proptest::bool::ANY,
    ) {
        let (old, new) = (version(1, "a MX 5 b\n"), version(2, "a MX 7 c\n* CNAME ns\n"));
        let mut journal = Journal::new(100);
        if differences {
            journal.push(Difference::between(&old, &new));
        }
        let mut incoming = Incoming::since(&old, 4, LIMIT);
        let mut message = ixfr(&new, &journal, &request(&incoming, Some(&old)), None).next().unwrap();
        let at = at % message.len();
        message[at] = value;
        if let Ok(Progress::Done(zone, _)) = incoming.message(&message) {
            proptest::prop_assert_eq!(zone.records().count(), zone.len());
        }
    }

    #[test]
    fn no_message_makes_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120), counts in 0_u8..4) {
        let base = version(1, "");
        let mut message = soa_query(&origin(), 4);
        message[2] = 0x84;
        message[7] = counts;
        message.extend_from_slice(&bytes);
        let _ = soa_answer(&origin(), 4, &message);
        message[HEADER + 10] = 251;
        let _ = Incoming::since(&base, 4, LIMIT).message(&message);
        let _ = Incoming::whole(&origin(), 4, LIMIT).message(&bytes);
        let _ = (Notify::parse(&bytes), Request::parse(&bytes), Request::parse(&message));
    }
}
