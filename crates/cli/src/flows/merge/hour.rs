//! A scripted hour of traffic, by a simulated clock: what is told of it equals the script.
//!
//! Three nodes count in simulated kernels, whose maps and bells their agents read every second. Flows of every class, of both families and of
//! several protocols begin all the time. Pods are restarted and others get their addresses at once, agents are restarted over the maps
//! that are there, and one node is lost.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use podnet_flow::{
    Aggregator, Class, Entry, Names, PodIdentity, Reporter, Transport, Way,
    aggregate::{Fate, Scene, Timeouts, Translations},
    entry::EntryKey,
    record::Key,
};
use podnet_model::ServiceKey;
use uuid::Uuid;

use super::*;

const HOUR: i64 = 3_600_000;
const NODES: usize = 3;
const PODS: usize = 4;
/// The node that is lost, and when.
const LOST: (usize, i64) = (2, 2_700_500);
/// As an agent of podnet is down while it is renewed.
const DOWN: i64 = 2_300;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
}

/// A pod's place: its node and its number there. What stands in it changes, its addresses do not.
type Place = (usize, usize);

fn address((node, pod): Place, six: bool) -> IpAddr {
    if six { format!("fd00::{node}:{}", pod + 1) } else { format!("10.0.{node}.{}", pod + 1) }.parse().unwrap()
}

fn node_address(node: usize, six: bool) -> IpAddr {
    if six { format!("fd01::{}", node + 1) } else { format!("172.16.0.{}", node + 1) }.parse().unwrap()
}

fn service_address(place: Place, six: bool) -> IpAddr {
    let (node, pod) = place;
    if six { format!("fd02::{node}:{}", pod + 1) } else { format!("10.96.{node}.{}", pod + 1) }.parse().unwrap()
}

fn world(six: bool) -> IpAddr {
    if six { "2001:db8::9" } else { "203.0.113.9" }.parse().unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Pod(Place),
    Node(usize),
    World,
}

impl Who {
    fn address(self, six: bool) -> IpAddr {
        match self {
            Self::Pod(place) => address(place, six),
            Self::Node(node) => node_address(node, six),
            Self::World => world(six),
        }
    }

    const fn place(self) -> Option<Place> {
        match self {
            Self::Pod(place) => Some(place),
            Self::Node(_) | Self::World => None,
        }
    }
}

/// A flow of the script.
#[derive(Clone, Debug)]
struct Line {
    class: Class,
    transport: Transport,
    from: (Who, SocketAddr),
    to: (Who, SocketAddr),
    /// The Service's address, and whether the socket chose, so that the packet is addressed to the pod.
    asked: Option<(SocketAddr, bool)>,
    /// What stands at its ends as it begins.
    uids: [Option<Arc<str>>; 2],
    packets: [u64; 2],
    began: i64,
    is_over: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Of a flow, by who answers or not; the last one.
    Packet(usize, bool, bool),
    Begin,
    /// A pod goes, and with it its interface.
    Renew(Place),
    /// Agents learn that it is gone.
    Release(Place, Arc<str>),
    /// Another pod has its addresses, and whoever asked the other one goes on with it, from the same ports.
    Stand(Place, Vec<usize>),
    /// Agents learn of the pod there.
    Learn(Place),
    Stop(usize),
    Start(usize),
    Read(usize),
    Lose(usize),
}

#[derive(Default)]
struct Kernel {
    map: BTreeMap<EntryKey, Entry>,
    bells: Vec<(bool, Entry)>,
}

/// What is translated on its way, by what it was addressed to.
#[derive(Clone, Default)]
struct Stack(HashMap<Key, SocketAddr>);

impl Translations for Stack {
    fn onward(&mut self, key: &Key) -> Option<Key> {
        self.0.get(key).map(|backend| Key { destination: *backend, ..*key })
    }

    fn origin(&mut self, _: &Key) -> Option<Key> {
        None
    }
}

/// An agent, or where there is none just now.
struct Agent {
    aggregator: Option<Aggregator>,
    names: Names,
    is_lost: bool,
}

struct World {
    now: i64,
    random: u64,
    events: BinaryHeap<Reverse<(i64, u64, Event)>>,
    count: u64,
    kernels: Vec<Kernel>,
    stacks: Vec<Stack>,
    agents: Vec<Agent>,
    /// Each with its interface, and since when it is there.
    pods: BTreeMap<Place, (Arc<PodIdentity>, u32, i64)>,
    devices: u32,
    script: Vec<Line>,
    merge: Merge,
    told: Vec<Arc<Record>>,
}

