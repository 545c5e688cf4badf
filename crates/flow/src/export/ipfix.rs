//! IPFIX (RFC 7011): flows as bidirectional ones (RFC 5103), by elements of IANA's registry alone.
//!
//! A pod's `namespace/name` is the virtualStationName of its direction, its uid the virtualStationUUID, its service account the userName, a Service's
//! `namespace/name` the applicationName, the node's name the observationDomainName. Counters are totals since the flow began, so that a record that comes
//! again changes nothing for who keeps the last of each flowId; that it is the same one its digestHashValue says, which is made of its [`RecordId`]. A gap
//! is what RFC 7011 (section 4.3) has for records that were not sent.
//!
//! Labels, owners, the handshake, retransmissions, what a cause is called, the address and port that were asked of a Service, the source that a destination
//! sees in another's place, and what was counted at the other end are left out, as is what was dropped at interfaces.

mod template;

use jiff::Timestamp;
use podnet_model::NodeName;
use uuid::Uuid;

use self::template::{FLOWS_V4, FLOWS_V6, MISSING, Template};
use super::name;
use crate::{Cause, Gap, Item, Numbered, PodIdentity, Record, RecordId, Report, Transport, Verdict, Way, record::End};

const VERSION: u16 = 10;
const HEADER: usize = 16;
/// Behind a set's id and length come its records.
const SET: usize = 4;
/// `flowEndReason`s: nothing came any more; it goes on; its protocol ended it.
const IDLE: u8 = 1;
const ACTIVE: u8 = 2;
const ENDED: u8 = 3;
/// `forwardingStatus`es (RFC 7270, section 4.12): forwarded, and dropped, of which nothing more is known.
const FORWARDED: u8 = 64;
const DROPPED: u8 = 128;
/// Dropped, with the reason: a rule said no, or dropped it, no route, a fragment would have been needed, time to live, more than a limit lets through, the
/// wrong way back to the source.
const DENIED: u8 = 129;
const ACL_DROP: u8 = 130;
const UNROUTABLE: u8 = 131;
const NOT_FRAGMENTED: u8 = 133;
const BAD_TTL: u8 = 137;
const POLICER: u8 = 138;
const REVERSE_PATH: u8 = 140;
/// The longest name that is sent; Kubernetes' have 253 characters.
const LONGEST: usize = 1024;
/// What domains' ids are made in.
const DOMAINS: Uuid = Uuid::from_u128(0x5b3c_0f4e_7d1a_4c55_9a07_1fd2_66b8_90c3);
/// What records' digests are made in.
const RECORDS: Uuid = Uuid::from_u128(0xc1f7_3a52_90be_4d0c_8e26_47ab_d513_6f98);

/// Who exports to one collector, through one transport session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exporter {
    domain: u32,
    /// How many data records were sent in this session, modulo 2³².
    sequence: u32,
}

impl Exporter {
    /// Of a node, at the beginning of a session.
    #[must_use]
    pub fn new(node: &NodeName) -> Self {
        // The first four of its bytes; 0 means no domain in particular.
        let domain = Uuid::new_v5(&DOMAINS, node.as_str().as_bytes()).as_fields().0.max(1);
        Self { domain, sequence: 0 }
    }

    /// Templates alone: the first message of a session, and over UDP one from time to time.
    #[must_use]
    pub fn templates(&self, now: Timestamp) -> Vec<u8> {
        let mut message = Message::new(self, now);
        for template in [&FLOWS_V4, &FLOWS_V6, &MISSING] {
            message.bytes.extend(template.set());
        }
        message.finish()
    }

    /// Items in as few messages as may be, none of more than `most` bytes unless one item alone has more. Parts of other nodes' records are left out:
    /// no element says what they are, and they would count as flows.
    pub fn messages(&mut self, items: &[Numbered], now: Timestamp, most: usize) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let mut message = Message::new(self, now);
        for (template, record) in items.iter().filter_map(record) {
            if !message.has_room(template, &record, most) {
                messages.push(message.finish());
                message = Message::new(self, now);
            }
            message.add(template, &record);
            self.sequence = self.sequence.wrapping_add(1);
        }
        if message.bytes.len() > HEADER {
            messages.push(message.finish());
        }
        messages
    }
}

/// One message under way; its length is filled in as it is finished.
struct Message {
    bytes: Vec<u8>,
    /// Where the last set began, and of which template it is.
    set: Option<(usize, u16)>,
}

impl Message {
    fn new(exporter: &Exporter, now: Timestamp) -> Self {
        let mut bytes = Vec::new();
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend([0; 2]);
        // Until 2106, as the RFC has it.
        bytes.extend(u32::try_from(now.as_second()).unwrap_or(0).to_be_bytes());
        bytes.extend(exporter.sequence.to_be_bytes());
        bytes.extend(exporter.domain.to_be_bytes());
        Self { bytes, set: None }
    }

    fn has_room(&self, template: &Template, record: &[u8], most: usize) -> bool {
        let goes_on = self.set.is_some_and(|(_, id)| id == template.id);
        let more = record.len() + if goes_on { 0 } else { SET };
        self.bytes.len() == HEADER || self.bytes.len() + more <= most.min(usize::from(u16::MAX))
    }

    fn add(&mut self, template: &Template, record: &[u8]) {
        let from = match self.set {
            Some((from, id)) if id == template.id => from,
            _ => {
                let from = self.bytes.len();
                self.bytes.extend(template.id.to_be_bytes());
                self.bytes.extend([0; 2]);
                self.set = Some((from, template.id));
                from
            }
        };
        self.bytes.extend_from_slice(record);
        self.put_length(from);
    }

