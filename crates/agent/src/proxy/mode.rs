//! Services' rules in one mode and of one family: the seam between what is planned and how it is put in force.
//!
//! Another mode of rules is another implementation of [`ServiceRules`], made in [`rules`] and named in [`BUILT`](super::configured::BUILT).

mod unserved;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    net::IpAddr,
    time::Instant,
};

use podnet_kernel::{
    datapath::Datapath,
    monitor::{Notice, Transaction},
    nft::{NftError, Touched},
};
use podnet_model::{
    Family, Protocol,
    proxy::{IpvsConfig, Mode},
};
use podnet_planner::{
    iptables::Table,
    ruleset::{Edit, FrontendKey},
    services::{
        Plan, Services,
        ebpf::Remembered,
        nftables::{self, Nftables},
    },
};

use super::{
    configured::BUILT, counted::Counted, facts::Rules, iptables::InIptables, ipvs::InIpvs, userspace::InUserspace,
};

pub use unserved::{NOT_SERVED, Unserved};

/// The rules of Services. `services` is what is planned, always the same value.
pub(crate) trait ServiceRules: fmt::Debug + Send {
    /// Takes a plan in, which `services` has taken in: what it means is to be done.
    fn learn(&mut self, services: &Services, plan: &Plan);

    /// Does what is to be done since the last time, and tells in how many edits; everything where nothing is known of what is there.
    ///
    /// # Errors
    ///
    /// When it is refused; what was in force is, and the next time everything is put in force.
    fn edit(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<usize, RulesError> {
        let is_needed = is_needed(services);
        if self.in_force() && is_needed {
            return self.follow(services, datapath);
        }
        if is_needed || self.may_be_there() {
            self.put(services, datapath)?;
        }
        Ok(0)
    }

    /// Does what is to be done since the last time to rules that are needed and in force, and tells in how many edits.
    ///
    /// # Errors
    ///
    /// As [`ServiceRules::edit`].
    fn follow(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<usize, RulesError>;

    /// Whether it is not known that there is nothing of the mode.
    fn may_be_there(&self) -> bool;

    /// Puts everything in force, whatever there is.
    ///
    /// # Errors
    ///
    /// As [`ServiceRules::edit`].
    fn put(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<(), RulesError>;

    /// Frontends of UDP that were found in the mode's rules as these were put in force, and that no Service has; none the next time.
    fn take_bygone(&mut self) -> Vec<FrontendKey> {
        Vec::new()
    }

    /// Mends elements of podnet's tables of nf_tables that others touched, these alone, and tells how many were wrong; none where more has to be
    /// looked at.
    ///
    /// # Errors
    ///
    /// What was refused; then everything has to be put in force.
    fn mend_elements(
        &mut self,
        _services: &Services,
        _touched: &[Touched],
        _datapath: &mut dyn Datapath,
    ) -> Result<Option<usize>, RulesError> {
        Ok(None)
    }

    /// Takes away all that the mode makes, also what another agent made. Done also where there is nothing.
    ///
    /// # Errors
    ///
    /// What cannot be taken away.
    fn take_away(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError>;

    /// Whether something stays for now that [`ServiceRules::take_away`] left for the sake of connections: it has to be done again.
    fn lingers(&self) -> bool {
        false
    }

    /// The addresses at which that is: a mode that wants these in another way leaves them to rules.
    fn held(&self) -> BTreeSet<IpAddr> {
        BTreeSet::new()
    }

    /// Whether connections may come to be for a moment yet that this mode has in hand: at which addresses is not known before.
    fn takes_new(&self) -> bool {
        false
    }

    /// Finds out what of the mode outlived an earlier agent, for [`ServiceRules::lingers`] and what goes with it: before another mode takes its
    /// place, and anything is taken away. Where that cannot be found out, connections may come to be anywhere.
    fn recall(&mut self) {}

    /// The backends that the mode, which is left, remembers connections to apart from connection tracking.
    fn remembered(&self) -> Remembered {
        Remembered::new()
    }

    /// Takes away at once what lingers for frontends that are no Service's any more: the mode that serves instead refuses them.
    ///
    /// # Errors
    ///
    /// What cannot be taken away.
    fn withdraw(
        &mut self,
        _is_served: &dyn Fn(&FrontendKey) -> bool,
        _datapath: &mut dyn Datapath,
    ) -> Result<(), RulesError> {
        Ok(())
    }

    /// Leaves these addresses to rules that serve beside this mode, and no others any more: the next time nothing of it is there.
    fn leave_to_rules(&mut self, _services: &Services, _addrs: &BTreeSet<IpAddr>) {}

    /// Whether what is planned is in force but for what [`ServiceRules::edit`] will do.
    fn in_force(&self) -> bool;

    /// The settings changed that stand in all rules: the next time everything is put in force.
    fn begin_anew(&mut self, services: &Services);

    /// Takes the settings of the mode `ipvs`: where they are others and matter, everything is put in force the next time.
    fn configure(&mut self, _services: &Services, _config: &IpvsConfig) {}

    /// The table of nf_tables that has to be there, where there has to be one.
    fn table(&self, _services: &Services) -> Option<&'static str> {
        None
    }

    /// The kernel tells of a change: what it damaged is found at the next [`ServiceRules::look`].
    fn hear(&mut self, _notice: &Notice) {}

    /// Whether a transaction of which the kernel tells is of the programs that these rules are written with.
    fn is_own(&self, _transaction: &Transaction) -> bool {
        false
    }

    /// When it is looked whether the rules are as they were made, where that is not done by [`ServiceRules::table`].
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Mends what others damaged, where that is due. Answers what was mended, in words.
    ///
    /// # Errors
    ///
    /// As [`ServiceRules::edit`].
    fn look(&mut self, _services: &Services, _datapath: &mut dyn Datapath) -> Result<Option<String>, RulesError> {
        Ok(None)
    }

    /// The rules of iptables, where the mode has some of which each table's are counted.
    fn chains(&self) -> BTreeMap<Table, Rules> {
        BTreeMap::new()
    }

    /// Those of them that count packets of which kube-proxy's metrics tell.
    fn counted(&self) -> Counted {
        Counted::default()
    }

    /// What of Services the mode cannot serve here.
    fn unserved(&self) -> BTreeSet<Unserved> {
        BTreeSet::new()
    }
}

/// Why rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// nf_tables refused.
    #[error(transparent)]
    Nftables(#[from] NftError),
    /// What another mode writes with refused.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

impl RulesError {
    /// The kernel has no nf_tables.
    pub(crate) const fn is_lack_of_nftables(&self) -> bool {
        matches!(self, Self::Nftables(error) if error.is_absent())
    }
}

/// The rules of a mode. Where others than pods and the node come from, `ebpf` has the rules of `nftables`.
pub(crate) fn rules(mode: Mode, services: &Services) -> Box<dyn ServiceRules> {
    match mode {
        Mode::Ipvs => Box::new(InIpvs::new(services)),
        Mode::Iptables => Box::new(InIptables::new(services)),
        Mode::Userspace => Box::new(InUserspace::new(services)),
        Mode::Ebpf | Mode::Nftables => Box::new(InNftables::new(services)),
    }
}

/// Whether two modes have the same rules.
pub(crate) const fn have_same_rules(one: Mode, other: Mode) -> bool {
    matches!((one, other), (Mode::Ebpf | Mode::Nftables, Mode::Ebpf | Mode::Nftables)) || one as u8 == other as u8
}

/// The rules of all modes but this one's: what an earlier agent may have left.
pub(crate) fn others(mode: Mode, services: &Services) -> impl Iterator<Item = (Mode, Box<dyn ServiceRules>)> {
    BUILT.into_iter().filter(move |other| !have_same_rules(mode, *other)).map(|other| (other, rules(other, services)))
}

/// Rules of IPv4 are there always, those of IPv6 where the cluster has Services of it.
pub(super) fn is_needed(services: &Services) -> bool {
    services.config().family == Family::V4 || services.is_needed()
}

/// Those of frontends of UDP that no Service has.
pub(super) fn bygone(
    found: impl IntoIterator<Item = FrontendKey>,
    services: &Services,
) -> impl Iterator<Item = FrontendKey> {
    found.into_iter().filter(move |key| key.protocol == Protocol::Udp && services.serving(key).is_none())
}

/// A table of nf_tables.
#[derive(Debug)]
struct InNftables {
    family: Family,
    nftables: Nftables,
    edits: Vec<Edit>,
    in_force: bool,
    /// It is not known whether there is none.
    may_be_there: bool,
    bygone: Vec<FrontendKey>,
}

impl InNftables {
    fn new(services: &Services) -> Self {
        let mut nftables = Nftables::new(services);
        // It takes plans from the first on.
        nftables.note(services, &services.whole());
        let (edits, bygone) = (Vec::new(), Vec::new());
        Self { family: services.config().family, nftables, edits, in_force: false, may_be_there: true, bygone }
    }
}

impl ServiceRules for InNftables {
    fn learn(&mut self, services: &Services, plan: &Plan) {
        if self.in_force {
            self.edits.extend(self.nftables.edits(services, plan));
        } else {
            self.nftables.note(services, plan);
        }
    }

    fn may_be_there(&self) -> bool {
        self.may_be_there
    }

    fn follow(&mut self, _services: &Services, datapath: &mut dyn Datapath) -> Result<usize, RulesError> {
        let edits = std::mem::take(&mut self.edits);
        self.in_force = false;
        datapath.edit(self.family, nftables::TABLE, &edits)?;
        self.in_force = true;
        Ok(edits.len())
    }

    fn put(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        self.edits = Vec::new();
        self.in_force = false;
        if is_needed(services) {
            datapath.replace(nftables::TABLE, &self.nftables.desired(services))?;
            self.bygone.extend(bygone(datapath.take_surplus(), services));
            self.in_force = true;
            self.may_be_there = true;
            return Ok(());
        }
        self.take_away(datapath)
    }

    fn take_bygone(&mut self) -> Vec<FrontendKey> {
        std::mem::take(&mut self.bygone)
    }

    fn mend_elements(
        &mut self,
        services: &Services,
        touched: &[Touched],
        datapath: &mut dyn Datapath,
    ) -> Result<Option<usize>, RulesError> {
        // What is planned is not all in the kernel otherwise.
        if !self.in_force || !self.edits.is_empty() {
            return Ok(None);
        }
        let frontend = |one: &Touched| one.frontend().filter(|_| self.nftables.is_by_frontend(one.set()));
        let Some(frontends) = touched.iter().map(frontend).collect::<Option<BTreeSet<_>>>() else { return Ok(None) };
        let rules = self.nftables.of_frontends(services, frontends);
        Ok(Some(datapath.mend_elements(self.family, nftables::TABLE, &rules, touched)?))
    }

    fn take_away(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        self.in_force = false;
        datapath.delete_table(self.family, nftables::TABLE)?;
        self.may_be_there = false;
        Ok(())
    }

    fn in_force(&self) -> bool {
        self.in_force
    }

    fn begin_anew(&mut self, _services: &Services) {
        self.edits = Vec::new();
        self.in_force = false;
    }

    fn table(&self, services: &Services) -> Option<&'static str> {
        is_needed(services).then_some(nftables::TABLE)
    }
}
