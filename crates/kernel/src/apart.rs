//! A network namespace beside the node's, where a program listens at addresses of Services (mode `userspace`).
//!
//! It hangs at the node by a link of its own. An address is led there by a route, a single port of an address by a rule (`ip-rule(8)`); there
//! the kernel has the address, so that it answers pings and refuses what nobody listens for, and no program of the node's own that
//! listens at all addresses is met. No netfilter is needed. The namespace has no name: it goes with the process that made it, and with it
//! the link and what leads by it. What stays then tells clients that nobody serves (see `ways`), until the next one leads.

mod seen;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::address::{AddressFlags, AddressScope};
use podnet_model::{Family, LinkName, Mac};
use podnet_planner::services::userspace::Led;
pub use podnet_planner::services::userspace::device;
pub use seen::{Seen, look};

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
use ways::There;

/// Who made the routes: others than those to pods and nodes, which are compared with what is planned for those.
pub const PROTOCOL: u8 = 87;
/// Of what one process makes and removes one thing is done after the other: what takes the place of another one may be removed with it.
static TURN: Mutex<()> = Mutex::new(());
/// The link's other end, in the namespace.
const INSIDE: &str = "node";
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
    led: BTreeSet<Led>,
    /// For how much that is led there each address is needed inside.
    addrs: BTreeMap<IpAddr, usize>,
    /// For how much there is the rule of each port.
    ports: BTreeMap<ways::Port, usize>,
    /// Whether clients are told that nobody serves where this process ends.
    refuses: bool,
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
    /// Makes it beside a node's namespace, in the place of what a process left that is gone. Nothing is led there yet: until it is swept,
    /// clients of what was hear that nobody serves.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(node: &NetNs, family: Family) -> Result<Self, ApartError> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let netns = NetNs::with_scratch(NetNs::current)??;
        netns.run(|| settings(family))??;
        let (mut outside, mut inside) = (RtSocket::open_in(node)?, RtSocket::open_in(&netns)?);
        let (ours, theirs) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let peer = VethPeer { name: INSIDE, mac: Some(theirs), netns: Some(&netns) };
        let name = device(family);
        link::delete(&mut outside, name)?;
        link::create_veth(&mut outside, &Veth { name, mac: Some(ours), peer, mtu: MTU })?;
        let index = link::index_of(&mut outside, name)?;
        let lo = link::index_of(&mut inside, "lo")?;
        let mut apart = Self {
            family,
            node: outside,
            inside,
            netns,
            device: index,
            lo,
            source: None,
            led: BTreeSet::new(),
            addrs: BTreeMap::new(),
            ports: BTreeMap::new(),
            refuses: true,
        };
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
        let (gateway, peer) = match self.family {
            Family::V4 => (IpAddr::from(GATEWAY_V4), IpAddr::from(PEER_V4)),
            Family::V6 => (GATEWAY_V6.into(), PEER_V6.into()),
        };
        let name = device(self.family);
        if self.family == Family::V6 {
            sysctl::allow_ipv6(self.node.netns(), name)?;
        } else {
            // Answers come from addresses to which single ports alone are led, by rules that the look at the way back may not know.
            sysctl::set(self.node.netns(), &format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
        }
        link::set_up(&mut self.inside, "lo")?;
        link::set_up(&mut self.inside, INSIDE)?;
        link::set_up(&mut self.node, name)?;
        link::settle(&self.inside, &LinkName::from(INSIDE))?;
        link::settle(&self.node, &LinkName::from(name))?;
        let index = link::index_of(&mut self.inside, INSIDE)?;
        // What comes in is for here; what goes out never is, even to an address that is served here: it may be a client's as well.
        self.inside.perform_all(&route::local_for_input_only(self.family, INSIDE))?;
        neigh::replace(&mut self.inside, index, gateway, ours)?;
        neigh::replace(&mut self.node, self.device, peer, theirs)?;
        let target = Target::Gateway { device: Some(index), via: gateway, onlink: true };
        let dst = self.everything();
        Ok(route::replace(&mut self.inside, &Route { dst, target, protocol: PROTOCOL, source: None })?)
    }

    fn everything(&self) -> IpNet {
        match self.family {
            Family::V4 => Ipv4Net::default().into(),
            Family::V6 => Ipv6Net::default().into(),
        }
    }

    /// What the node's own connections have as their source to what is led there from now on. Where the node does not have that address,
    /// the kernel chooses.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn set_source(&mut self, source: Option<IpAddr>) -> Result<(), ApartError> {
        let own = if source.is_some() { addr::list_all(&mut self.node)? } else { Vec::new() };
        self.source = source.filter(|source| own.iter().any(|(_, net)| net.addr() == *source));
        Ok(())
    }

    fn way(&self) -> Route {
        let via = if self.family == Family::V4 { PEER_V4.into() } else { PEER_V6.into() };
        let target = Target::Gateway { device: Some(self.device), via, onlink: true };
        Route { dst: self.everything(), target, protocol: PROTOCOL, source: self.source }
    }

    /// What is led there.
    #[must_use]
    pub const fn led(&self) -> &BTreeSet<Led> {
        &self.led
    }

    /// Leads more there. What is led there already may be among it: then it is done again, where somebody changed that.
    ///
    /// # Errors
    /// The first that the kernel refused; all else of it was done.
    pub fn lead(&mut self, more: &[Led]) -> Result<(), ApartError> {
        for led in more.iter().filter(|led| self.led.insert(**led)) {
            *self.addrs.entry(led.addr()).or_default() += 1;
            ways::port(led).into_iter().for_each(|port| *self.ports.entry(port).or_default() += 1);
        }
        let addrs: BTreeSet<IpAddr> = more.iter().map(Led::addr).collect();
        let own = |addr: IpAddr| {
            // The kernel makes the route to an IPv6 address later, and what comes before it is dropped.
            let own = (self.family == Family::V6).then(|| own(self.lo, addr));
            own.into_iter().chain([route::to_own(addr, self.lo)])
        };
        let had = self.inside.perform_all(&addrs.into_iter().flat_map(own).collect::<Vec<_>>());
        let way = self.way();
        let refused = more.iter().filter(|_| self.refuses).map(ways::refuse);
        let ports: BTreeSet<ways::Port> = more.iter().filter_map(ways::port).collect();
        let rules = ports.into_iter().map(|port| ways::rule(self.family, port, true));
        let outside: Vec<Request> = refused.chain(more.iter().map(|led| ways::lead(led, &way))).chain(rules).collect();
        self.node.perform_all(&outside)?;
        Ok(had?)
    }

    /// Leads some there no more. What is not led there may be among it.
    ///
    /// # Errors
    /// As [`Apart::lead`].
    pub fn leave(&mut self, fewer: &[Led]) -> Result<(), ApartError> {
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for led in fewer.iter().filter(|led| self.led.remove(*led)) {
            outside.extend([ways::leave(led, self.device), ways::refuse_no_more(led)]);
            if let Some(port) = ways::port(led).filter(|port| fewer_of(&mut self.ports, port)) {
                outside.push(ways::rule(self.family, port, false));
            }
            let addr = led.addr();
            if fewer_of(&mut self.addrs, &addr) {
                inside.extend((self.family == Family::V6).then(|| addr::removal(self.lo, addr.into())));
                inside.push(route::not_to_own(addr, self.lo));
            }
        }
        let left = self.node.perform_all(&outside);
        self.inside.perform_all(&inside)?;
        Ok(left?)
    }

    /// What of all that is led there is not as it was made: somebody changed it.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn missing(&mut self) -> Result<Vec<Led>, ApartError> {
        let there = There::read(&mut self.node, self.family)?;
        let is_missing = |led: &&Led| !there.leads(led, self.device, self.refuses);
        Ok(self.led.iter().filter(is_missing).copied().collect())
    }

    /// Removes what others left, a process before this one as a rule.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn sweep(&mut self) -> Result<(), ApartError> {
        let there = There::read(&mut self.node, self.family)?;
        Ok(self.node.perform_all(&there.removals(&self.led, self.family))?)
    }

    /// From now on nobody is told that nobody serves where this process ends, or again: another one serves beside it.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn refuse(&mut self, refuses: bool) -> Result<(), ApartError> {
        if std::mem::replace(&mut self.refuses, refuses) == refuses {
            return Ok(());
        }
        let change = if refuses { ways::refuse } else { ways::refuse_no_more };
        let changes: Vec<Request> = self.led.iter().map(change).collect();
        Ok(self.node.perform_all(&changes)?)
    }
}

/// Whether that was the last one.
fn fewer_of<K: Ord>(counted: &mut BTreeMap<K, usize>, key: &K) -> bool {
    let Some(count) = counted.get_mut(key) else { return false };
    *count -= 1;
    if *count == 0 {
        counted.remove(key);
        return true;
    }
    false
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
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
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(remove_by(&mut RtSocket::open_in(node)?, family)?)
}

fn remove_by(node: &mut RtSocket, family: Family) -> Result<(), NetlinkError> {
    let there = There::read(node, family)?;
    node.perform_all(&there.removals(&BTreeSet::new(), family))?;
    link::delete(node, device(family))
}

/// Gives the loopback an address of IPv6, without which the kernel answers from others, and no route to it but the one for what comes in.
fn own(lo: u32, addr: IpAddr) -> Request {
    addr::set_as(lo, addr.into(), AddressScope::Universe, AddressFlags::Nodad | AddressFlags::Noprefixroute)
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
