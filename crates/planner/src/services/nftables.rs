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

use std::{collections::BTreeSet, net::IpAddr};

use chains::{Choice, Names};
use elements::Elements;

use super::{Plan, Services};
use crate::ruleset::{Edit, RuleSet, Set};

/// The table's name, in either family.
pub const TABLE: &str = "podnet-services";

/// The rendering of one [`Services`] value, whose plans it is given from the first on. Beside that value it knows which chains were made:
/// those that nothing uses at the moment stay.
#[derive(Debug, Default)]
pub struct Nftables {
    names: Names,
    choices: BTreeSet<Choice>,
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
            let before = Elements::of(change.key, change.before.as_deref());
            let after = Elements::of(change.key, change.after.as_deref());
            for choice in after.choices() {
                make_chain(&self.names, &mut self.choices, services, choice, &mut edits);
            }
            before.edit(&after, &self.names, &mut edits);
        }
        edits
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
        for choice in &self.choices {
            rules.chains.insert(choice.name(), choice.chain(names, config.masquerade_mark));
        }
        if self.choices.iter().any(|choice| choice.affinity.is_some()) {
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
}

/// Makes the chain that a frontend goes to, where it is the first of its kind.
fn make_chain(names: &Names, made: &mut BTreeSet<Choice>, services: &Services, choice: Choice, edits: &mut Vec<Edit>) {
    if choice.affinity.is_some() && made.iter().all(|made| made.affinity.is_none()) {
        edits.push(Edit::AddMemory(names.affinity.clone()));
    }
    if made.insert(choice) {
        edits.push(Edit::SetChain(choice.name(), choice.chain(names, services.config().masquerade_mark)));
    }
}
