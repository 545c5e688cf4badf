//! The cluster's rules in force: a table for each family of addresses that is needed.

use podnet_kernel::{datapath::Datapath, nft::NftError};
use podnet_model::{Change, Dual, Family, NodeAddr};
use podnet_planner::{
    ruleset::Edit,
    services::{Services, ServicesConfig},
};

use super::TABLE;

/// What is planned, and what is known to be in force.
#[derive(Debug)]
pub(crate) struct ClusterRules {
    services: Dual<Services>,
    in_force: Dual<bool>,
}

impl ClusterRules {
    /// Of a cluster of which nothing is known yet. The family that the configuration names does not matter: of each setting counts what is
    /// of a table's family.
    pub(crate) fn new(config: &ServicesConfig) -> Self {
        let services = Dual::from_fn(|family| Services::new(ServicesConfig { family, ..config.clone() }));
        Self { services, in_force: Dual::default() }
    }

    /// Takes a change in and tells the edits that it means.
    pub(super) fn apply(&mut self, change: &Change) -> Dual<Vec<Edit>> {
        Dual::from_fn(|family| self.services[family].apply(change).edits)
    }

    /// As [`ClusterRules::apply`], for the addresses of the node itself.
    pub(super) fn set_node_addrs(&mut self, addrs: &[NodeAddr]) -> Dual<Vec<Edit>> {
        Dual::from_fn(|family| self.services[family].set_node_addrs(addrs.to_vec()).edits)
    }

    /// Does edits that were planned. A table that was not needed until now is made as a whole, and one that is not any more goes.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; what is in force of that family is as it was.
    pub(super) fn edit(&mut self, datapath: &mut dyn Datapath, edits: &Dual<Vec<Edit>>) -> Result<(), NftError> {
        for family in Family::ALL {
            if self.in_force[family] && self.is_needed(family) {
                datapath.edit(family, TABLE, &edits[family])?;
            } else if self.in_force[family] != self.is_needed(family) {
                self.put_one(datapath, family)?;
            }
        }
        Ok(())
    }

    /// Puts the tables in force, whatever there is.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; what is in force of that family is as it was.
    pub(crate) fn put(&mut self, datapath: &mut dyn Datapath) -> Result<(), NftError> {
        Family::ALL.into_iter().try_for_each(|family| self.put_one(datapath, family))
    }

    fn put_one(&mut self, datapath: &mut dyn Datapath, family: Family) -> Result<(), NftError> {
        let needed = self.is_needed(family);
        if needed {
            datapath.replace(TABLE, &self.services[family].desired())?;
        } else {
            datapath.delete_table(family, TABLE)?;
        }
        self.in_force[family] = needed;
        Ok(())
    }

    /// Whether there has to be a table of the family: that of IPv4 always, that of IPv6 where the cluster has any of it.
    pub(crate) fn is_needed(&self, family: Family) -> bool {
        family == Family::V4 || self.services[family].is_needed()
    }
}

#[cfg(test)]
mod tests {
    use podnet_kernel::memory::MemoryKernel;
    use podnet_model::Pool;
    use podnet_planner::services::MASQUERADE_MARK;

    use super::*;

    fn config() -> ServicesConfig {
        ServicesConfig {
            family: Family::V4,
            node: "node1".into(),
            node_addrs: Vec::new(),
            pod_cidrs: Vec::new(),
            no_nat_cidrs: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            service_cidr: Some("10.96.0.0/12".parse().unwrap()),
            masquerade_mark: MASQUERADE_MARK,
        }
    }

    fn pool(name: &str, cidr: Option<&str>) -> Change {
        let pool = cidr.map(|cidr| Pool { nat_outgoing: true, ..Pool::new(name.into(), cidr.parse().unwrap()) });
        Change::Pool(name.into(), pool)
    }

    /// Whatever comes and goes, the tables in the kernel are those that an agent would make that starts now.
    #[test]
    fn there_is_a_table_of_ipv6_while_the_cluster_has_an_ipv6_pool() {
        let kernel = MemoryKernel::new();
        let mut rules = ClusterRules::new(&config());
        rules.put(&mut kernel.clone()).unwrap();
        let mut cluster = Vec::new();
        for (change, tables) in [
            (pool("four", Some("10.0.0.0/16")), 1),
            (pool("six", Some("fd00::/64")), 2),
            (pool("more", Some("fd01::/64")), 2),
            (pool("four", None), 2),
            (pool("six", None), 2),
            (pool("more", None), 1),
            (pool("six", Some("fd00::/64")), 2),
        ] {
            let edits = rules.apply(&change);
            rules.edit(&mut kernel.clone(), &edits).unwrap();
            cluster.push(change);
            let afresh = MemoryKernel::new();
            let mut other = ClusterRules::new(&config());
            cluster.iter().for_each(|change| drop(other.apply(change)));
            other.put(&mut afresh.clone()).unwrap();
            assert_eq!(kernel.state().tables.len(), tables);
            assert_eq!(kernel.state().tables, afresh.state().tables);
        }
    }
}
