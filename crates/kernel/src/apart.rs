//! A network namespace beside the node's, where a program listens at addresses of Services (mode `userspace`).
//!
//! It hangs at the node by a link of its own. An address is led there by a route, a single port of an address by a rule (`ip-rule(8)`); there
//! the kernel has the address, so that it answers pings and refuses what nobody listens for, and no program of the node's own that
//! listens at all addresses is met. No netfilter is needed. The namespace has no name: it goes with the process that made it, and with it
//! the link and the routes. The rules stay then, and lead nowhere; who comes next takes them away.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::address::{AddressFlags, AddressScope};
use podnet_model::{Family, LinkName, Mac};
use podnet_planner::services::userspace::Led;

use crate::{
    addr,
    link::{self, Veth, VethPeer},
    neigh,
    netlink::{BatchError, NetlinkError, Request, RtSocket},
    netns::{NetNs, NetNsError},
    pod_interface::{GATEWAY_V4, GATEWAY_V6},
    route::{self, Route, Target},
    sysctl::{self, SysctlError},
};

/// Who made the routes: others than those to pods and nodes, which are compared with what is planned for those.
pub const PROTOCOL: u8 = 87;
/// The table that leads everything to the namespace.
pub const TABLE: u32 = 28_782;
/// What the namespace's end is asked by.
const PEER_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const MTU: u32 = 1500;

/// The namespace of one family of addresses. It goes with the value, and all that led there.
#[derive(Debug)]
pub struct Apart {
    family: Family,
    node: RtSocket,
    inside: RtSocket,
    netns: NetNs,
    /// The link's index in the node's namespace.
    device: u32,
    /// That of the loopback inside.
    lo: u32,
    /// What the node's own connections there have as their source.
    source: Option<IpAddr>,
    /// For how much that is led there each address is needed inside.
    addrs: HashMap<IpAddr, usize>,
}

