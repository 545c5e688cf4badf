//! Services as virtual servers of the kernel (IPVS), with kube-proxy's sets and chains: `ipvsadm -Ln`, `ipset list` and
//! `iptables -t nat -L KUBE-SERVICES` read as people expect.
//!
//! - Each frontend has a virtual server. ClusterIPs are addresses of the device `kube-ipvs0`, so that packets to them come to this node
//!   and pings of them are answered. Addresses of load balancers and external ones are not, since their other ports are nothing of a
//!   Service's: packets to their frontends are marked, and the mark is routed to this node ([`attraction`](Ipvs::attraction)).
//! - A virtual server is the same for everybody. Where a policy `Local` gives this node and its pods other backends than it gives others,
//!   these have a virtual server of a packet mark, which the kernel asks first (set `KUBE-INSIDE`, `ipvs/marks.rs`).
//! - Everything that differs between clusters is an element of a set ([`sets`]); the chains ([`rules`](Ipvs::rules)) are constant but for the
//!   addresses with NodePorts. They mark what is masqueraded, refuse and drop.
//!
//! A change of the cluster is a list of [`Edit`]s as long as the change.

mod leaving;
mod left;
mod marks;
mod notes;
mod odd;
mod parts;
mod rules;
mod sets;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podnet_model::{Family, Protocol, ServiceKey};

use super::{Plan, Services};
use crate::{
    ipvs::{Edit, Element, Scheduler, Scheduling, Server, ServerKey, Set, SetName, State},
    ruleset::{self, BackendAddress, FrontendKey},
};
pub use leaving::{led_here, lingering, lingers_for, may_linger, remembered};
use marks::Marks;
use notes::{Notes, note_element, note_set};
use parts::Parts;
use sets::Sets;
pub use sets::names;

/// The rendering of one [`Services`] value, whose plans it is given from when it was made on.
#[derive(Debug)]
pub struct Ipvs {
    scheduling: Scheduling,
    sets: Sets,
    marks: Marks,
    /// How many frontends want each element: a port is at several addresses, and a backend serves several frontends.
    wanted: BTreeMap<(SetName, Element), u32>,
    /// Endpoints of frontends that cannot be real servers.
    odd: BTreeMap<FrontendKey, (ServiceKey, BTreeSet<BackendAddress>)>,
    /// Frontends at which this node and its pods have affinity by their address alone.
    hashed: BTreeMap<FrontendKey, ServiceKey>,
    /// Addresses at which nothing of this is: see [`Ipvs::leave_to_rules`].
    left: BTreeSet<IpAddr>,
    state: State,
}

