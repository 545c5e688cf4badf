//! The cluster's zone (Kubernetes DNS-Based Service Discovery 1.1.0).
//!
//! [`Cluster`] keeps what the watches said, once and packed: Services under the wire form of their names, and who has an address; apart
//! from them, the Services that the cluster imports of its cluster set. A
//! [`Zone`] is how one `kubernetes` plugin shows it: it keeps nothing of its own, and makes records when they are asked for. The
//! addresses of a Service are kept as records once somebody asked. So a change costs what it changes, and a reload nothing.

mod cluster;
mod clusterset;
mod external;
mod hosts;
mod known;
mod labels;
mod lookup;
mod packed;
mod reverse;
mod servers;
mod stand;
#[cfg(test)]
pub(crate) mod tests;
mod whole;
mod zonal;

pub use cluster::Cluster;
use cluster::Reader;
pub use clusterset::SET_SCHEMA_VERSION;
pub use external::External;
pub use lookup::{Authority, Found, Names};

use crate::{
    chain::{KubernetesOptions, PodNames},
    name::Name,
};

/// The version of the schema that the zone follows (specification §2.2).
pub const SCHEMA_VERSION: &str = "1.1.0";

/// What one `kubernetes` plugin serves.
#[derive(Debug)]
pub struct Zone {
    options: KubernetesOptions,
    cluster: Reader,
    /// What the cluster imports of its cluster set.
    set: Reader,
    origins: Vec<Origin>,
    reverse_origins: Vec<Origin>,
    /// The serial number of a cluster that did not change yet.
    serial: u32,
}

/// A zone of Services, or of addresses.
#[derive(Debug)]
struct Origin {
    name: Name,
    name_server: Name,
    /// Its Services are those of the cluster set (`multicluster`).
    in_set: bool,
    /// What stands behind a Service's name and namespace.
    tail: Box<[u8]>,
    soa: Box<[u8]>,
}

impl Zone {
    /// The zone of a cluster; `serial` starts its SOA's serial number.
    #[must_use]
    pub fn new(options: KubernetesOptions, cluster: &Cluster, serial: u32) -> Self {
        let origin = |name: &Name| Origin::new(name, options.ttl, options.multicluster.contains(name));
        let (origins, reverse_origins) =
            (options.zones.iter().map(origin).collect(), options.reverse_zones.iter().map(origin).collect());
        Self { cluster: cluster.reader(), set: cluster.set_reader(), origins, reverse_origins, serial, options }
    }

    /// What it serves.
    #[must_use]
    pub fn options(&self) -> &KubernetesOptions {
        &self.options
    }

    /// Whether only pods that there are have names.
    fn verifies_pods(&self) -> bool {
        self.options.pods == PodNames::Verified
    }
}

impl Origin {
    fn new(name: &Name, ttl: u32, in_set: bool) -> Self {
        let within = |text: &str| name.prefixed_text(text).unwrap_or_else(|_| name.clone());
        let (name_server, mailbox) = (within("ns.dns"), within("hostmaster"));
        // The times are CoreDNS's: refresh 2 h, retry 30 min, expire a day.
        let soa = soa(&name_server, &mailbox, [7200, 1800, 86_400, ttl]);
        Self { tail: within("svc").wire().into(), soa, name: name.clone(), name_server, in_set }
    }

    fn authority(&self, ttl: u32, serial: u32) -> Authority<'_> {
        Authority { zone: &self.name, soa: &self.soa, serial, ttl }
    }
}

/// The data of a zone's SOA record, with a serial number of zero.
pub(crate) fn soa(name_server: &Name, mailbox: &Name, times: [u32; 4]) -> Box<[u8]> {
    let mut data = [name_server.wire(), mailbox.wire(), &[0; 4]].concat();
    for time in times {
        data.extend_from_slice(&time.to_be_bytes());
    }
    data.into()
}
