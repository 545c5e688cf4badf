//! What dropped or refused a flow.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::{
    entry::IcmpError,
    record::Cause,
    refusal::{Refusal, Unserved},
};

const NONE: Way = Way { packets: 0, bytes: 0, retransmissions: 0, resets: 0, flags: 0 };
const ONE: Way = Way { packets: 1, ..NONE };

/// Port unreachable (RFC 792).
fn port_unreachable(by_destination: bool) -> Option<IcmpError> {
    Some(IcmpError { kind: 3, code: 3, by_destination })
}

/// `a` sent one packet to port 53 of somebody.
fn question(of: &str, transport: Transport) -> Entry {
    let (local, remote) = ("10.0.0.1".parse().unwrap(), of.parse().unwrap());
    Entry {
        key: EntryKey { device: 1, local, remote, local_port: 1000, remote_port: 53, transport },
        pod_began: true,
        out: ONE,
        into: NONE,
        born: 1,
        first: at(1),
        last: at(1),
        handshake_micros: 0,
        ended: false,
        asked: None,
        error: None,
        unserved: None,
    }
}

/// What the last record says once an entry was read.
fn told(reader: &mut Reader, now: i64, entry: &Entry) -> (Verdict, Option<Cause>) {
    reader.with(now, |aggregator, scene, told| {
        let _ = aggregator.observe(entry, scene, told);
    });
    let record = reader.told.last().unwrap();
    (record.verdict, record.cause)
}

fn ends(reader: &mut Reader, now: i64, entry: &Entry) -> Record {
    reader.with(now, |aggregator, scene, told| {
        aggregator.over(entry, scene);
        aggregator.settle(true, scene, told);
    });
    let last = reader.told.last().unwrap().clone();
    assert_eq!(last.report, Report::End);
    last
}

#[test]
fn what_an_error_says_is_the_cause_until_somebody_answers() {
    let mut reader = Reader::new();
    let refused = Entry { error: port_unreachable(true), ..question("203.0.113.5", Transport::UDP) };
    assert_eq!(told(&mut reader, 5, &refused), (Verdict::Refused, Some(Cause::PortClosed)));
    let answered = Entry { into: ONE, error: None, ..refused };
    assert_eq!(told(&mut reader, 60_005, &answered), (Verdict::Forwarded, None));
    // What came after the answer was refused.
    let again = Entry { into: ONE, out: Way { packets: 2, ..ONE }, ..refused };
    assert_eq!(told(&mut reader, 120_005, &again), (Verdict::Forwarded, Some(Cause::PortClosed)));
    let last = ends(&mut reader, 120_006, &again);
    assert_eq!((last.verdict, last.cause), (Verdict::Forwarded, Some(Cause::PortClosed)));
}

#[test]
fn errors_of_icmpv6_are_read_as_such() {
    let error = Some(IcmpError { kind: 1, code: 0, by_destination: false });
    let mut entry = Entry { error, ..question("2001:db8::5", Transport::TCP) };
    entry.key.local = "fd00::1".parse().unwrap();
    assert_eq!(told(&mut Reader::new(), 5, &entry), (Verdict::Dropped, Some(Cause::NoRoute)));
}

#[test]
fn a_service_without_backends_refuses_or_drops() {
    let asked = ("10.96.0.7:53".parse().unwrap(), Transport::UDP);
    let reader = |unserved: &[(SocketAddr, Transport)]| {
        let mut reader = Reader::new();
        reader.names.set_services([(asked, podnet_model::ServiceKey::new("shop", "dns"))].into());
        reader.names.set_unserved(unserved.iter().copied().collect::<HashSet<_>>());
        reader
    };
    let silent = question("10.96.0.7", Transport::UDP);
    let rejected = Entry { error: port_unreachable(false), ..silent };
    assert_eq!(told(&mut reader(&[asked]), 5, &rejected), (Verdict::Refused, Some(Cause::NoBackend)));
    assert_eq!(told(&mut reader(&[asked]), 5, &silent), (Verdict::Dropped, Some(Cause::NoBackend)));
    // It has some: somebody else said no, or nobody said anything.
    assert_eq!(told(&mut reader(&[]), 5, &rejected), (Verdict::Refused, Some(Cause::Prohibited)));
    assert_eq!(told(&mut reader(&[]), 5, &silent), (Verdict::Forwarded, None));
    // It has some when that is told, and had none as it was asked.
    let mut later = reader(&[asked]);
    assert_eq!(told(&mut later, 5, &rejected), (Verdict::Refused, Some(Cause::NoBackend)));
    later.names.set_unserved(HashSet::new());
    assert_eq!(ends(&mut later, 6, &rejected).cause, Some(Cause::NoBackend));
}

