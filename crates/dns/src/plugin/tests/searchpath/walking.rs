//! Resolvers that walk along their search path, and what they find there.

use std::{collections::BTreeMap, sync::Arc};

use domain::base::{Message, ToName};

use crate::{
    message::rtype,
    name::QueryName,
    server::{
        Outcome,
        fixture::{ARRIVAL, Rig, Waiting, query, told},
    },
};

/// What a pod of the namespace `web` has in its resolv.conf.
pub(super) const SEARCH: [&str; 4] = ["web.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"];

/// What is asked beyond the resolver: a name's addresses, or none where asking for it fails.
type World = BTreeMap<&'static str, Option<(Vec<[u8; 4]>, Vec<[u8; 16]>)>>;

fn world() -> World {
    let v4 = |last: u8| Some((vec![[10, 0, 0, last]], Vec::new()));
    let v6 = |last: u8| Some((Vec::new(), vec![[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]]));
    let both = |last: u8| v4(last).zip(v6(last)).map(|((v4, _), (_, v6))| (v4, v6));
    BTreeMap::from([
        ("db.web.svc.cluster.local", v4(1)),
        ("api.shop.svc.cluster.local", both(2)),
        ("six.web.svc.cluster.local", v6(3)),
        // In two places, of which the first counts; the second has what the first lacks.
        ("twin.cluster.local", v4(4)),
        ("twin.corp.example", both(5)),
        ("mixed.svc.cluster.local", v6(6)),
        ("mixed.corp.example", v4(7)),
        ("empty.cluster.local", Some((Vec::new(), Vec::new()))),
        ("empty.corp.example", v4(8)),
        ("www.example.org", both(9)),
        ("printer.corp.example", v4(10)),
        ("top", v4(11)),
        // The same with as many labels as no name of the namespace has.
        ("of.six.labels.web.svc.cluster.local", v6(3)),
        ("of.twin.labels.cluster.local", v4(4)),
        ("of.twin.labels.corp.example", both(5)),
        ("of.mixed.labels.svc.cluster.local", v6(6)),
        ("of.mixed.labels.corp.example", v4(7)),
        ("of.empty.labels.cluster.local", Some((Vec::new(), Vec::new()))),
        ("of.empty.labels.corp.example", v4(8)),
        ("of.ill.labels.web.svc.cluster.local", None),
        ("of.ill.labels.corp.example", v4(14)),
        ("of.broken.labels.svc.cluster.local", None),
        ("of.broken.labels.corp.example", both(15)),
        ("sad.www.example.org.cluster.local", None),
        ("sad.www.example.org", v4(16)),
        ("late.www.example.org", None),
        // Named as a pod of a Service of `web` is that is not there now.
        ("db-0.peers.corp.example", v4(17)),
        ("api.dev", v4(18)),
        ("example.com", both(21)),
        ("two.mixed.svc.cluster.local", v6(6)),
        ("two.mixed.corp.example", v4(7)),
        ("two.empty.cluster.local", Some((Vec::new(), Vec::new()))),
        ("two.empty.corp.example", v4(8)),
        ("two.ill.web.svc.cluster.local", None),
        ("two.ill.corp.example", v4(14)),
        ("_metrics._tcp.api.corp.example", v4(19)),
        ("_tcp.api.corp.example", v4(22)),
        ("east-1._zone.api.corp.example", v4(20)),
        // More dots than anybody's ndots.
        ("a.b.c.d.e.example.net", both(12)),
        ("f.g.h.i.j.k.corp.example", v4(13)),
        // Failures: at the first name, on the way, at the end.
        ("ill.web.svc.cluster.local", None),
        ("ill.corp.example", v4(14)),
        ("broken.svc.cluster.local", None),
        ("broken.corp.example", both(15)),
        ("sad.example.org.cluster.local", None),
        ("sad.example.org", v4(16)),
        ("late.example.org", None),
    ])
}

