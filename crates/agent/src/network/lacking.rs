//! A kernel without nf_tables: what it keeps the network from having is told once, with the remedy, and is put in force when it comes.

use std::time::{Duration, Instant};

use podnet_client::events::{About, Complaints};
use podnet_kernel::{
    capabilities,
    monitor::Notice,
    nft::{NftError, NftSocket},
};
use podnet_model::NodeName;
use tracing::{debug, info, warn};

use super::worker::{Work, Worker};

/// How often a kernel that has none is asked again, whatever else there is to do; the socket asks it less often still.
const INTERVAL: Duration = Duration::from_secs(10);

/// What is told of a node whose kernel has none.
#[derive(Debug)]
pub(super) struct Lacking {
    complaints: Complaints,
    node: NodeName,
    lacks: bool,
    next: Option<Instant>,
}

/// What a look showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    AsBefore,
    /// The kernel has no nf_tables.
    Lacks,
    /// It has them by now.
    Came,
}

impl Lacking {
    pub(super) const fn new(complaints: Complaints, node: NodeName) -> Self {
        Self { complaints, node, lacks: false, next: None }
    }

    /// When it is to be looked at again; none where nothing is lacking.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Tells what is lacking, once.
    fn look(&mut self, nft: &mut NftSocket) -> Seen {
        let seen = judge(&mut self.lacks, nft.is_there());
        self.next = self.lacks.then(|| Instant::now() + INTERVAL);
        match seen {
            Seen::AsBefore => {}
            Seen::Lacks => {
                let message = complaint(&self.node);
                warn!("{message}");
                self.complaints.tell(About::node(&self.node), "NoNfTables", message);
            }
            Seen::Came => info!("the kernel has nf_tables by now: what it kept from being in force is put there"),
        }
        seen
    }
}

/// What a look shows after what was so before.
fn judge(lacks: &mut bool, is_there: Result<bool, NftError>) -> Seen {
    match is_there {
        Ok(is_there) if is_there != *lacks => Seen::AsBefore,
        Ok(is_there) => {
            *lacks = !is_there;
            if is_there { Seen::Came } else { Seen::Lacks }
        }
        Err(error) => {
            debug!(error = &error as &dyn std::error::Error, "the kernel does not say whether it has nf_tables");
            Seen::AsBefore
        }
    }
}

fn complaint(node: &NodeName) -> String {
    format!(
        "the kernel of node {node} has no nf_tables. Without them pods keep their own addresses when they leave pools with natOutgoing; pods \
         with a hostPort are refused; limits of packets and connections are not in force; pods' IPv6 senders, and any on a bridge, are not \
         checked (those of IPv4 are, by the reverse path filter); pods can send into tunnels' ports. Services need mode userspace, or iptables \
         or ipvs where the kernel has the older tables. Load the module nf_tables, or install the package with the kernel's further modules: \
         all of it is put in force then"
    )
}

impl Worker {
    /// Tells what a kernel without nf_tables lacks. Where it has them by now everything that needs them is looked at.
    pub(super) fn look_for_nftables(&mut self, work: &mut Work) {
        match self.lacking.look(self.datapath.nft_socket()) {
            Seen::AsBefore => {}
            Seen::Lacks => {
                self.counts.lacks_nftables(true);
                self.repair.set_filters_senders(true);
            }
            Seen::Came => {
                self.counts.lacks_nftables(false);
                self.hear(&[Notice::RulesLost]);
                self.repair.set_filters_senders(false);
                self.proxy.has(capabilities::probe());
                work.proxy = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_told_once_and_so_is_its_coming() {
        let mut lacks = false;
        let mut look = |is_there| judge(&mut lacks, is_there);
        assert_eq!(look(Ok(true)), Seen::AsBefore);
        assert_eq!([look(Ok(false)), look(Ok(false))], [Seen::Lacks, Seen::AsBefore]);
        assert_eq!(look(Err(NftError::Absent)), Seen::AsBefore);
        assert_eq!([look(Ok(true)), look(Ok(true))], [Seen::Came, Seen::AsBefore]);
    }
}
