//! The ranges that decide about masquerading: where pods are, and whose way out of the cluster is translated.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use podnet_model::{Family, Pool, PoolName};

use super::chains::Names;
use crate::ruleset::{Edit, RuleName, Set};

/// The pools' ranges, and the sets made of them.
#[derive(Debug)]
pub(super) struct Ranges {
    family: Family,
    configured: Vec<IpNet>,
    /// Where pods keep their address though it is outside: the range of ClusterIPs, and what the node's configuration names.
    excluded: Vec<IpNet>,
    pools: BTreeMap<PoolName, (IpNet, bool)>,
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
    /// Those of one family; what is of the other one is passed by.
    pub(super) fn new(family: Family, configured: &[IpNet], excluded: impl IntoIterator<Item = IpNet>) -> Self {
        let own = |range: IpNet| (Family::of_net(&range) == family).then(|| range.trunc());
        let configured: Vec<IpNet> = configured.iter().copied().filter_map(own).collect();
        let excluded: Vec<IpNet> = excluded.into_iter().filter_map(own).collect();
        let pools = BTreeMap::new();
        let sets = Sets::new(&configured, &excluded, &pools);
        Self { family, configured, excluded, pools, sets }
    }

    pub(super) const fn sets(&self) -> &Sets {
        &self.sets
    }

    /// Whether there is no pod's range.
    pub(super) fn is_empty(&self) -> bool {
        self.configured.is_empty() && self.pools.is_empty()
    }

    /// A pool appeared, changed or vanished. A disabled pool counts, for its pods live on.
    pub(super) fn set_pool(&mut self, names: &Names, name: &PoolName, pool: Option<&Pool>) -> Vec<Edit> {
        let known = pool.filter(|pool| Family::of_net(&pool.cidr) == self.family);
        let known = known.map(|pool| (pool.cidr.trunc(), pool.nat_outgoing));
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
    fn new(configured: &[IpNet], excluded: &[IpNet], pools: &BTreeMap<PoolName, (IpNet, bool)>) -> Self {
        let pods = || configured.iter().copied().chain(pools.values().map(|(cidr, _)| *cidr));
        Self {
            pods: widest(pods()),
            nat_sources: widest(pools.values().filter(|(_, nat)| *nat).map(|(cidr, _)| *cidr)),
            no_nat_destinations: widest(pods().chain(excluded.iter().copied())),
        }
    }
}

/// The ranges without those inside others: an interval set takes no overlap.
fn widest(ranges: impl Iterator<Item = IpNet>) -> Set {
    let sorted: BTreeSet<IpNet> = ranges.collect();
    let mut widest: Vec<IpNet> = Vec::new();
    for range in sorted {
        // A range sorts behind those that it is inside of, and nothing that is outside of them sorts between.
        if !widest.last().is_some_and(|outer| outer.contains(&range)) {
            widest.push(range);
        }
    }
    Set::Ranges(widest.into_iter().collect())
}

pub(super) fn edit(name: &RuleName, before: &Set, after: &Set, edits: &mut Vec<Edit>) {
    edits.extend(before.minus(after).map(|fewer| Edit::RemoveElements(name.clone(), fewer)));
    edits.extend(after.minus(before).map(|more| Edit::AddElements(name.clone(), more)));
}
