//! Which addresses pods of this node may send with, by the interfaces that their packets come in by: what the node's rules check
//! (`planner::attachments`), so that it is known whose packets they drop. And what limits dropped at these interfaces, and of which flows.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    error::Error,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{Beyond, Direction, Key, Transport};
use podnet_kernel::{
    cni_wire::host_ifname,
    link,
    netlink::RtSocket,
    nft::{NftError, NftSocket, NotedFlow},
    sockets::cookie_of,
    tc::{self, Dropped},
};
use podnet_model::{Family, LinkName};
use podnet_planner::limits::rules::{BEYOND, LOST_FROM, LOST_TO, NOTED_FOR, REFUSED_FROM, REFUSED_TO};
use tracing::debug;

use crate::{addresses::Addresses, attach::limit_rules, repair::PodEnds};

/// Addresses, by the indices of the ends of pods' links on the node.
pub(super) type Senders = HashMap<u32, Vec<IpAddr>>;

/// Names, by the indices of interfaces.
pub(super) type Devices = HashMap<u32, LinkName>;

/// A set of the limits' rules, and an address in it.
pub(super) type Counted = (&'static str, IpAddr);

/// What one limit has dropped since it is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) dropped: Dropped,
    /// The set of the limits' rules that counts it, and for which address; none where it is the interface's bandwidth.
    pub(super) counted: Option<Counted>,
}

/// Who knows which pod has which addresses, and the node's interfaces.
pub(super) trait Holders: Send {
    /// All of the node; none where it cannot be told now.
    fn senders(&self) -> Option<Senders>;

    /// The addresses of the node's pods, and their uids.
    fn pods(&self) -> Vec<(IpAddr, Arc<str>)> {
        Vec::new()
    }

    /// All interfaces of the node; none where it cannot be told now.
    fn devices(&self) -> Option<Devices> {
        None
    }

    /// What limits have dropped so far; none where it cannot be told now.
    fn dropped(&self) -> Option<Vec<Loss>> {
        None
    }

    /// Which flows limits of packets and connections lost or refused something of just now; none where it cannot be told now.
    fn beyond(&self) -> Option<Beyond> {
        None
    }

    /// The addresses of pods, by the names of the ends of their links on the node.
    fn ends(&self) -> HashMap<LinkName, Vec<IpAddr>> {
        HashMap::new()
    }

    /// The index of such an end, and the cookie of the namespace that the other one is in; none where they are not found now.
    fn behind(&self, _end: &LinkName) -> Option<(u32, u64)> {
        None
    }
}

/// Nobody has any.
impl Holders for () {
    fn senders(&self) -> Option<Senders> {
        Some(Senders::new())
    }
}

/// Those that have addresses of this agent.
pub(super) struct OfNode {
    addresses: Arc<Addresses>,
    ends: Arc<PodEnds>,
    /// None before the first question, and after an error: an answer may still be under way then.
    rules: RefCell<Option<NftSocket>>,
}

impl OfNode {
    pub(super) fn new(addresses: Arc<Addresses>, ends: Arc<PodEnds>) -> Self {
        Self { addresses, ends, rules: RefCell::default() }
    }

    /// Addresses, by the names of the ends of pods' links on the node.
    fn by_interface(&self) -> HashMap<LinkName, Vec<IpAddr>> {
        let mut addrs: HashMap<LinkName, Vec<IpAddr>> = HashMap::new();
        for (addr, holder) in self.addresses.holders() {
            let Some((sandbox, ifname)) = holder.handle.as_str().rsplit_once('/') else { continue };
            addrs.entry(host_ifname(sandbox, ifname)).or_default().push(addr);
        }
        addrs
    }

    /// The index of an end, and the cookie of the namespace behind it; none where it is gone, or has no name here.
    fn namespace(&self, end: &LinkName) -> Result<Option<(u32, u64)>, Box<dyn Error>> {
        let mut socket = RtSocket::open()?;
        let Some(found) = link::find(&mut socket, end)? else { return Ok(None) };
        let Some(netns) = self.ends.namespace(&mut socket, end)? else { return Ok(None) };
        Ok(Some((found.index, cookie_of(&netns)?)))
    }

