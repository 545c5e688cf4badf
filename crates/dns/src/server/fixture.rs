//! A server with its surroundings, for tests: questions as text, answers as text.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{
    base::{Message, iana::Rtype, name::ParsedName},
    rdata::AllRecordData,
};
use podnet_model::{Change, Namespace};

use super::{Arrival, Exchange, Outcome, Progress, Server, Transport};
use crate::{Config, Environment, message, name::Name, zone::Cluster};

pub(crate) const ARRIVAL: Arrival = Arrival {
    from: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 244, 1, 2)), 4000),
    transport: Transport::Udp,
    port: 53,
};

pub(crate) struct Rig {
    pub(crate) server: Server<u32>,
    pub(crate) cluster: Cluster,
    pub(crate) start: Instant,
    pub(crate) events: Arc<Mutex<Vec<String>>>,
}

fn server(corefile: &str, cluster: &Cluster, events: &Arc<Mutex<Vec<String>>>) -> Server<u32> {
    let config = Config::load("Corefile", corefile, &Environment::EMPTY).unwrap();
    let ids = AtomicU16::new(1000);
    let events = Arc::clone(events);
    Server::new(
        config,
        cluster,
        1,
        Arc::default(),
        Box::new(move || ids.fetch_add(1, Ordering::Relaxed)),
        Box::new(move |event| events.lock().unwrap().push(format!("{event:?}"))),
    )
}

impl Rig {
    pub(crate) fn new(corefile: &str) -> Self {
        let (cluster, events) = (Cluster::default(), Arc::default());
        Self { server: server(corefile, &cluster, &events), cluster, start: Instant::now(), events }
    }

    pub(crate) fn reload(&mut self, corefile: &str) {
        self.server = server(corefile, &self.cluster, &self.events);
        self.server.set_synced();
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        self.server.apply(&mut self.cluster, change);
    }

    pub(crate) fn namespace(&mut self, namespace: &Namespace, exists: bool) {
        self.server.namespace(&mut self.cluster, namespace, exists);
    }

    pub(crate) fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    pub(crate) fn handle(&self, packet: &[u8], seconds: u64, client: u32) -> (Outcome, Vec<u8>) {
        let mut out = Vec::new();
        let outcome = self.server.handle(packet, &ARRIVAL, self.at(seconds), || client, &mut out);
        (outcome, out)
    }

    /// The response to a packet that is answered at once.
    pub(crate) fn answer(&self, packet: &[u8]) -> Vec<u8> {
        let (outcome, response) = self.handle(packet, 0, 0);
        assert_eq!(outcome, Outcome::Answer);
        response
    }

    pub(crate) fn ask(&self, name: &str, qtype: u16) -> Vec<String> {
        told(&self.answer(&query(name, qtype)))
    }

    /// What has to be sent for a packet that cannot be answered at once.
    pub(crate) fn forward(&self, packet: &[u8], client: u32) -> Exchange {
        match self.handle(packet, 0, client).0 {
            Outcome::Forward(exchange) => exchange,
            other => panic!("not forwarded: {other:?}"),
        }
    }

    pub(crate) fn answered(&self, exchange: &Exchange, message: &[u8]) -> Progress<u32> {
        self.server.upstream_answered(exchange.ticket, exchange.upstream, message, self.start)
    }
}

/// A query over the name as it is spelled.
pub(crate) fn query(name: &str, qtype: u16) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&qtype.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet
}

/// The query with an OPT record.
pub(crate) fn with_edns(mut packet: Vec<u8>, size: u16, version: u8, dnssec_ok: bool) -> Vec<u8> {
    packet[11] += 1;
    packet.extend_from_slice(&[0, 0, 41]);
    packet.extend_from_slice(&size.to_be_bytes());
    packet.extend_from_slice(&[0, version, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    packet
}

/// What an upstream answers to a query: A records.
pub(crate) fn upstream_answer(query: &[u8], rcode: u16, addrs: &[[u8; 4]]) -> Vec<u8> {
    let (name, end) = crate::name::QueryName::parse(query, 12).unwrap();
    let _ = name;
    let mut message = query[..end + 4].to_vec();
    message[2..4].copy_from_slice(&(0x8180 | rcode).to_be_bytes());
    message[6..8].copy_from_slice(&(addrs.len() as u16).to_be_bytes());
    message[10..12].copy_from_slice(&[0, 0]);
    for addr in addrs {
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend_from_slice(addr);
    }
    message
}

/// A response as text: code, records of the answer; `SOA` for one in the authority section; `+` before additional ones.
pub(crate) fn told(response: &[u8]) -> Vec<String> {
    let message = Message::from_octets(response).unwrap();
    let mut told = vec![message::Rcode(message.header().rcode().to_int().into()).mnemonic().to_owned()];
    let (_, answers, authority, additional) = message.sections().unwrap();
    for (section, records) in [(0, answers), (1, authority), (2, additional)] {
        for record in records {
            let record = record.unwrap();
            if record.rtype() == Rtype::OPT {
                continue;
            }
            let record = record.to_record::<AllRecordData<_, ParsedName<_>>>().unwrap().unwrap();
            told.push(match section {
                0 => format!("{} {}", record.rtype(), record.data()),
                1 => record.rtype().to_string(),
                _ => format!("+{} {}", record.rtype(), record.data()),
            });
        }
    }
    told.iter().map(|line| line.replace(". ", " ").trim_end_matches('.').to_owned()).collect()
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}
