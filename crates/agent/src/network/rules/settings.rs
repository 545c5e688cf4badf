//! What kube-proxy's configuration says of the rules.

use std::net::IpAddr;

use ipnet::IpNet;
use podnet_model::{Change, Dual, Family, Pool, PoolName, proxy::IpvsConfig};
use podnet_planner::services::NodePortAddresses;

use super::ClusterRules;

/// What kube-proxy's configuration says of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleSettings {
    /// `nodePortAddresses`.
    pub(crate) node_port_addresses: NodePortAddresses,
    /// Loopback addresses at which they are too.
    pub(crate) loopback: Vec<IpAddr>,
    /// `clusterCIDR`.
    pub(crate) cluster_cidrs: Dual<Option<IpNet>>,
    /// The bit of `masqueradeBit`.
    pub(crate) masquerade_mark: u32,
    /// `masqueradeAll`.
    pub(crate) masquerade_all: bool,
    /// `ipvs`.
    pub(crate) ipvs: IpvsConfig,
}

impl ClusterRules {
    /// As [`ClusterRules::learn`], for what kube-proxy's configuration says.
    pub(in crate::network) fn configure(&mut self, settings: &RuleSettings) {
        if self.ipvs != settings.ipvs {
            self.ipvs = settings.ipvs.clone();
            // What others own is not taken away with what an earlier agent left.
            if self.left.is_untried() {
                self.suspect_others();
            }
        }
        for family in Family::ALL {
            let own = &mut self.families[family];
            let before = own.services.config();
            let masquerades = (before.masquerade_mark, before.masquerade_all);
            let (mark, all) = (settings.masquerade_mark, settings.masquerade_all);
            let (at, loopback) = (settings.node_port_addresses.clone(), settings.loopback.clone());
            let plan = own.services.configure(at, loopback, mark, all);
            self.take(family, plan, Vec::new());
            if masquerades != (mark, all) {
                let own = &mut self.families[family];
                own.rules.begin_anew(&own.services);
            }
            let own = &mut self.families[family];
            own.rules.configure(&own.services, &settings.ipvs);
            // A range of pods as a pool's is, but nobody draws from it. No pool can have the name.
            let name = PoolName::from(format!("kube-proxy/clusterCIDR/{family}"));
            let pool = settings.cluster_cidrs[family].map(|range| Pool::new(name.clone(), range));
            self.learn(&Change::Pool(name, pool));
        }
    }
}
