//! A container's interface in the network's mode: routed, or on a shared segment.

use std::{fs, net::IpAddr, os::unix::fs::MetadataExt};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podnet_kernel::{
    cni_wire::{Failure, Request},
    link::{self, Link},
    netlink::RtSocket,
    netns::NetNs,
    pod_interface::{self, PodInterface, PodInterfaceError},
    route,
    segment::{Segment, SegmentInterface, bridge},
};
use podnet_model::{
    Family, HOST_MAC, LinkName, Mac,
    cni::{AskedRoute, Macvlan, MacvlanKind, Mode, Range, Wishes},
    errors::chain,
    limits::PodLimits,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    interface::{self, device, mac},
    records::Record,
};

/// What a record tells of an interface on a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OnSegment {
    /// How it is there.
    pub(super) link: SegmentLink,
    /// The addresses with the prefixes of their subnets.
    pub(super) addrs: Vec<IpNet>,
    /// Destinations and next hops.
    pub(super) routes: Vec<(IpNet, IpAddr)>,
}

/// How an interface is on a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SegmentLink {
    Bridge {
        bridge: LinkName,
        hairpin: bool,
        /// What comes from the port must have the container's addresses.
        checked: bool,
    },
    Macvlan {
        master: LinkName,
        kind: MacvlanKind,
        /// The container's namespace: the node has no device that would tell whether the container is there.
        netns: String,
        inode: u64,
    },
}

/// A container's interface as it shall be.
pub(super) enum Joined {
    Routed(PodInterface),
    Segment(SegmentInterface),
}

/// What an ADD asks for, beside what is the runtime's.
pub(super) struct Asked<'a> {
    pub(super) request: &'a Request,
    pub(super) mode: &'a Mode,
    pub(super) addrs: &'a [(IpAddr, Range)],
    pub(super) routes: &'a [AskedRoute],
    pub(super) wishes: &'a Wishes,
    pub(super) limits: &'a PodLimits,
}

impl Joined {
    /// The interface that is asked for, and what a record tells of it beyond its addresses.
    pub(super) fn asked(asked: &Asked<'_>, netns: NetNs) -> Result<(Self, Option<OnSegment>), Failure> {
        let request = asked.request;
        let mac_of = || asked.wishes.mac.unwrap_or_else(|| mac(asked.addrs));
        let (segment, link, mtu, mac) = match asked.mode {
            Mode::Routed => {
                let dsts: Vec<IpNet> = asked.routes.iter().map(|route| route.dst).collect();
                let interface = PodInterface {
                    netns,
                    container_ifname: request.ifname.as_str().into(),
                    host_ifname: device(&request.container_id, &request.ifname),
                    addr: asked.addrs.iter().map(|(addr, _)| *addr).collect(),
                    routes: interface::routes(asked.addrs, &dsts),
                    mtu: interface::mtu(&request.config)?,
                    pod_mac: mac_of(),
                    host_mac: HOST_MAC,
                    bridge: None,
                };
                return Ok((Self::Routed(interface), None));
            }
            Mode::Bridge(bridge) => {
                // Where br_netfilter shows bridged frames to the translation of ports, a container reaches itself by its port this way.
                let hairpin = bridge.hairpin || !asked.wishes.ports.is_empty();
                let port = device(&request.container_id, &request.ifname);
                let checked = bridge.senders_checked;
                let link = SegmentLink::Bridge { bridge: bridge.name.clone(), hairpin, checked };
                let segment = Segment::Bridge { bridge: bridge.name.clone(), port, hairpin, checked };
                (segment, link, interface::mtu(&request.config)?, mac_of())
            }
            Mode::Macvlan(macvlan) => {
                let master = master(macvlan)?;
                let mtu = macvlan_mtu(&request.config, &master)?;
                let own = if macvlan.kind == MacvlanKind::Passthru { master.mac } else { None };
                let mac = asked.wishes.mac.or(own).unwrap_or_else(|| mac(asked.addrs));
                let inode = netns.inode().map_err(|error| failed("look at the container's namespace", &error))?;
                let netns = request.netns_path.clone();
                let link = SegmentLink::Macvlan { master: master.name.clone(), kind: macvlan.kind, netns, inode };
                (Segment::Macvlan { master: master.name, kind: macvlan.kind }, link, mtu, mac)
            }
        };
        let addrs = asked.addrs.iter().filter_map(|(addr, range)| IpNet::new(*addr, range.subnet.prefix_len()).ok());
        let addrs: Vec<IpNet> = addrs.collect();
        let routes = routes(asked);
        let on_segment = OnSegment { link, addrs: addrs.clone(), routes: routes.clone() };
        let container_ifname = request.ifname.as_str().into();
        let interface = SegmentInterface { netns, container_ifname, addrs, routes, mtu, mac: Some(mac), segment };
        Ok((Self::Segment(interface), Some(on_segment)))
    }

