//! Are the underlay's addresses free on this machine?

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podnet_kernel::{addr, link, netlink::RtSocket};

use super::HOST_LINK;
use crate::{
    cluster::{Cluster, overlap},
    report::{Doing, Failure},
};

/// The main table, whoever made its routes (`proc_pid_net(5)`).
const ROUTES: &str = "/proc/self/net/route";
/// The same of IPv6, with those of all tables.
const ROUTES6: &str = "/proc/self/net/ipv6_route";

/// A host that reaches something else at these addresses would lose it, or we would.
pub(crate) fn refuse_taken(cluster: &Cluster) -> Result<(), Failure> {
    let underlay: Vec<IpNet> = (0..usize::from(cluster.subnets)).flat_map(|index| cluster.ranges(index)).collect();
    refuse_addresses(&underlay)?;
    let table = fs::read_to_string(ROUTES).doing(|| format!("cannot read {ROUTES}"))?;
    // A kernel without IPv6 has no such file.
    let table6 = fs::read_to_string(ROUTES6).unwrap_or_default();
    let mut routes = table.lines().filter_map(HostRoute::parse).chain(table6.lines().filter_map(HostRoute::parse_ipv6));
    match routes.find_map(|route| Some((route.clash(&underlay)?, route))) {
        None => Ok(()),
        Some((range, HostRoute { dst, via, device })) => {
            let via = if via.is_unspecified() { String::new() } else { format!(" via {via}") };
            let ip = if dst.addr().is_ipv4() { "ip" } else { "ip -6" };
            Err(in_use(range, &format!("there is a route to {dst}{via} on {device}"))
                .remedy(format!("remove it while podnet runs: {ip} route del {dst}{via} dev {device}")))
        }
    }
}

fn refuse_addresses(underlay: &[IpNet]) -> Result<(), Failure> {
    let mut host = RtSocket::open().doing(|| "cannot ask the kernel for its addresses".into())?;
    for link in link::list(&mut host).doing(|| "cannot ask the kernel for its links".into())? {
        if link.name.to_string() == HOST_LINK {
            continue;
        }
        for taken in addr::list(&mut host, link.index).doing(|| "cannot ask the kernel for its addresses".into())? {
            if let Some(range) = underlay.iter().find(|range| overlap(range, &taken.trunc())) {
                return Err(in_use(*range, &format!("{} has {taken}", link.name))
                    .remedy(format!("take {taken} away from {} while podnet runs", link.name)));
            }
        }
    }
    Ok(())
}

fn in_use(range: IpNet, by: &str) -> Failure {
    Failure::new(format!("the underlay's range {range} is in use on this machine: {by}"))
}

#[derive(Debug, PartialEq, Eq)]
struct HostRoute {
    dst: IpNet,
    /// Unspecified for a network that lies on the device itself.
    via: IpAddr,
    device: String,
}

impl HostRoute {
    /// A line of the table: device, destination, gateway, flags, three numbers, mask. The header is none.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Four bytes in network order, printed as one number of this machine's order.
        let address = |index: usize| {
            let number = u32::from_str_radix(fields.get(index)?, 16).ok()?;
            Some(Ipv4Addr::from(number.to_ne_bytes()))
        };
        let dst = Ipv4Net::with_netmask(address(1)?, address(7)?).ok()?;
        Some(Self { dst: dst.into(), via: address(2)?.into(), device: fields.first()?.to_string() })
    }

    /// A line of the other table: destination, its length, source, its length, next hop, four numbers, device; all in hexadecimal. The
    /// machine's own addresses are routes of `lo`, and are looked at as addresses.
    fn parse_ipv6(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let address = |index: usize| u128::from_str_radix(fields.get(index)?, 16).ok().map(Ipv6Addr::from);
        let dst = Ipv6Net::new(address(0)?, u8::from_str_radix(fields.get(1)?, 16).ok()?).ok()?;
        let device = fields.get(9).filter(|device| **device != "lo")?.to_string();
        Some(Self { dst: dst.into(), via: address(4)?.into(), device })
    }

    /// The range that this route would take, or that would take it. A wider route through a gateway (the default route, a VPN's) does
    /// no harm: ours are longer prefixes, and the rest of it goes on working.
    fn clash(&self, underlay: &[IpNet]) -> Option<IpNet> {
        if self.device == HOST_LINK {
            return None;
        }
        let wider = |range: &IpNet| self.dst != *range && self.dst.contains(range);
        let harmless = |range: &IpNet| wider(range) && (!self.via.is_unspecified() || self.dst.prefix_len() <= 1);
        underlay.iter().copied().find(|range| overlap(range, &self.dst) && !harmless(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clash(line: &str) -> bool {
        let range = Ipv4Net::new_assert(Ipv4Addr::new(172, 29, 240, 0), 24);
        HostRoute::parse(line).expect("a route").clash(&[range.into()]).is_some()
    }

    #[test]
    fn routes_of_ipv6_clash_likewise() {
        let zeros = "0".repeat(32);
        let line = |dst: &str, length: u8, via: &str, device: &str| {
            format!("{dst} {length:02x} {zeros} 00 {via} 00000400 00000000 00000000 00000003 {device}")
        };
        let range: IpNet = "fd00:172:29:240::/64".parse().expect("a range");
        let clash = |dst: &str, length: u8, via: &str, device: &str| {
            HostRoute::parse_ipv6(&line(dst, length, via, device)).is_some_and(|route| route.clash(&[range]).is_some())
        };
        let ours = "fd000172002902400000000000000000";
        let router = "fe800000000000000000000000000001";
        assert!(clash(ours, 64, &zeros, "eth0"));
        assert!(clash("fd000172002900000000000000000000", 48, &zeros, "docker0"));
        assert!(!clash(&zeros, 0, router, "eth0"), "the default route");
        assert!(!clash("fd000172002900000000000000000000", 48, router, "eth0"), "a wider one through a router");
        assert!(!clash(ours, 64, &zeros, "pn-host"));
        assert!(!clash("fd000172002902400000000000000254", 128, &zeros, "lo"), "the machine's own address");
    }

    #[test]
    fn a_line_of_the_kernels_table_is_a_route() {
        let line = "docker0\t00001DAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0";
        let route = HostRoute::parse(line).expect("a route");
        assert_eq!((route.dst.to_string().as_str(), route.device.as_str()), ("172.29.0.0/16", "docker0"));
        assert!(HostRoute::parse("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask").is_none());
    }

    #[test]
    fn a_network_on_a_device_and_a_more_specific_route_clash() {
        assert!(clash("docker0 00001DAC 00000000 0001 0 0 0 0000FFFF 0 0 0"));
        assert!(clash("eth0 00F01DAC 0100000A 0003 0 0 0 00FFFFFF 0 0 0"));
        assert!(clash("eth0 07F01DAC 0100000A 0007 0 0 0 FFFFFFFF 0 0 0"));
    }

    #[test]
    fn default_routes_those_of_a_vpn_and_our_own_do_not() {
        assert!(!clash("eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0"));
        assert!(!clash("tun0 00000000 00000000 0001 0 0 0 00000000 0 0 0"));
        assert!(!clash("tun0 00000080 00000000 0001 0 0 0 00000080 0 0 0"));
        assert!(!clash("tun0 000010AC 0100080A 0003 0 0 0 0000F0FF 0 0 0"));
        assert!(!clash("pn-host 00F01DAC 00000000 0001 0 0 0 00FFFFFF 0 0 0"));
        assert!(!clash("docker0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0"));
    }
}