    /// What was beyond packet rates and limits of connections, by address.
    fn counted(&self) -> Result<Vec<(Counted, Direction, u64)>, NftError> {
        self.asked(|socket| {
            let mut beyond = Vec::new();
            for (set, direction) in [
                (LOST_FROM, Direction::Egress),
                (LOST_TO, Direction::Ingress),
                (REFUSED_FROM, Direction::Egress),
                (REFUSED_TO, Direction::Ingress),
            ] {
                for family in Family::ALL {
                    let counters = socket.counters(family, limit_rules::TABLE, set)?;
                    beyond.extend(counters.into_iter().map(|(addr, packets)| ((set, addr), direction, packets)));
                }
            }
            Ok(beyond)
        })
    }

    /// What is answered at the socket that is kept, or a new one, which is kept where there is an answer.
    fn asked<T>(&self, ask: impl FnOnce(&mut NftSocket) -> Result<T, NftError>) -> Result<T, NftError> {
        let mut socket = self.rules.take().map_or_else(NftSocket::open, Ok)?;
        let answer = ask(&mut socket)?;
        *self.rules.borrow_mut() = Some(socket);
        Ok(answer)
    }

    fn losses(&self) -> Result<Vec<Loss>, NftError> {
        let mut socket = RtSocket::open()?;
        let mut losses: Vec<Loss> =
            tc::dropped(&mut socket)?.into_iter().map(|dropped| Loss { dropped, counted: None }).collect();
        let beyond = self.counted()?;
        if beyond.is_empty() {
            return Ok(losses);
        }
        let indices: HashMap<LinkName, u32> =
            link::list(&mut socket)?.into_iter().map(|link| (link.name, link.index)).collect();
        let mut devices: HashMap<IpAddr, u32> = HashMap::new();
        for (name, addrs) in self.by_interface() {
            let Some(index) = indices.get(&name) else { continue };
            devices.extend(addrs.into_iter().map(|addr| (addr, *index)));
        }
        losses.extend(beyond.into_iter().filter_map(|((set, addr), direction, packets)| {
            let dropped = Dropped { device: *devices.get(&addr)?, direction, packets };
            Some(Loss { dropped, counted: Some((set, addr)) })
        }));
        Ok(losses)
    }
}

impl Holders for OfNode {
    fn senders(&self) -> Option<Senders> {
        let mut addrs = self.by_interface();
        match RtSocket::open().and_then(|mut socket| link::list(&mut socket)) {
            Ok(links) => {
                Some(links.into_iter().filter_map(|link| Some((link.index, addrs.remove(&link.name)?))).collect())
            }
            Err(error) => {
                debug!(error = &error as &dyn Error, "it is not known by which interfaces pods send");
                None
            }
        }
    }

    fn pods(&self) -> Vec<(IpAddr, Arc<str>)> {
        self.addresses.holders().into_iter().map(|(addr, holder)| (addr, holder.uid)).collect()
    }

    fn devices(&self) -> Option<Devices> {
        match RtSocket::open().and_then(|mut socket| link::list(&mut socket)) {
            Ok(links) => Some(links.into_iter().map(|link| (link.index, link.name)).collect()),
            Err(error) => {
                debug!(error = &error as &dyn Error, "it is not known which interfaces are gone");
                None
            }
        }
    }

    fn dropped(&self) -> Option<Vec<Loss>> {
        match self.losses() {
            Ok(losses) => Some(losses),
            Err(error) => {
                debug!(error = &error as &dyn Error, "it is not known what limits dropped");
                None
            }
        }
    }

    fn beyond(&self) -> Option<Beyond> {
        match self.asked(noted) {
            Ok(beyond) => Some(beyond),
            Err(error) => {
                debug!(error = &error as &dyn Error, "it is not known of which flows limits dropped something");
                None
            }
        }
    }