/// Packets from there to there were beyond a limit, the last one at that time.
fn beyond(noted: &[(&str, &str, i64)]) -> crate::Beyond {
    let mut beyond = crate::Beyond::default();
    for (source, destination, last) in noted {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        beyond.note(&Key { source, destination, transport: Transport::UDP }, at(*last));
    }
    beyond
}

#[test]
fn what_a_limit_refused_or_lost_is_told_once_it_is_known_and_for_as_long_as_the_flow_lasts() {
    let silent = question("203.0.113.5", Transport::UDP);
    let rejected = Entry { error: port_unreachable(false), ..silent };
    let mut reader = Reader::new();
    assert_eq!(told(&mut reader, 5, &rejected), (Verdict::Refused, Some(Cause::Prohibited)));
    reader.names.set_beyond(beyond(&[("10.0.0.1:1000", "203.0.113.5:53", 1)]));
    let more = Entry { out: Way { packets: 2, ..ONE }, ..rejected };
    assert_eq!(told(&mut reader, 60_005, &more), (Verdict::Refused, Some(Cause::Limit)));
    // It is noted no more.
    reader.names.set_beyond(beyond(&[]));
    let answered = Entry { into: ONE, error: None, ..more };
    assert_eq!(ends(&mut reader, 120_006, &answered).cause, Some(Cause::Limit));
    // Another one, and an earlier one.
    for noted in [("10.0.0.1:1001", "203.0.113.5:53", 1), ("10.0.0.1:1000", "203.0.113.5:53", -200)] {
        let mut reader = Reader::new();
        reader.names.set_beyond(beyond(&[noted]));
        assert_eq!(told(&mut reader, 5, &silent), (Verdict::Forwarded, None));
    }
    // What was lost on its way to the pod, as it is known where that answers.
    let mut reader = Reader::new();
    reader.names.set_beyond(beyond(&[("203.0.113.5:53", "10.0.0.1:1000", 2)]));
    assert_eq!(told(&mut reader, 5, &silent), (Verdict::Dropped, Some(Cause::Limit)));
}

/// As `a` asked for it three times within 2 s.
fn refusal(transport: Transport, port: u16, unserved: Unserved) -> Refusal {
    let to = "10.96.0.7:53".parse().unwrap();
    Refusal { netns: 7, port, to, transport, count: 3, born: 1, first: at(1000), last: at(3000), unserved }
}