/// Why there is no such namespace, or something is not led there.
#[derive(Debug, thiserror::Error)]
pub enum ApartError {
    /// It cannot be made or entered.
    #[error("cannot have a network namespace for addresses of Services")]
    Namespace(#[from] NetNsError),
    /// A setting in it is refused.
    #[error("cannot prepare the network namespace for addresses of Services")]
    Setting(#[from] SysctlError),
    /// A link, an address or a route is refused.
    #[error("cannot lead addresses of Services to where they are served")]
    Netlink(#[from] NetlinkError),
    /// No threads can be had that serve there.
    #[error("cannot start to serve Services")]
    Threads(#[source] std::io::Error),
}

impl From<BatchError> for ApartError {
    fn from(error: BatchError) -> Self {
        Self::Netlink(error.into())
    }
}

impl Apart {
    /// Makes it beside a node's namespace, in the place of what a process left that is gone. Nothing is led there yet.
    ///
    /// # Errors
    /// What the kernel refused; nothing stays then.
    pub fn new(node: &NetNs, family: Family) -> Result<Self, ApartError> {
        remove(node, family)?;
        let netns = NetNs::with_scratch(NetNs::current)??;
        netns.run(|| settings(family))??;
        let (mut outside, mut inside) = (RtSocket::open_in(node)?, RtSocket::open_in(&netns)?);
        let (ours, theirs) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let peer = VethPeer { name: "node", mac: Some(theirs), netns: Some(&netns) };
        let name = device(family);
        link::create_veth(&mut outside, &Veth { name, mac: Some(ours), peer, mtu: MTU })?;
        let index = link::index_of(&mut outside, name)?;
        let lo = link::index_of(&mut inside, "lo")?;
        let (source, addrs) = (None, HashMap::new());
        let mut apart = Self { family, node: outside, inside, netns, device: index, lo, source, addrs };
        apart.join(ours, theirs)?;
        Ok(apart)
    }

    /// The namespace.
    #[must_use]
    pub const fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Whether it is there as it was made: somebody may have removed the link.
    pub fn is_there(&mut self) -> bool {
        link::find(&mut self.node, device(self.family))
            .is_ok_and(|found| found.is_some_and(|link| link.index == self.device))
    }

    fn join(&mut self, ours: Mac, theirs: Mac) -> Result<(), ApartError> {
        let (gateway, peer, everything) = match self.family {
            Family::V4 => (IpAddr::from(GATEWAY_V4), IpAddr::from(PEER_V4), IpNet::from(Ipv4Net::default())),
            Family::V6 => (GATEWAY_V6.into(), PEER_V6.into(), Ipv6Net::default().into()),
        };
        let name = device(self.family);
        if self.family == Family::V6 {
            sysctl::allow_ipv6(self.node.netns(), name)?;
        } else {
            // Answers come from addresses to which single ports alone are led, by rules that the look at the way back may not know.
            sysctl::set(self.node.netns(), &format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
        }
        link::set_up(&mut self.inside, "lo")?;
        link::set_up(&mut self.inside, "node")?;
        link::set_up(&mut self.node, name)?;
        link::settle(&self.inside, &LinkName::from("node"))?;
        link::settle(&self.node, &LinkName::from(name))?;
        let index = link::index_of(&mut self.inside, "node")?;
        // What comes in is for here; what goes out never is, even to an address that is served here: it may be a client's as well.
        self.inside.perform_all(&route::local_for_input_only(self.family, "node"))?;
        neigh::replace(&mut self.inside, index, gateway, ours)?;
        neigh::replace(&mut self.node, self.device, peer, theirs)?;
        let target = Target::Gateway { device: Some(index), via: gateway, onlink: true };
        route::replace(&mut self.inside, &Route { dst: everything, target, protocol: PROTOCOL, source: None })?;
        let by_port = route::set_in_table(&self.way(everything), TABLE);
        Ok(self.node.perform(by_port)?)
    }

    /// What the node's own connections there have as their source from now on; those that come later are to be led there again. Where the
    /// node does not have that address, the kernel chooses.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set_source(&mut self, source: Option<IpAddr>) -> Result<(), ApartError> {
        let everything = match self.family {
            Family::V4 => IpNet::from(Ipv4Net::default()),
            Family::V6 => Ipv6Net::default().into(),
        };
        if std::mem::replace(&mut self.source, source) == source {
            return Ok(());
        }
        let by_port = route::set_in_table(&self.way(everything), TABLE);
        if self.node.perform(by_port).is_err() {
            self.source = None;
            self.node.perform(route::set_in_table(&self.way(everything), TABLE))?;
        }
        Ok(())
    }

    fn way(&self, dst: IpNet) -> Route {
        let via = if self.family == Family::V4 { PEER_V4.into() } else { PEER_V6.into() };
        let target = Target::Gateway { device: Some(self.device), via, onlink: true };
        Route { dst, target, protocol: PROTOCOL, source: self.source }
    }

    /// Leads more there. What is led there already may be among it.
    ///
    /// # Errors
    /// What the kernel refused; all else of it was done.
    pub fn lead(&mut self, more: &[Led]) -> Result<(), ApartError> {
        let mut inside = Vec::new();
        for led in more {
            let uses = self.addrs.entry(led.addr()).or_default();
            *uses += 1;
            if *uses == 1 {
                // The kernel makes the route to an IPv6 address later, and what comes before it is dropped.
                inside.extend((self.family == Family::V6).then(|| own(self.lo, led.addr())));
                inside.push(route::to_own(led.addr(), self.lo));
            }
        }
        let outside: Vec<Request> = more.iter().map(|led| self.leading(led)).collect();
        let had = self.inside.perform_all(&inside);
        self.node.perform_all(&outside)?;
        Ok(had?)
    }

    /// Leads there again what is led there as far as is known, where somebody changed that.
    ///
    /// # Errors
    /// As [`Apart::lead`].
    pub fn lead_again(&mut self, led: &[Led]) -> Result<(), ApartError> {
        let requests: Vec<Request> = led.iter().map(|led| self.leading(led)).collect();
        Ok(self.node.perform_all(&requests)?)
    }

    /// How much is led there.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn count(&mut self) -> Result<usize, ApartError> {
        let routes = route::list(&mut self.node, PROTOCOL)?;
        let is_ours = |route: &Route| Family::of(&route.dst.addr()) == self.family;
        Ok(routes.into_iter().filter(is_ours).count() + route::rules_to(&mut self.node, self.family, TABLE)?.len())
    }

    /// Leads some there no more: each as often as it was led there.
    ///
    /// # Errors
    /// As [`Apart::lead`].
    pub fn leave(&mut self, fewer: &[Led]) -> Result<(), ApartError> {
        let outside: Vec<Request> = fewer.iter().map(|led| self.leaving(led)).collect();
        let mut inside = Vec::new();
        for led in fewer {
            let Some(uses) = self.addrs.get_mut(&led.addr()) else { continue };
            *uses -= 1;
            if *uses == 0 {
                self.addrs.remove(&led.addr());
                inside.extend((self.family == Family::V6).then(|| addr::removal(self.lo, led.addr().into())));
                inside.push(route::not_to_own(led.addr(), self.lo));
            }
        }
        let left = self.node.perform_all(&outside);
        self.inside.perform_all(&inside)?;
        Ok(left?)
    }

    fn leading(&self, led: &Led) -> Request {
        match *led {
            Led::Address(addr) => route::set(&self.way(addr.into())),
            Led::Port { addr, protocol, port } => route::use_table_for_port(addr, protocol, port, TABLE),
        }
    }

    fn leaving(&self, led: &Led) -> Request {
        match *led {
            Led::Address(addr) => route::removal(addr.into(), PROTOCOL),
            Led::Port { addr, protocol, port } => route::use_table_no_more(addr, protocol, port, TABLE),
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // Another one may have taken its place.
        if self.is_there()
            && let Err(error) = remove_by(&mut self.node, self.family)
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what led addresses of Services aside could not be removed"
            );
        }
    }
}

/// Takes away what leads from a node's namespace to such a one. Done also where there is nothing.
///
/// # Errors
/// What the kernel refused.
pub fn remove(node: &NetNs, family: Family) -> Result<(), ApartError> {
    Ok(remove_by(&mut RtSocket::open_in(node)?, family)?)
}

fn remove_by(node: &mut RtSocket, family: Family) -> Result<(), NetlinkError> {
    let rules = route::rules_to(node, family, TABLE)?;
    node.perform_all(&rules)?;
    link::delete(node, device(family))
}

/// Gives the loopback an address of IPv6, without which the kernel answers from others, and no route to it but the one for what comes in.
fn own(lo: u32, addr: IpAddr) -> Request {
    addr::set_as(lo, addr.into(), AddressScope::Universe, AddressFlags::Nodad | AddressFlags::Noprefixroute)
}

/// The link's name in the node's namespace: none that pods or tunnels have.
#[must_use]
pub const fn device(family: Family) -> &'static str {
    match family {
        Family::V4 => "podservices4",
        Family::V6 => "podservices6",
    }
}

/// Refusals are told to everybody, and not to some a second. What comes by the link is from anybody, and is for here: what is led here
/// before its address is there does not go back.
fn settings(family: Family) -> Result<(), SysctlError> {
    let settings: &[(&str, &str)] = match family {
        Family::V4 => &[
            ("net.ipv4.icmp_ratemask", "0"),
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
            ("net.ipv4.ip_forward", "0"),
        ],
        Family::V6 => &[
            ("net.ipv6.icmp.ratelimit", "0"),
            ("net.ipv6.conf.all.disable_ipv6", "0"),
            ("net.ipv6.conf.default.disable_ipv6", "0"),
            ("net.ipv6.conf.default.accept_dad", "0"),
            ("net.ipv6.conf.all.forwarding", "0"),
        ],
    };
    settings.iter().try_for_each(|(key, value)| sysctl::set_here(key, value))
}

#[cfg(test)]
mod tests;
