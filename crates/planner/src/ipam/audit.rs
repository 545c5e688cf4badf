//! What the API, the nodes' journals, their interfaces and the pods say of addresses, compared.
//!
//! Each of the four may be wrong by itself after a crash, a lost disk or a hand that meant well. The journals are believed first: an
//! address is given when its journal says so. Of nodes whose journal cannot be read here, what the API says is all that is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use podnet_model::{BlockCidr, LinkName, NodeName, PodKey};

use super::{Handle, Holder, NodeIpam, Occupancy, OccupancyError};

/// What is compared.
#[derive(Debug, Default)]
pub struct Facts {
    /// The pools' ranges.
    pub pools: Vec<IpNet>,
    /// The IPAMBlock objects.
    pub blocks: Vec<PublishedBlock>,
    /// The nodes that the cluster has.
    pub nodes: BTreeSet<NodeName>,
    /// Pods that have, or may have, an address of their own.
    pub pods: Vec<PodFacts>,
    /// The nodes whose journal and interfaces can be read here.
    pub local: BTreeMap<NodeName, LocalFacts>,
}

/// What an IPAMBlock says.
#[derive(Debug)]
pub struct PublishedBlock {
    /// The block.
    pub cidr: BlockCidr,
    /// The owner that it names.
    pub owner: Option<NodeName>,
    /// Who holds which address.
    pub occupancy: Result<Occupancy, OccupancyError>,
}

/// What a Pod says.
#[derive(Debug)]
pub struct PodFacts {
    /// The pod.
    pub key: PodKey,
    /// Its `metadata.uid`.
    pub uid: Arc<str>,
    /// The addresses that it runs with; none where it has ended.
    pub addrs: Vec<IpAddr>,
}

/// What a node's own machine says.
#[derive(Debug)]
pub struct LocalFacts {
    /// The journal, replayed.
    pub ipam: NodeIpam,
    /// Lines of the journal that cannot be read; none where there is no journal.
    pub damaged: Option<usize>,
    /// The host sides of pods' interfaces.
    pub links: BTreeSet<LinkName>,
    /// Those of them that the agent's records of attachments name.
    pub recorded: BTreeSet<LinkName>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How.
    pub kind: FindingKind,
    /// The address, block, interface or file that it is about.
    pub subject: String,
    /// In a sentence.
    pub text: String,
    /// What mends it; none where a person has to decide.
    pub repair: Option<Repair>,
}

/// In which way something is wrong, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// Two have the same.
    Duplicate,
    /// Somebody uses an address that nobody gave.
    Unknown,
    /// Nobody uses what is held.
    Leak,
    /// What the API says is not what is.
    Stale,
    /// Something belongs to nobody.
    Stray,
    /// A journal cannot be read as a whole.
    Damage,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "duplicate",
            Self::Unknown => "unknown",
            Self::Leak => "leak",
            Self::Stale => "stale",
            Self::Stray => "stray",
            Self::Damage => "damage",
        })
    }
}

/// What mends a finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repair {
    /// The agent of the node frees what the handle holds and removes its interface.
    Bury {
        /// The node.
        node: NodeName,
        /// What holds the address.
        handle: Handle,
    },
    /// The block's object gets what the journal says.
    Publish {
        /// The owner.
        node: NodeName,
        /// The block.
        block: BlockCidr,
    },
    /// The interface is removed.
    RemoveLink {
        /// The node.
        node: NodeName,
        /// The interface.
        link: LinkName,
    },
}

impl Facts {
    /// Everything that is wrong, the gravest first, always in the same order. `link_of` is the name of an attachment's interface.
    #[must_use]
    pub fn findings(&self, link_of: impl Fn(&Handle) -> LinkName) -> Vec<Finding> {
        let mut found = Vec::new();
        self.duplicate_pods(&mut found);
        self.duplicate_holders(&mut found);
        self.blocks(&mut found);
        self.unknown_addresses(&mut found);
        for (node, local) in &self.local {
            self.journal(node, local, &link_of, &mut found);
        }
        found.sort();
        found.dedup();
        found
    }

    fn duplicate_pods(&self, found: &mut Vec<Finding>) {
        let mut by_addr: BTreeMap<IpAddr, Vec<&PodKey>> = BTreeMap::new();
        for pod in &self.pods {
            pod.addrs.iter().for_each(|addr| by_addr.entry(*addr).or_default().push(&pod.key));
        }
        for (addr, pods) in by_addr.into_iter().filter(|(_, pods)| pods.len() > 1) {
            let pods: Vec<_> = pods.iter().map(ToString::to_string).collect();
            let text = format!("the pods {} run with it: delete all but one", pods.join(" and "));
            found.push(finding(FindingKind::Duplicate, addr, text, None));
        }
    }

