//! What passes between the places, as their nodes' kernels count it.

use std::net::SocketAddr;

use podnet_flow::{Class, Entry, Key, Transport, Way, entry::EntryKey};

use super::{Event, World};
use crate::flows::merge::hour::{
    NODES, PODS, at,
    script::{Chosen, Line, Place, Who, service_address},
};

impl World {
    fn is_lost(&self, who: Who) -> bool {
        match who {
            Who::Pod((node, _)) | Who::Node(node) => self.agents[node].is_lost,
            Who::World => false,
        }
    }

    /// A new flow, with all its packets.
    pub(super) fn begin(&mut self) {
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
        let (echo, kind) = if six { (Transport::ICMP6, 128) } else { (Transport::ICMP, 8) };
        let transports = [Transport::TCP, Transport::TCP, Transport::UDP, Transport::SCTP, echo];
        // Services are asked at ports.
        let choices = if class == Class::PodService { transports.len() - 1 } else { transports.len() };
        let transport = transports[self.pick(choices)];
        // Used again within the hour.
        let port = 10_000 + u16::try_from(self.script.len() % 3_001).unwrap();
        let port_asked = if transport == echo { kind } else { 80 };
        let (source, destination) =
            (SocketAddr::new(from.address(six), port), SocketAddr::new(to.address(six), port_asked));
        let asked = match (class, to) {
            (Class::PodService, Who::Pod(place)) => {
                let chosen = [Chosen::AtSocket, Chosen::OnTheWay, Chosen::Masqueraded][self.pick(3)];
                Some((SocketAddr::new(service_address(place, six), port_asked), chosen))
            }
            _ => None,
        };
        let uids = [from, to].map(|who| who.place().map(|place| self.pods[&place].0.uid.clone()));
        let line = Line {
            class,
            transport,
            from: (from, source),
            to: (to, destination),
            asked,
            uids,
            packets: [0; 2],
            began: self.now,
            last: self.now,
            is_over: false,
        };
        let (begun, seen) = (
            Key { source, destination: line.addressed(), transport },
            Key { source: line.seen_source(), destination, transport },
        );
        // Of an earlier one from the same port nothing is known any more.
        for stack in &mut self.stacks {
            stack.origin.remove(&seen);
        }
        if let (true, Some((node, _))) = (begun != seen, from.place()) {
            self.stacks[node].translate(begun, seen);
        }
        self.goes(line);
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
    pub(super) fn packet(&mut self, id: usize, answers: bool, ends: bool) {
        let line = self.script[id].clone();
        if line.is_over || self.is_lost(line.from.0) || self.is_lost(line.to.0) {
            return;
        }
        let is_new = line.packets == [0; 2];
        if let Some((node, _)) = line.from.0.place() {
            let seen = Key { source: line.seen_source(), destination: line.to.1, transport: line.transport };
            self.stacks[node].pass(seen, self.now);
        }
        let sides = [(line.from, line.addressed(), true), (line.to, line.seen_source(), false)];
        for ((who, own), peer, began) in sides {
            let Some(place) = who.place() else { continue };
            // Of an echo both ends have the same.
            let (local_port, remote_port) =
                if line.is_echo() { (line.from.1.port(), line.to.1.port()) } else { (own.port(), peer.port()) };
            let key = EntryKey {
                device: self.pods[&place].1,
                local: own.ip(),
                remote: peer.ip(),
                local_port,
                remote_port,
                transport: line.transport,
            };
            let kernel = &mut self.kernels[place.0];
            if is_new {
                let none = Way::default();
                let now = at(self.now);
                let at_socket = line.asked.filter(|(_, chosen)| began && *chosen == Chosen::AtSocket);
                let fresh = Entry {
                    key,
                    pod_began: began,
                    out: none,
                    into: none,
                    born: self.now.unsigned_abs() * 1_000_000 + id as u64,
                    first: now,
                    last: now,
                    handshake_micros: 0,
                    ended: false,
                    asked: at_socket.map(|(service, _)| service),
                    error: None,
                    unserved: None,
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
        line.last = self.now;
        line.is_over |= ends;
    }

    /// The pod is gone and its connections with it. A second later the next one has its addresses.
    pub(super) fn renew(&mut self, place: Place) {
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
    pub(super) fn resume(&mut self, place: Place, open: Vec<usize>) {
        for id in open {
            let line = self.script[id].clone();
            let was_asked = line.to.0 == Who::Pod(place) && line.from.0 != Who::Pod(place);
            let may = was_asked
                && !self.is_lost(line.from.0)
                && line.from.0.place().is_none_or(|from| self.pods.contains_key(&from));
            if may && (line.transport == Transport::TCP || line.from.0.place().is_none()) {
                let uids = [line.uids[0].clone(), Some(self.pods[&place].0.uid.clone())];
                let (began, last) = (self.now, self.now);
                self.goes(Line { uids, packets: [0; 2], began, last, is_over: false, ..line });
            }
        }
    }
}
