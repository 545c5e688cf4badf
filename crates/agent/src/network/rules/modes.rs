//! In which mode Services have their rules, and how it is changed.

use podnet_kernel::datapath::Datapath;
use podnet_model::{Dual, Family, proxy::Mode};

use super::{ClusterRules, left::Left};
use crate::proxy::mode::{self, RulesError, ServiceRules};

impl ClusterRules {
    /// Begins in another mode than `nftables`. What an earlier agent made in this one is right where it is as it has to be, and stays; what
    /// is of others goes once this one is in force. For rules that are not in force, or were refused.
    pub(in crate::network) fn begin_in(&mut self, mode: Mode) {
        if !mode::have_same_rules(self.mode, mode) {
            for family in Family::ALL {
                self.families[family].rules = self.fresh(mode, family);
            }
            self.mode = mode;
            self.suspect_others();
        }
    }

    /// Rules that are not in force yet.
    fn fresh(&self, mode: Mode, family: Family) -> Box<dyn ServiceRules> {
        let services = &self.families[family].services;
        let mut rules = mode::rules(mode, services);
        rules.configure(services, &self.ipvs);
        rules
    }

    /// An earlier agent may have left rules of any other mode.
    pub(super) fn suspect_others(&mut self) {
        self.left = Left::default();
        for family in Family::ALL {
            let others = mode::others(self.mode, &self.families[family].services);
            others.for_each(|(mode, mut rules)| {
                rules.configure(&self.families[family].services, &self.ipvs);
                self.left.add(mode, rules);
            });
        }
    }

    /// The mode that Services are served in.
    pub(in crate::network) const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether connections of another mode's are remembered by more than connection tracking: by virtual servers. These take an answer that
    /// comes from a backend to a client's port that they remember with that backend for theirs, and give it the frontend's address. What rules
    /// translate gets that address anyway; a connection to the backend itself would hear from a stranger.
    pub(in crate::network) fn lingers(&self) -> bool {
        self.left.lingers()
    }

    /// Changes the mode: the rules of the new one are in force before those of the old one go. Connections that are under way keep their
    /// translations, which live in connection tracking.
    ///
    /// # Errors
    ///
    /// When the new rules are refused; then nothing has changed.
    pub(in crate::network) fn switch(&mut self, mode: Mode, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        if !mode::have_same_rules(self.mode, mode) {
            let rules = Dual::from_fn(|family| self.fresh(mode, family));
            // What may be left of this very mode goes before it is there again.
            self.left.clear(self.mode, datapath);
            self.replace(mode, rules, datapath)?;
            // Datagrams that a program passed on were no connections of a backend.
            self.all_suspected = Dual::from_fn(|_| true);
        }
        self.mode = mode;
        Ok(())
    }

    pub(super) fn replace(
        &mut self,
        mode: Mode,
        mut rules: Dual<Box<dyn ServiceRules>>,
        datapath: &mut dyn Datapath,
    ) -> Result<(), RulesError> {
        for family in Family::ALL {
            if let Err(error) = rules[family].put(&self.families[family].services, datapath) {
                // Those of the other family may be in force.
                self.left.add(mode, rules.v4);
                self.left.add(mode, rules.v6);
                self.left.clear(self.mode, datapath);
                return Err(error);
            }
        }
        // Where some of this mode could not be taken away, they are in force again, and have to stay.
        self.left.keep(mode);
        let Dual { v4, v6 } = rules;
        for (family, new) in [(Family::V4, v4), (Family::V6, v6)] {
            self.left.add(self.mode, std::mem::replace(&mut self.families[family].rules, new));
            self.families[family].refused = false;
        }
        self.left.clear(mode, datapath);
        Ok(())
    }
}