#[test]
fn what_is_refused_at_the_socket_is_a_flow_of_its_pod_to_the_service() {
    let own: [IpAddr; 2] = ["fd00::1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
    let service = podnet_model::ServiceKey::new("shop", "dns");
    for (unserved, verdict) in [(Unserved::Nobody, Verdict::Refused), (Unserved::NobodyHere, Verdict::Dropped)] {
        for (transport, port) in [(Transport::TCP, 0), (Transport::UDP, 4000)] {
            let entry = refusal(transport, port, unserved).entry(1, &own).unwrap();
            let mut reader = Reader::new();
            reader.names.set_senders([(1, own.to_vec())].into());
            // Whatever is known of slices.
            reader.names.set_services([((entry.asked.unwrap(), transport), service.clone())].into());
            let last = ends(&mut reader, 5000, &entry);
            assert_eq!((last.verdict, last.cause, last.class), (verdict, Some(Cause::NoBackend), Class::PodService));
            assert_eq!((last.source.port, last.source.ip), (port, own[1]));
            assert_eq!(last.source.pod.as_ref().map(|pod| &*pod.name), Some("a"));
            let asked = last.service.as_ref().map(|asked| (&asked.service, asked.at()));
            assert_eq!(asked, Some((&service, last.destination.at())));
            assert_eq!((last.sent, last.received), (Way { packets: 3, ..NONE }, NONE));
            assert_eq!(last.reporter, Reporter::Source);
            assert_eq!((last.start, last.end), (at(1000), at(3000)));
        }
    }
    let none = refusal(Transport::TCP, 0, Unserved::Nobody).entry(1, &own[..1]);
    assert_eq!(none, None, "an address of another family");
}

#[test]
fn connections_that_are_refused_at_the_socket_are_told_once_they_are_over_and_datagrams_as_they_begin() {
    let own: [IpAddr; 1] = ["10.0.0.1".parse().unwrap()];
    for (transport, first, idle) in [(Transport::TCP, None, 4100), (Transport::UDP, Some(Report::Start), 63_100)] {
        let entry = refusal(transport, 0, Unserved::Nobody).entry(1, &own).unwrap();
        let mut reader = Reader::new();
        let mut read = |now| {
            let mut fate = Fate::Stays;
            reader.with(now, |aggregator, scene, told| {
                fate = aggregator.observe(&entry, scene, told);
                if fate == Fate::Over {
                    aggregator.over(&entry, scene);
                }
                aggregator.sweep(scene, told);
            });
            (fate, reader.told.last().map(|record| record.report))
        };
        assert_eq!(read(3100), (Fate::Stays, first));
        assert_eq!(read(idle), (Fate::Stays, first), "something may come until the next reading");
        assert_eq!(read(idle + 1000), (Fate::Over, Some(Report::End)));
    }
}

#[test]
fn who_sends_as_somebody_else_is_told_by_its_own_name() {
    let stolen = question("203.0.113.5", Transport::UDP);
    let own = |addr: &str| HashMap::from([(1, vec![addr.parse().unwrap()])]);
    let mut reader = Reader::new();
    reader.names.set_senders(own("10.0.0.1"));
    assert_eq!(told(&mut reader, 5, &stolen), (Verdict::Forwarded, None));
    let mut reader = Reader::new();
    reader.names.set_senders(own("10.0.0.2"));
    assert_eq!(told(&mut reader, 5, &stolen), (Verdict::Dropped, Some(Cause::SpoofGuard)));
    let source = &reader.told[0].source;
    assert_eq!((source.pod.as_ref().map(|pod| &*pod.name), source.ip), (Some("b"), stolen.key.local));
    // What comes to a pod may be for a group that it is in.
    let to_group = Entry { out: NONE, into: ONE, pod_began: false, ..stolen };
    let mut reader = Reader::new();
    reader.names.set_senders(own("10.0.0.2"));
    assert_eq!(told(&mut reader, 5, &to_group), (Verdict::Forwarded, None));
}

#[test]
fn who_sent_as_somebody_else_may_be_known_later() {
    let stolen = question("203.0.113.5", Transport::UDP);
    let mut reader = Reader::new();
    assert_eq!(told(&mut reader, 5, &stolen), (Verdict::Forwarded, None));
    reader.names.set_senders([(1, vec!["10.0.0.2".parse().unwrap()])].into());
    let last = ends(&mut reader, 6, &stolen);
    assert_eq!((last.verdict, last.cause), (Verdict::Dropped, Some(Cause::SpoofGuard)));
    assert_eq!(last.source.pod.map(|pod| pod.name.to_string()).as_deref(), Some("b"));
}

#[test]
fn only_who_stands_at_the_destination_knows_that_it_reset_a_connection_itself() {
    let reset = Way { resets: 1, flags: Way::RST, ..ONE };
    let opened = Way { flags: Way::SYN, ..ONE };
    let mut kernel = Kernel { now: 1, ..Kernel::default() };
    kernel.packet(0, false, false);
    kernel.packet(1, false, false);
    for entry in kernel.map.values_mut() {
        (entry.out, entry.into) = if entry.pod_began { (opened, reset) } else { (reset, opened) };
        entry.ended = true;
    }
    let mut reader = Reader::new();
    kernel.now += 2000;
    (0..3).for_each(|_| reader.scan(&mut kernel));
    let outcome = |port: u16| {
        let record = reader.told.iter().find(|record| record.source.port == port).unwrap();
        (record.report, record.verdict, record.cause)
    };
    assert_eq!(outcome(1000), (Report::End, Verdict::Refused, Some(Cause::PortClosed)));
    assert_eq!(outcome(1001), (Report::End, Verdict::Refused, None));
}

#[test]
fn a_connection_that_has_no_way_is_not_waited_for_as_one_that_is_silent() {
    let mut kernel = Kernel { now: 1, ..Kernel::default() };
    kernel.packet(1, false, false);
    let mut reader = Reader::new();
    reader.scan(&mut kernel);
    kernel.now += 31_000;
    (0..3).for_each(|_| reader.scan(&mut kernel));
    assert_eq!(reader.told.len(), 1, "it may be answered yet");
    let no_route = IcmpError { kind: 3, code: 0, by_destination: false };
    kernel.map.values_mut().for_each(|entry| entry.error = Some(no_route));
    (0..3).for_each(|_| reader.scan(&mut kernel));
    let last = reader.told.last().unwrap();
    assert_eq!((last.report, last.verdict, last.cause), (Report::End, Verdict::Dropped, Some(Cause::NoRoute)));
}

#[test]
fn an_association_is_refused_where_what_opened_it_was_aborted_and_has_no_flags_of_tcp() {
    let aborted = Way { resets: 1, ..ONE };
    let under_way = Entry { into: aborted, ..question("203.0.113.5", Transport::SCTP) };
    let opened = Entry { out: Way { flags: Way::SYN, ..ONE }, ..under_way };
    for (entry, verdict) in [(opened, Verdict::Refused), (under_way, Verdict::Forwarded)] {
        let mut reader = Reader::new();
        assert_eq!(told(&mut reader, 5, &entry), (verdict, None));
        assert_eq!((reader.told[0].sent.flags, reader.told[0].received.flags), (0, 0));
    }
}
