//! IPAMBlock.

use std::sync::Arc;

use ipnet::IpNet;

use super::{Invalid, Object};
use crate::{Block, BlockCidr, Loan, NodeName, crd};

impl TryFrom<&crd::IPAMBlock> for Block {
    type Error = Invalid;

    fn try_from(block: &crd::IPAMBlock) -> Result<Self, Invalid> {
        let object = Object::new("IPAMBlock", &block.metadata);
        let spec = &block.spec;
        let cidr: IpNet = spec
            .cidr
            .parse()
            .map_err(|_| object.value("spec.cidr", &spec.cidr, "a range, for example 10.233.64.0/26"))?;
        let owner = match spec.affinity.as_deref() {
            None | Some("") => None,
            Some(affinity) => match affinity.split_once(':') {
                Some(("host", name)) if !name.is_empty() => Some(name.into()),
                // Blocks of load balancers' addresses: no node owns them.
                Some(("virtual", _)) => None,
                _ => return Err(object.value("spec.affinity", affinity, "host: and a node's name")),
            },
        };
        Ok(Self {
            cidr: BlockCidr(cidr.trunc()),
            free: spec.allocations.iter().filter(|slot| slot.is_none()).count(),
            held: spec.allocations.iter().map(Option::is_some).collect(),
            loans: loans(BlockCidr(cidr.trunc()), owner.as_ref(), spec),
            is_asked: !crd::requests(block).is_empty(),
            owner: owner.filter(|_| !spec.deleted),
        })
    }
}

/// Addresses whose attributes name another node than the block's owner, as Calico writes those that were borrowed.
fn loans(cidr: BlockCidr, owner: Option<&NodeName>, spec: &crd::IPAMBlockSpec) -> Vec<Loan> {
    let loan = |(offset, slot): (usize, &Option<i64>)| {
        let attribute = spec.attributes.get(usize::try_from((*slot)?).ok()?)?;
        let node = attribute.secondary.get("node").map(NodeName::from)?;
        if node.as_str().is_empty() || owner.is_none_or(|owner| *owner == node) {
            return None;
        }
        let handle = Arc::from(attribute.handle_id.as_deref().unwrap_or_default());
        Some(Loan { addr: cidr.nth(offset)?, node, handle })
    };
    spec.allocations.iter().enumerate().filter_map(loan).collect()
}