impl Ipvs {
    /// Of what is planned so far, with the scheduler of the configuration.
    #[must_use]
    pub fn new(services: &Services, scheduler: Scheduler) -> Self {
        let config = services.config();
        let sets = Sets::of(config.family);
        let state = State { sets: sets.empty(), ..State::default() };
        let marks = Marks::new(config.masquerade_mark);
        let (wanted, odd, hashed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (scheduling, left) = (scheduling(scheduler), BTreeSet::new());
        let mut ipvs = Self { scheduling, sets, marks, wanted, odd, hashed, left, state };
        ipvs.take_frontends(&services.whole(), None);
        for addr in services.cluster_ips() {
            ipvs.take_cluster_ip(addr, true);
        }
        ipvs.take_others(services);
        ipvs
    }

    /// All that there has to be.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Of all that there has to be, what these frontends need; sets that have no element of a frontend, or elements that may be of several, are
    /// whole.
    #[must_use]
    pub fn state_of(&self, frontends: &BTreeSet<FrontendKey>) -> State {
        let addrs: BTreeSet<IpAddr> = frontends.iter().map(|key| key.addr).collect();
        let is_theirs = |element: &Element| match *element {
            Element::Port(addr, protocol, port) | Element::PortFromRange(addr, protocol, port, _) => {
                frontends.contains(&FrontendKey { addr, protocol, port })
            }
            Element::Address(addr) => addrs.contains(&addr),
            Element::PortAlone(port) => frontends.iter().any(|key| key.port == port),
            Element::PortFrom(..) | Element::Range(_) => true,
        };
        let others = self.sets.others();
        let of_set = |(name, set): (&SetName, &Set)| {
            let kept = set.elements.iter().filter(|(element, _)| others.contains(name) || is_theirs(element));
            (name.clone(), Set { kind: set.kind, elements: kept.map(|(element, mark)| (*element, *mark)).collect() })
        };
        let is_server = |key: &ServerKey| self.frontend(key).is_some_and(|frontend| frontends.contains(frontend));
        let servers = self.state.servers.iter().filter(|(key, _)| is_server(key));
        State {
            servers: servers.map(|(key, server)| (*key, server.clone())).collect(),
            addrs: self.state.addrs.intersection(&addrs).copied().collect(),
            sets: self.state.sets.iter().map(of_set).collect(),
        }
    }

    /// The bits of a packet's mark that say that it is for a virtual server of this node though its address is none of the node's.
    #[must_use]
    pub const fn attraction(&self) -> u32 {
        self.marks.attraction()
    }

    /// The addresses that packets with these bits are for.
    #[must_use]
    pub fn attracted(&self) -> BTreeSet<IpAddr> {
        let elements = self.state.sets.get(&self.sets.elsewhere).map(|set| &set.elements);
        let addr = |element: &Element| if let Element::Address(addr) = element { Some(*addr) } else { None };
        elements.into_iter().flat_map(BTreeMap::keys).filter_map(addr).collect()
    }

    /// Whether these edits may change which packets are led to this node.
    #[must_use]
    pub fn changes_attracted(&self, edits: &[Edit]) -> bool {
        edits.iter().any(|edit| match edit {
            Edit::AddElement(set, ..) | Edit::RemoveElement(set, _) => *set == self.sets.elsewhere,
            edit => matches!(edit, Edit::AddServer(..) | Edit::RemoveServer(_)),
        })
    }

    /// Whether a virtual server's connections may end in peace where a real server goes: where they are known from their begin to their end,
    /// and new ones get on without it.
    #[must_use]
    pub fn may_drain(&self, key: &ServerKey) -> bool {
        let has_connections = match key {
            ServerKey::Address(frontend) => frontend.protocol != Protocol::Udp,
            ServerKey::Mark(mark) => !self.marks.is_of_datagrams(*mark),
        };
        // The destination's hash leads to one real server, and where that has the weight 0 to no other one instead (`ip_vs_dh_schedule`).
        let is_stuck = |server: &Server| server.scheduling.scheduler == Scheduler::DestinationHash;
        has_connections && !self.state.servers.get(key).is_some_and(is_stuck)
    }

    /// Endpoints that are left out since the kernel takes none such as a real server, and whose they are.
    pub fn left_out(&self) -> impl Iterator<Item = (&ServiceKey, &BackendAddress)> {
        self.odd.values().flat_map(|(service, addrs)| addrs.iter().map(move |addr| (service, addr)))
    }

    /// Services of whose affinity the timeout does not count for this node and its pods where a policy `Local` counts for others; each as often as
    /// it has such frontends.
    pub fn hashed(&self) -> impl Iterator<Item = &ServiceKey> {
        self.hashed.values()
    }

    /// The frontend that a virtual server is of.
    #[must_use]
    pub fn frontend<'a>(&'a self, key: &'a ServerKey) -> Option<&'a FrontendKey> {
        match key {
            ServerKey::Address(key) => Some(key),
            ServerKey::Mark(mark) => self.marks.frontend(*mark),
        }
    }

    /// What a plan means, in order.
    pub fn edits(&mut self, services: &Services, plan: &Plan) -> Vec<Edit> {
        let mut notes = Notes::default();
        self.take_frontends(plan, Some(&mut notes));
        for (addrs, is_there) in [(&plan.cluster_ips.fewer, false), (&plan.cluster_ips.more, true)] {
            for addr in addrs {
                self.note_cluster_ip(*addr, &mut notes.before);
                self.take_cluster_ip(*addr, is_there);
                self.note_cluster_ip(*addr, &mut notes.after);
            }
        }
        for name in self.sets.others() {
            note_set(&self.state, &name, &mut notes.before);
        }
        self.take_others(services);
        for name in self.sets.others() {
            note_set(&self.state, &name, &mut notes.after);
        }
        notes.difference()
    }

    /// As [`Ipvs::edits`], where nobody asks what it means.
    pub fn note(&mut self, services: &Services, plan: &Plan) {
        self.take_frontends(plan, None);
        for (addrs, is_there) in [(&plan.cluster_ips.fewer, false), (&plan.cluster_ips.more, true)] {
            addrs.iter().for_each(|addr| self.take_cluster_ip(*addr, is_there));
        }
        self.take_others(services);
    }

    /// Takes the frontends of a plan in; notes of what it touches how it was and how it is, where that is asked for.
    fn take_frontends(&mut self, plan: &Plan, mut notes: Option<&mut Notes>) {
        for change in &plan.frontends {
            if self.left.contains(&change.key.addr) {
                continue;
            }
            self.odd.remove(&change.key);
            if let Some((service, odd)) =
                change.after.as_ref().map(|one| (&one.service, odd::of(one))).filter(|(_, odd)| !odd.is_empty())
            {
                self.odd.insert(change.key, (service.clone(), odd));
            }
            self.hashed.remove(&change.key);
            if let Some(one) = change.after.as_deref().filter(|one| parts::hashes_insiders(one)) {
                self.hashed.insert(change.key, one.service.clone());
            }
            let marks = &mut self.marks;
            let mut parts = |one| Parts::of(&change.key, &odd::without(one), &self.sets, self.scheduling, marks);
            let was = change.before.as_deref().map(&mut parts);
            let is = change.after.as_deref().map(&mut parts);
            if is.as_ref().is_none_or(|is| is.inside.is_none()) {
                self.marks.forget(&change.key);
            }
            let touched = || [&was, &is].into_iter().flatten();
            let keys: BTreeSet<ServerKey> = touched().flat_map(Parts::servers).collect();
            if let Some(notes) = &mut notes {
                let elements = touched().flat_map(|parts| &parts.elements).map(|(name, element, _)| (name, *element));
                notes.begin(&self.state, &keys, elements);
            }
            keys.iter().for_each(|key| drop(self.state.servers.remove(key)));
            for (name, element, mark) in is.iter().flat_map(|parts| &parts.elements) {
                self.want(name, *element, *mark);
            }
            for (name, element, _) in was.iter().flat_map(|parts| &parts.elements) {
                self.want_no_more(name, *element);
            }
            self.state.servers.extend(is.into_iter().flat_map(Parts::into_servers));
        }
        if let Some(notes) = notes {
            notes.end(&self.state);
        }
    }

    fn want(&mut self, name: &SetName, element: Element, mark: Option<u32>) {
        *self.wanted.entry((name.clone(), element)).or_insert(0) += 1;
        if let Some(set) = self.state.sets.get_mut(name) {
            set.elements.insert(element, mark);
        }
    }

    fn want_no_more(&mut self, name: &SetName, element: Element) {
        let key = (name.clone(), element);
        let Some(count) = self.wanted.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            self.wanted.remove(&key);
            if let Some(set) = self.state.sets.get_mut(name) {
                set.elements.remove(&element);
            }
        }
    }

