//! The cluster's rules in force: for each family of addresses that is needed a table of Services, and one of the cluster's border.

use std::collections::HashSet;

use podnet_kernel::{conntrack, datapath::Datapath, netlink::NetlinkError, nft::NftError};
use podnet_model::{Change, Dual, Family, NodeAddr};
use podnet_planner::{
    border::{self, Border, BorderConfig},
    ruleset::{Edit, RuleSet},
    services::{
        Plan, Services, ServicesConfig, Vanished,
        nftables::{self, Nftables},
    },
};

/// The names of the tables.
pub(crate) const TABLES: [&str; 2] = [nftables::TABLE, border::TABLE];

/// What is planned, what of it is still to be done, and what is known to be in force.
#[derive(Debug)]
pub(crate) struct ClusterRules {
    families: Dual<OfFamily>,
    /// UDP connections to forget once what is planned is in force.
    vanished: Vec<Vanished>,
    /// Tables were made as a whole: nothing is known of what led astray before.
    all_suspected: bool,
}

/// The rules of one family.
#[derive(Debug)]
struct OfFamily {
    services: Services,
    nftables: Nftables,
    border: Border,
    /// By table, in the order of [`TABLES`].
    edits: [Vec<Edit>; 2],
    in_force: [bool; 2],
}

impl ClusterRules {
    /// Of a cluster of which nothing is known yet. The families that the configurations name do not matter: of each setting counts what is
    /// of a table's family.
    pub(crate) fn new(services: &ServicesConfig, border: &BorderConfig) -> Self {
        let of = |family| {
            let services = Services::new(ServicesConfig { family, ..services.clone() });
            OfFamily {
                nftables: Nftables::new(&services),
                services,
                border: Border::new(BorderConfig { family, ..border.clone() }),
                edits: Default::default(),
                in_force: [false; 2],
            }
        };
        Self { families: Dual::from_fn(of), vanished: Vec::new(), all_suspected: false }
    }

    /// Takes a change in: what it means is to be done.
    pub(super) fn learn(&mut self, change: &Change) {
        for family in Family::ALL {
            let own = &mut self.families[family];
            let plan = own.services.apply(change);
            let edits = own.border.apply(change);
            own.take(plan, edits, &mut self.vanished);
        }
    }

    /// As [`ClusterRules::learn`], for the addresses of the node itself.
    pub(super) fn set_node_addrs(&mut self, addrs: &[NodeAddr]) {
        for family in Family::ALL {
            let own = &mut self.families[family];
            let plan = own.services.set_node_addrs(addrs.to_vec());
            let edits = own.border.set_node_addrs(addrs.to_vec());
            own.take(plan, edits, &mut self.vanished);
        }
    }

    /// Does what is to be done, and tells in how many edits. A table that was not needed until now is made as a whole, and one that is not
    /// any more goes.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; what is in force of that table is as it was, and the next time it is made as a whole.
    pub(super) fn edit(&mut self, datapath: &mut dyn Datapath) -> Result<usize, NftError> {
        let mut done = 0;
        for family in Family::ALL {
            let own = &mut self.families[family];
            for (index, table) in TABLES.into_iter().enumerate() {
                let edits = std::mem::take(&mut own.edits[index]);
                if own.in_force[index] && own.is_needed(family, index) {
                    own.in_force[index] = false;
                    datapath.edit(family, table, &edits)?;
                    own.in_force[index] = true;
                    done += edits.len();
                } else if own.in_force[index] != own.is_needed(family, index) {
                    own.put(datapath, family, index)?;
                }
            }
        }
        Ok(done)
    }

    /// Puts the tables in force, whatever there is.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; what is in force of that table is as it was.
    pub(crate) fn put(&mut self, datapath: &mut dyn Datapath) -> Result<(), NftError> {
        self.all_suspected = true;
        for family in Family::ALL {
            for index in 0..TABLES.len() {
                self.families[family].put(datapath, family, index)?;
            }
        }
        Ok(())
    }

    /// Whether there has to be a table of the family: those of IPv4 always, those of IPv6 where the cluster has any of it.
    pub(crate) fn is_needed(&self, family: Family, table: &str) -> bool {
        TABLES
            .iter()
            .position(|name| *name == table)
            .is_some_and(|index| self.families[family].is_needed(family, index))
    }

