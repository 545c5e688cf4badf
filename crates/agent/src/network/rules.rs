//! The cluster's rules in force: for each family of addresses that is needed those of Services, in one of several modes, and a table of the
//! cluster's border.

mod family;

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    time::Instant,
};

use ipnet::IpNet;
use podnet_kernel::{conntrack, datapath::Datapath, monitor::Notice, netlink::NetlinkError};
use podnet_model::{Change, Dual, Family, NodeAddr, Pool, PoolName, proxy::Mode};
use podnet_planner::{
    border::{self, Border, BorderConfig},
    ruleset::{BackendAddress, FrontendKey},
    services::{FrontendChange, NodePortAddresses, Services, ServicesConfig, Serving, Vanished, ebpf::Fate, nftables},
};
use tracing::warn;

use family::OfFamily;

use crate::proxy::{
    checks::{Check, Checks},
    mode::{self, RulesError, ServiceRules},
};

/// The names of the tables of nf_tables.
pub(crate) const TABLES: [&str; 2] = [nftables::TABLE, border::TABLE];

/// What is planned, what of it is still to be done, and what is known to be in force.
#[derive(Debug)]
pub(crate) struct ClusterRules {
    families: Dual<OfFamily>,
    mode: Mode,
    /// What other modes may have left.
    left: Vec<Box<dyn ServiceRules>>,
    /// What changed since somebody asked; none where nobody does.
    changed: Option<Vec<FrontendChange>>,
    /// UDP connections to forget once what is planned is in force.
    vanished: Vec<Vanished>,
    /// Tables were made as a whole: nothing is known of what led astray before.
    all_suspected: bool,
}

/// What kube-proxy's configuration says of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleSettings {
    /// `nodePortAddresses`.
    pub(crate) node_port_addresses: NodePortAddresses,
    /// `clusterCIDR`.
    pub(crate) cluster_cidrs: Dual<Option<IpNet>>,
    /// The bit of `masqueradeBit`.
    pub(crate) masquerade_mark: u32,
    /// `masqueradeAll`.
    pub(crate) masquerade_all: bool,
}

impl ClusterRules {
    /// Of a cluster of which nothing is known yet, in the mode `nftables`. The families that the configurations name do not matter: of each
    /// setting counts what is of a table's family.
    pub(crate) fn new(services: &ServicesConfig, border: &BorderConfig) -> Self {
        let mode = Mode::Nftables;
        let mut left = Vec::new();
        let of = |family| {
            let services = Services::new(ServicesConfig { family, ..services.clone() });
            left.extend(mode::others(mode, &services));
            OfFamily {
                rules: mode::rules(mode, &services),
                services,
                border: Border::new(BorderConfig { family, ..border.clone() }),
                border_edits: Vec::new(),
                border_in_force: false,
            }
        };
        let families = Dual::from_fn(of);
        Self { families, mode, left, changed: None, vanished: Vec::new(), all_suspected: false }
    }

    /// Takes a change in: what it means is to be done.
    pub(super) fn learn(&mut self, change: &Change) {
        for family in Family::ALL {
            let own = &mut self.families[family];
            let plan = own.services.apply(change);
            let edits = own.border.apply(change);
            own.take(plan, edits, &mut self.changed, &mut self.vanished);
        }
    }

    /// As [`ClusterRules::learn`], for the addresses of the node itself: `all` of them, where NodePorts may be, and those on the underlay.
    pub(super) fn set_node_addrs(&mut self, all: &[NodeAddr], underlay: &[NodeAddr]) {
        for family in Family::ALL {
            let own = &mut self.families[family];
            let plan = own.services.set_node_addrs(all.to_vec());
            let edits = own.border.set_node_addrs(underlay.to_vec());
            own.take(plan, edits, &mut self.changed, &mut self.vanished);
        }
    }

    /// As [`ClusterRules::learn`], for what kube-proxy's configuration says.
    pub(super) fn configure(&mut self, settings: &RuleSettings) {
        for family in Family::ALL {
            let own = &mut self.families[family];
            let before = own.services.config();
            let masquerades = (before.masquerade_mark, before.masquerade_all);
            let (mark, all) = (settings.masquerade_mark, settings.masquerade_all);
            let plan = own.services.configure(settings.node_port_addresses.clone(), mark, all);
            own.take(plan, Vec::new(), &mut self.changed, &mut self.vanished);
            if masquerades != (mark, all) {
                own.rules.begin_anew();
            }
            // A range of pods as a pool's is, but nobody draws from it. No pool can have the name.
            let name = PoolName::from(format!("kube-proxy/clusterCIDR/{family}"));
            let pool = settings.cluster_cidrs[family].map(|range| Pool::new(name.clone(), range));
            self.learn(&Change::Pool(name, pool));
        }
    }

    /// The mode that Services are served in.
    pub(super) const fn mode(&self) -> Mode {
        self.mode
    }