impl World {
    fn new() -> Self {
        let agent = |node: usize| Agent {
            aggregator: Some(Self::aggregator(node, 0)),
            names: Self::fixed_names(),
            is_lost: false,
        };
        let mut world = Self {
            now: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            events: BinaryHeap::new(),
            count: 0,
            kernels: (0..NODES).map(|_| Kernel::default()).collect(),
            stacks: vec![Stack::default(); NODES],
            agents: (0..NODES).map(agent).collect(),
            pods: BTreeMap::new(),
            devices: 0,
            script: Vec::new(),
            merge: Merge::new((0..NODES).map(|node| format!("node{node}")).collect(), true),
            told: Vec::new(),
        };
        for place in (0..NODES).flat_map(|node| (0..PODS).map(move |pod| (node, pod))) {
            world.stand(place);
            world.learn(place);
        }
        world
    }

    fn aggregator(node: usize, now: i64) -> Aggregator {
        let boot = Uuid::from_u128(node as u128 + 1);
        Aggregator::new(format!("node{node}").as_str().into(), boot, at(now), Timeouts::default())
    }

    /// Of nodes and Services, which stay.
    fn fixed_names() -> Names {
        let mut names = Names::default();
        let both = [false, true];
        let nodes = (0..NODES)
            .flat_map(|node| both.map(|six| (node_address(node, six), format!("node{node}").as_str().into())));
        names.set_nodes(nodes.collect());
        let places = (0..NODES).flat_map(|node| (0..PODS).map(move |pod| (node, pod)));
        let service = |place: Place, six: bool, transport: Transport| {
            let at = SocketAddr::new(service_address(place, six), 80);
            ((at, transport), ServiceKey::new("default", &format!("service-{}-{}", place.0, place.1)))
        };
        let all = places.flat_map(|place| {
            both.into_iter().flat_map(move |six| {
                [Transport::TCP, Transport::UDP, Transport::SCTP].map(|transport| service(place, six, transport))
            })
        });
        names.set_services(all.collect());
        names
    }

    /// The same numbers each time.
    fn pick(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % below
    }