    fn duplicate_holders(&self, found: &mut Vec<Finding>) {
        let mut holders: BTreeMap<IpAddr, (&NodeName, &Holder)> = BTreeMap::new();
        for (node, local) in &self.local {
            for (addr, holder) in local.ipam.holders() {
                let Some((other, before)) = holders.insert(addr.0, (node, holder)) else { continue };
                if before.handle != holder.handle {
                    let text = format!(
                        "node {other} gave it to pod {} and node {node} to pod {}: delete one of them",
                        before.pod, holder.pod
                    );
                    found.push(finding(FindingKind::Duplicate, addr.0, text, None));
                }
            }
        }
        let mut owners: BTreeMap<BlockCidr, &NodeName> = BTreeMap::new();
        for (node, local) in &self.local {
            for block in local.ipam.blocks() {
                if let Some(other) = owners.insert(block, node) {
                    let text = format!("the journals of nodes {other} and {node} both have this block");
                    found.push(finding(FindingKind::Duplicate, block, text, None));
                }
            }
        }
    }

    /// Each block's object beside its owner's journal.
    fn blocks(&self, found: &mut Vec<Finding>) {
        for block in &self.blocks {
            let cidr = block.cidr;
            if !self.pools.iter().any(|pool| pool.contains(&cidr.0)) {
                found.push(finding(FindingKind::Stray, cidr, "the block is in no pool".to_owned(), None));
            }
            let Some(owner) = &block.owner else { continue };
            if !self.nodes.contains(owner) {
                let text = format!(
                    "the block belongs to node {owner}, which the cluster does not have; the agents take it away when its pods are gone"
                );
                found.push(finding(FindingKind::Stray, cidr, text, None));
                continue;
            }
            match (&block.occupancy, self.local.get(owner)) {
                (Err(error), local) => {
                    let repair = local.map(|_| Repair::Publish { node: owner.clone(), block: cidr });
                    found.push(finding(
                        FindingKind::Stale,
                        cidr,
                        format!("the block's object contradicts itself: {error}"),
                        repair,
                    ));
                }
                (Ok(published), Some(local)) => beside_journal(cidr, owner, published, local, found),
                (Ok(published), None) => self.without_journal(owner, published, found),
            }
        }
    }

    /// Of a node that is elsewhere, what is held is a leak when its pod is not there.
    fn without_journal(&self, owner: &NodeName, published: &Occupancy, found: &mut Vec<Finding>) {
        for (addr, holder) in published.held.iter().filter(|(_, holder)| self.is_gone(holder)) {
            let node = holder.node.as_ref().unwrap_or(owner);
            let text =
                format!("pod {} is gone and holds it; run `podnet ipam check --repair` on node {node}", holder.pod);
            found.push(finding(FindingKind::Leak, addr, text, None));
        }
    }

    /// Whether a holder is a pod that the cluster does not have. Without Kubernetes there are no namespaces, and nobody to ask.
    fn is_gone(&self, holder: &Holder) -> bool {
        let is_it = |pod: &PodFacts| pod.key == holder.pod && (holder.uid.is_empty() || pod.uid == holder.uid);
        !holder.pod.namespace.as_str().is_empty() && !self.pods.iter().any(is_it)
    }

    /// Pods' addresses that nobody gave: the next pod may get the same.
    fn unknown_addresses(&self, found: &mut Vec<Finding>) {
        let held_by_journal =
            |addr: IpAddr| self.local.values().any(|local| local.ipam.holder(podnet_model::PodAddr(addr)).is_some());
        let published = |addr: IpAddr| {
            self.blocks.iter().filter_map(|block| block.occupancy.as_ref().ok()).any(|block| block.holds(addr))
        };
        for pod in &self.pods {
            for addr in pod.addrs.iter().filter(|addr| self.pools.iter().any(|pool| pool.contains(*addr))) {
                if !held_by_journal(*addr) && !published(*addr) {
                    let text = format!("pod {} runs with it, and nobody gave it: delete the pod", pod.key);
                    found.push(finding(FindingKind::Unknown, addr, text, None));
                }
            }
        }
    }