    /// Changes the mode: the rules of the new one are in force before those of the old one go. Connections that are under way keep their
    /// translations, which live in connection tracking.
    ///
    /// # Errors
    ///
    /// When the new rules are refused; then nothing has changed.
    pub(super) fn switch(&mut self, mode: Mode, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        if !mode::have_same_rules(self.mode, mode) {
            let rules = Dual::from_fn(|family| mode::rules(mode, &self.families[family].services));
            // What may be left of this very mode goes before it is there again.
            self.clear(datapath);
            self.replace(rules, datapath)?;
        }
        self.mode = mode;
        Ok(())
    }

    fn replace(
        &mut self,
        mut rules: Dual<Box<dyn ServiceRules>>,
        datapath: &mut dyn Datapath,
    ) -> Result<(), RulesError> {
        for family in Family::ALL {
            if let Err(error) = rules[family].put(&self.families[family].services, datapath) {
                // Those of the other family may be in force.
                self.left.extend([rules.v4, rules.v6]);
                self.clear(datapath);
                return Err(error);
            }
        }
        let Dual { v4, v6 } = rules;
        for (family, new) in [(Family::V4, v4), (Family::V6, v6)] {
            self.left.push(std::mem::replace(&mut self.families[family].rules, new));
        }
        self.clear(datapath);
        Ok(())
    }

    /// Takes away what other modes left. What stays is tried again when all is put in force.
    fn clear(&mut self, datapath: &mut dyn Datapath) {
        self.left.retain_mut(|rules| match rules.take_away(datapath) {
            Ok(()) => false,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "rules of another mode cannot be taken away; it is tried again");
                true
            }
        });
    }

    /// Does what is to be done, and tells in how many edits. A table that was not needed until now is made as a whole, and one that is not
    /// any more goes.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; what is in force of that table is as it was, and the next time it is made as a whole.
    pub(super) fn edit(&mut self, datapath: &mut dyn Datapath) -> Result<usize, RulesError> {
        let mut done = 0;
        for family in Family::ALL {
            let own = &mut self.families[family];
            done += own.rules.edit(&own.services, datapath)?;
            done += own.edit_border(datapath, family)?;
        }
        Ok(done)
    }

    /// Puts the rules in force, whatever there is.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; what is in force of that table is as it was.
    pub(crate) fn put(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        self.all_suspected = true;
        for family in Family::ALL {
            let own = &mut self.families[family];
            own.rules.put(&own.services, datapath)?;
            own.put_border(datapath, family)?;
        }
        self.clear(datapath);
        Ok(())
    }

    /// Whether there has to be a table of nf_tables of the family.
    pub(crate) fn is_needed(&self, family: Family, table: &str) -> bool {
        let own = &self.families[family];
        match table {
            border::TABLE => own.border_is_needed(family),
            table => own.rules.table(&own.services) == Some(table),
        }
    }

    /// Takes in what the kernel tells.
    pub(super) fn hear(&mut self, notices: &[Notice]) {
        for family in Family::ALL {
            notices.iter().for_each(|notice| self.families[family].rules.hear(notice));
        }
    }

    /// When [`ClusterRules::look`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        Family::ALL.into_iter().filter_map(|family| self.families[family].rules.due()).min()
    }

    /// Mends Services' rules that others damaged, where these are in no table of podnet's own.
    ///
    /// # Errors
    ///
    /// When the rules are refused; the next time all are put in force.
    pub(super) fn look(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        for family in Family::ALL {
            let own = &mut self.families[family];
            if let Some(what) = own.rules.look(&own.services, datapath)? {
                warn!(what, "mended what somebody else damaged");
            }
        }
        Ok(())
    }

    /// Where load balancers ask for Services, and what they are told.
    pub(super) fn health_checks(&self) -> Checks {
        let mut checks = BTreeMap::new();
        for family in Family::ALL {
            let services = &self.families[family].services;
            for (port, asked) in services.health_checks() {
                let check = Check { service: asked.service, local: asked.local.len() };
                let at = services.node_port_addrs().iter().map(|addr| (SocketAddr::new(*addr, port.0), check.clone()));
                checks.extend(at);
            }
        }
        checks
    }

    /// All frontends, and what is done for each.
    pub(super) fn servings(&self) -> impl Iterator<Item = (&FrontendKey, &Serving)> {
        Family::ALL.into_iter().flat_map(|family| self.families[family].services.frontends())
    }

    /// From now on what changes is kept for [`ClusterRules::changed`], or nothing is any more.
    pub(super) fn follow(&mut self, keep: bool) {
        self.changed = keep.then(Vec::new);
    }

    /// What changed since the last time, in order; a frontend may be there several times.
    pub(super) fn changed(&mut self) -> Vec<FrontendChange> {
        self.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// See [`Services::fate`].
    pub(super) fn fate(&self, frontend: &FrontendKey, backend: BackendAddress) -> Fate {
        self.families[Family::of(&frontend.addr)].services.fate(frontend, backend)
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

#[cfg(test)]
mod tests;
