//! What a rule has counted, asked of the kernel itself: a program would print all of a table.

use podnet_model::Family;
use podnet_planner::iptables::ChainKey;

use super::{IptablesError, Variant};
use crate::{legacy, netns::NetNs, nft::NftSocket};

/// The first rule of a chain that is none of the kernel's own, whichever it is when it is asked for.
#[derive(Clone, Debug)]
pub struct FirstRule {
    pub(super) netns: NetNs,
    pub(super) family: Family,
    pub(super) variant: Variant,
    pub(super) chain: ChainKey,
}

impl FirstRule {
    /// How many packets came to it since it was written; none where there is no such rule.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn packets(&self) -> Result<Option<u64>, IptablesError> {
        let Self { netns, family, variant, chain } = self;
        let table = chain.table.name();
        Ok(match variant {
            Variant::Nft => NftSocket::open_in(netns)?.packets(*family, table, &chain.name)?,
            Variant::Legacy => netns.run(|| legacy::packets(*family, table, &chain.name))??,
        })
    }
}
