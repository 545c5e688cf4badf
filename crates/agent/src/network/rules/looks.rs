//! What others do to the rules, and when it is looked for that and for what other modes left.

use std::time::Instant;

use podnet_kernel::{
    datapath::Datapath,
    monitor::{Notice, Transaction},
};
use podnet_model::Family;
use podnet_planner::repair::{Damage, Object};
use tracing::warn;

use super::{ClusterRules, beside::Beside, family::is_served};
use crate::proxy::mode::RulesError;

impl ClusterRules {
    /// Takes in what the kernel tells.
    pub(in crate::network) fn hear(&mut self, notices: &[Notice]) {
        for family in Family::ALL {
            notices.iter().for_each(|notice| self.families[family].rules.hear(notice));
        }
        if let Some(beside) = &mut self.beside {
            notices.iter().for_each(|notice| beside.hear(notice));
        }
    }

    /// Whether a transaction of nf_tables is this value's although the kernel tells of it: a program made it.
    pub(in crate::network) fn is_own(&self, transaction: &Transaction) -> bool {
        let beside = self.beside.as_ref().is_some_and(|beside| beside.is_own(transaction));
        beside || Family::ALL.into_iter().any(|family| self.families[family].rules.is_own(transaction))
    }

    /// When [`ClusterRules::look`] is due.
    pub(in crate::network) fn due(&self) -> Option<Instant> {
        let forgets = Family::ALL.into_iter().any(|family| self.forgets(family)).then_some(self.next_forget);
        let of_modes = Family::ALL.into_iter().filter_map(|family| self.families[family].rules.due());
        let beside = self.beside.as_ref();
        let left = self.left.due().into_iter().chain(beside.map(Beside::due)).min().filter(|_| !self.is_refused());
        let of_modes = of_modes.chain(beside.and_then(Beside::rules_due));
        of_modes.chain(left).chain(forgets).chain(self.arrival_due()).min()
    }

    /// Mends Services' rules that others damaged, where these are in no table of podnet's own, and tries again to take away what other modes
    /// left.
    ///
    /// # Errors
    ///
    /// The first refusal; the next time all rules of that family are put in force.
    pub(in crate::network) fn look(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        let mut first = Ok(());
        for family in Family::ALL {
            let own = &mut self.families[family];
            match own.rules.look(&own.services, datapath) {
                Ok(None) => {}
                Ok(Some(what)) => {
                    warn!(what, "mended what somebody else damaged");
                    self.mended.push(Damage::new(Object::Chains, what));
                }
                Err(error) => {
                    own.refused = true;
                    first = first.and(Err(error));
                }
            }
        }
        match self.beside.as_mut().map_or(Ok(None), |beside| beside.look(datapath)) {
            Ok(None) => {}
            Ok(Some(what)) => {
                warn!(what, "mended what somebody else damaged");
                self.mended.push(Damage::new(Object::Chains, what));
            }
            Err(error) => first = first.and(Err(error)),
        }
        if !self.is_refused() {
            let looked = self.left.look(&is_served(&self.families), datapath);
            first = first.and(self.share_when_due(looked, datapath));
            self.arrive_when_due(datapath);
        }
        first
    }
}
