//! A simulated kernel, whose map and bells are read in any order, against what it counted.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
};

use proptest::prelude::*;

use super::*;
use crate::{
    entry::Way,
    names::PodIdentity,
    record::{Reporter, Verdict},
};

mod account;
mod causes;
mod early;
mod gone;
mod late;
mod lost;
mod services;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap()
}

fn pod(name: &str, node: &str) -> Arc<PodIdentity> {
    Arc::new(PodIdentity {
        namespace: "default".into(),
        name: name.into(),
        uid: name.into(),
        node: node.into(),
        labels: BTreeMap::new(),
        owner: None,
        service_account: None,
    })
}

/// `a` and `b` are this node's, `c` is another's.
fn names() -> Names {
    let mut names = Names::default();
    for (addr, name, node) in [("10.0.0.1", "a", "node1"), ("10.0.0.2", "b", "node1"), ("10.0.1.1", "c", "node2")] {
        names.hold(addr.parse().unwrap(), &pod(name, node), at(0), at(0));
    }
    names
}

/// Connections: who begins, who answers, the protocol, and the interfaces at both ends that are on this node.
const CONNECTIONS: [(&str, &str, Transport, [Option<u32>; 2]); 5] = [
    ("10.0.0.1:1000", "10.0.0.2:80", Transport::TCP, [Some(1), Some(2)]),
    ("10.0.0.1:1001", "10.0.1.1:80", Transport::TCP, [Some(1), None]),
    ("10.0.1.1:1002", "10.0.0.1:80", Transport::TCP, [None, Some(1)]),
    ("192.0.2.9:1003", "10.0.0.2:53", Transport::UDP, [None, Some(2)]),
    ("10.0.0.2:1004", "10.0.0.1:53", Transport::UDP, [Some(2), Some(1)]),
];

enum Bell {
    Ended(Entry),
    Replaced(Entry),
}

/// What the programs in the kernel do.
#[derive(Default)]
struct Kernel {
    now: i64,
    map: BTreeMap<EntryKey, Entry>,
    bells: VecDeque<Bell>,
    /// By connection: packets of each incarnation at the end that tells, as it should be told.
    counted: BTreeMap<usize, Vec<(u64, u64)>>,
}

fn keys(connection: usize) -> impl Iterator<Item = (bool, EntryKey)> {
    let (from, to, transport, devices) = CONNECTIONS[connection];
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let key = move |device, local: SocketAddr, remote: SocketAddr| EntryKey {
        device,
        local: local.ip(),
        remote: remote.ip(),
        local_port: local.port(),
        remote_port: remote.port(),
        transport,
    };
    let source = devices[0].map(|device| (true, key(device, from, to)));
    source.into_iter().chain(devices[1].map(|device| (false, key(device, to, from))))
}

impl Kernel {
    /// A packet of who began or of who answers; the first, or one that ends, if it is TCP's.
    fn packet(&mut self, connection: usize, answers: bool, ends: bool) {
        let tells = keys(connection).next().unwrap().1;
        let is_new = match self.map.get(&tells) {
            None => true,
            Some(entry) => entry.ended && !ends && !answers,
        };
        if is_new && (answers || ends) {
            return;
        }
        let now = at(self.now);
        for (pod_began, key) in keys(connection) {
            if is_new {
                let none = Way::default();
                let fresh = Entry {
                    key,
                    pod_began,
                    out: none,
                    into: none,
                    born: self.now.unsigned_abs() * 1_000_000,
                    first: now,
                    last: now,
                    handshake_micros: 0,
                    ended: false,
                    asked: None,
                    error: None,
                    unserved: None,
                };
                if let Some(old) = self.map.insert(key, fresh) {
                    self.bells.push_back(Bell::Replaced(old));
                }
            }
            let Some(entry) = self.map.get_mut(&key) else { continue };
            let way = if pod_began == answers { &mut entry.into } else { &mut entry.out };
            way.packets += 1;
            way.bytes += 40;
            entry.last = now;
            if ends && key.transport == Transport::TCP && !entry.ended {
                entry.ended = true;
                self.bells.push_back(Bell::Ended(*entry));
            }
        }
        let counted = self.counted.entry(connection).or_default();
        if is_new {
            counted.push((0, 0));
        }
        let last = counted.last_mut().unwrap();
        if answers {
            last.1 += 1;
        } else {
            last.0 += 1;
        }
        // No two packets are at the same time.
        self.now += 1;
    }
}

impl Entries for BTreeMap<EntryKey, Entry> {
    type Error = Infallible;

    fn look(&mut self, entry: &Entry) -> Result<Option<Entry>, Infallible> {
        Ok(self.get(&entry.key).copied())
    }

