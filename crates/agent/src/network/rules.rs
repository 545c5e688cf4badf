//! The cluster's rules in force: for each family of addresses that is needed those of Services, in one of several modes, and a table of the
//! cluster's border.

mod beside;
mod contested;
mod damage;
mod family;
mod forget;
mod left;
mod looks;
mod modes;
mod noted;
mod settings;
mod unserved;
mod without_local;

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use podnet_kernel::datapath::Datapath;
use podnet_model::{
    Change, Dual, Family, NodeAddr,
    proxy::{IpvsConfig, Mode},
};
use podnet_planner::{
    border::{self, Border, BorderConfig},
    repair::Damage,
    ruleset::{BackendAddress, Edit, FrontendKey},
    services::{FrontendChange, Plan, Services, ServicesConfig, Serving, Vanished, ebpf::Fate, nftables},
};

use beside::Beside;
use family::{OfFamily, is_served};
use left::Left;
use modes::PutOff;
use noted::Noted;
use without_local::WithoutLocal;

use crate::proxy::{
    checks::{Check, Checks},
    facts::Facts,
    mode::{self, RulesError},
};

/// The names of the tables of nf_tables.
pub(crate) const TABLES: [&str; 2] = [nftables::TABLE, border::TABLE];

/// As many connections to forget are kept by name; where there are more, all are looked at.
const VANISHED: usize = 1 << 16;

/// What is planned, what of it is still to be done, and what is known to be in force.
#[derive(Debug)]
pub(crate) struct ClusterRules {
    families: Dual<OfFamily>,
    mode: Mode,
    /// Whose rules there are.
    standing: Mode,
    /// The mode was refused after it had waited.
    put_off: Option<PutOff>,
    ipvs: IpvsConfig,
    /// What other modes may have left.
    left: Left,
    /// The rules at addresses that others' connections keep from the mode whose rules there are.
    beside: Option<Beside>,
    /// What changed since somebody asked; none where nobody does.
    changed: Option<Vec<FrontendChange>>,
    /// UDP connections to forget once what is planned is in force.
    vanished: Dual<HashSet<Vanished>>,
    /// Frontends of UDP that rules lead or led, also those of an agent before this one.
    noted: Noted,
    /// Rules were made as a whole: nothing is known of what led astray before.
    all_suspected: Dual<bool>,
    /// Connection tracking is not gone through before that.
    next_forget: Instant,
    /// How long connection tracking was gone through, and how many connections it forgot, since somebody asked.
    reconciled: Vec<(Family, Duration, usize)>,
    mended: Vec<Damage>,
    /// At which number of each family's it was told last what no node serves.
    faults_told: Dual<Option<u64>>,
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tries {
    All,
    /// What was refused the last time has to wait.
    ButRefused,
}

impl ClusterRules {
    /// Of a cluster of which nothing is known yet, in the mode `nftables`. The families that the configurations name do not matter: of each
    /// setting counts what is of a table's family.
    pub(crate) fn new(services: &ServicesConfig, border: &BorderConfig) -> Self {
        let mode = Mode::Nftables;
        let of = |family| {
            let services = Services::new(ServicesConfig { family, ..services.clone() });
            OfFamily {
                rules: mode::rules(mode, &services),
                services,
                border: Border::new(BorderConfig { family, ..border.clone() }),
                border_edits: Vec::new(),
                border_in_force: false,
                border_lacks: false,
                without_local: WithoutLocal::default(),
                refused: false,
            }
        };
        let families = Dual::from_fn(of);
        let mut new = Self {
            families,
            mode,
            standing: mode,
            put_off: None,
            ipvs: IpvsConfig::default(),
            left: Left::default(),
            beside: None,
            changed: None,
            vanished: Dual::default(),
            noted: Noted::default(),
            all_suspected: Dual::default(),
            next_forget: Instant::now(),
            reconciled: Vec::new(),
            mended: Vec::new(),
            faults_told: Dual::default(),
        };
        new.suspect_others();
        new
    }

    /// The same, which writes down in that file which frontends of UDP there are, and knows those that an agent before this one wrote down.
    pub(super) fn noting_in(self, path: &Path) -> Self {
        Self { noted: Noted::open(path), ..self }
    }

    /// Takes a change in: what it means is to be done.
    pub(super) fn learn(&mut self, change: &Change) {
        for family in Family::ALL {
            let own = &mut self.families[family];
            let plan = own.services.apply(change);
            let edits = own.border.apply(change);
            self.take(family, plan, edits);
        }
    }

