//! What of a block is held, as the IPAMBlock object publishes it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use podnet_model::{
    BlockCidr, Family, NodeName, PodKey,
    crd::{AllocationAttribute, IPAMBlockSpec},
};

use super::{Handle, Holder, JournalRecord, NodeIpam, claims::is_block, ledger};

/// One block with its holders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// The block.
    pub block: IpNet,
    /// Who holds which address.
    pub held: BTreeMap<IpAddr, Holder>,
    /// Free addresses, those that were never given or have rested longest first.
    pub free: Vec<IpAddr>,
}

/// Why the specification of an IPAMBlock cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OccupancyError {
    /// The range is none, or larger than a block can be.
    #[error("spec.cidr is {value:?}; it must be an IPv4 range of prefix length 20 to 32, or an IPv6 one of 116 to 128")]
    Cidr {
        /// The value.
        value: String,
    },
    /// An allocation lies outside the block or has no attributes.
    #[error(
        "spec.allocations[{offset}] is {index}; it must be the index of one of {attributes} attributes, in a block of {size}"
    )]
    Allocation {
        /// The address's offset in the block.
        offset: usize,
        /// The index of the attributes.
        index: i64,
        /// How many attributes there are.
        attributes: usize,
        /// How many addresses the block has.
        size: usize,
    },
}

impl NodeIpam {
    /// What is held of each own block.
    pub fn occupancy(&self) -> impl Iterator<Item = Occupancy> {
        self.ledger.own.iter().map(|block| self.occupancy_in(*block))
    }

    /// What is held of one own block; none for a block that is not this node's.
    #[must_use]
    pub fn occupancy_of(&self, block: BlockCidr) -> Option<Occupancy> {
        self.ledger.own.contains(&block.0).then(|| self.occupancy_in(block.0))
    }

    /// Takes over a block that the API says is this node's, with its holders, where the journal was lost or damaged: addresses
    /// that this ledger has no holder for are held by whom the API says. The records belong in the journal.
    ///
    /// Not for a block whose journal is whole: the API may lag behind it.
    pub fn adopt(&mut self, occupancy: &Occupancy) -> Vec<JournalRecord> {
        let mut records = self.block_claimed(BlockCidr(occupancy.block));
        for (addr, holder) in &occupancy.held {
            if self.is_taken(*addr, &holder.handle) {
                continue;
            }
            let record = holder.record(*addr);
            self.ledger.record(&record);
            records.push(record);
        }
        records
    }

    /// As the borrower, at the start: takes over what the API says this node has of another's block, where a crash or a lost journal
    /// forgot it. Who has no interface any more is freed with all others. The records belong in the journal.
    pub fn adopt_loans(&mut self, occupancy: &Occupancy) -> Vec<JournalRecord> {
        let mut records = Vec::new();
        for (addr, holder) in &occupancy.held {
            let is_ours = holder.node.as_ref() == Some(&self.node) && self.block_of(*addr).is_none();
            if is_ours && !self.is_taken(*addr, &holder.handle) {
                let record = Holder { node: None, ..holder.clone() }.record(*addr);
                self.ledger.record(&record);
                records.push(record);
            }
        }
        records
    }

    /// Whether somebody has the address, or the handle another of its family.
    fn is_taken(&self, addr: IpAddr, handle: &Handle) -> bool {
        self.ledger.held.contains_key(&addr) || self.ledger.address_of(handle, Family::of(&addr)).is_some()
    }

    fn occupancy_in(&self, block: IpNet) -> Occupancy {
        let held: BTreeMap<_, _> = self.ledger.held_in(block).map(|(addr, holder)| (addr, holder.clone())).collect();
        let mut free: Vec<_> = ledger::addresses(block).filter(|addr| !held.contains_key(addr)).collect();
        free.sort_by_key(|addr| (self.ledger.resting.get(addr).map(|rest| rest.since), *addr));
        Occupancy { block, held, free }
    }
}

