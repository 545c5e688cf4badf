//! Zones that a network has for itself, and public ones above them do not know: to the root `internal` does not exist, and that is proved.

use crate::name::Name;

/// Those that are known by name: for private use (`internal`, by ICANN in 2024), of RFC 6762 with its appendix G, RFC 8375, and the
/// reverse zones of addresses that everybody may have (RFC 6303 §4.2, RFC 1918, RFC 3927, RFC 4193, RFC 4291).
const NAMED: [&str; 17] = [
    "internal",
    "local",
    "lan",
    "home",
    "corp",
    "private",
    "intranet",
    "home.arpa",
    "10.in-addr.arpa",
    "168.192.in-addr.arpa",
    "254.169.in-addr.arpa",
    "c.f.ip6.arpa",
    "d.f.ip6.arpa",
    "8.e.f.ip6.arpa",
    "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa",
    "b.e.f.ip6.arpa",
];

/// The zones.
pub(super) fn zones() -> impl Iterator<Item = Name> {
    let named = NAMED.into_iter().filter_map(|zone| Name::parse(zone).ok());
    // 172.16.0.0/12.
    named.chain((16..32).filter_map(|octet: u8| Name::parse(&format!("{octet}.172.in-addr.arpa")).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_private_use_are_known_and_no_others() {
        assert_eq!(zones().count(), NAMED.len() + 16, "all can be read");
        let is_private = |name: &str| {
            let name = Name::parse(name).unwrap();
            zones().any(|zone| name.within(&zone))
        };
        for name in ["c.proj.internal", "corp", "nas.lan", "1.0.0.10.in-addr.arpa", "1.20.172.in-addr.arpa"] {
            assert!(is_private(name), "{name}");
        }
        for name in [".", "arpa", "example.com", "internal.example.com", "11.in-addr.arpa", "32.172.in-addr.arpa"] {
            assert!(!is_private(name), "{name}");
        }
    }
}
