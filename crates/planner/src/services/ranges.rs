//! The ranges that decide about masquerading: where pods are, and whose way out of the cluster is translated.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net};
use podnet_model::{Pool, PoolName};

use super::chains::Names;
use crate::ruleset::{Edit, RuleName, Set};

/// The pools' ranges, and the sets made of them.
#[derive(Debug)]
pub(super) struct Ranges {
    configured: Vec<Ipv4Net>,
    /// Where pods keep their address though it is outside: the range of ClusterIPs, and what the node's configuration names.
    excluded: Vec<Ipv4Net>,
    pools: BTreeMap<PoolName, (Ipv4Net, bool)>,
    sets: Sets,
}

/// The elements of the three sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sets {
    /// All pods.
    pub(super) pods: Set,
    /// Pods of pools with `natOutgoing`.
    pub(super) nat_sources: Set,
    /// Destinations to which pods keep their address: pods, ClusterIPs, and what is excluded.
    pub(super) no_nat_destinations: Set,
}

impl Ranges {
    pub(super) fn new(
        configured: impl IntoIterator<Item = Ipv4Net>,
        excluded: impl IntoIterator<Item = Ipv4Net>,
        service_cidr: Ipv4Net,
    ) -> Self {
        let configured: Vec<Ipv4Net> = configured.into_iter().map(|range| range.trunc()).collect();
        let excluded: Vec<Ipv4Net> = excluded.into_iter().chain([service_cidr]).map(|range| range.trunc()).collect();
        let pools = BTreeMap::new();
        let sets = Sets::new(&configured, &excluded, &pools);
        Self { configured, excluded, pools, sets }
    }

    pub(super) const fn sets(&self) -> &Sets {
        &self.sets
    }

    /// A pool appeared, changed or vanished. A disabled pool counts, for its pods live on.
    pub(super) fn set_pool(&mut self, names: &Names, name: &PoolName, pool: Option<&Pool>) -> Vec<Edit> {
        let known = pool.and_then(|pool| match pool.cidr {
            IpNet::V4(cidr) => Some((cidr.trunc(), pool.nat_outgoing)),
            IpNet::V6(_) => None,
        });
        match known {
            Some(known) => self.pools.insert(name.clone(), known),
            None => self.pools.remove(name),
        };
        let after = Sets::new(&self.configured, &self.excluded, &self.pools);
        let before = std::mem::replace(&mut self.sets, after);
        let mut edits = Vec::new();
        edit(&names.pods, &before.pods, &self.sets.pods, &mut edits);
        edit(&names.nat_sources, &before.nat_sources, &self.sets.nat_sources, &mut edits);
        edit(&names.no_nat_destinations, &before.no_nat_destinations, &self.sets.no_nat_destinations, &mut edits);
        edits
    }
}

impl Sets {
    fn new(configured: &[Ipv4Net], excluded: &[Ipv4Net], pools: &BTreeMap<PoolName, (Ipv4Net, bool)>) -> Self {
        let pods = || configured.iter().copied().chain(pools.values().map(|(cidr, _)| *cidr));
        Self {
            pods: widest(pods()),
            nat_sources: widest(pools.values().filter(|(_, nat)| *nat).map(|(cidr, _)| *cidr)),
            no_nat_destinations: widest(pods().chain(excluded.iter().copied())),
        }
    }
}

/// The ranges without those inside others: an interval set takes no overlap.
fn widest(ranges: impl Iterator<Item = Ipv4Net>) -> Set {
    let sorted: BTreeSet<Ipv4Net> = ranges.collect();
    let mut widest: Vec<Ipv4Net> = Vec::new();
    for range in sorted {
        // A range sorts behind those that it is inside of, and nothing that is outside of them sorts between.
        if !widest.last().is_some_and(|outer| outer.contains(&range)) {
            widest.push(range);
        }
    }
    Set::Ranges(widest.into_iter().collect())
}

fn edit(name: &RuleName, before: &Set, after: &Set, edits: &mut Vec<Edit>) {
    edits.extend(before.minus(after).map(|fewer| Edit::RemoveElements(name.clone(), fewer)));
    edits.extend(after.minus(before).map(|more| Edit::AddElements(name.clone(), more)));
}