    /// A journal beside the interfaces, the pods, the blocks' objects and the other journals.
    fn journal(
        &self,
        node: &NodeName,
        local: &LocalFacts,
        link_of: &impl Fn(&Handle) -> LinkName,
        found: &mut Vec<Finding>,
    ) {
        let is_whole = local.damaged == Some(0);
        if !is_whole {
            let lines = |lines| format!("{lines} lines of the address journal of node {node} cannot be read");
            let text = local.damaged.map_or_else(|| format!("node {node} has no address journal"), lines);
            found.push(finding(FindingKind::Damage, node, text, None));
        }
        let mut strays = local.links.clone();
        for (addr, holder) in local.ipam.holders().filter(|(_, holder)| holder.node.is_none()) {
            let bury = Some(Repair::Bury { node: node.clone(), handle: holder.handle.clone() });
            let link = link_of(&holder.handle);
            strays.remove(&link);
            if !local.links.contains(&link) {
                let text = format!("node {node} gave it to pod {}, whose interface is not there", holder.pod);
                found.push(finding(FindingKind::Leak, addr.0, text, bury));
            } else if self.is_gone(holder) {
                let text = format!("node {node} gave it to pod {}, which is gone", holder.pod);
                found.push(finding(FindingKind::Leak, addr.0, text, bury));
            }
            self.loan(node, addr.0, holder, found);
        }
        for link in strays {
            // A running pod's interface is not removed because its line of the journal cannot be read, or another journal was.
            let is_recorded = local.recorded.contains(&link);
            let repair = Repair::RemoveLink { node: node.clone(), link: link.clone() };
            let repair = Some(repair).filter(|_| is_whole && !is_recorded);
            let unknown = "that the agent recorded, and whose address the journal does not know";
            let why = if is_recorded { unknown } else { "that belongs to no sandbox" };
            let text = format!("an interface on node {node} {why}");
            found.push(finding(FindingKind::Stray, link, text, repair));
        }
        for block in local.ipam.blocks().filter(|block| !self.blocks.iter().any(|other| other.cidr == *block)) {
            let text = format!("node {node} has this block, and it has no object");
            found.push(finding(FindingKind::Stale, block, text, None));
        }
    }

    /// What is borrowed has to be known for lent by the owner of the block.
    fn loan(&self, node: &NodeName, addr: IpAddr, holder: &Holder, found: &mut Vec<Finding>) {
        let block = self.blocks.iter().find(|block| block.cidr.0.contains(&addr));
        let Some(owner) = block.and_then(|block| block.owner.as_ref()).filter(|owner| *owner != node) else { return };
        let Some(lender) = self.local.get(owner) else { return };
        let lent = lender.ipam.holder(podnet_model::PodAddr(addr));
        if lent.is_none_or(|lent| lent.handle != holder.handle) {
            let text = format!(
                "node {node} gave it to pod {}, and its block is node {owner}'s, which did not lend it",
                holder.pod
            );
            found.push(finding(FindingKind::Unknown, addr, text, None));
        }
    }
}

fn beside_journal(
    cidr: BlockCidr,
    owner: &NodeName,
    published: &Occupancy,
    local: &LocalFacts,
    found: &mut Vec<Finding>,
) {
    let Some(held) = local.ipam.occupancy_of(cidr) else {
        let text = format!("the block's object names node {owner}, whose journal does not know it");
        found.push(finding(FindingKind::Stale, cidr, text, None));
        return;
    };
    let addrs: BTreeSet<&IpAddr> = published.held.keys().chain(held.held.keys()).collect();
    for addr in addrs {
        let name = |holder: Option<&Holder>| {
            holder.map_or_else(|| "nobody".to_owned(), |holder| format!("pod {}", holder.pod))
        };
        let (said, is) = (published.held.get(addr), held.held.get(addr));
        if said.map(|holder| &holder.handle) != is.map(|holder| &holder.handle) {
            let text = format!(
                "block {cidr} says that {} has it, and by the journal of node {owner} it is {}",
                name(said),
                name(is)
            );
            let repair = Some(Repair::Publish { node: owner.clone(), block: cidr });
            found.push(finding(FindingKind::Stale, addr, text, repair));
        }
    }
}

fn finding(kind: FindingKind, subject: impl fmt::Display, text: String, repair: Option<Repair>) -> Finding {
    Finding { kind, subject: subject.to_string(), text, repair }
}

#[cfg(test)]
mod tests;