    fn ends(&self) -> HashMap<LinkName, Vec<IpAddr>> {
        self.by_interface()
    }

    fn behind(&self, end: &LinkName) -> Option<(u32, u64)> {
        match self.namespace(end) {
            Ok(found) => found,
            Err(error) => {
                debug!(error = &*error, %end, "it is not known which namespace is behind a pod's interface");
                None
            }
        }
    }
}

/// Which flows had a packet beyond packet rates or limits of connections, as rules noted it: each stays noted for [`NOTED_FOR`] seconds after the last one.
pub(super) fn noted(rules: &mut NftSocket) -> Result<Beyond, NftError> {
    let mut beyond = Beyond::default();
    for family in Family::ALL {
        let flows = rules.flows(family, limit_rules::TABLE, BEYOND)?;
        let now = Timestamp::now();
        for NotedFlow { source, destination, protocol, left } in flows {
            let ago = Duration::from_secs(NOTED_FOR.into()).saturating_sub(left);
            let packet = Key { source, destination, transport: Transport(protocol) };
            beyond.note(&packet, now.checked_sub(ago).unwrap_or(now));
        }
    }
    Ok(beyond)
}

/// Asks again when there is an interface that nobody knew of. What a pod has does not change as long as its interface is there.
pub(super) struct Asking {
    of: Box<dyn Holders>,
    is_due: bool,
    /// Interfaces in the last reading that nobody knew of, though it was asked: they are gone, or not this agent's.
    unknown: HashSet<u32>,
}

impl Asking {
    pub(super) fn new(of: Box<dyn Holders>) -> Self {
        Self { of, is_due: true, unknown: HashSet::new() }
    }

    /// What is known from now on, where it was time to ask.
    pub(super) fn ask(&mut self) -> Option<Senders> {
        if !self.is_due {
            return None;
        }
        let senders = self.of.senders();
        self.is_due = senders.is_none();
        senders
    }

    /// Which pods have which addresses.
    pub(super) fn pods(&self) -> Vec<(IpAddr, Arc<str>)> {
        self.of.pods()
    }

    /// Which interfaces are there.
    pub(super) fn devices(&self) -> Option<Devices> {
        self.of.devices()
    }

    /// What limits have dropped so far.
    pub(super) fn dropped(&self) -> Option<Vec<Loss>> {
        self.of.dropped()
    }

    /// Which flows limits lost or refused something of just now.
    pub(super) fn beyond(&self) -> Option<Beyond> {
        self.of.beyond()
    }

    /// The addresses of pods, by their interfaces.
    pub(super) fn ends(&self) -> HashMap<LinkName, Vec<IpAddr>> {
        self.of.ends()
    }

    /// An interface's index, and the cookie of the namespace behind it.
    pub(super) fn behind(&self, end: &LinkName) -> Option<(u32, u64)> {
        self.of.behind(end)
    }

    /// All interfaces of a reading that nobody knows of.
    pub(super) fn saw(&mut self, unknown: HashSet<u32>) {
        self.is_due |= !unknown.is_subset(&self.unknown);
        self.unknown = unknown;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Fails the first time, and counts how often it was asked.
    impl Holders for Arc<AtomicUsize> {
        fn senders(&self) -> Option<Senders> {
            (self.fetch_add(1, Ordering::Relaxed) > 0).then(Senders::new)
        }
    }

    #[test]
    fn it_is_asked_once_for_each_interface_that_nobody_knows_of() {
        let asked = Arc::new(AtomicUsize::new(0));
        let mut asking = Asking::new(Box::new(asked.clone()));
        assert!(asking.ask().is_none() && asking.ask().is_some() && asking.ask().is_none());
        for (unknown, times) in [(vec![], 2), (vec![7], 3), (vec![7], 3), (vec![7, 8], 4), (vec![8], 4), (vec![7], 5)] {
            asking.saw(unknown.iter().copied().collect());
            asking.ask();
            assert_eq!(asked.load(Ordering::Relaxed), times, "{unknown:?}");
        }
    }
}