    fn take(&mut self, entry: &Entry) -> Result<Option<Entry>, Infallible> {
        let is_same = |there: &Entry| there.born == entry.born && there.packets() == entry.packets();
        Ok(if self.get(&entry.key).is_some_and(is_same) { self.remove(&entry.key) } else { None })
    }
}

struct Reader {
    aggregator: Aggregator,
    names: Names,
    told: Vec<Record>,
}

impl Reader {
    fn aggregator(now: Timestamp) -> Aggregator {
        Aggregator::new("node1".into(), Uuid::from_u128(7), now, Timeouts::default())
    }

    fn new() -> Self {
        Self { aggregator: Self::aggregator(at(0)), names: names(), told: Vec::new() }
    }

    fn with(&mut self, now: i64, act: impl FnOnce(&mut Aggregator, &mut Scene<'_>, &mut Vec<Record>)) {
        let mut scene = Scene { now: at(now), names: &self.names, translations: &mut () };
        act(&mut self.aggregator, &mut scene, &mut self.told);
    }

    fn drain(&mut self, kernel: &mut Kernel, hears: bool) {
        let bells: Vec<Bell> = kernel.bells.drain(..).collect();
        let (now, map) = (kernel.now, &mut kernel.map);
        self.with(now, |aggregator, scene, told| {
            for bell in bells {
                match bell {
                    Bell::Ended(entry) if hears => aggregator.rang(&entry, scene, told),
                    Bell::Ended(_) => {}
                    // The kernel keeps counting in the old entry where it cannot ring.
                    Bell::Replaced(entry) => aggregator.over(&entry, scene),
                }
            }
            aggregator.take_ended(map, scene, told).unwrap();
            aggregator.settle(false, scene, told);
        });
    }

    fn scan(&mut self, kernel: &mut Kernel) {
        self.drain(kernel, true);
        let entries: Vec<Entry> = kernel.map.values().copied().collect();
        self.with(kernel.now, |aggregator, scene, told| {
            for entry in entries {
                if aggregator.observe(&entry, scene, told) == Fate::Over {
                    let last = kernel.map.remove(&entry.key).unwrap();
                    aggregator.over(&last, scene);
                }
            }
            aggregator.sweep(scene, told);
        });
    }

    fn restart(&mut self, kernel: &Kernel) {
        self.with(kernel.now, |aggregator, scene, told| aggregator.settle(true, scene, told));
        self.aggregator = Self::aggregator(at(kernel.now));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Packet { connection: usize, answers: bool, ends: bool },
    Wait(i64),
    Drain { hears: bool },
    Scan,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..CONNECTIONS.len(), any::<bool>(), prop::bool::weighted(0.25))
            .prop_map(|(connection, answers, ends)| Step::Packet { connection, answers, ends }),
        2 => prop_oneof![1..20_i64, 150..250_i64, 900..1100_i64, 59_000..61_000_i64].prop_map(Step::Wait),
        2 => prop::bool::weighted(0.75).prop_map(|hears| Step::Drain { hears }),
        2 => Just(Step::Scan),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn each_flow_is_told_once_with_all_its_packets_whatever_is_read_when(
        steps in prop::collection::vec(step(), 0..200)
    ) {
        let (mut kernel, mut reader) = (Kernel { now: 1, ..Kernel::default() }, Reader::new());
        for step in steps {
            match step {
                Step::Packet { connection, answers, ends } => kernel.packet(connection, answers, ends),
                Step::Wait(millis) => kernel.now += millis,
                Step::Drain { hears } => reader.drain(&mut kernel, hears),
                Step::Scan => reader.scan(&mut kernel),
                Step::Restart => reader.restart(&kernel),
            }
        }
        kernel.now += 3 * 3_600_000;
        (0..4).for_each(|_| reader.scan(&mut kernel));
        prop_assert!(kernel.map.is_empty() && reader.aggregator.is_empty() && reader.aggregator.live.is_empty());
        let mut told: BTreeMap<usize, BTreeMap<(Timestamp, _), (u64, u64)>> = BTreeMap::new();
        let mut ended = std::collections::BTreeSet::new();
        for record in reader.told {
            let from = record.source.at().to_string();
            let connection = CONNECTIONS.iter().position(|connection| connection.0 == from).unwrap();
            told.entry(connection).or_default().insert((record.start, record.id), (record.sent.packets, record.received.packets));
            prop_assert!(!ended.contains(&record.id), "told after its end");
            if record.report == Report::End {
                ended.insert(record.id);
            }
        }
        prop_assert_eq!(ended.len(), told.values().map(BTreeMap::len).sum::<usize>());
        let told: BTreeMap<usize, Vec<(u64, u64)>> =
            told.into_iter().map(|(connection, of)| (connection, of.into_values().collect())).collect();
        prop_assert_eq!(told, kernel.counted);
    }
}

fn reports(reader: &Reader) -> Vec<(Report, Reporter, Class, Verdict)> {
    reader.told.iter().map(|record| (record.report, record.reporter, record.class, record.verdict)).collect()
}

#[test]
fn both_ends_of_a_node_make_one_record_that_is_told_as_it_begins_lasts_and_ends() {
    let (mut kernel, mut reader) = (Kernel { now: 1, ..Kernel::default() }, Reader::new());
    kernel.packet(0, false, false);
    reader.scan(&mut kernel);
    kernel.packet(0, true, false);
    reader.scan(&mut kernel);
    assert_eq!(reader.told.len(), 1, "it was told already");
    kernel.now += 60_000;
    reader.scan(&mut kernel);
    reader.scan(&mut kernel);
    assert_eq!(reader.told.len(), 2, "an answer, and nothing since");
    kernel.packet(0, false, true);
    reader.scan(&mut kernel);
    kernel.now += 2000;
    (0..2).for_each(|_| reader.scan(&mut kernel));
    let told = |report, reporter, verdict| (report, reporter, Class::PodPodSameNode, verdict);
    // The entry at the source's interface is read first.
    let expected = [
        told(Report::Start, Reporter::Source, Verdict::Unanswered),
        told(Report::Update, Reporter::Both, Verdict::Forwarded),
        told(Report::End, Reporter::Both, Verdict::Forwarded),
    ];
    assert_eq!(reports(&reader), expected);
}

#[test]
fn what_is_over_when_it_is_first_read_is_told_once_unless_it_goes_on() {
    let (mut kernel, mut reader) = (Kernel { now: 1, ..Kernel::default() }, Reader::new());
    let exchange = |kernel: &mut Kernel| {
        for (answers, ends) in [(false, false), (true, false), (false, true)] {
            kernel.packet(1, answers, ends);
        }
    };
    exchange(&mut kernel);
    reader.scan(&mut kernel);
    assert!(reader.told.is_empty(), "{:?}", reader.told);
    kernel.now += 2000;
    (0..2).for_each(|_| reader.scan(&mut kernel));
    let class = Class::PodPodOtherNode;
    assert_eq!(reports(&reader), [(Report::End, Reporter::Source, class, Verdict::Forwarded)]);
    assert_eq!((reader.told[0].sent.packets, reader.told[0].received.packets), (2, 1));
    exchange(&mut kernel);
    reader.scan(&mut kernel);
    kernel.now += 6000;
    kernel.packet(1, true, false);
    reader.scan(&mut kernel);
    assert_eq!(reports(&reader)[1..], [(Report::Start, Reporter::Source, class, Verdict::Forwarded)]);
}

#[test]
fn what_the_other_node_tells_is_secondary_here_and_what_nobody_answers_is_told_so() {
    let (mut kernel, mut reader) = (Kernel { now: 1, ..Kernel::default() }, Reader::new());
    kernel.packet(2, false, false);
    kernel.packet(1, false, false);
    reader.scan(&mut kernel);
    let expected = [
        (Report::Start, Reporter::Destination, Class::PodPodOtherNode, Verdict::Unanswered),
        (Report::Start, Reporter::Source, Class::PodPodOtherNode, Verdict::Unanswered),
    ];
    assert_eq!(reports(&reader), expected);
    assert_eq!(reader.told.iter().map(Record::is_secondary).collect::<Vec<_>>(), [true, false]);
    // A packet that never comes to the pod behind the other interface.
    kernel.packet(4, false, false);
    kernel.map.retain(|key, _| key.device != 1 || key.remote_port != 1004);
    kernel.now += 60_000;
    (0..3).for_each(|_| reader.scan(&mut kernel));
    let last = reader.told.iter().rfind(|record| record.source.port == 1004).unwrap();
    assert_eq!((last.report, last.reporter), (Report::End, Reporter::Source), "nothing was seen there");
}

#[test]
fn both_ends_are_one_flow_also_where_the_calendar_was_set_between_their_readings() {
    for (set, first) in [(-3_600_000, 0), (-3_600_000, 1), (3_600_000, 0), (3_600_000, 1)] {
        let (mut kernel, mut reader) = (Kernel { now: 7_200_000, ..Kernel::default() }, Reader::new());
        for (answers, ends) in [(false, false), (true, false), (false, true)] {
            kernel.packet(0, answers, ends);
        }
        let entries: Vec<Entry> = kernel.map.values().copied().collect();
        let (before, after) = (entries[first], entries[1 - first]);
        let by = SignedDuration::from_millis(set);
        let after = Entry { first: after.first + by, last: after.last + by, ..after };
        reader.with(kernel.now, |aggregator, scene, told| {
            for entry in [before, after] {
                let _ = aggregator.observe(&entry, scene, told);
            }
        });
        assert_eq!(reader.aggregator.len(), 1, "{set} ms, {first} first");
    }
}