    fn note_cluster_ip(&self, addr: IpAddr, to: &mut State) {
        note_element(&self.state, &self.sets.ips, Element::Address(addr), to);
        to.addrs.extend(self.state.addrs.get(&addr));
    }

    fn take_cluster_ip(&mut self, addr: IpAddr, is_there: bool) {
        let Some(set) = self.state.sets.get_mut(&self.sets.ips).filter(|_| !self.left.contains(&addr)) else { return };
        if is_there {
            set.elements.insert(Element::Address(addr), None);
            self.state.addrs.insert(addr);
        } else {
            set.elements.remove(&Element::Address(addr));
            self.state.addrs.remove(&addr);
        }
    }

    /// The sets that are small, or change seldom.
    fn take_others(&mut self, services: &Services) {
        let pods = match &services.ranges.sets().pods {
            ruleset::Set::Ranges(ranges) => ranges.iter().flat_map(|range| sets::halves(*range)).collect(),
            _ => BTreeSet::new(),
        };
        let local = services.local_pods.iter().map(Element::Address);
        let checks = services.health_checks().into_keys().map(|port| Element::PortAlone(port.0));
        let elements: [(_, Vec<Element>); 3] = [
            (&self.sets.pods, pods.into_iter().map(Element::Range).collect()),
            (&self.sets.local_pods, local.collect()),
            (&self.sets.health_checks, checks.collect()),
        ];
        for (name, elements) in elements {
            if let Some(set) = self.state.sets.get_mut(name) {
                set.elements = elements.into_iter().map(|element| (element, None)).collect();
            }
        }
    }
}

/// Where a server is not reached by its own weight, another one is: one that drains has the weight 0. With `mh` the client's port counts, as
/// kube-proxy has it: a client's connections are spread, and stay together by persistence where that is asked for.
const fn scheduling(scheduler: Scheduler) -> Scheduling {
    let fallback = matches!(scheduler, Scheduler::SourceHash | Scheduler::Maglev);
    Scheduling { scheduler, fallback, port: matches!(scheduler, Scheduler::Maglev), persistence: None }
}

impl From<(Scheduling, &super::Backends)> for Server {
    fn from((scheduling, backends): (Scheduling, &super::Backends)) -> Self {
        Self { scheduling, reals: backends.slots().iter().map(|backend| (backend.at, 1)).collect() }
    }
}

/// What an agent finds, less what is not podnet's: virtual servers that no set of podnet's names, and those with an address that `is_excluded`.
/// What is wanted is podnet's, whoever made it.
#[must_use]
pub fn own(mut there: State, wanted: &State, family: Family, is_excluded: impl Fn(&IpAddr) -> bool) -> State {
    let sets = Sets::of(family);
    let noted = there.sets.get(&sets.servers).map(|set| set.elements.clone()).unwrap_or_default();
    let marks = leaving::marks(&there, &sets);
    there.servers.retain(|key, _| {
        let is_named = match key {
            ServerKey::Address(key) => {
                noted.contains_key(&Element::Port(key.addr, key.protocol, key.port)) && !is_excluded(&key.addr)
            }
            ServerKey::Mark(mark) => marks.contains_key(mark),
        };
        is_named || wanted.servers.contains_key(key)
    });
    there.addrs.retain(|addr| wanted.addrs.contains(addr) || !is_excluded(addr));
    there
}

#[cfg(test)]
mod tests;
