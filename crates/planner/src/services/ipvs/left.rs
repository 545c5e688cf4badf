//! Addresses that are left to rules for a while: connections of a mode before this one go on there, which no virtual server knows, and would
//! end where an address becomes the node's own.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    super::{FrontendChange, Moved, Plan, Services},
    Ipvs,
};
use crate::ipvs::Edit;

impl Ipvs {
    /// From now on there is nothing of virtual servers at these addresses, and at those that were left before, and are not any more, what
    /// there has to be. Answers with what that means, in order. `services` is what was taken in last.
    pub fn leave_to_rules(&mut self, services: &Services, addrs: &BTreeSet<IpAddr>) -> Vec<Edit> {
        let come = whole_at(services, &self.left.difference(addrs).copied().collect());
        let go = reversed(whole_at(services, &addrs.difference(&self.left).copied().collect()));
        let mut edits = self.edits(services, &go);
        self.left.clone_from(addrs);
        edits.extend(self.edits(services, &come));
        edits
    }

    /// The addresses that are left to rules.
    #[must_use]
    pub const fn left_to_rules(&self) -> &BTreeSet<IpAddr> {
        &self.left
    }
}

/// All that there is at some addresses, as if it were new.
fn whole_at(services: &Services, addrs: &BTreeSet<IpAddr>) -> Plan {
    let there = services.only_at(addrs);
    let cluster_ips = Moved { more: there.cluster_ips().collect(), fewer: BTreeSet::new() };
    Plan { cluster_ips, ..there.whole() }
}

/// The same as if it went.
fn reversed(plan: Plan) -> Plan {
    let back = |change: FrontendChange| FrontendChange { before: change.after, after: change.before, ..change };
    let cluster_ips = Moved { more: plan.cluster_ips.fewer, fewer: plan.cluster_ips.more };
    Plan { frontends: plan.frontends.into_iter().map(back).collect(), cluster_ips, ..Plan::default() }
}

#[cfg(test)]
mod tests {
    use super::super::{super::packet_table, *};

    fn nothing() -> Services {
        Services::new(super::super::super::ServicesConfig { loopback: Vec::new(), ..packet_table::config("node3").0 })
    }

    /// What is at these addresses, by whatever it is known there.
    fn at(state: &State, addrs: &BTreeSet<IpAddr>) -> usize {
        let of_server = |key: &&ServerKey| matches!(key, ServerKey::Address(key) if addrs.contains(&key.addr));
        let of_element = |element: &&Element| match element {
            Element::Port(addr, ..) | Element::PortFromRange(addr, ..) | Element::Address(addr) => addrs.contains(addr),
            _ => false,
        };
        let named = state.sets.iter().filter(|(name, _)| !name.contains("LOCAL-PODS")).map(|(_, set)| set);
        state.servers.keys().filter(of_server).count()
            + state.addrs.intersection(addrs).count()
            + named.map(|set| set.elements.keys().filter(of_element).count()).sum::<usize>()
    }

    /// A ClusterIP, a load balancer's address with a virtual server for each side, and the node's own.
    fn some(services: &Services) -> BTreeSet<IpAddr> {
        let node = services.config().primary();
        let balanced = packet_table::address("local-ip");
        services.cluster_ips().take(1).chain(balanced).chain(node).collect()
    }

    #[test]
    fn what_is_left_goes_by_edits_and_comes_back_as_a_fresh_start_has_it() {
        let mut services = nothing();
        packet_table::changes().iter().for_each(|change| drop(services.apply(change)));
        let mut ipvs = Ipvs::new(&services, Scheduler::RoundRobin);
        let whole = ipvs.state().clone();
        let (mut state, addrs) = (whole.clone(), some(&services));
        assert!(at(&whole, &addrs) > 10, "{}", at(&whole, &addrs));
        let take = |state: &mut State, ipvs: &mut Ipvs, addrs: &BTreeSet<IpAddr>| {
            let edits = ipvs.leave_to_rules(&services, addrs);
            edits.iter().for_each(|edit| state.apply(edit));
            assert_eq!(*state, *ipvs.state(), "by {edits:?}");
            edits.len()
        };
        assert!(take(&mut state, &mut ipvs, &addrs) > 10);
        assert_eq!((at(&state, &addrs), ipvs.left_to_rules()), (0, &addrs));
        let marks = |state: &State| state.servers.keys().filter(|key| matches!(key, ServerKey::Mark(_))).count();
        assert!(marks(&state) < marks(&whole), "that of the inside goes, too");
        assert_eq!(take(&mut state, &mut ipvs, &addrs), 0, "once");
        // One after another they are over.
        let fewer = addrs.iter().skip(1).copied().collect();
        take(&mut state, &mut ipvs, &fewer);
        assert_eq!(at(&state, &fewer), 0);
        assert!(at(&state, &addrs) > 0);
        take(&mut state, &mut ipvs, &BTreeSet::new());
        assert_eq!(state, whole);
    }

    #[test]
    fn what_changes_meanwhile_is_no_virtual_servers_until_the_address_is_not_left_any_more() {
        let mut services = nothing();
        let changes = packet_table::changes();
        let addrs = {
            let mut whole = nothing();
            changes.iter().for_each(|change| drop(whole.apply(change)));
            some(&whole)
        };
        let mut ipvs = Ipvs::new(&services, Scheduler::RoundRobin);
        ipvs.leave_to_rules(&services, &addrs);
        let mut state = ipvs.state().clone();
        for change in &changes {
            let plan = services.apply(change);
            ipvs.edits(&services, &plan).iter().for_each(|edit| state.apply(edit));
            assert_eq!((at(&state, &addrs), &state), (0, ipvs.state()), "after {change:?}");
        }
        ipvs.leave_to_rules(&services, &BTreeSet::new()).iter().for_each(|edit| state.apply(edit));
        assert_eq!(state, *Ipvs::new(&services, Scheduler::RoundRobin).state());
        for change in &packet_table::removals(&changes) {
            let plan = services.apply(change);
            ipvs.edits(&services, &plan).iter().for_each(|edit| state.apply(edit));
        }
        assert!(ipvs.wanted.is_empty() && state.servers.is_empty());
    }
}
