//! Services at some addresses alone: what rules serve beside a mode that cannot be at these yet.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Plan, Services, claims::Frontend};

impl Services {
    /// What is done at some addresses alone, as if there were no other frontends and ClusterIPs, nor ports for health checks. It is for a
    /// renderer of rules and takes no changes in: who follows these makes another one after each.
    #[must_use]
    pub fn only_at(&self, addrs: &BTreeSet<IpAddr>) -> Self {
        let there = self.frontends.iter().filter(|(key, _)| addrs.contains(&key.addr));
        let served = there.filter_map(|(key, frontend)| {
            let serving = Some(frontend.serving.clone()?);
            Some((*key, Frontend { claims: Vec::new(), serving }))
        });
        Self {
            node_port_addrs: self.node_port_addrs.clone(),
            frontends: served.collect(),
            cluster_ips: self.cluster_ips.only(addrs),
            local_backends: self.local_backends.clone(),
            local_pods: self.local_pods.clone(),
            ranges: self.ranges.clone(),
            ..Self::new(self.config.clone())
        }
    }
}

impl Plan {
    /// What it means for who renders [`Services::only_at`] these addresses.
    #[must_use]
    pub fn only_at(&self, addrs: &BTreeSet<IpAddr>) -> Self {
        Self {
            frontends: self.frontends.iter().filter(|change| addrs.contains(&change.key.addr)).cloned().collect(),
            cluster_ips: self.cluster_ips.only(addrs),
            local_backends: self.local_backends.clone(),
            local_pods: self.local_pods.clone(),
            pods_more: self.pods_more.clone(),
            pods_fewer: self.pods_fewer.clone(),
            vanished: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ruleset::{RuleSet, Set},
        services::{
            nftables::Nftables,
            packet_table::{self, NODES},
        },
    };

    /// Of a ClusterIP, a load balancer and the node itself.
    fn some(services: &Services) -> BTreeSet<IpAddr> {
        let node = services.config().node_addrs.iter().map(|addr| addr.0);
        let balanced = packet_table::address("local-ip");
        services.cluster_ips().take(1).chain(balanced).chain(node).collect()
    }

    fn fresh(services: &Services) -> RuleSet {
        let mut nftables = Nftables::new(services);
        nftables.note(services, &services.whole());
        nftables.desired(services)
    }

    /// The elements of whole rules whose keys begin with such an address are all that is there.
    #[test]
    fn rules_of_some_addresses_have_their_frontends_and_nothing_of_others() {
        let mut services = Services::new(packet_table::config("node1").0);
        packet_table::changes().iter().for_each(|change| drop(services.apply(change)));
        let addrs = some(&services);
        let (whole, narrow) = (fresh(&services), fresh(&services.only_at(&addrs)));
        let mut elements = 0;
        for (name, map) in &whole.verdict_maps {
            let mut theirs = map.elements.clone();
            theirs.retain(|key, _| addrs.contains(&key.addr));
            elements += theirs.len();
            assert_eq!(narrow.verdict_maps[name].elements, theirs, "{name}");
        }
        for (name, map) in &whole.backend_maps {
            let mut theirs = map.elements.clone();
            theirs.retain(|key, _| addrs.contains(&key.frontend.addr));
            assert_eq!(narrow.backend_maps[name].elements, theirs, "{name}");
        }
        assert!(elements > 5, "{elements}");
        let cluster_ips: BTreeSet<IpAddr> = services.cluster_ips().filter(|addr| addrs.contains(addr)).collect();
        assert_eq!(narrow.sets["cluster-ips"], Set::Addresses(cluster_ips), "no other one is refused");
        for name in ["local-pairs", "local-pods", "pods"] {
            assert_eq!(narrow.sets[name], whole.sets[name], "{name}");
        }
    }

    /// What each change means there leads from the rules before it to those that a fresh start would make.
    #[test]
    fn rules_of_some_addresses_follow_every_change() {
        let changes = packet_table::changes();
        for node in NODES {
            let fresh_services = || Services::new(packet_table::config(node).0);
            let mut services = fresh_services();
            changes.iter().for_each(|change| drop(services.apply(change)));
            let addrs = some(&services);
            services = fresh_services();
            let mut nftables = Nftables::new(&services);
            let mut table = nftables.desired(&services.only_at(&addrs));
            for change in changes.iter().chain(&packet_table::removals(&changes)) {
                let plan = services.apply(change).only_at(&addrs);
                let narrow = services.only_at(&addrs);
                table.apply(&nftables.edits(&narrow, &plan)).unwrap();
                assert_eq!(table, nftables.desired(&narrow), "after {change:?}");
                let afresh = fresh(&narrow).chains;
                // A chain that nothing uses any more may stay.
                assert!(afresh.iter().all(|(name, chain)| table.chains.get(name) == Some(chain)), "after {change:?}");
            }
        }
    }

    #[test]
    fn where_nothing_is_at_these_addresses_there_is_nothing_to_render() {
        let mut services = Services::new(packet_table::config("node1").0);
        packet_table::changes().iter().for_each(|change| drop(services.apply(change)));
        let narrow = services.only_at(&BTreeSet::from([IpAddr::from([192, 0, 2, 250])]));
        assert!(!narrow.is_needed() && narrow.cluster_ips().next().is_none());
        assert!(narrow.whole().is_empty());
    }
}
