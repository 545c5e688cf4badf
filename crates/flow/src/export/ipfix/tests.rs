//! Messages as a collector reads them: by the templates that came, and nothing else.

use std::{collections::HashMap, sync::Arc};

use super::*;
use crate::testing::{drops, flow, flow_v6, gap};

type Fields = Vec<(u16, bool, u16)>;
/// Values by element and direction.
type Values = HashMap<(u16, bool), Vec<u8>>;

/// A collector of a few lines, which knows what the templates said.
#[derive(Default)]
struct Collector {
    templates: HashMap<u16, Fields>,
    /// Each record with its template.
    records: Vec<(u16, Values)>,
    sequences: Vec<u32>,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

fn short(bytes: &mut &[u8]) -> u16 {
    u16::try_from(number(take(bytes, 2))).unwrap()
}

impl Collector {
    fn hear(&mut self, message: &[u8]) {
        let mut rest = message;
        assert_eq!((short(&mut rest), usize::from(short(&mut rest))), (10, message.len()));
        assert_eq!(number(take(&mut rest, 4)), 1_767_225_600);
        self.sequences.push(u32::try_from(number(take(&mut rest, 4))).unwrap());
        assert_ne!(number(take(&mut rest, 4)), 0);
        while !rest.is_empty() {
            let (id, length) = (short(&mut rest), short(&mut rest));
            let mut set = take(&mut rest, usize::from(length) - 4);
            match id {
                2 | 3 => self.template(&mut set, id == 3),
                _ => self.data(id, set),
            }
        }
    }

    fn template(&mut self, set: &mut &[u8], has_scope: bool) {
        let (id, count) = (short(set), short(set));
        if has_scope {
            assert_eq!(short(set), 1);
        }
        let mut field = || {
            let (id, length) = (short(set), short(set));
            let is_reverse = id & 0x8000 != 0;
            assert!(!is_reverse || number(take(set, 4)) == 29305);
            (id & 0x7fff, is_reverse, length)
        };
        let fields = (0..count).map(|_| field()).collect();
        self.templates.insert(id, fields);
        assert!(set.is_empty());
    }

