//! Tables that kube-proxy's mode `nftables` left. They are another program's, and go on translating to the endpoints of the time when it
//! ended: podnet touches no tables but its own, so that is told with the remedy.

use std::time::{Duration, Instant};

use podnet_client::events::{About, Complaints};
use podnet_kernel::nft::{NftError, NftSocket};
use podnet_model::{Family, NodeName};
use tracing::{debug, info, warn};

/// kube-proxy's table of each family.
const TABLE: &str = "kube-proxy";

/// A look lists the names of the tables.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Strangers {
    complaints: Complaints,
    node: NodeName,
    next: Instant,
    told: Vec<Family>,
}

impl Strangers {
    pub(super) fn new(complaints: Complaints, node: NodeName) -> Self {
        Self { complaints, node, next: Instant::now(), told: Vec::new() }
    }

    /// When it is to be looked at again.
    pub(super) const fn due(&self) -> Instant {
        self.next
    }

    /// Tells what is there, once, and when it is gone; where a look is due.
    pub(super) fn look(&mut self, nft: &mut NftSocket) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + INTERVAL;
        let found = match found(nft) {
            Ok(found) => found,
            Err(error) => return debug!(%error, "the names of other programs' tables cannot be listed"),
        };
        if found == self.told {
            return;
        }
        if found.is_empty() {
            info!("kube-proxy's tables of nf_tables are gone");
        } else {
            let message = complaint(&found);
            warn!("{message}");
            let message = format!("on node {}: {message}", self.node);
            self.complaints.tell(About::node(&self.node), "KubeProxyTables", message);
        }
        self.told = found;
    }
}

/// The families in which there is such a table.
fn found(nft: &mut NftSocket) -> Result<Vec<Family>, NftError> {
    let mut found = Vec::new();
    for family in Family::ALL {
        if nft.tables(family)?.iter().any(|table| table == TABLE) {
            found.push(family);
        }
    }
    Ok(found)
}

fn complaint(found: &[Family]) -> String {
    let names: Vec<_> = found
        .iter()
        .map(|family| match family {
            Family::V4 => format!("table ip {TABLE}"),
            Family::V6 => format!("table ip6 {TABLE}"),
        })
        .collect();
    let remedies: Vec<_> = names.iter().map(|name| format!("nft delete {name}")).collect();
    format!(
        "{} of kube-proxy translates Services beside podnet, without a running kube-proxy to endpoints of old; podnet changes no tables \
         of other programs. End kube-proxy here and take its tables away: {}",
        names.join(" and "),
        remedies.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use std::process::{self, Command};

    use podnet_kernel::netns::NetNs;

    use super::*;

    #[test]
    fn kube_proxys_tables_are_found_told_with_the_remedy_and_not_touched() {
        let path = format!("/run/netns/podnet-test-strangers-{}", process::id());
        let netns = NetNs::create(&path).unwrap();
        let nft = |line: &str| {
            netns
                .run(|| assert!(Command::new("nft").args(line.split(' ')).status().unwrap().success(), "{line}"))
                .unwrap();
        };
        let mut socket = NftSocket::open_in(&netns).unwrap();
        let mut look = || found(&mut socket).unwrap();
        nft("add table ip kube-proxy-not");
        nft("add table inet kube-proxy");
        assert_eq!(look(), []);
        nft("add table ip6 kube-proxy");
        assert_eq!(look(), [Family::V6]);
        nft("add table ip kube-proxy");
        let both = look();
        NetNs::remove(&path).unwrap();
        assert_eq!(both, [Family::V4, Family::V6]);
        let told = complaint(&both);
        assert!(told.ends_with(": nft delete table ip kube-proxy; nft delete table ip6 kube-proxy"), "{told}");
        assert!(complaint(&[Family::V6]).ends_with(": nft delete table ip6 kube-proxy"));
    }
}