    fn put_length(&mut self, from: usize) {
        let length = u16::try_from(self.bytes.len() - from).unwrap_or(u16::MAX);
        self.bytes[from + 2..from + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        self.put_length(0);
        self.bytes
    }
}

/// A data record, in the order of its template's fields; none of what is left out.
fn record(item: &Numbered) -> Option<(&'static Template, Vec<u8>)> {
    match &item.item {
        Item::Flow(record) if record.report == Report::Part => None,
        Item::Flow(record) => Some(flow(&item.record, record)),
        Item::Gap(gap) => Some((&MISSING, missing(&item.record, gap))),
        Item::Drops(_) => None,
    }
}

fn flow(id: &RecordId, record: &Record) -> (&'static Template, Vec<u8>) {
    let mut bytes = Vec::new();
    let template = match (record.source.ip, record.destination.ip) {
        (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => {
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            &FLOWS_V4
        }
        (source, destination) => {
            let v6 = |ip| match ip {
                std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                std::net::IpAddr::V6(ip) => ip,
            };
            bytes.extend(v6(source).octets());
            bytes.extend(v6(destination).octets());
            &FLOWS_V6
        }
    };
    bytes.extend(record.source.port.to_be_bytes());
    bytes.extend(record.destination.port.to_be_bytes());
    bytes.push(record.protocol.0);
    for at in [record.start, record.end] {
        bytes.extend(millis(at));
    }
    for way in [&record.sent, &record.received] {
        bytes.extend(way.packets.to_be_bytes());
        bytes.extend(way.bytes.to_be_bytes());
        bytes.extend(u16::from(way.flags).to_be_bytes());
        // Of SCTP it would be what it aborted.
        let resets = if record.protocol == Transport::TCP { way.resets } else { 0 };
        bytes.extend(u64::from(resets).to_be_bytes());
    }
    bytes.push(end_reason(record));
    bytes.push(forwarding_status(record));
    bytes.extend(record.id.0.as_u64_pair().0.to_be_bytes());
    bytes.extend(digest(id));
    let ends = [&record.source, &record.destination];
    for end in ends {
        put_text(&mut bytes, &name(end));
    }
    for end in ends {
        let uid = end.pod.as_ref().and_then(|pod| Uuid::parse_str(&pod.uid).ok());
        let octets = uid.as_ref().map(|uid| uid.as_bytes().as_slice());
        put(&mut bytes, octets.unwrap_or_default());
    }
    for end in ends {
        put_text(&mut bytes, &user(end));
    }
    let service = record.service.as_ref().map(|asked| asked.service.to_string());
    put_text(&mut bytes, &service.unwrap_or_default());
    put_text(&mut bytes, record.node.as_str());
    (template, bytes)
}

fn missing(id: &RecordId, gap: &Gap) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The process: the lower half of when it began, which no other of the node has.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    bytes.extend((id.epoch as u32).to_be_bytes());
    for at in [gap.start, gap.end] {
        bytes.extend(millis(at));
    }
    for count in [gap.flows, gap.packets, gap.bytes] {
        bytes.extend(count.to_be_bytes());
    }
    bytes.extend(digest(id));
    put_text(&mut bytes, gap.node.as_str());
    bytes
}

/// What stands for a record's id: no element has room for it as it is. The first eight bytes of the UUID (version 5) of its text.
fn digest(id: &RecordId) -> [u8; 8] {
    Uuid::new_v5(&RECORDS, id.to_string().as_bytes()).as_u64_pair().0.to_be_bytes()
}

/// The user that an end's pod is for the API server, by its service account; nothing where that is not known.
fn user(end: &End) -> String {
    let of_account = |pod: &PodIdentity| {
        pod.service_account.as_ref().map(|account| format!("system:serviceaccount:{}:{account}", pod.namespace))
    };
    end.pod.as_deref().and_then(of_account).unwrap_or_default()
}

/// What its destination refused was forwarded there.
const fn forwarding_status(record: &Record) -> u8 {
    match (record.verdict, record.cause) {
        (Verdict::Forwarded, _) | (_, Some(Cause::PortClosed)) => FORWARDED,
        (_, Some(Cause::NoBackend | Cause::NoRoute)) => UNROUTABLE,
        (_, Some(Cause::Prohibited)) => DENIED,
        (_, Some(Cause::Policy)) => ACL_DROP,
        (_, Some(Cause::Limit)) => POLICER,
        (_, Some(Cause::PacketTooBig)) => NOT_FRAGMENTED,
        (_, Some(Cause::HopLimit)) => BAD_TTL,
        (_, Some(Cause::SpoofGuard)) => REVERSE_PATH,
        (Verdict::Dropped, None) => DROPPED,
        (Verdict::Refused | Verdict::Unanswered, None) => FORWARDED,
    }
}

fn end_reason(record: &Record) -> u8 {
    let ended = record.protocol == Transport::TCP
        && [&record.sent, &record.received].iter().any(|way| way.flags & (Way::FIN | Way::RST) != 0);
    match record.report {
        Report::End if ended => ENDED,
        Report::End => IDLE,
        Report::Start | Report::Update | Report::Part => ACTIVE,
    }
}

fn millis(at: Timestamp) -> [u8; 8] {
    u64::try_from(at.as_millisecond()).unwrap_or(0).to_be_bytes()
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let text = text.as_bytes();
    put(bytes, text.get(..LONGEST).unwrap_or(text));
}

/// What is of variable length (section 7), no more than [`LONGEST`].
fn put(bytes: &mut Vec<u8>, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) if length < u8::MAX => bytes.push(length),
        _ => {
            bytes.push(u8::MAX);
            bytes.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
        }
    }
    bytes.extend_from_slice(value);
}

#[cfg(test)]
mod tests;
