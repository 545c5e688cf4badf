//! IPAMBlock.

use ipnet::IpNet;

use super::{Invalid, Object};
use crate::{Block, BlockCidr, crd};

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
        Ok(Self { cidr: BlockCidr(cidr.trunc()), owner: owner.filter(|_| !spec.deleted) })
    }
}