    /// The interface that a record tells of.
    pub(super) fn recorded(request: &Request, record: &Record, netns: NetNs) -> Result<Self, Failure> {
        let container_ifname = request.ifname.as_str().into();
        let port = device(&request.container_id, &request.ifname);
        let Some(on_segment) = &record.segment else {
            return Ok(Self::Routed(PodInterface {
                netns,
                container_ifname,
                host_ifname: port,
                addr: record.addrs.clone(),
                routes: record.routes.clone(),
                mtu: interface::mtu(&request.config)?,
                pod_mac: record.mac,
                host_mac: HOST_MAC,
                bridge: None,
            }));
        };
        let (segment, mtu) = match &on_segment.link {
            SegmentLink::Bridge { bridge, hairpin, checked } => {
                let (hairpin, checked) = (*hairpin, *checked);
                let segment = Segment::Bridge { bridge: bridge.clone(), port, hairpin, checked };
                (segment, interface::mtu(&request.config)?)
            }
            SegmentLink::Macvlan { master, kind, .. } => {
                let found = find(master)?.ok_or_else(|| no_master(master))?;
                (Segment::Macvlan { master: master.clone(), kind: *kind }, macvlan_mtu(&request.config, &found)?)
            }
        };
        Ok(Self::Segment(SegmentInterface {
            netns,
            container_ifname,
            addrs: on_segment.addrs.clone(),
            routes: on_segment.routes.clone(),
            mtu,
            mac: Some(record.mac),
            segment,
        }))
    }

    /// What has to be there before the interface: the bridge.
    pub(super) fn prepare(&self, socket: &mut RtSocket, asked: &Asked<'_>) -> Result<(), Failure> {
        let (Self::Segment(interface), Mode::Bridge(bridge)) = (self, asked.mode) else { return Ok(()) };
        let gateways: Vec<IpNet> = asked
            .addrs
            .iter()
            .filter(|_| bridge.is_gateway)
            .filter_map(|(_, range)| IpNet::new(range.gateway, range.subnet.prefix_len()).ok())
            .collect();
        bridge::prepare(socket, &bridge.name, interface.mtu, &gateways, bridge.force_address)
            .map_err(|error| failed(&format!("prepare bridge {}", bridge.name), &error))?;
        interface::forward(socket, gateways.iter().map(Family::of_net))
    }

    pub(super) fn create(&self, socket: &mut RtSocket) -> Result<Option<u32>, PodInterfaceError> {
        match self {
            Self::Routed(interface) => interface.create(socket).map(|created| Some(created.host_index)),
            Self::Segment(interface) => interface.create(socket).map(|_| None),
        }
    }

    /// The node's end of its link, and the link's MTU; none where it has none on the node.
    pub(super) const fn link(&self) -> Option<(&LinkName, u32)> {
        match self {
            Self::Routed(interface) => Some((&interface.host_ifname, interface.mtu)),
            Self::Segment(SegmentInterface { segment: Segment::Bridge { port, .. }, mtu, .. }) => Some((port, *mtu)),
            Self::Segment(_) => None,
        }
    }

    pub(super) fn is_name_taken(&self) -> Result<bool, PodInterfaceError> {
        match self {
            Self::Routed(interface) => interface.is_name_taken(),
            Self::Segment(interface) => interface.is_name_taken(),
        }
    }

    /// Removes what was made of it.
    pub(super) fn undo(&self, socket: &mut RtSocket) -> Result<(), PodInterfaceError> {
        match self {
            Self::Routed(interface) => pod_interface::remove(socket, &interface.host_ifname),
            Self::Segment(interface) => match &interface.segment {
                Segment::Bridge { port, .. } => pod_interface::remove(socket, port),
                Segment::Macvlan { .. } => {
                    pod_interface::remove_from_pod(&interface.netns, &interface.container_ifname)
                }
            },
        }
    }

    pub(super) fn check(&self, socket: &mut RtSocket) -> Result<Vec<String>, PodInterfaceError> {
        match self {
            Self::Routed(interface) => Ok(interface.check(socket)?.iter().map(ToString::to_string).collect()),
            Self::Segment(interface) => interface.check(socket),
        }
    }

    /// What the runtime is told.
    pub(super) fn result(&self, asked: &Asked<'_>) -> Value {
        let interface = match self {
            Self::Routed(interface) => {
                return interface::result(asked.request, interface, asked.addrs, asked.wishes);
            }
            Self::Segment(interface) => interface,
        };
        let own = json!({
            "name": interface.container_ifname, "mac": interface.mac.map(|mac| mac.to_string()),
            "mtu": interface.mtu, "sandbox": asked.request.netns_path,
        });
        let mut interfaces = match &interface.segment {
            Segment::Bridge { bridge, port, .. } => [bridge, port].map(of_node).to_vec(),
            Segment::Macvlan { .. } => Vec::new(),
        };
        let place = interfaces.len();
        interfaces.push(own);
        let ip = |(addr, (_, range)): (&IpNet, &(IpAddr, Range))| json!({"address": addr, "gateway": range.gateway, "interface": place});
        json!({
            "interfaces": interfaces,
            "ips": interface.addrs.iter().zip(asked.addrs).map(ip).collect::<Vec<_>>(),
            "routes": interface.routes.iter().map(|(dst, via)| json!({"dst": dst, "gw": via})).collect::<Vec<_>>(),
            "dns": asked.wishes.dns.to_json(),
        })
    }
}