    fn after(&mut self, millis: i64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((self.now + millis, self.count, event)));
    }

    fn stand(&mut self, place: Place) {
        self.devices += 1;
        let uid = format!("pod-{}-{}-{}", place.0, place.1, self.devices);
        let pod = PodIdentity {
            namespace: "default".into(),
            name: uid.as_str().into(),
            uid: uid.as_str().into(),
            node: format!("node{}", place.0).as_str().into(),
            labels: BTreeMap::new(),
            owner: None,
            service_account: None,
        };
        self.pods.insert(place, (Arc::new(pod), self.devices, self.now));
    }

    fn learn(&mut self, place: Place) {
        let Some((pod, _, since)) = self.pods.get(&place).cloned() else { return };
        for agent in self.agents.iter_mut().filter(|agent| agent.aggregator.is_some()) {
            [false, true]
                .into_iter()
                .for_each(|six| agent.names.hold(address(place, six), &pod, at(since), at(self.now)));
        }
    }

    fn release(&mut self, place: Place, uid: &str) {
        for agent in self.agents.iter_mut().filter(|agent| agent.aggregator.is_some()) {
            [false, true].into_iter().for_each(|six| agent.names.release(address(place, six), uid, at(self.now)));
        }
    }

    fn is_lost(&self, who: Who) -> bool {
        match who {
            Who::Pod((node, _)) | Who::Node(node) => self.agents[node].is_lost,
            Who::World => false,
        }
    }

    /// A new flow, with all its packets.
    fn begin(&mut self) {
        let six = self.pick(2) == 1;
        let place = |world: &mut Self| (world.pick(NODES), world.pick(PODS));
        let (from, to) = (place(self), place(self));
        let other = (from.1 + 1 + self.pick(PODS - 1)) % PODS;
        let (class, from, to) = match self.pick(7) {
            0 => (Class::PodPodSameNode, Who::Pod(from), Who::Pod((from.0, other))),
            1 => {
                (Class::PodPodOtherNode, Who::Pod(from), Who::Pod(((from.0 + 1 + self.pick(NODES - 1)) % NODES, to.1)))
            }
            2 => (Class::PodService, Who::Pod(from), Who::Pod((to.0, (from.1 + 1) % PODS))),
            3 => (Class::PodNode, Who::Pod(from), Who::Node(to.0)),
            4 => (Class::PodWorld, Who::Pod(from), Who::World),
            5 => (Class::WorldPod, Who::World, Who::Pod(to)),
            _ => (Class::NodePod, Who::Node(from.0), Who::Pod(to)),
        };
        let is_there = |who: Who| !self.is_lost(who) && who.place().is_none_or(|place| self.pods.contains_key(&place));
        if !is_there(from) || !is_there(to) {
            return;
        }
        let transport = [Transport::TCP, Transport::TCP, Transport::UDP, Transport::SCTP][self.pick(4)];
        // Used again within the hour.
        let port = 10_000 + u16::try_from(self.script.len() % 3_001).unwrap();
        let (source, port_asked) = (SocketAddr::new(from.address(six), port), 80);
        let destination = SocketAddr::new(to.address(six), port_asked);
        let asked = match (class, to) {
            (Class::PodService, Who::Pod(place)) => {
                Some((SocketAddr::new(service_address(place, six), port_asked), self.pick(2) == 1))
            }
            _ => None,
        };
        let uids = [from, to].map(|who| who.place().map(|place| self.pods[&place].0.uid.clone()));
        if let (Some((at, false)), Who::Pod((node, _))) = (asked, from) {
            self.stacks[node].0.insert(Key { source, destination: at, transport }, destination);
        }
        self.goes(Line {
            class,
            transport,
            from: (from, source),
            to: (to, destination),
            asked,
            uids,
            packets: [0; 2],
            began: self.now,
            is_over: false,
        });
    }

    /// All packets of a flow, the first one now.
    fn goes(&mut self, line: Line) {
        let id = self.script.len();
        self.script.push(line);
        let mut when = 0;
        for _ in 0..self.pick(12) {
            // Never as long as a flow of datagrams waits for the next one.
            when += 1 + i64::try_from(self.pick(25_000)).unwrap();
            let answers = self.pick(2) == 1;
            self.after(when, Event::Packet(id, answers, false));
        }
        self.after(when + 1, Event::Packet(id, false, true));
        self.packet(id, false, false);
    }

    /// A packet as both ends' nodes count it.
    fn packet(&mut self, id: usize, answers: bool, ends: bool) {
        let line = self.script[id].clone();
        if line.is_over || self.is_lost(line.from.0) || self.is_lost(line.to.0) {
            return;
        }
        let is_new = line.packets == [0; 2];
        let sides = [(line.from, line.to, true), (line.to, line.from, false)];
        for ((who, own), (_, peer), began) in sides {
            let Some(place) = who.place() else { continue };
            // At the client the packet is addressed to the Service where the stack translates it.
            let peer = line.asked.filter(|(_, at_socket)| began && !at_socket).map_or(peer, |(service, _)| service);
            let key = EntryKey {
                device: self.pods[&place].1,
                local: own.ip(),
                remote: peer.ip(),
                local_port: own.port(),
                remote_port: peer.port(),
                transport: line.transport,
            };
            let kernel = &mut self.kernels[place.0];
            if is_new {
                let none = Way::default();
                let now = at(self.now);
                let fresh = Entry {
                    key,
                    pod_began: began,
                    out: none,
                    into: none,
                    born: self.now.unsigned_abs() * 1000 + id as u64,
                    first: now,
                    last: now,
                    handshake_micros: 0,
                    ended: false,
                    asked: line.asked.filter(|(_, at_socket)| began && *at_socket).map(|(service, _)| service),
                    error: None,
                };
                if let Some(old) = kernel.map.insert(key, fresh) {
                    kernel.bells.push((true, old));
                }
                kernel.bells.push((false, fresh));
            }
            let Some(entry) = kernel.map.get_mut(&key) else { panic!("{line:?} is not counted at {place:?}") };
            let way = if began == answers { &mut entry.into } else { &mut entry.out };
            way.packets += 1;
            way.bytes += 100;
            entry.last = at(self.now);
            if ends && line.transport == Transport::TCP {
                entry.ended = true;
                kernel.bells.push((false, *entry));
            }
        }
        let line = &mut self.script[id];
        line.packets[usize::from(answers)] += 1;
        line.is_over |= ends;
    }

    /// The pod is gone and its connections with it. A second later the next one has its addresses.
    fn renew(&mut self, place: Place) {
        if self.is_lost(Who::Pod(place)) {
            return;
        }
        let concerns = |line: &Line| !line.is_over && [line.from.0, line.to.0].contains(&Who::Pod(place));
        let open: Vec<usize> = (0..self.script.len()).filter(|id| concerns(&self.script[*id])).collect();
        open.iter().for_each(|id| self.packet(*id, false, true));
        let Some((pod, ..)) = self.pods.remove(&place) else { return };
        self.after(300, Event::Release(place, pod.uid.clone()));
        self.after(1000, Event::Stand(place, open));
        self.after(1400, Event::Learn(place));
    }

    /// Connections are made anew from the same ports; who goes on with datagrams at the other's node does not know that there is another pod.
    fn resume(&mut self, place: Place, open: Vec<usize>) {
        for id in open {
            let line = self.script[id].clone();
            let was_asked = line.to.0 == Who::Pod(place) && line.from.0 != Who::Pod(place);
            let may = was_asked
                && !self.is_lost(line.from.0)
                && line.from.0.place().is_none_or(|from| self.pods.contains_key(&from));
            if may && (line.transport == Transport::TCP || line.from.0.place().is_none()) {
                let uids = [line.uids[0].clone(), Some(self.pods[&place].0.uid.clone())];
                self.goes(Line { uids, packets: [0; 2], began: self.now, is_over: false, ..line });
            }
        }
    }

    fn with(&mut self, node: usize, act: impl FnOnce(&mut Kernel, &mut Aggregator, &mut Scene<'_>, &mut Vec<Record>)) {
        let agent = &mut self.agents[node];
        let Some(aggregator) = &mut agent.aggregator else { return };
        let mut told = Vec::new();
        let mut scene = Scene { now: at(self.now), names: &agent.names, translations: &mut self.stacks[node] };
        act(&mut self.kernels[node], aggregator, &mut scene, &mut told);
        agent.names.forget(at(self.now));
        for record in told {
            let heard = self.merge.hear(Heard::Item(Item::Flow(Arc::new(record))), at(self.now));
            self.take(heard);
        }
    }

    fn take(&mut self, items: impl IntoIterator<Item = Item>) {
        self.told.extend(items.into_iter().filter_map(|item| match item {
            Item::Flow(record) => Some(record),
            Item::Gap(_) => None,
        }));
    }

    /// As an agent reads.
    fn read(&mut self, node: usize) {
        self.with(node, |kernel, aggregator, scene, told| {
            for (replaced, entry) in kernel.bells.drain(..) {
                if replaced {
                    aggregator.over(&entry, scene);
                } else {
                    let _ = aggregator.observe(&entry, scene, told);
                }
            }
            aggregator.settle(false, scene, told);
            let entries: Vec<Entry> = kernel.map.values().copied().collect();
            for entry in entries {
                if aggregator.observe(&entry, scene, told) == Fate::Over {
                    let last = kernel.map.remove(&entry.key).unwrap();
                    aggregator.over(&last, scene);
                }
            }
            aggregator.sweep(scene, told);
        });
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Packet(id, answers, ends) => self.packet(id, answers, ends),
            Event::Begin => self.begin(),
            Event::Renew(place) => self.renew(place),
            Event::Release(place, uid) => self.release(place, &uid),
            Event::Stand(place, open) => {
                self.stand(place);
                self.resume(place, open);
            }
            Event::Learn(place) => self.learn(place),
            Event::Read(node) => {
                self.read(node);
                let overdue = self.merge.overdue(at(self.now));
                self.take(overdue);
                self.after(1000, Event::Read(node));
            }
            Event::Stop(node) => {
                self.read(node);
                self.with(node, |_, aggregator, scene, told| aggregator.settle(true, scene, told));
                self.agents[node].aggregator = None;
                self.after(DOWN, Event::Start(node));
            }
            Event::Start(node) => {
                self.agents[node].aggregator = Some(Self::aggregator(node, self.now));
                let mut names = Self::fixed_names();
                // As it was written down. Who is not there any more has its addresses no more.
                names.restore(self.agents[node].names.tenancies());
                let is_there = |uid: &str| self.pods.values().any(|(pod, ..)| *pod.uid == *uid);
                let gone: Vec<_> =
                    names.tenancies().filter(|held| held.until.is_none() && !is_there(&held.pod.uid)).collect();
                gone.iter().for_each(|held| names.release(held.addr, &held.pod.uid, at(self.now)));
                self.agents[node].names = names;
                let places: Vec<Place> = self.pods.keys().copied().collect();
                places.into_iter().for_each(|place| self.learn(place));
            }
            Event::Lose(node) => {
                self.agents[node].is_lost = true;
                self.agents[node].aggregator = None;
                let heard = Heard::Lost { agent: format!("node{node}"), why: "gone".into() };
                assert!(self.merge.hear(heard, at(self.now)).is_none());
            }
        }
    }

    fn runs(&mut self, until: i64) {
        while let Some(Reverse((when, ..))) = self.events.peek().filter(|next| next.0.0 <= until) {
            self.now = *when;
            let Some(Reverse((_, _, event))) = self.events.pop() else { return };
            self.happens(event);
        }
    }
}

