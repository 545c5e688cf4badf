//! Nodes whose kernels count, whose agents read that, and somebody who follows what these tell.

mod logs;
mod stack;
mod traffic;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::SocketAddr,
    sync::Arc,
};

use podnet_agent::flows::untold;
use podnet_flow::{
    Aggregator, Entry, Gap, Item, Names, PodIdentity, Record, Report, Transport,
    aggregate::{Fate, Scene, Timeouts},
    entry::EntryKey,
    record::GapAt,
};
use podnet_model::ServiceKey;
use uuid::Uuid;

use logs::Logs;
use stack::Stack;

use super::{
    DOWN, LOST, NODES, PODS, at,
    script::{Line, Place, address, node_address, service_address},
};
use crate::flows::{
    agents::Heard,
    merge::{Held, Merge},
};

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
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
    /// It tells nothing more, not even what it has read.
    Kill(usize),
    Start(usize),
    Read(usize),
    Lose(usize),
}

#[derive(Default)]
struct Kernel {
    map: BTreeMap<EntryKey, Entry>,
    bells: Vec<(bool, Entry)>,
}

/// An agent, or where there is none just now.
struct Agent {
    aggregator: Option<Aggregator>,
    names: Names,
    is_lost: bool,
    /// When it read last.
    read: i64,
    is_killed: bool,
    /// What the one before it lost, until it is told.
    unfinished: Option<Gap>,
}

pub(super) struct World {
    pub(super) now: i64,
    random: u64,
    events: BinaryHeap<Reverse<(i64, u64, Event)>>,
    count: u64,
    kernels: Vec<Kernel>,
    stacks: Vec<Stack>,
    agents: Vec<Agent>,
    /// Each with its interface, and since when it is there.
    pods: BTreeMap<Place, (Arc<PodIdentity>, u32, i64)>,
    devices: u32,
    pub(super) script: Vec<Line>,
    merge: Merge,
    held: Held,
    pub(super) told: Vec<Arc<Record>>,
    pub(super) gaps: Vec<Gap>,
    /// The ends that were heard of the lost node, while it was there.
    pub(super) of_lost: Vec<Arc<Record>>,
    pub(super) logs: Logs,
}

impl World {
    pub(super) fn new() -> Self {
        let agent = |node: usize| Agent {
            aggregator: Some(Self::aggregator(node, 0)),
            names: Self::fixed_names(),
            is_lost: false,
            read: 0,
            is_killed: false,
            unfinished: None,
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
            held: Held::default(),
            told: Vec::new(),
            gaps: Vec::new(),
            of_lost: Vec::new(),
            logs: Logs::new(at(0)),
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
    pub(super) fn pick(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % below
    }

    pub(super) fn after(&mut self, millis: i64, event: Event) {
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

    fn with(&mut self, node: usize, act: impl FnOnce(&mut Kernel, &mut Aggregator, &mut Scene<'_>, &mut Vec<Record>)) {
        let agent = &mut self.agents[node];
        let Some(aggregator) = &mut agent.aggregator else { return };
        let mut told = Vec::new();
        let mut scene = Scene { now: at(self.now), names: &agent.names, translations: &mut self.stacks[node] };
        act(&mut self.kernels[node], aggregator, &mut scene, &mut told);
        agent.names.forget(at(self.now));
        let gap = agent.unfinished.take().map(Item::Gap);
        let flows = told.into_iter().map(|record| Item::Flow(Arc::new(record)));
        let (told, now): (Vec<Item>, _) = (gap.into_iter().chain(flows).collect(), (at(self.now), self.now));
        self.logs.tell(node, &told, now);
        self.logs.ask(node, &self.agents[node].names, &mut self.stacks, now);
        for item in told {
            if let Item::Flow(record) = &item
                && node == LOST.0
                && record.report == Report::End
            {
                self.of_lost.push(Arc::clone(record));
            }
            let heard = self.merge.hear(Heard::Item(item), at(self.now));
            self.held.add(heard, at(self.now));
        }
    }

    /// As an agent reads.
    pub(super) fn read(&mut self, node: usize) {
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
        if self.agents[node].aggregator.is_some() {
            self.agents[node].read = self.now;
        }
    }

    /// As it is told to who follows.
    pub(super) fn tell(&mut self) {
        let now = at(self.now);
        self.held.add(self.merge.overdue(now), now);
        let due = self.held.due(now, |item| self.merge.hold(item));
        let told = self.merge.told(due);
        self.merge.forget(now);
        self.take(told);
    }

    /// What is held when that ends.
    pub(super) fn finish(&mut self) {
        let told = self.merge.told(std::mem::take(&mut self.held).all());
        self.take(told);
        (0..NODES).for_each(|node| self.logs.end(node, (at(self.now), self.now), false));
    }

    fn take(&mut self, items: Vec<Item>) {
        for item in items {
            match item {
                Item::Flow(record) => self.told.push(record),
                Item::Gap(gap) => self.gaps.push(gap),
                Item::Drops(drops) => panic!("nothing is dropped: {drops:?}"),
            }
        }
    }

    /// What an agent tells first where the one before it was killed: that one's file says when it read last.
    fn lost_by_killed(&self, node: usize) -> Gap {
        let (told, now) = (at(self.agents[node].read), at(self.now));
        let (start, end) = untold((Some(told), None), (true, false), true, now).unwrap();
        let (node, at) = (format!("node{node}").as_str().into(), GapAt::Agent);
        Gap { start, end, node, at, device: None, pod: None, packets: 0, bytes: 0, flows: 0 }
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
                self.tell();
                self.after(1000, Event::Read(node));
            }
            Event::Stop(node) => {
                self.read(node);
                self.with(node, |_, aggregator, scene, told| aggregator.settle(true, scene, told));
                self.agents[node].aggregator = None;
                self.logs.end(node, (at(self.now), self.now), false);
                self.after(DOWN, Event::Start(node));
            }
            Event::Kill(node) => {
                (self.agents[node].aggregator, self.agents[node].is_killed) = (None, true);
                self.logs.end(node, (at(self.now), self.now), true);
                self.after(DOWN, Event::Start(node));
            }
            Event::Start(node) => {
                if std::mem::take(&mut self.agents[node].is_killed) {
                    self.agents[node].unfinished = Some(self.lost_by_killed(node));
                }
                self.agents[node].aggregator = Some(Self::aggregator(node, self.now));
                self.logs.begin(node, at(self.now));
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
                self.logs.end(node, (at(self.now), self.now), true);
                let heard = Heard::Lost { agent: format!("node{node}"), why: "gone".into() };
                assert!(self.merge.hear(heard, at(self.now)).is_none());
            }
        }
    }

    pub(super) fn runs(&mut self, until: i64) {
        while let Some(Reverse((when, ..))) = self.events.peek().filter(|next| next.0.0 <= until) {
            self.now = *when;
            let Some(Reverse((_, _, event))) = self.events.pop() else { return };
            self.happens(event);
        }
    }
}
