//! How the chains of Services are called: kube-proxy's names, which people and their tools look for.

use std::net::SocketAddr;

use podnet_model::{PortName, Protocol, ServiceKey};
use sha2::{Digest, Sha256};

use super::{ChainName, saved::is_built_in};
use crate::ruleset::BackendAddress;

/// Chains with the name of what they are for.
const FIXED: [&str; 24] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-PROXY-FIREWALL",
    "KUBE-FORWARD",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-MARK-NOT-PODS",
    "KUBE-MARK-NOT-LOCAL",
    "KUBE-LOCAL-PODS",
    "KUBE-INSIDE",
    "KUBE-PING",
    "KUBE-CLUSTER-IPS",
    "KUBE-REJECT",
    "KUBE-PROXY-CANARY",
    "KUBE-LOAD-BALANCER",
    "KUBE-NODE-PORT",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-ATTRACT",
    "KUBE-FROM-INSIDE",
    "KUBE-NODE-ADDRESSES",
    "KUBE-UNSERVED",
];

/// Chains of one port of one Service, or of one endpoint of it: these letters and 16 of base 32.
const HASHED: [&str; 5] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-"];

/// How many letters of the digest a name has.
const LETTERS: usize = 16;

/// A Service's port in the words of comments and digests: `namespace/name:port`, or without a port's name `namespace/name`.
pub(crate) fn port_text(service: &ServiceKey, port: &PortName) -> String {
    match port.as_str() {
        "" => service.to_string(),
        port => format!("{service}:{port}"),
    }
}

/// The name of a chain of a Service's port: the prefix (`KUBE-SVC-`, …) and a digest of the port and its protocol.
#[must_use]
pub fn port_chain(prefix: &str, service: &ServiceKey, port: &PortName, protocol: Protocol) -> ChainName {
    named(prefix, &[&port_text(service, port), small(protocol)])
}

/// As [`port_chain`], for a port that has several chains of the kind: from the second on, which one it is goes into the digest.
pub(crate) fn nth_port_chain(
    prefix: &str,
    service: &ServiceKey,
    port: &PortName,
    protocol: Protocol,
    number: usize,
) -> ChainName {
    match number {
        0 => port_chain(prefix, service, port, protocol),
        number => named(prefix, &[&port_text(service, port), small(protocol), &format!("#{number}")]),
    }
}

/// The name of the chain of one endpoint of a Service's port.
#[must_use]
pub fn endpoint_chain(service: &ServiceKey, port: &PortName, protocol: Protocol, at: BackendAddress) -> ChainName {
    let at = SocketAddr::from((at.addr, at.port)).to_string();
    named("KUBE-SEP-", &[&port_text(service, port), small(protocol), &at])
}

/// Whether a chain of this name is podnet's (and, where that runs instead, kube-proxy's).
#[must_use]
pub fn is_ours(name: &str) -> bool {
    let hashed = || HASHED.iter().filter_map(|prefix| name.strip_prefix(prefix));
    FIXED.contains(&name) || hashed().any(|rest| rest.len() == LETTERS && rest.bytes().all(|b| ALPHABET.contains(&b)))
}

/// Whether podnet's rules may be hurt by a change of a chain of this name: it is podnet's, or one of the kernel's own, which lead there.
/// Other people's chains may lead to podnet's and are theirs all the same.
#[must_use]
pub fn concerns(name: &str) -> bool {
    is_ours(name) || is_built_in(name)
}

const fn small(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn named(prefix: &str, parts: &[&str]) -> ChainName {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    let mut name = String::with_capacity(prefix.len() + LETTERS);
    name.push_str(prefix);
    let bits = digest.finalize();
    name.extend((0..LETTERS).map(|letter| char::from(base32(&bits, letter))));
    name.into()
}

/// The letters of base 32 (RFC 4648, section 6).
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The letter at this place: five bits, of one byte or of two.
fn base32(bytes: &[u8], letter: usize) -> u8 {
    let (byte, offset) = (letter * 5 / 8, letter * 5 % 8);
    let of = |index: usize| u16::from(bytes.get(index).copied().unwrap_or_default());
    let pair = of(byte) << 8 | of(byte + 1);
    ALPHABET[usize::from(pair >> (11 - offset) & 31)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that anybody finds in a cluster with kube-proxy.
    #[test]
    fn names_are_those_of_kube_proxy() {
        let chain = |service: (&str, &str), port: &str, protocol| {
            port_chain("KUBE-SVC-", &ServiceKey::new(service.0, service.1), &port.into(), protocol).to_string()
        };
        let dns = ("kube-system", "kube-dns");
        assert_eq!(chain(("default", "kubernetes"), "https", Protocol::Tcp), "KUBE-SVC-NPX46M4PTMTKRN6Y");
        assert_eq!(chain(dns, "dns", Protocol::Udp), "KUBE-SVC-TCOU7JCQXEZGVUNU");
        assert_eq!(chain(dns, "dns-tcp", Protocol::Tcp), "KUBE-SVC-ERIFXISQEP7F7OF4");
        assert_eq!(chain(dns, "metrics", Protocol::Tcp), "KUBE-SVC-JD5MR3NA4I4DYORP");
    }

    #[test]
    fn chains_of_others_are_not_taken_for_ours() {
        let service = ServiceKey::new("a", "b");
        let at = BackendAddress { addr: "fd00::1".parse().unwrap(), port: 80 };
        assert!(is_ours(&endpoint_chain(&service, &"".into(), Protocol::Tcp, at)));
        assert!(is_ours("KUBE-SERVICES"));
        for other in
            ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT", "KUBE-SVC-short", "DOCKER", "KUBE-SVC-"]
        {
            assert!(!is_ours(other) && !concerns(other), "{other}");
        }
        assert!(concerns("KUBE-SERVICES") && concerns("POSTROUTING") && concerns("FORWARD"));
    }
}