#[test]
fn the_records_of_a_scripted_hour_equal_the_script() {
    let mut world = World::new();
    (0..NODES).for_each(|node| world.after(i64::try_from(node).unwrap() * 300, Event::Read(node)));
    let mut when = 0;
    while when < HOUR - 400_000 {
        when += 1 + i64::try_from(world.pick(1000)).unwrap();
        world.after(when, Event::Begin);
    }
    for minute in 1..50 {
        let place = (world.pick(NODES), world.pick(PODS));
        world.after(minute * 60_000 + 123, Event::Renew(place));
    }
    for (node, minute) in [(0, 7), (1, 13), (0, 29), (1, 47)] {
        world.after(minute * 60_000 + 30_456, Event::Stop(node));
    }
    world.after(LOST.1, Event::Lose(LOST.0));
    world.runs(HOUR);
    // What nobody ended waits for as long as TCP may be silent.
    for _ in 0..3 {
        world.now += HOUR;
        (0..NODES).for_each(|node| world.read(node));
        world.now += 1000;
        (0..NODES).for_each(|node| world.read(node));
    }
    is_told_as_it_was(&world);
}

type What = (String, [Option<Arc<str>>; 2], [u64; 2]);

fn is_told_as_it_was(world: &World) {
    let mut told: BTreeMap<What, i32> = BTreeMap::new();
    for record in &world.told {
        let uid = |end: &podnet_flow::record::End| end.pod.as_ref().map(|pod| pod.uid.clone());
        let asked = record.service.as_ref().map(|asked| SocketAddr::new(asked.ip, asked.port));
        let words = format!(
            "{} {} {} > {} {asked:?}",
            record.class,
            record.protocol,
            record.source.at(),
            record.destination.at()
        );
        let packets = [record.sent.packets, record.received.packets];
        assert_eq!([record.sent.bytes, record.received.bytes], packets.map(|packets| packets * 100));
        *told.entry((words, [uid(&record.source), uid(&record.destination)], packets)).or_default() += 1;
    }
    let mut classes = BTreeMap::new();
    for line in &world.script {
        // Of what the lost node alone counted, nobody can tell the end.
        let teller = line.from.0.place().or(line.to.0.place()).unwrap().0;
        let witness = line.to.0.place().is_some_and(|(node, _)| node != LOST.0);
        let asked = line.asked.map(|(at, _)| at);
        let words = |class: Class, asked: Option<SocketAddr>| {
            format!("{class} {} {} > {} {asked:?}", line.transport, line.from.1, line.to.1)
        };
        let what = |words: String| (words, line.uids.clone(), line.packets);
        let as_asked = what(words(line.class, asked));
        // Which Service was asked the lost node alone knew.
        let as_seen = (teller == LOST.0 && witness).then(|| what(words(Class::PodPodOtherNode, None)));
        let what =
            if told.get(&as_asked).is_some_and(|left| *left > 0) { as_asked } else { as_seen.unwrap_or(as_asked) };
        let left = told.get_mut(&what).map(|left| {
            *left -= 1;
            *left
        });
        let may_be_missing = teller == LOST.0 && !witness;
        let as_told = || {
            world.told.iter().filter(|record| record.source.at() == line.from.1 && record.destination.at() == line.to.1)
        };
        assert!(
            left.is_some_and(|left| left >= 0) || may_be_missing,
            "missing: {what:?} from {:?}, told {:#?}",
            line.began,
            as_told().collect::<Vec<_>>()
        );
        *classes.entry((line.class.to_string(), line.from.1.is_ipv6())).or_insert(0) += 1;
    }
    let extra: Vec<_> = told.iter().filter(|(_, left)| **left > 0).collect();
    assert!(extra.is_empty(), "{extra:#?}");
    assert!(classes.len() == 14 && classes.values().all(|count| *count > 100), "{classes:?}");
    assert!(world.told.iter().any(|record| record.reporter == Reporter::Destination && record.is_secondary()));
}
