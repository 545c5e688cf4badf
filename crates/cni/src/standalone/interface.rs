//! A container's interface: what names it, what it needs beside itself, and what the runtime is told of it.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podnet_kernel::{
    addr,
    cni_wire::{Failure, Request, host_ifname},
    forwarding::{ForwardingError, forward_ipv6},
    link,
    netlink::RtSocket,
    pod_interface::{GATEWAY_V4, GATEWAY_V6, PodInterface, loopback},
    sysctl,
};
use podnet_model::{
    Family, LinkName, Mac,
    cni::{Range, Wishes},
    errors::chain,
};
use serde_json::{Value, json};

/// How the names of devices begin that lead to containers; the agent's begin otherwise, as its rules know nothing of these.
pub(super) const DEVICE_PREFIX: &str = "pc";
const DEFAULT_MTU: u32 = 1500;
const MTU_ALLOWED: &str = "a number of bytes from 1280 to 65535";

/// What the node needs for the container's packets: forwarding, the network's gateway as its own address, so that containers reach it
/// by the name that they know it by, and, for ports on loopback, answers to that.
pub(super) fn prepare(
    socket: &mut RtSocket,
    host_index: u32,
    interface: &PodInterface,
    addrs: &[(IpAddr, Range)],
) -> Result<(), Failure> {
    for (_, range) in addrs {
        addr::add(socket, host_index, IpNet::from(range.gateway)).map_err(|error| {
            Failure::new(Failure::INTERFACE, format!("no gateway {}: {}", range.gateway, chain(&error)))
        })?;
    }
    forward(socket, addrs.iter().map(|(addr, _)| Family::of(addr)))?;
    for (addr, _) in addrs {
        loopback::answer(socket, &interface.host_ifname, Family::of(addr))
            .map_err(|error| Failure::new(Failure::INTERFACE, chain(&error)))?;
    }
    Ok(())
}

/// Makes the machine forward what is of these families. What it knows from router advertisements it keeps.
pub(super) fn forward(socket: &mut RtSocket, families: impl Iterator<Item = Family>) -> Result<(), Failure> {
    for family in families {
        let done = match family {
            Family::V4 => sysctl::set_here("net.ipv4.ip_forward", "1").map_err(ForwardingError::from),
            Family::V6 => forward_ipv6(socket, None),
        };
        done.map_err(|error| Failure::new(Failure::INTERFACE, chain(&error)))?;
    }
    Ok(())
}

pub(super) fn devices() -> std::io::Result<BTreeSet<LinkName>> {
    let links = RtSocket::open().and_then(|mut socket| link::list(&mut socket)).map_err(std::io::Error::other)?;
    Ok(links.into_iter().map(|link| link.name).collect())
}

pub(super) fn device(container_id: &str, ifname: &str) -> LinkName {
    let name = host_ifname(container_id, ifname);
    LinkName::from(format!("{DEVICE_PREFIX}{}", &name.as_str()[DEVICE_PREFIX.len()..]))
}

/// Made of the IPv4 address where there is one, so that whoever reads a capture sees who it is.
pub(super) fn mac(addrs: &[(IpAddr, Range)]) -> Mac {
    let v4 = addrs.iter().find_map(|(addr, _)| match addr {
        IpAddr::V4(addr) => Some(addr.octets()),
        IpAddr::V6(_) => None,
    });
    let tail = v4.or_else(|| match addrs.first() {
        Some((IpAddr::V6(addr), _)) => addr.octets().last_chunk().copied(),
        _ => None,
    });
    let [a, b, c, d] = tail.unwrap_or_default();
    Mac([0x0a, 0x58, a, b, c, d])
}

pub(super) fn mtu(config: &Value) -> Result<u32, Failure> {
    match config.get("mtu") {
        None | Some(Value::Null) => Ok(DEFAULT_MTU),
        // 0 stands for the default, as with other plugins.
        Some(value) if value.as_u64() == Some(0) => Ok(DEFAULT_MTU),
        Some(value) => {
            let mtu = value.as_u64().and_then(|mtu| u32::try_from(mtu).ok()).filter(|mtu| (1280..=65535).contains(mtu));
            mtu.ok_or_else(|| Failure::new(Failure::INVALID_CONFIG, format!("key mtu is {value}; {MTU_ALLOWED}")))
        }
    }
}

/// What the container reaches through the network: what is asked for, by the families that it has addresses of, and always the
/// subnets of its addresses, as they are on no link of its own. Where nothing is asked for, all.
pub(super) fn routes(addrs: &[(IpAddr, Range)], asked: &[IpNet]) -> Vec<IpNet> {
    let is_v4 = |net: &IpNet| net.addr().is_ipv4();
    let mut routes: Vec<IpNet> = asked.iter().map(IpNet::trunc).collect();
    routes.retain(|net| addrs.iter().any(|(addr, _)| addr.is_ipv4() == is_v4(net)));
    for (_, range) in addrs {
        let all = if is_v4(&range.subnet) { IpNet::V4(Ipv4Net::default()) } else { IpNet::V6(Ipv6Net::default()) };
        let wanted = if asked.is_empty() { all } else { range.subnet };
        if !routes.iter().any(|net| net.contains(&wanted)) {
            routes.push(wanted);
        }
    }
    routes.sort();
    routes.dedup();
    routes
}

pub(super) fn result(request: &Request, interface: &PodInterface, addrs: &[(IpAddr, Range)], wishes: &Wishes) -> Value {
    let ip = |(addr, range): &(IpAddr, Range)| json!({"address": IpNet::from(*addr).to_string(), "gateway": range.gateway, "interface": 1});
    let through = |dst: &IpNet| match dst {
        IpNet::V4(_) => json!({"dst": dst, "gw": GATEWAY_V4}),
        IpNet::V6(_) => json!({"dst": dst, "gw": GATEWAY_V6}),
    };
    json!({
        "interfaces": [
            {"name": interface.host_ifname, "mac": interface.host_mac.to_string()},
            {"name": interface.container_ifname, "mac": interface.pod_mac.to_string(), "mtu": interface.mtu, "sandbox": request.netns_path},
        ],
        "ips": addrs.iter().map(ip).collect::<Vec<_>>(),
        "routes": interface.routes.iter().map(through).collect::<Vec<_>>(),
        "dns": wishes.dns.to_json(),
    })
}