impl Occupancy {
    /// Writes what is held into the specification of the block's object: `allocations`, `unallocated`, `attributes`, and the
    /// affinity to `node`. Everything else stays; where something changed the sequence number is one more, and the answer true.
    pub fn publish(&self, node: &NodeName, spec: &mut IPAMBlockSpec) -> bool {
        let before = spec.clone();
        let offset = |addr: &IpAddr| self.cidr().offset_of(*addr);
        spec.cidr = self.block.to_string();
        spec.affinity = Some(format!("host:{node}"));
        spec.allocations = vec![None; self.cidr().size()];
        spec.attributes = Vec::with_capacity(self.held.len());
        for (index, (addr, holder)) in (0_i64..).zip(&self.held) {
            if let Some(slot) = offset(addr).and_then(|offset| spec.allocations.get_mut(offset)) {
                *slot = Some(index);
            }
            spec.attributes.push(attribute(node, holder));
        }
        spec.unallocated =
            self.free.iter().filter_map(offset).filter_map(|offset| i64::try_from(offset).ok()).collect();
        let changed = *spec != before;
        spec.sequence_number += u64::from(changed);
        changed
    }

    /// Reads a block's object back. Addresses without a pod (of other programs' making) are held by a pod without a name.
    ///
    /// # Errors
    ///
    /// [`OccupancyError`] where the object contradicts itself.
    pub fn from_spec(spec: &IPAMBlockSpec) -> Result<Self, OccupancyError> {
        let block = spec.cidr.parse::<IpNet>().ok().filter(is_block);
        let block = block.ok_or_else(|| OccupancyError::Cidr { value: spec.cidr.clone() })?.trunc();
        let size = BlockCidr(block).size();
        let mut held = BTreeMap::new();
        for (offset, index) in spec.allocations.iter().enumerate().filter_map(|(at, index)| Some((at, (*index)?))) {
            let attributes = spec.attributes.len();
            let wrong = || OccupancyError::Allocation { offset, index, attributes, size };
            let attribute =
                usize::try_from(index).ok().and_then(|index| spec.attributes.get(index)).ok_or_else(wrong)?;
            let addr = BlockCidr(block).nth(offset).ok_or_else(wrong)?;
            held.insert(addr, holder(addr, attribute, spec.affinity.as_deref()));
        }
        let free = ledger::addresses(block).filter(|addr| !held.contains_key(addr)).collect();
        Ok(Self { block, held, free })
    }

    /// The block, as the model names it.
    #[must_use]
    pub fn cidr(&self) -> BlockCidr {
        BlockCidr(self.block)
    }

    /// Whether somebody holds `addr`.
    #[must_use]
    pub fn holds(&self, addr: IpAddr) -> bool {
        self.held.contains_key(&addr)
    }
}

/// The attribute that Calico's tools show for a pod's address; `uid` is podnet's own addition.
fn attribute(node: &NodeName, holder: &Holder) -> AllocationAttribute {
    let secondary = [
        ("namespace", holder.pod.namespace.as_str()),
        ("pod", &holder.pod.name),
        ("node", holder.node.as_ref().unwrap_or(node).as_str()),
        ("uid", &holder.uid),
    ];
    AllocationAttribute {
        handle_id: Some(holder.handle.to_string()),
        secondary: secondary.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    }
}

fn holder(addr: IpAddr, attribute: &AllocationAttribute, affinity: Option<&str>) -> Holder {
    let text = |key: &str| attribute.secondary.get(key).map(String::as_str).unwrap_or_default();
    // Without a handle nothing can free it by name; the address itself keeps such handles apart.
    let handle = attribute.handle_id.as_deref().map_or_else(|| Handle::new("unknown", &addr.to_string()), Handle::from);
    let owner = affinity.and_then(|affinity| affinity.strip_prefix("host:")).unwrap_or_default();
    let node = Some(text("node")).filter(|node| !node.is_empty() && *node != owner).map(NodeName::from);
    Holder { handle, pod: PodKey::new(text("namespace"), text("pod")), uid: Arc::from(text("uid")), node }
}
