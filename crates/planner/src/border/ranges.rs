//! The ranges that decide about masquerading: where pods are, and whose way out of the cluster is translated.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use podnet_model::{Family, Pool, PoolName};

use super::chains::Names;
use crate::ruleset::{Edit, RuleName, Set};

/// The pools' ranges, and the sets made of them.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    family: Family,
    configured: Vec<IpNet>,
    /// Where pods keep their address though it is outside: the range of ClusterIPs, and what the node's configuration names.
    excluded: Vec<IpNet>,
    pools: BTreeMap<PoolName, (IpNet, bool)>,
    sets: Sets,
}

/// The sets before a change, and now.
#[derive(Debug)]
pub(crate) struct Moved<'a> {
    pub(crate) before: Sets,
    pub(crate) after: &'a Sets,
}

/// The elements of the three sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sets {
    /// All pods.
    pub(crate) pods: Set,
    /// Pods of pools with `natOutgoing`.
    pub(crate) nat_sources: Set,
    /// Destinations to which pods keep their address: pods, ClusterIPs, and what is excluded.
    pub(crate) no_nat_destinations: Set,
}

impl Ranges {
    /// Those of one family; what is of the other one is passed by.
    pub(crate) fn new(family: Family, configured: &[IpNet], excluded: impl IntoIterator<Item = IpNet>) -> Self {
        let own = |range: IpNet| (Family::of_net(&range) == family).then(|| range.trunc());
        let configured: Vec<IpNet> = configured.iter().copied().filter_map(own).collect();
        let excluded: Vec<IpNet> = excluded.into_iter().filter_map(own).collect();
        let pools = BTreeMap::new();
        let sets = Sets::new(&configured, &excluded, &pools);
        Self { family, configured, excluded, pools, sets }
    }

    pub(crate) const fn sets(&self) -> &Sets {
        &self.sets
    }

    /// Whether there is no pod's range.
    pub(crate) fn is_empty(&self) -> bool {
        self.configured.is_empty() && self.pools.is_empty()
    }

    /// A pool appeared, changed or vanished; the answer has what was before and what is now. A disabled pool counts, for its pods live on.
    pub(crate) fn set_pool(&mut self, name: &PoolName, pool: Option<&Pool>) -> Moved<'_> {
        let known = pool.filter(|pool| Family::of_net(&pool.cidr) == self.family);
        let known = known.map(|pool| (pool.cidr.trunc(), pool.nat_outgoing));
        match known {
            Some(known) => self.pools.insert(name.clone(), known),
            None => self.pools.remove(name),
        };
        let after = Sets::new(&self.configured, &self.excluded, &self.pools);
        let before = std::mem::replace(&mut self.sets, after);
        Moved { before, after: &self.sets }
    }
}

impl Moved<'_> {
    /// The edits of the three sets.
    pub(super) fn edits(&self, names: &Names) -> Vec<Edit> {
        let mut edits = Vec::new();
        edit(&names.pods, &self.before.pods, &self.after.pods, &mut edits);
        edit(&names.nat_sources, &self.before.nat_sources, &self.after.nat_sources, &mut edits);
        edit(&names.no_nat_destinations, &self.before.no_nat_destinations, &self.after.no_nat_destinations, &mut edits);
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
    Set::Ranges(outermost(ranges))
}

/// The ranges that lie in no other.
pub(crate) fn outermost(ranges: impl Iterator<Item = IpNet>) -> BTreeSet<IpNet> {
    let sorted: BTreeSet<IpNet> = ranges.collect();
    let mut widest: Vec<IpNet> = Vec::new();
    for range in sorted {
        // A range sorts behind those that it is inside of, and nothing that is outside of them sorts between.
        if !widest.last().is_some_and(|outer| outer.contains(&range)) {
            widest.push(range);
        }
    }
    widest.into_iter().collect()
}

pub(crate) fn edit(name: &RuleName, before: &Set, after: &Set, edits: &mut Vec<Edit>) {
    edits.extend(before.minus(after).map(|fewer| Edit::RemoveElements(name.clone(), fewer)));
    edits.extend(after.minus(before).map(|more| Edit::AddElements(name.clone(), more)));
}
