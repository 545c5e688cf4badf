//! Are the underlay's addresses free on this machine?

use std::{fs, net::Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use podnet_kernel::{addr, link, netlink::RtSocket};

use super::HOST_LINK;
use crate::{
    cluster::{Cluster, overlap},
    report::{Doing, Failure},
};

/// The main table, whoever made its routes (`proc_pid_net(5)`).
const ROUTES: &str = "/proc/self/net/route";

/// A host that reaches something else at these addresses would lose it, or we would.
pub(crate) fn refuse_taken(cluster: &Cluster) -> Result<(), Failure> {
    let underlay: Vec<Ipv4Net> = (0..usize::from(cluster.subnets)).map(|index| cluster.subnet(index)).collect();
    refuse_addresses(&underlay)?;
    let table = fs::read_to_string(ROUTES).doing(|| format!("cannot read {ROUTES}"))?;
    match table.lines().filter_map(HostRoute::parse).find_map(|route| Some((route.clash(&underlay)?, route))) {
        None => Ok(()),
        Some((range, HostRoute { dst, via, device })) => {
            let via = if via.is_unspecified() { String::new() } else { format!(" via {via}") };
            Err(in_use(range, &format!("there is a route to {dst}{via} on {device}"))
                .remedy(format!("remove it while podnet runs: ip route del {dst}{via} dev {device}")))
        }
    }
}

fn refuse_addresses(underlay: &[Ipv4Net]) -> Result<(), Failure> {
    let mut host = RtSocket::open().doing(|| "cannot ask the kernel for its addresses".into())?;
    for link in link::list(&mut host).doing(|| "cannot ask the kernel for its links".into())? {
        if link.name.to_string() == HOST_LINK {
            continue;
        }
        for taken in addr::list(&mut host, link.index).doing(|| "cannot ask the kernel for its addresses".into())? {
            let IpNet::V4(network) = taken.trunc() else { continue };
            if let Some(range) = underlay.iter().find(|range| overlap(range, &network)) {
                return Err(in_use(*range, &format!("{} has {taken}", link.name))
                    .remedy(format!("take {taken} away from {} while podnet runs", link.name)));
            }
        }
    }
    Ok(())
}

fn in_use(range: Ipv4Net, by: &str) -> Failure {
    Failure::new(format!("the underlay's range {range} is in use on this machine: {by}"))
}

#[derive(Debug, PartialEq, Eq)]
struct HostRoute {
    dst: Ipv4Net,
    /// Unspecified for a network that lies on the device itself.
    via: Ipv4Addr,
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
        Some(Self { dst, via: address(2)?, device: fields.first()?.to_string() })
    }

    /// The range that this route would take, or that would take it. A wider route through a gateway (the default route, a VPN's) does
    /// no harm: ours are longer prefixes, and the rest of it goes on working.
    fn clash(&self, underlay: &[Ipv4Net]) -> Option<Ipv4Net> {
        if self.device == HOST_LINK {
            return None;
        }
        let wider = |range: &Ipv4Net| self.dst != *range && self.dst.contains(range);
        let harmless = |range: &Ipv4Net| wider(range) && (!self.via.is_unspecified() || self.dst.prefix_len() <= 1);
        underlay.iter().copied().find(|range| overlap(range, &self.dst) && !harmless(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clash(line: &str) -> bool {
        let range = Ipv4Net::new_assert(Ipv4Addr::new(172, 29, 240, 0), 24);
        HostRoute::parse(line).expect("a route").clash(&[range]).is_some()
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
