//! EDNS options that go to upstreams. What a client sends goes no further by itself, nor does what an upstream answers with come
//! back: so a rule's `revert`, and taking options out, ask for nothing more.

use std::net::IpAddr;

use super::Plan;
use crate::{
    chain::{EdnsAction, EdnsData, EdnsOption, EdnsRewrite, Rewrite, RewriteOptions},
    message::u16_at,
    server::{Look, Transport},
};

/// Numbers of options (IANA, DNS parameters).
const NSID: u16 = 3;
const CLIENT_SUBNET: u16 = 8;

/// The option that a rule has sent, where it applies: `text` is the name as it stands now, `sent` the client's own options.
pub(super) fn apply(
    rule: &EdnsRewrite,
    look: &Look<'_>,
    plan: &Plan<'_>,
    text: &str,
    sent: &[u8],
    meta: &dyn Fn(&str) -> Option<String>,
) -> Option<(u16, Vec<u8>)> {
    let code = match &rule.option {
        EdnsOption::Local { code, .. } => *code,
        EdnsOption::Nsid => NSID,
        EdnsOption::Subnet { .. } => CLIENT_SUBNET,
    };
    let before = plan.options.iter().find(|(known, _)| *known == code).map(|(_, data)| data.clone());
    let before = before.or_else(|| client(sent, code).map(<[u8]>::to_vec));
    match (rule.action, before) {
        (EdnsAction::Unset, _) | (EdnsAction::Replace, None) => return None,
        // What there is stays, and goes on.
        (EdnsAction::Append, Some(before)) => return Some((code, before)),
        _ => {}
    }
    let data = match &rule.option {
        EdnsOption::Local { data, .. } => local(data, look, plan, text, meta),
        EdnsOption::Nsid => Vec::new(),
        EdnsOption::Subnet { v4, v6 } => subnet(look.arrival.from.ip().to_canonical(), *v4, *v6),
    };
    Some((code, data))
}

/// The options as they are sent: of those with one number the last.
pub(super) fn written(options: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, (code, data)) in options.iter().enumerate() {
        if options[index + 1..].iter().all(|(later, _)| later != code) {
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(&(data.len() as u16).to_be_bytes());
            out.extend_from_slice(data);
        }
    }
    out
}

/// The data of an option among those that a client sent.
fn client(mut sent: &[u8], code: u16) -> Option<&[u8]> {
    loop {
        let (found, size) = (u16_at(sent, 0)?, usize::from(u16_at(sent, 2)?));
        let data = sent.get(4..4 + size)?;
        if found == code {
            return Some(data);
        }
        sent = &sent[4 + size..];
    }
}

/// Whether a rule sends what others tell of the question.
pub(super) fn wants_label(rule: &RewriteOptions) -> bool {
    let Rewrite::Edns(EdnsRewrite { option: EdnsOption::Local { data, .. }, .. }) = &rule.rewrite else { return false };
    matches!(data, EdnsData::Metadata(_))
}

/// The data of an option; empty where nobody tells it.
fn local(
    data: &EdnsData,
    look: &Look<'_>,
    plan: &Plan<'_>,
    text: &str,
    meta: &dyn Fn(&str) -> Option<String>,
) -> Vec<u8> {
    let address = |addr: IpAddr| match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    match data {
        EdnsData::Bytes(bytes) => bytes.clone(),
        EdnsData::QueryName => text.as_bytes().to_vec(),
        EdnsData::QueryType => plan.qtype.to_be_bytes().to_vec(),
        EdnsData::ClientIp => address(look.arrival.from.ip().to_canonical()),
        EdnsData::ClientPort => look.arrival.from.port().to_be_bytes().to_vec(),
        EdnsData::Protocol => match look.arrival.transport {
            Transport::Udp => b"udp".to_vec(),
            Transport::Tcp => b"tcp".to_vec(),
        },
        EdnsData::ServerPort => look.arrival.port.to_be_bytes().to_vec(),
        EdnsData::Metadata(label) => meta(label).unwrap_or_default().into_bytes(),
        EdnsData::ServerIp => look.arrival.local.map(address).unwrap_or_default(),
    }
}

/// RFC 7871 §6: family, prefix length, scope 0, and as many bytes of the address as the prefix needs.
fn subnet(addr: IpAddr, v4: u8, v6: u8) -> Vec<u8> {
    let (family, bits, mut octets) = match addr {
        IpAddr::V4(addr) => (1, v4, addr.octets().to_vec()),
        IpAddr::V6(addr) => (2, v6, addr.octets().to_vec()),
    };
    octets.truncate(usize::from(bits).div_ceil(8));
    if let Some(last) = octets.last_mut().filter(|_| bits % 8 != 0) {
        *last &= 0xff << (8 - bits % 8);
    }
    [&[0, family, bits, 0], octets.as_slice()].concat()
}