/// What an upstream says to a query.
fn upstream(world: &World, query: &[u8]) -> Vec<u8> {
    let (name, end) = QueryName::parse(query, 12).unwrap();
    let qtype = u16::from_be_bytes([query[end], query[end + 1]]);
    let text = name.to_string();
    let text = text.trim_end_matches('.');
    let (rcode, rdata): (u16, Vec<Vec<u8>>) = match (world.get(text), qtype) {
        (None, _) => (3, Vec::new()),
        (Some(None), _) => (2, Vec::new()),
        (Some(Some((v4, _))), rtype::A) => (0, v4.iter().map(|addr| addr.to_vec()).collect()),
        (Some(Some((_, v6))), _) => (0, v6.iter().map(|addr| addr.to_vec()).collect()),
    };
    let mut message = query[..end + 4].to_vec();
    message[2..4].copy_from_slice(&(0x8180 | rcode).to_be_bytes());
    message[6..8].copy_from_slice(&(rdata.len() as u16).to_be_bytes());
    message[10..12].copy_from_slice(&[0, 0]);
    for rdata in rdata {
        message.extend_from_slice(&[0xc0, 12]);
        message.extend_from_slice(&qtype.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        message.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        message.extend_from_slice(&rdata);
    }
    message
}

/// A node's resolver with a world behind it, and how often each was asked.
pub(super) struct Resolver {
    pub(super) rig: Rig,
    world: World,
    pub(super) asked: usize,
    pub(super) passed_on: usize,
}

/// What a client makes of one response.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Addresses(Vec<String>),
    NoData,
    NoName,
    Failed,
}

impl Resolver {
    pub(super) fn new(plugins: &str) -> Self {
        let rig = Rig::new(&format!(". {{\n{plugins}\ncache\nforward . 192.0.2.1\n}}\n"));
        Self { rig, world: world(), asked: 0, passed_on: 0 }
    }

    pub(super) fn response(&mut self, packet: &[u8]) -> Vec<u8> {
        self.asked += 1;
        let (outcome, response) = self.rig.handle_from(packet, &ARRIVAL);
        let Outcome::Later(later) = outcome else { return response };
        let mut waiting = Waiting::new(Arc::clone(&self.rig.server).finish(later));
        for _ in 0..50 {
            if let Some(response) = waiting.response() {
                return response;
            }
            for sent in self.rig.sent() {
                self.passed_on += 1;
                let answer = upstream(&self.world, &sent.message);
                sent.answered(answer);
            }
            // Another try may wait for its turn.
            self.rig.wake();
        }
        panic!("no response")
    }

    fn hear(&mut self, name: &str, qtype: u16) -> Heard {
        let response = self.response(&query(name, qtype));
        let kind = if qtype == rtype::A { "A " } else { "AAAA " };
        let addresses: Vec<String> = told(&response).into_iter().filter(|line| line.starts_with(kind)).collect();
        match told(&response)[0].as_str() {
            "NOERROR" if addresses.is_empty() => Heard::NoData,
            "NOERROR" => {
                let message = Message::from_octets(response).unwrap();
                // What a resolver calls the canonical name.
                let owner = message.answer().unwrap().last().unwrap().unwrap().owner().to_vec().to_string();
                Heard::Addresses(addresses.into_iter().chain([owner.to_lowercase()]).collect())
            }
            "NXDOMAIN" => Heard::NoName,
            _ => Heard::Failed,
        }
    }

    /// glibc's walk (`resolver(3)`): whatever has no addresses is passed by; how it ended is told by what was passed.
    pub(super) fn glibc(&mut self, name: &str, types: &[u16], ndots: usize) -> String {
        let searched = SEARCH.iter().map(|place| format!("{name}.{place}"));
        let itself = [name.to_owned()];
        let names: Vec<String> = if name.matches('.').count() >= ndots {
            itself.into_iter().chain(searched).collect()
        } else {
            searched.chain(itself).collect()
        };
        let (mut no_data, mut failed) = (false, false);
        for name in names {
            let heard: Vec<Heard> = types.iter().map(|qtype| self.hear(&name, *qtype)).collect();
            if heard.iter().any(|heard| matches!(heard, Heard::Addresses(_))) {
                return format!("{heard:?}");
            }
            no_data |= heard.contains(&Heard::NoData);
            failed |= heard.contains(&Heard::Failed);
        }
        match (no_data, failed) {
            (true, _) => "no address".to_owned(),
            (_, true) => "try again".to_owned(),
            _ => "no such name".to_owned(),
        }
    }

    /// musl's walk: it goes on only from names that do not exist, and names with enough dots are searched for nowhere.
    pub(super) fn musl(&mut self, name: &str, types: &[u16], ndots: usize) -> String {
        let searched = SEARCH.iter().filter(|_| name.matches('.').count() < ndots);
        let names: Vec<String> = searched.map(|place| format!("{name}.{place}")).chain([name.to_owned()]).collect();
        for name in names {
            let heard: Vec<Heard> = types.iter().map(|qtype| self.hear(&name, *qtype)).collect();
            if heard.iter().any(|heard| *heard != Heard::NoName) {
                return format!("{heard:?}");
            }
        }
        "no such name".to_owned()
    }
}
