//! Ranges of addresses on the command line: what is wrong with one by itself. How they go together is looked at in `cluster`.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// A pool is dealt to the nodes in blocks of this prefix length, so it holds at least one.
const BLOCK: u8 = 26;
/// The same for IPv6.
const BLOCK6: u8 = 122;
/// The tenth address is that of cluster DNS; a /28 is the smallest range that has one.
const SERVICES: u8 = 28;
/// As small as a range of IPv6 may be; larger than the other one needs.
const SERVICES6: u8 = 124;

pub(super) fn pods(text: &str) -> Result<Ipv4Net, String> {
    range(text, BLOCK, "a node's block of addresses is a /26")
}

pub(super) fn pods6(text: &str) -> Result<Ipv6Net, String> {
    range6(text, BLOCK6, "a node's block of addresses is a /122")
}

pub(super) fn services6(text: &str) -> Result<Ipv6Net, String> {
    range6(text, SERVICES6, "Services want more addresses than that")
}

fn range6(text: &str, longest: u8, why: &str) -> Result<Ipv6Net, String> {
    let range: Ipv6Net = text.parse().map_err(|_| "not an IPv6 range such as fd00:10:1::/56".to_owned())?;
    if range != range.trunc() {
        return Err(format!("bits are set behind the prefix; did you mean {}?", range.trunc()));
    }
    if range.prefix_len() > longest {
        return Err(format!("it must be a /{longest} or larger, because {why}"));
    }
    let address = range.network();
    let is_global = (address.segments()[0] & 0xe000) == 0x2000;
    if !(is_global || address.is_unique_local()) {
        return Err("addresses of pods and Services are global (2000::/3) or unique local (fc00::/7) ones".to_owned());
    }
    Ok(range)
}

/// The gateway of every pod: it leads to the node, and nobody answers there.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));

/// The address of the node's own resolver: the same on every node, so it may be one of those that no router passes on.
pub(super) fn resolver(text: &str) -> Result<IpAddr, String> {
    let addr: IpAddr = text.parse().map_err(|_| "not an address such as 169.254.20.10".to_owned())?;
    let of_a_link = matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local());
    let of_nobody = addr.is_unspecified() || addr.is_multicast() || addr == IpAddr::V4(Ipv4Addr::BROADCAST);
    match addr {
        GATEWAY => Err("that is pods' gateway; 169.254.20.10 is the custom".to_owned()),
        _ if addr.is_loopback() => Err("pods have a loopback of their own; 169.254.20.10 is the custom".to_owned()),
        _ if of_a_link => Err("an address of fe80::/10 is one of a single link; choose one of fd00::/8".to_owned()),
        _ if of_nobody => Err("nobody can answer at that address; 169.254.20.10 is the custom".to_owned()),
        addr => Ok(addr),
    }
}

pub(super) fn services(text: &str) -> Result<Ipv4Net, String> {
    range(text, SERVICES, "cluster DNS has the tenth address")
}

fn range(text: &str, longest: u8, why: &str) -> Result<Ipv4Net, String> {
    let range: Ipv4Net = text.parse().map_err(|_| "not an IPv4 range such as 10.1.0.0/16".to_owned())?;
    if range != range.trunc() {
        return Err(format!("bits are set behind the prefix; did you mean {}?", range.trunc()));
    }
    if range.prefix_len() > longest {
        return Err(format!("it must be a /{longest} or larger, because {why}"));
    }
    let address = range.network();
    if address.is_loopback() || address.is_link_local() || address.is_multicast() || address.octets()[0] == 0 {
        return Err("addresses of this range cannot be given to pods or Services".to_owned());
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_with_bits_behind_its_prefix_is_refused_with_the_one_that_was_meant() {
        assert!(pods("10.1.2.3/16").unwrap_err().contains("10.1.0.0/16"));
        assert_eq!(pods("10.1.0.0/16").unwrap().to_string(), "10.1.0.0/16");
    }

    #[test]
    fn the_node_s_resolver_has_an_address_that_pods_reach() {
        for text in ["169.254.20.10", "169.254.25.10", "10.9.9.9", "fd00:aaaa::10"] {
            assert_eq!(resolver(text).unwrap().to_string(), text);
        }
        for text in ["169.254.1.1", "127.0.0.53", "::1", "fe80::10", "0.0.0.0", "224.0.0.1", "255.255.255.255", "dns"] {
            assert!(resolver(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_that_is_too_small_or_of_another_kind_is_refused() {
        for text in ["10.1.0.0/27", "127.0.0.0/8", "224.0.0.0/8", "0.0.0.0/0", "fd00::/64", "10.1.0.0"] {
            assert!(pods(text).is_err(), "{text}");
        }
        for text in ["fd00::/123", "fe80::/64", "ff00::/8", "::/0", "::1/128", "10.1.0.0/16", "fd00::1/64"] {
            assert!(pods6(text).is_err(), "{text}");
        }
        assert!(pods6("fd00:10::/122").is_ok() && pods6("2001:db8::/32").is_ok());
        assert!(services("10.1.0.0/28").is_ok() && services("10.1.0.0/29").is_err());
    }
}
