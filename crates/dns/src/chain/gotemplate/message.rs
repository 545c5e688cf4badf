//! The records of a message, as templates see them: what CoreDNS's library (miekg/dns) has under these names.

use std::sync::Arc;

use super::Value;
use crate::{
    answer::Section,
    authority::Record,
    message::{CLASS_IN, Expanded, rtype, u16_at},
};

/// Numbers of EDNS options (IANA, DNS parameters).
const NSID: u16 = 3;
const SUBNET: u16 = 8;
const COOKIE: u16 = 10;

/// The records of the answer, the authority and the additional section, the last one with that of EDNS.
pub(super) fn sections(records: &[Expanded], edns: Option<&Value>) -> [Value; 3] {
    let mut sections = [Vec::new(), Vec::new(), Vec::new()];
    for record in records {
        let section = match record.section {
            Section::Answer => 0,
            Section::Authority => 1,
            Section::Additional => 2,
        };
        sections[section].push(told(record));
    }
    sections[2].extend(edns.cloned());
    sections.map(|section| Value::List(section.into()))
}

fn told(expanded: &Expanded) -> Value {
    let Expanded { owner, rtype, ttl, rdata, .. } = expanded;
    let header = header(&owner.to_string(), *rtype, CLASS_IN, *ttl, rdata.len());
    let record = Record { owner: owner.clone(), rtype: *rtype, ttl: *ttl, rdata: rdata.clone().into() };
    let fields = vec![("Hdr".to_owned(), header.clone()), ("Header".to_owned(), header)];
    Value::Record(Arc::new((record.to_string(), fields)))
}

fn header(name: &str, rtype: u16, class: u16, ttl: u32, length: usize) -> Value {
    let fields = [
        ("Name", Value::Text(name.to_owned())),
        ("Rrtype", Value::Int(rtype.into())),
        ("Class", Value::Int(class.into())),
        ("Ttl", Value::Int(ttl.into())),
        ("Rdlength", Value::Int(length as i128)),
    ];
    Value::Map(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

/// The record of EDNS. Other versions than 0 are answered before (RFC 6891 §6.1.3).
pub(super) fn edns(size: u16, dnssec_ok: bool, options: &[u8]) -> Value {
    let length = options.len();
    let options: Vec<Value> = each(options).map(|(code, data)| option(code, data)).collect();
    let flags = if dnssec_ok { " do" } else { "" };
    let mut text = format!("\n;; OPT PSEUDOSECTION:\n; EDNS: version 0; flags:{flags}; udp: {size}");
    for option in &options {
        if let Value::Record(option) = option {
            text.push_str("\n; ");
            text.push_str(&option.0);
        }
    }
    let ttl = if dnssec_ok { 0x8000 } else { 0 };
    let header = header(".", rtype::OPT, size, ttl, length);
    let fields = [
        ("Hdr", header.clone()),
        ("Header", header),
        ("Option", Value::List(options.into())),
        ("UDPSize", Value::Int(size.into())),
        ("Do", Value::Bool(dnssec_ok)),
        ("Version", Value::Int(0)),
    ];
    Value::Record(Arc::new((text, fields.map(|(name, value)| (name.to_owned(), value)).to_vec())))
}

/// The options of an OPT record, each with its number (RFC 6891 §6.1.2).
fn each(mut options: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (code, length) = (u16_at(options, 0)?, usize::from(u16_at(options, 2)?));
        let data = options.get(4..4 + length)?;
        options = &options[4 + length..];
        Some((code, data))
    })
}

fn option(code: u16, data: &[u8]) -> Value {
    let hex = data_encoding::HEXLOWER.encode(data);
    let mut fields = vec![("Option", Value::Int(code.into())), ("Code", Value::Int(code.into()))];
    let text = match code {
        NSID => {
            fields.push(("Nsid", Value::Text(hex.clone())));
            format!("NSID: {hex}")
        }
        COOKIE => {
            fields.push(("Cookie", Value::Text(hex.clone())));
            format!("COOKIE: {hex}")
        }
        SUBNET => {
            let (family, address) = subnet(data);
            let length = |at: usize| data.get(at).copied().unwrap_or(0);
            let (source, scope) = (length(2), length(3));
            fields.extend([
                ("Family", Value::Int(family.into())),
                ("SourceNetmask", Value::Int(source.into())),
                ("SourceScope", Value::Int(scope.into())),
                ("Address", Value::Text(address.clone())),
            ]);
            format!("SUBNET: {address}/{source}/{scope}")
        }
        _ => {
            fields.push(("Data", Value::List(data.iter().map(|byte| Value::Int((*byte).into())).collect())));
            format!("LOCAL OPT: {code}:0x{hex}")
        }
    };
    Value::Record(Arc::new((text, fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())))
}

/// The family and the address of a client's network (RFC 7871 §6).
fn subnet(data: &[u8]) -> (u16, String) {
    let family = u16_at(data, 0).unwrap_or(0);
    let told = data.get(4..).unwrap_or_default();
    let mut bytes = [0; 16];
    let length = told.len().min(bytes.len());
    bytes[..length].copy_from_slice(&told[..length]);
    let address = match family {
        1 => std::net::Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).to_string(),
        2 => std::net::Ipv6Addr::from(bytes).to_string(),
        _ => String::new(),
    };
    (family, address)
}
