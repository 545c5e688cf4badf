//! Who is let into a socket.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Who is let into a socket. Everybody else hears nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    /// Nobody: others serve the frontend, but a policy leaves none on this node.
    Nobody,
    /// Who meets all that is said; everybody, where nothing is.
    Only {
        /// The node and its pods alone.
        inside: bool,
        /// Who is in one of these ranges (`loadBalancerSourceRanges`).
        sources: Option<Arc<BTreeSet<IpNet>>>,
    },
}

impl Guard {
    /// Lists of ranges, of each of which one has to hold the client: no list lets everybody in, an empty one nobody.
    #[must_use]
    pub fn lists(&self, insiders: &BTreeSet<IpAddr>) -> Vec<Vec<IpNet>> {
        match self {
            Self::Nobody => vec![Vec::new()],
            Self::Only { inside, sources } => {
                let inside = inside.then(|| insiders.iter().copied().map(IpNet::from).collect());
                let sources = sources.iter().map(|ranges| ranges.iter().copied().collect());
                sources.chain(inside).collect()
            }
        }
    }

    /// Whether a client is let in.
    #[must_use]
    pub fn lets_in(&self, client: IpAddr, is_inside: bool) -> bool {
        match self {
            Self::Nobody => false,
            Self::Only { inside, sources } => {
                let within = |ranges: &Arc<BTreeSet<IpNet>>| ranges.iter().any(|range| range.contains(&client));
                (is_inside || !inside) && sources.as_ref().is_none_or(within)
            }
        }
    }

    /// Whether it says other things when others are inside.
    #[must_use]
    pub const fn knows_insiders(&self) -> bool {
        matches!(self, Self::Only { inside: true, .. })
    }
}
