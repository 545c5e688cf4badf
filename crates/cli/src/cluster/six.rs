//! The underlay's IPv6 addresses, where pods have some: each has the digits of the IPv4 address beside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::Cluster;

impl Cluster {
    /// The IPv6 range of a subnet.
    pub(crate) fn subnet_v6(&self, index: usize) -> Option<Ipv6Net> {
        self.beside(self.subnet(index).network()).map(|first| Ipv6Net::new_assert(first, 64))
    }

    /// The IPv6 address of whoever has this address on the underlay.
    pub(crate) fn beside(&self, addr: Ipv4Addr) -> Option<Ipv6Addr> {
        self.pod_cidr_v6.map(|_| same_digits(addr))
    }

    /// A subnet's ranges, of each family that the underlay has.
    pub(crate) fn ranges(&self, index: usize) -> Vec<IpNet> {
        let v6 = self.subnet_v6(index).map(IpNet::V6);
        std::iter::once(IpNet::V4(self.subnet(index))).chain(v6).collect()
    }

    /// Whoever has this address on a subnet: all that it has there.
    pub(crate) fn addresses(&self, addr: Ipv4Addr) -> Vec<IpAddr> {
        let v6 = self.beside(addr).map(IpAddr::V6);
        std::iter::once(IpAddr::V4(addr)).chain(v6).collect()
    }
}

/// `fd00:172:29:240::11` for `172.29.240.11`: what is written is the same, and unique as the other is.
fn same_digits(addr: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = addr.octets().map(|octet| {
        let octet = u16::from(octet);
        ((octet / 100) << 8) | ((octet / 10 % 10) << 4) | (octet % 10)
    });
    Ipv6Addr::new(0xfd00, a, b, c, 0, 0, 0, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_written_with_the_digits_of_the_other() {
        for (v4, v6) in [
            ("172.29.240.11", "fd00:172:29:240::11"),
            ("172.29.255.254", "fd00:172:29:255::254"),
            ("172.29.240.110", "fd00:172:29:240::110"),
            ("172.29.240.0", "fd00:172:29:240::"),
        ] {
            assert_eq!(same_digits(v4.parse().unwrap()).to_string(), v6);
        }
    }
}