fn of_node(name: &LinkName) -> Value {
    let mac: Option<Mac> = find(name).ok().flatten().and_then(|link| link.mac);
    mac.map_or_else(|| json!({"name": name}), |mac| json!({"name": name, "mac": mac.to_string()}))
}

/// What the container reaches beyond its segment: what is asked for, by the families that it has addresses of, through the next hop that
/// is asked for or the gateway of its range; all, where the gateway is to be the way to everything.
fn routes(asked: &Asked<'_>) -> Vec<(IpNet, IpAddr)> {
    let gateway = |dst: &IpNet| {
        let same = |range: &&Range| range.gateway.is_ipv4() == dst.addr().is_ipv4();
        asked.addrs.iter().map(|(_, range)| range).find(same).map(|range| range.gateway)
    };
    let own = asked.routes.iter().filter_map(|route| {
        let through = gateway(&route.dst)?;
        Some((route.dst.trunc(), route.via.unwrap_or(through)))
    });
    let mut routes: Vec<(IpNet, IpAddr)> = own.collect();
    if matches!(asked.mode, Mode::Bridge(bridge) if bridge.is_default_gateway) {
        for all in [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())] {
            if let Some(via) = gateway(&all).filter(|_| !routes.iter().any(|(dst, _)| *dst == all)) {
                routes.push((all, via));
            }
        }
    }
    routes.sort();
    routes.dedup();
    routes
}

/// The device that containers share: the one that is named, or the one of the default route.
pub(super) fn master(macvlan: &Macvlan) -> Result<Link, Failure> {
    let Some(name) = &macvlan.master else {
        let mut socket = RtSocket::open().map_err(|error| failed("look for the default route", &error))?;
        let found = route::default_device(&mut socket).map_err(|error| failed("look for the default route", &error))?;
        let found = found.map(|index| link::find(&mut socket, index)).transpose();
        return found.map_err(|error| failed("look for the default route", &error))?.flatten().ok_or_else(|| {
            let what = "key master is missing, and no device has a default route; it names the device to share";
            Failure::new(Failure::INVALID_CONFIG, what)
        });
    };
    find(name)?.ok_or_else(|| no_master(name))
}

fn no_master(name: &LinkName) -> Failure {
    Failure::new(Failure::INVALID_CONFIG, format!("key master is {name:?}; there is no such device on this machine"))
}

fn find(name: &LinkName) -> Result<Option<Link>, Failure> {
    let found = RtSocket::open().and_then(|mut socket| link::find(&mut socket, name));
    found.map_err(|error| failed(&format!("look at device {name}"), &error))
}

/// The master's where nothing is asked for. More than that the kernel refuses.
fn macvlan_mtu(config: &Value, master: &Link) -> Result<u32, Failure> {
    let asked = config["mtu"].as_u64().is_some_and(|mtu| mtu != 0) || !config["mtu"].is_number();
    let mtu = if asked && !config["mtu"].is_null() { interface::mtu(config)? } else { master.mtu };
    if mtu > master.mtu {
        let what = format!("key mtu is {mtu}; at most {}, which is the MTU of {}, is allowed", master.mtu, master.name);
        return Err(Failure::new(Failure::INVALID_CONFIG, what));
    }
    Ok(mtu)
}

impl SegmentLink {
    /// Whether the container's namespace is there still; none where its device on the node tells.
    pub(super) fn is_there(&self) -> Option<bool> {
        match self {
            Self::Bridge { .. } => None,
            Self::Macvlan { netns, inode, .. } => Some(fs::metadata(netns).is_ok_and(|there| there.ino() == *inode)),
        }
    }

    /// Removes a device of which nothing is on the node. Done also where it, or its namespace, is gone.
    pub(super) fn remove(&self, ifname: &str) -> Result<(), Failure> {
        let Self::Macvlan { netns, inode, .. } = self else { return Ok(()) };
        // A namespace of another inode is another container's.
        let there = NetNs::open(netns).ok().filter(|there| there.inode().is_ok_and(|found| found == *inode));
        let Some(there) = there else { return Ok(()) };
        let name = LinkName::from(ifname);
        pod_interface::remove_from_pod(&there, &name)
            .map_err(|error| failed(&format!("remove interface {name}"), &error))
    }
}

fn failed(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new(Failure::INTERFACE, format!("cannot {what}: {}", chain(error)))
}
