//! What the RFCs demand of a server and of a resolver's messages, a file for each, a test for each clause.
//!
//! Clauses that live elsewhere: [`crate::message`] (broken packets), [`crate::authority`] (zone files, transfers, catalogs, TSIG, DNSSEC
//! of own zones), [`crate::validate`] (RFC 4035 §5, RFC 5155 §8), [`crate::cache`], [`crate::forward`] (RFC 5452, 7873 towards upstreams), the guard of server blocks (RFC 9018), and the
//! agent's connections (RFC 7766: `dns/tcp/tests/rfc7766.rs` there).

mod rfc1035;
mod rfc2181;
mod rfc2308;
mod rfc2782;
mod rfc3596;
mod rfc3597;
mod rfc4034;
mod rfc4035;
mod rfc6891;
mod rfc6895;
mod rfc7828;
mod rfc7873;
mod rfc8198;
mod rfc8482;
mod rfc8767;
mod rfc8906;
mod rfc8914;
mod rfc9267;
mod rfc9619;

use crate::{
    message::{flag, rtype, u16_at},
    server::fixture::{Rig, query, with_edns},
    zone::tests::cluster,
};

/// A name of the cluster's.
const WEB: &str = "web.web.svc.cluster.local";

/// A server of the cluster's names that asks others for the rest.
fn rig() -> Rig {
    let mut rig = Rig::new(". {\n kubernetes cluster.local in-addr.arpa ip6.arpa\n cache\n forward . 192.0.2.53\n}");
    cluster(&mut rig);
    rig
}

fn flags(response: &[u8]) -> u16 {
    u16_at(response, 2).unwrap()
}

fn count(response: &[u8], section: usize) -> u16 {
    u16_at(response, 4 + 2 * section).unwrap()
}

/// A query of another class.
fn of_class(name: &str, qtype: u16, class: u16) -> Vec<u8> {
    let mut packet = query(name, qtype);
    let at = packet.len() - 2;
    packet[at..].copy_from_slice(&class.to_be_bytes());
    packet
}

/// A query with flags of its own.
fn flagged(name: &str, flags: u16) -> Vec<u8> {
    let mut packet = query(name, rtype::A);
    packet[2..4].copy_from_slice(&flags.to_be_bytes());
    packet
}

/// A query with EDNS options.
fn with_options(name: &str, options: &[u8]) -> Vec<u8> {
    let mut packet = with_edns(query(name, rtype::A), 1232, 0, false);
    let at = packet.len() - 2;
    packet[at..].copy_from_slice(&(options.len() as u16).to_be_bytes());
    packet.extend_from_slice(options);
    packet
}

/// An upstream's answer to a query: these records behind its question, counted by section.
fn answer_of(query: &[u8], flags: u16, counts: [u8; 3], records: &[u8]) -> Vec<u8> {
    let (_, end) = crate::name::QueryName::parse(query, 12).unwrap();
    let mut message = query[..end + 4].to_vec();
    message[2..4].copy_from_slice(&(flags | flag::QR).to_be_bytes());
    message[6..12].copy_from_slice(&[0, counts[0], 0, counts[1], 0, counts[2]]);
    message.extend_from_slice(records);
    message
}

/// A record of the question's name.
fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    record_of(&[0xc0, 12], kind, ttl, data)
}

/// A record of an owner in wire form.
fn record_of(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend_from_slice(&kind.to_be_bytes());
    record.extend_from_slice(&[0, 1]);
    record.extend_from_slice(&ttl.to_be_bytes());
    record.extend_from_slice(&(data.len() as u16).to_be_bytes());
    record.extend_from_slice(data);
    record
}

/// The data of an SOA record with a least time to live.
fn soa(minimum: u32) -> Vec<u8> {
    let mut data = vec![0, 0];
    for number in [1, 2, 3, 4, minimum] {
        data.extend_from_slice(&number.to_be_bytes());
    }
    data
}