    /// Makes connection tracking forget the UDP connections that lead where nothing leads any more, now that the rules are in force: what
    /// vanished since the last time, or, where nothing is known of what was before, all that lead elsewhere than they have to.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked; it is tried again with the next change.
    pub(super) fn forget_vanished(&mut self) -> Result<usize, NetlinkError> {
        let vanished: HashSet<Vanished> = self.vanished.iter().copied().collect();
        let mut forgotten = 0;
        for family in Family::ALL {
            let services = &self.families[family].services;
            if self.all_suspected && services.is_needed() {
                forgotten += conntrack::forget_astray(family, |to, by| services.leads_astray(&(to, by)))?;
            } else if vanished.iter().any(|(to, _)| Family::of(&to.addr) == family) {
                // What vanished may have come back since.
                let is_astray = |one: &Vanished| services.serving(&one.0).is_none() || services.leads_astray(one);
                forgotten +=
                    conntrack::forget_astray(family, |to, by| vanished.contains(&(to, by)) && is_astray(&(to, by)))?;
            }
        }
        self.vanished.clear();
        self.all_suspected = false;
        Ok(forgotten)
    }
}

impl OfFamily {
    fn take(&mut self, plan: Plan, border: Vec<Edit>, vanished: &mut Vec<Vanished>) {
        let services = self.nftables.edits(&self.services, &plan);
        // What is not in force will be made as a whole.
        if self.in_force[0] {
            self.edits[0].extend(services);
            vanished.extend(plan.vanished);
        }
        if self.in_force[1] {
            self.edits[1].extend(border);
        }
    }

    fn is_needed(&self, family: Family, table: usize) -> bool {
        let has_any = if table == 0 { self.services.is_needed() } else { self.border.is_needed() };
        family == Family::V4 || has_any
    }

    fn desired(&self, table: usize) -> RuleSet {
        if table == 0 { self.nftables.desired(&self.services) } else { self.border.desired() }
    }

    fn put(&mut self, datapath: &mut dyn Datapath, family: Family, table: usize) -> Result<(), NftError> {
        let needed = self.is_needed(family, table);
        self.edits[table] = Vec::new();
        self.in_force[table] = false;
        if needed {
            datapath.replace(TABLES[table], &self.desired(table))?;
        } else {
            datapath.delete_table(family, TABLES[table])?;
        }
        self.in_force[table] = needed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use podnet_kernel::memory::MemoryKernel;
    use podnet_model::{
        ClusterIp, Pool, Protocol, Service, ServiceKey, ServicePort,
        service::{Port, ServiceKind},
    };
    use podnet_planner::services::MASQUERADE_MARK;

    use super::*;

    fn rules() -> ClusterRules {
        let services = ServicesConfig {
            family: Family::V4,
            node: "node1".into(),
            node_addrs: Vec::new(),
            node_port_addresses: Default::default(),
            pod_cidrs: Vec::new(),
            masquerade_mark: MASQUERADE_MARK,
        };
        let no_nat_cidrs = ["192.0.2.0/24", "2001:db8::/32", "10.96.0.0/12"].map(|range| range.parse().unwrap()).into();
        let border = BorderConfig { family: Family::V4, node_addrs: Vec::new(), pod_cidrs: Vec::new(), no_nat_cidrs };
        ClusterRules::new(&services, &border)
    }

    fn pool(name: &str, cidr: Option<&str>) -> Change {
        let pool = cidr.map(|cidr| Pool { nat_outgoing: true, ..Pool::new(name.into(), cidr.parse().unwrap()) });
        Change::Pool(name.into(), pool)
    }

    fn service(ip: Option<&str>) -> Change {
        let key = ServiceKey::new("default", "web");
        let port = Port { name: "".into(), protocol: Protocol::Tcp, port: ServicePort(80), node_port: None };
        let kind = |ip: &str| ServiceKind::Virtual { cluster_ips: vec![ClusterIp(ip.parse().unwrap())] };
        Change::Service(key.clone(), ip.map(|ip| Service::new(key, kind(ip), vec![port])))
    }

    /// Whatever comes and goes, the tables in the kernel are those that an agent would make that starts now.
    #[test]
    fn there_are_tables_of_ipv6_while_the_cluster_has_anything_of_it() {
        let kernel = MemoryKernel::new();
        let mut tables_in_force = rules();
        tables_in_force.put(&mut kernel.clone()).unwrap();
        let mut cluster = Vec::new();
        for (change, tables) in [
            (pool("four", Some("10.0.0.0/16")), 2),
            (pool("six", Some("fd00::/64")), 3),
            (pool("more", Some("fd01::/64")), 3),
            (service(Some("fd96::1")), 4),
            (pool("four", None), 4),
            (pool("six", None), 4),
            (pool("more", None), 3),
            (service(Some("10.96.0.1")), 2),
            (pool("six", Some("fd00::/64")), 3),
            (service(None), 3),
        ] {
            tables_in_force.learn(&change);
            tables_in_force.edit(&mut kernel.clone()).unwrap();
            cluster.push(change);
            let afresh = MemoryKernel::new();
            let mut other = rules();
            cluster.iter().for_each(|change| other.learn(change));
            other.put(&mut afresh.clone()).unwrap();
            assert_eq!(kernel.state().tables.len(), tables);
            assert_eq!(kernel.state().tables, afresh.state().tables);
        }
    }
}