    fn data(&mut self, id: u16, mut set: &[u8]) {
        while !set.is_empty() {
            let mut record = HashMap::new();
            for (element, is_reverse, length) in &self.templates[&id] {
                let length = match *length {
                    u16::MAX => match take(&mut set, 1)[0] {
                        u8::MAX => short(&mut set),
                        length => length.into(),
                    },
                    length => length,
                };
                record.insert((*element, *is_reverse), take(&mut set, length.into()).to_vec());
            }
            self.records.push((id, record));
        }
    }
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

#[test]
fn a_flow_is_read_by_its_template_with_both_directions_and_names() {
    let mut exporter = Exporter::new(&"node1".into());
    let mut collector = Collector::default();
    collector.hear(&exporter.templates(now()));
    for message in exporter.messages(&[flow(7), flow_v6(8), gap(9)], now(), 65535) {
        collector.hear(&message);
    }
    assert_eq!(collector.sequences, [0, 0]);
    let [(256, v4), (257, v6), (258, gap)] = &collector.records[..] else { panic!("{:?}", collector.records) };
    let read = |record: &Values, element| number(&record[&(element, false)]);
    let of = |element| read(v4, element);
    assert_eq!((of(8), of(12), of(7), of(11), of(4)), (0x0a00_0001, 0x0a00_0102, 40000, 8080, 6));
    assert_eq!((of(152), of(153)), (1_767_225_600_123, 1_767_225_602_500));
    assert_eq!((of(86), of(85), of(6)), (6, 600, 0x1b));
    assert_eq!([86, 85, 6].map(|element| number(&v4[&(element, true)])), [5, 5000, 0x1b]);
    assert_eq!((of(136), of(89), of(148)), (3, 64, 0x0102_0304_0506_0708));
    let named = [(350, false), (350, true), (96, false), (300, false)].map(|key| String::from_utf8(v4[&key].clone()));
    assert_eq!(named.map(Result::unwrap), ["shop/client", "shop/web", "shop/web", "node1"]);
    assert_eq!((v6[&(28, false)].len(), read(v6, 136), read(v6, 89)), (16, 2, 131));
    assert_eq!((&v6[&(350, true)], &v6[&(96, false)]), (&Vec::new(), &Vec::new()));
    assert_eq!([166, 167, 168].map(|element| read(gap, element)), [3, 40, 4000]);
}

#[test]
fn records_are_known_by_their_ids_and_pods_by_uid_and_service_account() {
    let mut named = flow(1);
    let Item::Flow(record) = &mut named.item else { panic!("no flow") };
    let record = Arc::make_mut(record);
    (record.sent.resets, record.received.resets) = (2, 3);
    let pod = Arc::make_mut(record.source.pod.as_mut().unwrap());
    (pod.uid, pod.service_account) = ("0a000000-0000-4000-8000-00000000000b".into(), Some("buyer".into()));
    let mut aborted = named.clone();
    aborted.record.sequence = 2;
    let Item::Flow(record) = &mut aborted.item else { panic!("no flow") };
    Arc::make_mut(record).protocol = Transport::SCTP;
    let mut exporter = Exporter::new(&"node1".into());
    let mut collector = Collector::default();
    collector.hear(&exporter.templates(now()));
    for message in exporter.messages(&[named.clone(), aborted, gap(3), named], now(), 65535) {
        collector.hear(&message);
    }
    let ids: Vec<u64> = collector.records.iter().map(|(_, values)| number(&values[&(326, false)])).collect();
    let expected = [1, 2, 3, 1].map(|number| Uuid::new_v5(&RECORDS, format!("node1/1/{number}").as_bytes()));
    assert_eq!(ids, expected.map(|id| id.as_u64_pair().0));
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
    let values = |at: usize, element| [false, true].map(|is_reverse| &collector.records[at].1[&(element, is_reverse)]);
    // The other pod's uid is no UUID, and its service account is not known.
    let uid: [u8; 16] = [0x0a, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 0x0b];
    assert_eq!(values(0, 349), [&uid.to_vec(), &Vec::new()]);
    assert_eq!(values(0, 371), [&b"system:serviceaccount:shop:buyer".to_vec(), &Vec::new()]);
    assert_eq!(values(0, 220).map(|count| number(count)), [2, 3]);
    assert_eq!(values(1, 220).map(|count| number(count)), [0, 0], "what SCTP aborts is no reset of TCP");
}

#[test]
fn the_status_of_forwarding_has_the_reason() {
    let Item::Flow(flow) = flow(0).item else { panic!("no flow") };
    let status = |verdict, cause| forwarding_status(&Record { verdict, cause, ..Record::clone(&flow) });
    let dropped = |cause| status(Verdict::Dropped, Some(cause));
    let found = [Cause::NoRoute, Cause::PacketTooBig, Cause::HopLimit, Cause::SpoofGuard].map(dropped);
    assert_eq!(found, [131, 133, 137, 140]);
    assert_eq!([Cause::Policy, Cause::Limit].map(dropped), [130, 138]);
    let refused = |cause| status(Verdict::Refused, Some(cause));
    assert_eq!([Cause::NoBackend, Cause::Prohibited, Cause::PortClosed].map(refused), [131, 129, 64]);
    assert_eq!([Verdict::Dropped, Verdict::Unanswered].map(|verdict| status(verdict, None)), [128, 64]);
    assert_eq!(status(Verdict::Forwarded, Some(Cause::PacketTooBig)), 64, "it was answered before");
}

#[test]
fn messages_are_no_longer_than_they_may_be_and_say_how_many_records_came_before() {
    let mut exporter = Exporter::new(&"node1".into());
    let mut collector = Collector::default();
    collector.hear(&exporter.templates(now()));
    let items: Vec<Numbered> = (0..10).map(|number| if number % 3 == 0 { gap(number) } else { flow(number) }).collect();
    let messages = exporter.messages(&items, now(), 460);
    assert!(messages.len() == 3 && messages.iter().all(|message| message.len() <= 460), "{messages:?}");
    let mut expected = vec![0];
    for message in messages {
        expected.push(u32::try_from(collector.records.len()).unwrap());
        collector.hear(&message);
    }
    assert_eq!((collector.sequences, collector.records.len()), (expected, 10));
    assert_eq!(exporter.messages(&[], now(), 400), Vec::<Vec<u8>>::new());
    // One that is too large for itself goes alone.
    assert_eq!(exporter.messages(&[flow(0), flow(1)], now(), 20).len(), 2);
}

#[test]
fn what_is_part_of_another_nodes_record_or_was_dropped_at_an_interface_is_no_record() {
    let mut part = flow(1);
    let Item::Flow(record) = &mut part.item else { panic!("no flow") };
    Arc::make_mut(record).report = Report::Part;
    let mut exporter = Exporter::new(&"node1".into());
    assert_eq!(exporter.messages(std::slice::from_ref(&part), now(), 400), Vec::<Vec<u8>>::new());
    let mut collector = Collector::default();
    collector.hear(&exporter.templates(now()));
    exporter
        .messages(&[flow(0), part, drops(3), flow(2)], now(), 65535)
        .iter()
        .for_each(|message| collector.hear(message));
    assert_eq!((collector.records.len(), exporter.sequence), (2, 2));
}

#[test]
fn a_long_text_says_its_length_in_three_octets() {
    for length in [0, 254, 255, 300, 2000] {
        let mut bytes = Vec::new();
        put_text(&mut bytes, &"x".repeat(length));
        let expected = length.min(LONGEST);
        let head = if length < 255 {
            vec![u8::try_from(length).unwrap()]
        } else {
            vec![255, (expected >> 8) as u8, expected as u8]
        };
        assert!(bytes.starts_with(&head) && bytes.len() == head.len() + expected, "{length}");
    }
}