    fn take(&mut self, family: Family, plan: Plan, edits: Vec<Edit>) {
        if self.vanished[family].len() < VANISHED {
            self.vanished[family].extend(plan.vanished.iter().copied());
        } else if !plan.vanished.is_empty() {
            self.all_suspected[family] = true;
        }
        if let Some(beside) = &mut self.beside {
            beside.learn(family, &self.families[family].services, &plan);
        }
        self.left.learn(&plan);
        self.noted.learn(&plan.frontends);
        self.families[family].take(plan, edits, &mut self.changed);
    }

    /// As [`ClusterRules::learn`], for the addresses of the node itself: `all` of them, where NodePorts may be, and those on the underlay.
    pub(super) fn set_node_addrs(&mut self, all: &[NodeAddr], underlay: &[NodeAddr]) {
        for family in Family::ALL {
            let own = &mut self.families[family];
            let plan = own.services.set_node_addrs(all.to_vec());
            let edits = own.border.set_node_addrs(underlay.to_vec());
            self.take(family, plan, edits);
        }
    }

    /// Does what is to be done, and tells in how many edits. A table that was not needed until now is made as a whole, and one that is not
    /// any more goes.
    ///
    /// # Errors
    ///
    /// The first refusal; the other tables are in force all the same. What is in force of that table is as it was, and the next time it is
    /// made as a whole.
    pub(super) fn edit(&mut self, tries: Tries, datapath: &mut dyn Datapath) -> Result<usize, RulesError> {
        let (mut edits, mut first) = (0, Ok(()));
        self.noted.write();
        for family in Family::ALL {
            let beside = self.beside.as_mut().map_or(Ok(0), |beside| beside.edit(family, datapath));
            first = first.and(beside.map(|done| edits += done));
            let own = &mut self.families[family];
            if own.refused && tries == Tries::ButRefused {
                continue;
            }
            let was_in_force = own.rules.in_force();
            let done = own.edit(datapath, family);
            self.noted.found(family, own.rules.take_bygone());
            self.all_suspected[family] |= !was_in_force && own.rules.in_force();
            match done {
                Ok(done) => edits += done,
                Err(error) => first = first.and(Err(error)),
            }
        }
        self.left.withdraw(&is_served(&self.families), datapath);
        first.map(|()| edits)
    }

    /// Puts the rules in force, whatever there is.
    ///
    /// # Errors
    ///
    /// The first refusal; the other tables are in force all the same. What is in force of that table is as it was.
    pub(crate) fn put(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        let mut first = Ok(());
        self.noted.write();
        for family in Family::ALL {
            self.all_suspected[family] = true;
            let own = &mut self.families[family];
            first = first.and(own.put(datapath, family));
            self.noted.found(family, own.rules.take_bygone());
        }
        let beside = self.beside.as_mut().map_or(Ok(()), |beside| beside.put(datapath));
        // While the rules are not in force, those of another mode serve whom they serve.
        if first.is_ok() {
            self.left.clear(&is_served(&self.families), datapath);
            first = beside.and(self.share(datapath));
        }
        first
    }

    /// Whether something is not in force because it was refused the last time.
    pub(super) fn is_refused(&self) -> bool {
        Family::ALL.into_iter().any(|family| self.families[family].refused)
    }

    /// Whether Services have their rules, be the border refused or not.
    pub(super) fn serves(&self) -> bool {
        let serves = |family: Family| self.families[family].rules.in_force();
        Family::ALL.into_iter().all(|family| serves(family) || !self.families[family].services.is_needed())
    }

    /// Whether there has to be a table of nf_tables of the family.
    pub(crate) fn is_needed(&self, family: Family, table: &str) -> bool {
        let own = &self.families[family];
        match table {
            border::TABLE => own.border_is_needed(family) && !own.border_lacks,
            table => {
                let beside = self.beside.as_ref().and_then(|beside| beside.table(family));
                own.rules.table(&own.services).or(beside) == Some(table)
            }
        }
    }

    /// Tells what is in force, for metrics.
    pub(super) fn tell(&mut self, facts: &Facts) {
        facts.cleanup_refused(self.left.take_tables_refused());
        for family in Family::ALL {
            let own = &self.families[family];
            facts.set_chains(family, own.rules.chains());
            facts.set_counted(family, own.rules.counted());
            facts.set_without_local(family, own.without_local.count());
            facts.set_contested(family, own.services.contested());
        }
        for (family, took, forgotten) in self.reconciled.drain(..) {
            facts.reconciled(family, took, forgotten);
        }
    }

    /// What was mended since the last time.
    pub(super) fn mended(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.mended)
    }

    /// Whether there are frontends at loopback addresses, by family.
    pub(super) fn is_at_loopback(&self) -> Dual<bool> {
        Dual::from_fn(|family| self.families[family].services.is_at_loopback())
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
}

#[cfg(test)]
pub(super) mod tests;
