//! What a server block serves: zones and ports.

use std::{fmt, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;

use super::{
    error::{CorefileError, Place},
    parser::Word,
};
use crate::name::Name;

/// A zone and how it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// How messages come in.
    pub scheme: Scheme,
    /// The zone.
    pub zone: Name,
    /// The port; the scheme's own where none stands.
    pub port: u16,
    /// Where it stands.
    pub place: Place,
}

/// How messages come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// DNS over UDP and TCP, port 53.
    Dns,
    /// DNS over TLS (RFC 7858), port 853.
    Tls,
    /// DNS over HTTPS (RFC 8484), port 443.
    Https,
    /// DNS over HTTP/3, port 443.
    Https3,
    /// gRPC, port 443.
    Grpc,
    /// DNS over QUIC (RFC 9250), port 853.
    Quic,
}

const SCHEMES: [(&str, Scheme, u16); 6] = [
    ("dns", Scheme::Dns, 53),
    ("tls", Scheme::Tls, 853),
    ("https", Scheme::Https, 443),
    ("https3", Scheme::Https3, 443),
    ("grpc", Scheme::Grpc, 443),
    ("quic", Scheme::Quic, 853),
];

impl Scheme {
    /// What stands before `://`.
    #[must_use]
    pub fn name(self) -> &'static str {
        SCHEMES.iter().find(|(_, scheme, _)| *scheme == self).map_or("dns", |(name, ..)| name)
    }
}

impl Key {
    /// Whether both are the same zone, served in the same way at the same port.
    pub(crate) fn same(&self, other: &Self) -> bool {
        (self.scheme, &self.zone, self.port) == (other.scheme, &other.zone, other.port)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.name(), self.zone, self.port)
    }
}

/// The keys that one word stands for: a CIDR stands for the reverse zones that cover it.
pub(super) fn keys(text: &str, word: &Word) -> Result<Vec<Key>, CorefileError> {
    let bad = |allowed: &str| word.bad("the zone of a server block", allowed);
    let (scheme, default, rest) = match text.split_once("://") {
        None => (Scheme::Dns, 53, text),
        Some((name, rest)) => {
            let known = SCHEMES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
            let (_, scheme, port) =
                known.ok_or_else(|| bad("dns://, tls://, https://, https3://, grpc:// or quic:// before it"))?;
            (*scheme, *port, rest)
        }
    };
    // What stands behind the last colon is a port when it is a number: in `fd00::/64` it is none.
    let (zone, port) = match rest.rsplit_once(':') {
        Some((zone, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (zone, port.parse().ok().filter(|&port| port != 0).ok_or_else(|| bad("a port from 1 to 65535"))?)
        }
        _ => (rest, default),
    };
    Ok(zones(if zone.is_empty() { "." } else { zone })
        .ok_or_else(|| bad("a domain name or a CIDR such as 10.0.0.0/24"))?
        .into_iter()
        .map(|zone| Key { scheme, zone, port, place: word.place.clone() })
        .collect())
}

/// The zones that a word stands for: a name, or the reverse zones of a CIDR.
pub(crate) fn zones(text: &str) -> Option<Vec<Name>> {
    if let Ok(net) = text.parse::<IpNet>() {
        return reverse_zones(net);
    }
    Name::parse(text).ok().map(|name| vec![name])
}

/// The reverse zones at label boundaries that cover a network (what CoreDNS calls classless reverse).
fn reverse_zones(net: IpNet) -> Option<Vec<Name>> {
    let unit = if matches!(net, IpNet::V4(_)) { 8 } else { 4 };
    let prefix = net.prefix_len();
    let labels = prefix.div_ceil(unit);
    let spare = labels * unit - prefix;
    let range: RangeInclusive<u32> = 0..=((1_u32 << spare) - 1);
    range.map(|step| reverse_zone(net.network(), labels, unit, step)).collect()
}

fn reverse_zone(network: IpAddr, labels: u8, unit: u8, step: u32) -> Option<Name> {
    let full = crate::name::reverse_name(network).to_string();
    let total = if unit == 8 { 4 } else { 32 };
    let mut parts: Vec<String> = full.split('.').skip(usize::from(total - labels)).map(str::to_owned).collect();
    if step > 0 {
        let first = parts.first_mut()?;
        let radix = if unit == 8 { 10 } else { 16 };
        let value = u32::from_str_radix(first, radix).ok()? + step;
        *first = if unit == 8 { value.to_string() } else { format!("{value:x}") };
    }
    Name::parse(&parts.join(".")).ok()
}
