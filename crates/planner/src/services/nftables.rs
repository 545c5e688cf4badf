//! Services as rules of nf_tables: frontends and backends are elements, and a change of the cluster is a handful of edits.
//!
//! What is done, by hook (`nftables/chains.rs` has the rules):
//! - prerouting and output, before all: who may not come to a load balancer's address is dropped;
//! - prerouting and output: a frontend's connection is translated to one of its backends, each as likely as the others, or to the one
//!   that the client had before; a ping of a ClusterIP is answered by this node;
//! - input, forward and output: what is addressed to a frontend without backends, or to a ClusterIP at a port that it has not,
//!   is refused at once; what only other nodes may serve is dropped;
//! - postrouting: marked connections, and connections of a pod to itself through a Service, get an address of this node as their source.
//!
//! Who comes from neither this node nor its pods finds a frontend of a policy `Local` in maps of its own: its backends are those of this
//! node, and it keeps its address.

mod chains;
mod elements;

use std::{collections::BTreeMap, net::IpAddr};

use chains::{Choice, Names};
use elements::Elements;

use super::{FrontendChange, Plan, Services};
use crate::ruleset::{Edit, FrontendKey, RuleSet, Set};

/// The table's name, in either family.
pub const TABLE: &str = "podnet-services";

/// So many chains that nothing uses stay, for when they are needed again.
const UNUSED: usize = 32;

/// The rendering of one [`Services`] value, whose plans it is given from the first on. Beside that value it knows which chains were made:
/// some that nothing uses at the moment stay.
#[derive(Debug, Default)]
pub struct Nftables {
    names: Names,
    /// The chains of frontends, and how many go to each.
    choices: BTreeMap<Choice, usize>,
    /// There is, or was, a frontend with affinity.
    remembers: bool,
    /// Which address answers pings.
    echo: Option<IpAddr>,
}

impl Nftables {
    /// Of Services of which no plan was made yet.
    #[must_use]
    pub fn new(services: &Services) -> Self {
        Self { echo: services.config().primary(), ..Self::default() }
    }

    /// The edits that a plan means, in order: one transaction.
    pub fn edits(&mut self, services: &Services, plan: &Plan) -> Vec<Edit> {
        let names = &self.names;
        let mut edits = Vec::new();
        let echo = services.config().primary();
        if std::mem::replace(&mut self.echo, echo) != echo {
            edits.push(Edit::SetChain(names.services.clone(), chains::services(names, services.config(), echo)));
        }
        edits.extend(plan.cluster_ips.edit_addresses(&names.cluster_ips));
        edits.extend(plan.local_backends.edit_pairs(&names.local_pairs));
        edits.extend(plan.local_pods.edit_addresses(&names.local_pods));
        for (ranges, edit) in [
            (&plan.pods_fewer, Edit::RemoveElements as fn(_, _) -> _),
            (&plan.pods_more, Edit::AddElements as fn(_, _) -> _),
        ] {
            if !ranges.is_empty() {
                edits.push(edit(names.pods.clone(), Set::Ranges(ranges.clone())));
            }
        }
        for change in &plan.frontends {
            let [before, after] = self.count_both(change, services, &mut edits);
            before.edit(&after, &self.names, &mut edits);
        }
        self.remove_unused(&mut edits);
        edits
    }

    /// Takes a plan in as [`Nftables::edits`] does, for rules that will be put in force as a whole.
    pub fn note(&mut self, services: &Services, plan: &Plan) {
        self.echo = services.config().primary();
        for change in &plan.frontends {
            self.count_both(change, services, &mut Vec::new());
        }
        self.remove_unused(&mut Vec::new());
    }

    /// Counts what a frontend goes to now in place of what it went to.
    fn count_both<'a>(
        &mut self,
        change: &'a FrontendChange,
        services: &Services,
        edits: &mut Vec<Edit>,
    ) -> [Elements<'a>; 2] {
        let before = Elements::of(change.key, change.before.as_deref());
        let after = Elements::of(change.key, change.after.as_deref());
        for choice in after.choices() {
            self.count(choice, services, edits);
        }
        for choice in before.choices() {
            self.choices.entry(choice).and_modify(|uses| *uses = uses.saturating_sub(1));
        }
        [before, after]
    }

    /// Counts a frontend that goes to a chain, and makes the chain where it is the first of its kind.
    fn count(&mut self, choice: Choice, services: &Services, edits: &mut Vec<Edit>) {
        if let Some(uses) = self.choices.get_mut(&choice) {
            *uses += 1;
            return;
        }
        if choice.affinity.is_some() && !std::mem::replace(&mut self.remembers, true) {
            edits.push(Edit::AddMemory(self.names.affinity.clone()));
        }
        self.choices.insert(choice, 1);
        let chain = choice.chain(&self.names, services.config().masquerade_mark);
        edits.push(Edit::SetChain(choice.name(), chain));
    }

    /// Who may edit a Service may make any number of chains, one after another.
    fn remove_unused(&mut self, edits: &mut Vec<Edit>) {
        if self.choices.values().filter(|uses| **uses == 0).count() > UNUSED {
            let unused = self.choices.extract_if(.., |_, uses| *uses == 0);
            edits.extend(unused.map(|(choice, _)| Edit::RemoveChain(choice.name())));
        }
    }

    /// The rules before any change: what the edits of the first plan expect to be there.
    #[must_use]
    pub fn initial(services: &Services) -> RuleSet {
        let fresh = Services::new(services.config().clone());
        Self::new(&fresh).desired(&fresh)
    }

    /// The rules as they have to be, from nothing: what a restart compares with what it finds.
    #[must_use]
    pub fn desired(&self, services: &Services) -> RuleSet {
        let config = services.config();
        let names = &self.names;
        let mut rules = chains::constant(names, config, self.echo);
        for choice in self.choices.keys() {
            rules.chains.insert(choice.name(), choice.chain(names, config.masquerade_mark));
        }
        if self.remembers {
            rules.memories.insert(names.affinity.clone());
        }
        rules.sets.extend([
            (names.cluster_ips.clone(), services.cluster_ips.addresses()),
            (names.local_pairs.clone(), services.local_backends.pairs()),
            (names.local_pods.clone(), services.local_pods.addresses()),
            (names.pods.clone(), services.ranges.sets().pods.clone()),
        ]);
        for (key, serving) in services.frontends() {
            Elements::of(*key, Some(serving)).put(&mut rules, names);
        }
        rules
    }

    /// Whether the elements of a set or map are each of one frontend, with which its key begins.
    #[must_use]
    pub fn is_by_frontend(&self, name: &str) -> bool {
        let Names { frontends, backends, outside_frontends, outside_backends, no_endpoints, guarded, .. } = &self.names;
        let (inside, outside) = (&self.names.affinity_inside, &self.names.affinity_outside);
        let by_frontend = [frontends, outside_frontends, no_endpoints, guarded, backends, outside_backends];
        by_frontend.into_iter().chain([&inside.0, &inside.1, &outside.0, &outside.1]).any(|known| **known == *name)
    }

    /// The elements of some frontends in those sets and maps, as they have to be; all else that [`Nftables::desired`] has may be missing.
    #[must_use]
    pub fn of_frontends(&self, services: &Services, frontends: impl IntoIterator<Item = FrontendKey>) -> RuleSet {
        let mut rules = chains::constant(&self.names, services.config(), self.echo);
        for key in frontends {
            Elements::of(key, services.serving(&key)).put(&mut rules, &self.names);
        }
        rules
    }
}
