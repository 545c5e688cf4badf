//! Whether records and gaps together are what was sent, to whoever reads them however slowly.

use super::*;
use crate::{
    record::{Gap, GapAt, Item},
    store::{Bookmark, Page, Retention, Store},
};

/// Two pods, by their interfaces.
const PODS: [(u32, &str); 2] = [(1, "10.0.0.1"), (2, "10.0.0.2")];
/// For so many entries the kernel has room.
const ROOM: usize = 3;
/// For these records the past has.
const BYTES: usize = 4000;

/// Packets by the names of pods.
type ByPod = BTreeMap<String, u64>;

fn add(to: &mut ByPod, pod: Option<&Arc<PodIdentity>>, packets: u64) {
    if packets > 0 {
        *to.entry(pod.map_or_else(String::new, |pod| pod.name.to_string())).or_default() += packets;
    }
}

/// Somebody who follows flows that end.
struct Follower {
    bookmark: Bookmark,
    items: u64,
    packets: ByPod,
    /// Nothing went by of which they were told the number alone.
    knows_all: bool,
}

impl Follower {
    fn read(&mut self, store: &mut Store, most: usize) {
        let Page { missed, first, items } = store.page(&self.bookmark, most);
        self.items += missed.items();
        assert_eq!(first, self.items, "none is left out, and none comes twice");
        self.items += items.len() as u64;
        self.knows_all &= missed.unknown() == 0;
        missed.shares().for_each(|share| add(&mut self.packets, share.pod.as_ref(), share.sum.packets));
        for item in &items {
            match item {
                Item::Flow(record) if record.report == Report::End => {
                    add(&mut self.packets, record.source.pod.as_ref(), record.sent.packets + record.received.packets);
                }
                Item::Flow(_) | Item::Drops(_) => {}
                Item::Gap(gap) => add(&mut self.packets, gap.pod.as_ref(), gap.packets),
            }
        }
    }
}

struct Lab {
    now: i64,
    map: BTreeMap<EntryKey, Entry>,
    /// Packets that found no room, by interfaces.
    missed: BTreeMap<u32, u64>,
    sent: ByPod,
    reader: Reader,
    store: Store,
    followers: Vec<Follower>,
}

impl Lab {
    fn new() -> Self {
        let retention = Retention { time: SignedDuration::from_secs(100), bytes: BYTES };
        let mut store = Store::new(retention);
        let follower = |_| Follower { bookmark: store.enter(0), items: 0, packets: ByPod::new(), knows_all: true };
        let followers = (0..3).map(follower).collect();
        let (map, missed, sent) = (BTreeMap::new(), BTreeMap::new(), ByPod::new());
        Self { now: 1, map, missed, sent, reader: Reader::new(), store, followers }
    }

    fn pod(&self, device: u32) -> Option<Arc<PodIdentity>> {
        let (_, addr) = PODS.iter().find(|(index, _)| *index == device)?;
        match self.reader.names.holder(addr.parse().unwrap(), at(self.now)) {
            crate::names::Holder::Pod(pod) => Some(pod),
            _ => None,
        }
    }

    /// Packets of a pod, from a port of its to somebody outside, or back.
    fn packets(&mut self, (device, addr): (u32, &str), port: u16, answers: bool, packets: u64) {
        let key = EntryKey {
            device,
            local: addr.parse().unwrap(),
            remote: "192.0.2.9".parse().unwrap(),
            local_port: port,
            remote_port: 53,
            transport: Transport::UDP,
        };
        let pod = self.pod(device);
        add(&mut self.sent, pod.as_ref(), packets);
        let now = at(self.now);
        if !self.map.contains_key(&key) {
            if self.map.len() >= ROOM {
                *self.missed.entry(device).or_default() += packets;
                return;
            }
            let none = Way::default();
            let fresh = Entry {
                key,
                // The other end's port is the server's.
                pod_began: true,
                out: none,
                into: none,
                born: self.now.unsigned_abs(),
                first: now,
                last: now,
                handshake_micros: 0,
                ended: false,
                asked: None,
                error: None,
                unserved: None,
            };
            self.map.insert(key, fresh);
        }
        let entry = self.map.get_mut(&key).unwrap();
        let way = if answers { &mut entry.into } else { &mut entry.out };
        way.packets += packets;
        entry.last = now;
        self.now += 1;
    }

    /// A reading of the map, and what is told goes to the past.
    fn round(&mut self) {
        let now = at(self.now);
        let entries: Vec<Entry> = self.map.values().copied().collect();
        let map = &mut self.map;
        self.reader.with(self.now, |aggregator, scene, told| {
            for entry in entries {
                if aggregator.observe(&entry, scene, told) == Fate::Over {
                    let last = map.remove(&entry.key).unwrap();
                    aggregator.over(&last, scene);
                }
            }
            aggregator.sweep(scene, told);
        });
        for record in std::mem::take(&mut self.reader.told) {
            self.store.push(Item::Flow(Arc::new(record)), now);
        }
        for (device, packets) in std::mem::take(&mut self.missed) {
            let (pod, node) = (self.pod(device), "node1".into());
            let (at, device) = (GapAt::Kernel, Some(device.into()));
            let gap = Gap { start: now, end: now, node, at, device, pod, packets, bytes: 0, flows: 0 };
            self.store.push(Item::Gap(gap), now);
        }
        self.store.forget(now);
        self.now += 1;
    }

    fn step(&mut self, step: &Act) {
        match *step {
            Act::Packets { pod, port, answers, packets } => self.packets(PODS[pod], port, answers, packets),
            Act::Wait(millis) => self.now += millis,
            Act::Round => self.round(),
            Act::Read { follower, most } => self.followers[follower].read(&mut self.store, most),
            Act::AskAgain(follower) => {
                let follower = &mut self.followers[follower];
                self.store.leave(&follower.bookmark);
                follower.bookmark = self.store.enter(follower.items);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Packets {
        pod: usize,
        port: u16,
        answers: bool,
        packets: u64,
    },
    Wait(i64),
    Round,
    Read {
        follower: usize,
        most: usize,
    },
    /// For what is behind the last item that was read or told as missing.
    AskAgain(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..PODS.len(), 1000..1006_u16, any::<bool>(), 1..9_u64)
            .prop_map(|(pod, port, answers, packets)| Act::Packets { pod, port, answers, packets }),
        3 => prop_oneof![1..20_i64, 30_000..62_000_i64].prop_map(Act::Wait),
        4 => Just(Act::Round),
        // The first one reads most often, and the last one never before the end.
        3 => (prop_oneof![3 => Just(0_usize), 1 => Just(1)], 1..5_usize)
            .prop_map(|(follower, most)| Act::Read { follower, most }),
        1 => (0..2_usize).prop_map(Act::AskAgain),
    ]
}

proptest! {
    #[test]
    fn records_and_gaps_tell_of_each_pod_what_it_sent_whoever_reads_how_slowly(
        acts in prop::collection::vec(act(), 0..200)
    ) {
        let mut lab = Lab::new();
        acts.iter().for_each(|act| lab.step(act));
        for _ in 0..3 {
            lab.round();
            lab.now += 61_000;
        }
        (0..2).for_each(|_| lab.round());
        prop_assert!(lab.map.is_empty() && lab.reader.aggregator.is_empty());
        for follower in &mut lab.followers {
            while follower.items < lab.store.next() {
                follower.read(&mut lab.store, 2);
            }
            if follower.knows_all {
                prop_assert_eq!(&follower.packets, &lab.sent);
            }
        }
        prop_assert!(lab.followers[2].knows_all);
    }
}
