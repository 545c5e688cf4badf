//! What upstreams answer, and what they were asked.

use std::net::SocketAddr;

use crate::{
    Carrier, Destination, Transport,
    message::{flag, rtype, u16_at},
    name::{Name, QueryName},
    server::fixture::Sent,
};

/// Has an upstream answer by its last number and the name.
pub(super) fn answer(sent: Sent) {
    let last = last_number(&sent.upstream);
    let query = &sent.message;
    let (name, end) = QueryName::parse(query, 12).unwrap();
    let (name, qtype) = (Name::from_query(&name).to_string(), u16_at(query, end).unwrap());
    if last == 8 {
        // Neither an answer nor an error ever comes.
        std::mem::forget(sent);
        return;
    }
    if matches!(qtype, rtype::AXFR | rtype::IXFR) && last != 6 {
        return give(sent, last);
    }
    let first = name.split('.').next().unwrap_or_default();
    let (code, record) = match (first, last) {
        ("silent", _) | (_, 6) => return sent.failed(),
        ("gone", _) | (_, 1) => (3, None),
        ("bad", _) | (_, 2) => (2, None),
        (_, 3) => (5, None),
        ("none", _) | (_, 4) => (0, None),
        _ => (0, record(&name, qtype, last)),
    };
    let mut message = query[..end + 4].to_vec();
    let cut = last == 7 && sent.transport == Transport::Udp;
    let flags = flag::QR | flag::RD | flag::RA | code | if cut { flag::TC } else { 0 };
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[6..12].copy_from_slice(&[0; 6]);
    match record.filter(|_| !cut) {
        Some(data) => {
            message[7] = 1;
            message.extend_from_slice(&[0xc0, 12]);
            message.extend_from_slice(&qtype.to_be_bytes());
            message.extend_from_slice(&[0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
            message.extend_from_slice(&data);
        }
        None if matches!(code, 0 | 3) && !cut && last != 5 => {
            message[9] = 1;
            message.extend_from_slice(&[0, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
            message.extend_from_slice(&[1, 2, 3, 4, 60].map(u32::to_be_bytes).concat());
        }
        None => {}
    }
    sent.answered(message);
}

fn last_number(upstream: &Destination) -> u8 {
    let number = match upstream {
        Destination::Internet(SocketAddr::V4(addr)) => Some(addr.ip().octets()[3]),
        Destination::Internet(SocketAddr::V6(_)) => None,
        Destination::Unix(path) => path.rsplit('/').next().and_then(|name| name.parse().ok()),
    };
    number.unwrap_or_else(|| panic!("{upstream} has no last number"))
}

/// Gives a zone away: its SOA, and the address of `www`; what is called `catalog` lists `member.example`.
fn give(sent: Sent, last: u8) {
    let (name, end) = QueryName::parse(&sent.message, 12).unwrap();
    let mut message = sent.message[..end + 4].to_vec();
    message[2..12].copy_from_slice(&[0x84, 0, 0, 1, 0, 4, 0, 0, 0, 0]);
    let soa =
        [&[0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0][..], &[1, 2, 3, 86_400, 60].map(u32::to_be_bytes).concat()];
    let ns = [0xc0, 12, 0, 2, 0, 1, 0, 0, 0, 60, 0, 1, 0];
    let www = [3, b'w', b'w', b'w', 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, last];
    let mut own = www.to_vec();
    if name.label(0) == b"catalog" {
        let version = b"\x07version\xc0\x0c\0\x10\0\x01\0\0\0\x3c\0\x02\x012";
        let member = b"\x01m\x05zones\xc0\x0c\0\x0c\0\x01\0\0\0\x3c\0\x10\x06member\x07example\0";
        own = [&version[..], member].concat();
        message[7] += 1;
    }
    message.extend([&soa.concat()[..], &ns, &own, &soa.concat()].concat());
    let framed = [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    sent.delivered(framed);
}

/// The data of the one record that there is of a name and type.
fn record(name: &str, qtype: u16, last: u8) -> Option<Vec<u8>> {
    match qtype {
        rtype::A => Some(vec![198, 51, 100, last]),
        rtype::AAAA if name.split('.').any(|label| label == "six") => {
            Some([&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[last]].concat())
        }
        rtype::TXT => Some(vec![2, b'n', b'o']),
        rtype::SOA => Some([&[0, 0][..], &[1, 2, 3, 86_400, 60].map(u32::to_be_bytes).concat()].concat()),
        _ => None,
    }
    .filter(|_| last != 5)
}

/// What was asked, word by word.
pub(super) fn told(sent: &Sent) -> Vec<String> {
    let default = match (&sent.carrier, sent.secure.is_some()) {
        (Carrier::Https { .. }, _) => 443,
        (_, true) => 853,
        _ => 53,
    };
    let (name, end) = QueryName::parse(&sent.message, 12).unwrap();
    let upstream = match sent.upstream.socket_addr() {
        Some(addr) if addr.port() == default => addr.ip().to_string(),
        _ => sent.upstream.to_string(),
    };
    let name = Name::from_query(&name).to_string();
    let name = if name == "." { name } else { name.trim_end_matches('.').to_owned() };
    let mut words = vec![upstream, name, rtype::mnemonic(u16_at(&sent.message, end).unwrap()).to_owned()];
    let mut tell = |word: &str| words.push(word.to_owned());
    match &sent.carrier {
        Carrier::Dns if sent.secure.is_some() => tell("tls"),
        Carrier::Dns if sent.transport == Transport::Tcp => tell("tcp"),
        Carrier::Dns => {}
        Carrier::Https { get, .. } => tell(if *get { "https get" } else { "https" }),
        Carrier::Grpc => tell("grpc"),
    }
    if let Some(secure) = &sent.secure {
        let name = secure.name.as_ref().map(|name| format!("of={}", name.to_string().trim_end_matches('.')));
        tell(name.as_deref().unwrap_or("unnamed"));
    }
    if let Some(most) = sent.keep.most {
        tell(&format!("most={most}"));
    }
    if u16_at(&sent.message, 2).unwrap() & flag::RD == 0 {
        tell("norec");
    }
    for (code, data) in options(&sent.message[end + 4..]) {
        tell(&format!("opt{code}={}", data_encoding::HEXLOWER.encode(data)));
    }
    words.iter().flat_map(|word| word.split(' ')).map(str::to_owned).collect()
}

/// The options of the OPT record, where that is what stands behind a question.
fn options(behind: &[u8]) -> Vec<(u16, &[u8])> {
    let mut options = Vec::new();
    let mut rest = behind.strip_prefix(&[0, 0, 41]).and_then(|opt| opt.get(8..)).unwrap_or_default();
    while let Some((head, more)) = rest.split_first_chunk::<4>() {
        let (data, more) = more.split_at(usize::from(u16::from_be_bytes([head[2], head[3]])));
        options.push((u16::from_be_bytes([head[0], head[1]]), data));
        rest = more;
    }
    options
}
