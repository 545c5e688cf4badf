//! A `FORWARD` chain of `iptables-legacy` that drops pods' packets. The kernel tells nobody of its changes, and to change it means to
//! write the whole table over what others may just be writing: so it is looked at now and then, and told with the remedy.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ipnet::{IpNet, Ipv4Net};
use podnet_client::events::{About, Complaints};
use podnet_kernel::legacy::{self, LegacyForward};
use podnet_model::NodeName;
use podnet_planner::overlay::Overlay;
use tracing::{debug, info, warn};

/// Where the table is not there, as nearly everywhere, a look reads one empty file.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct LegacyWatch {
    complaints: Complaints,
    node: NodeName,
    next: Instant,
    told: Option<String>,
}

impl LegacyWatch {
    pub(super) fn new(complaints: Complaints, node: NodeName) -> Self {
        Self { complaints, node, next: Instant::now(), told: None }
    }

    /// When it is to be looked at again.
    pub(super) const fn due(&self) -> Instant {
        self.next
    }

    /// Tells what is wrong, once, and when it is over; where a look is due.
    pub(super) fn look(&mut self, overlay: &Overlay) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + INTERVAL;
        let found = match legacy::forward_chain() {
            Ok(found) => found.unwrap_or_default(),
            Err(error) => return debug!(%error, "the filter table of iptables-legacy cannot be looked at"),
        };
        let ranges: BTreeSet<Ipv4Net> = overlay
            .pod_ranges()
            .filter_map(|range| match range {
                IpNet::V4(range) => Some(range),
                IpNet::V6(_) => None,
            })
            .collect();
        let complaint = complaint(&found, &ranges);
        match (&self.told, &complaint) {
            (None, None) => {}
            (Some(told), Some(now)) if told == now => {}
            (_, Some(message)) => {
                warn!("{message}");
                self.complaints.tell(About::node(&self.node), "ForwardDropped", message.clone());
            }
            (Some(_), None) => info!("iptables-legacy lets pods' packets pass again"),
        }
        self.told = complaint;
    }
}

fn complaint(found: &LegacyForward, ranges: &BTreeSet<Ipv4Net>) -> Option<String> {
    let dropped: Vec<&Ipv4Net> = ranges.iter().filter(|range| !found.lets_pass(**range)).collect();
    if dropped.is_empty() {
        return None;
    }
    let remedy = |range: &&Ipv4Net| {
        format!("iptables-legacy -I FORWARD -s {range} -j ACCEPT; iptables-legacy -I FORWARD -d {range} -j ACCEPT")
    };
    let remedies: Vec<String> = dropped.iter().map(remedy).collect();
    Some(format!(
        "the chain FORWARD of iptables-legacy has the policy DROP, and so drops packets of pods; podnet changes no rules of \
         iptables-legacy. Let them pass: {}",
        remedies.join("; ")
    ))
}
