//! The rules of one family of addresses: those of Services, by the seam of their mode, and the table of the border.

use std::{collections::BTreeSet, net::IpAddr};

use podnet_kernel::{datapath::Datapath, nft::NftError};
use podnet_model::{Dual, Family};
use podnet_planner::{
    border::{self, Border},
    ruleset::{Edit, FrontendKey},
    services::{FrontendChange, FrontendKind, Plan, Services},
};

use super::without_local::WithoutLocal;
use crate::proxy::mode::{RulesError, ServiceRules};

/// The rules of one family.
#[derive(Debug)]
pub(super) struct OfFamily {
    pub(super) services: Services,
    pub(super) rules: Box<dyn ServiceRules>,
    pub(super) border: Border,
    pub(super) border_edits: Vec<Edit>,
    pub(super) border_in_force: bool,
    /// The kernel has nothing that the border's table could be in.
    pub(super) border_lacks: bool,
    pub(super) without_local: WithoutLocal,
    /// Something was refused the last time that it was tried.
    pub(super) refused: bool,
}

/// Whether a frontend is a Service's. A node's port is one at whatever address: at which of its addresses a node has them depends on the
/// mode, and connections that are under way do not.
pub(super) fn is_served(families: &Dual<OfFamily>) -> impl Fn(&FrontendKey) -> bool {
    move |key: &FrontendKey| {
        let services = &families[Family::of(&key.addr)].services;
        let is_node_port = |addr: &IpAddr| {
            let serving = services.serving(&FrontendKey { addr: *addr, ..*key });
            serving.is_some_and(|serving| serving.kind == FrontendKind::NodePort)
        };
        services.serving(key).is_some() || services.node_port_addrs().iter().any(is_node_port)
    }
}

impl OfFamily {
    pub(super) fn take(&mut self, plan: Plan, border: Vec<Edit>, changed: &mut Option<Vec<FrontendChange>>) {
        self.rules.learn(&self.services, &plan);
        self.without_local.take(&plan.frontends);
        if let Some(changed) = changed {
            changed.extend(plan.frontends);
        }
        // What is not in force will be made as a whole.
        if self.border_in_force {
            self.border_edits.extend(border);
        }
    }

    /// Does what is to be done: what is refused of the one does not keep the other from being in force.
    pub(super) fn edit(&mut self, datapath: &mut dyn Datapath, family: Family) -> Result<usize, RulesError> {
        let ruled = self.rules.edit(&self.services, datapath);
        let bordered = self.edit_border(datapath, family);
        self.refused = ruled.is_err() || bordered.is_err();
        Ok(ruled? + bordered?)
    }

    /// Leaves these addresses to rules that serve beside these, and no others any more.
    pub(super) fn leave_to_rules(
        &mut self,
        addrs: &BTreeSet<IpAddr>,
        datapath: &mut dyn Datapath,
    ) -> Result<(), RulesError> {
        self.rules.leave_to_rules(&self.services, addrs);
        // What is not in force will be made as a whole.
        if !self.rules.in_force() {
            return Ok(());
        }
        let done = self.rules.edit(&self.services, datapath);
        self.refused |= done.is_err();
        done.map(drop)
    }

    /// As [`OfFamily::edit`], for everything, whatever there is.
    pub(super) fn put(&mut self, datapath: &mut dyn Datapath, family: Family) -> Result<(), RulesError> {
        let ruled = self.rules.put(&self.services, datapath);
        let bordered = self.put_border(datapath, family);
        self.refused = ruled.is_err() || bordered.is_err();
        ruled.and(bordered.map_err(RulesError::from))
    }

    /// That of IPv4 always, that of IPv6 where the cluster has any of it.
    pub(super) fn border_is_needed(&self, family: Family) -> bool {
        family == Family::V4 || self.border.is_needed()
    }

    fn edit_border(&mut self, datapath: &mut dyn Datapath, family: Family) -> Result<usize, NftError> {
        let edits = std::mem::take(&mut self.border_edits);
        if self.border_in_force && self.border_is_needed(family) {
            self.border_in_force = false;
            datapath.edit(family, border::TABLE, &edits)?;
            self.border_in_force = true;
            return Ok(edits.len());
        }
        if self.border_in_force != self.border_is_needed(family) {
            self.put_border(datapath, family)?;
        }
        Ok(0)
    }

    fn put_border(&mut self, datapath: &mut dyn Datapath, family: Family) -> Result<(), NftError> {
        let needed = self.border_is_needed(family);
        self.border_edits = Vec::new();
        self.border_in_force = false;
        let done = if needed {
            datapath.replace(border::TABLE, &self.border.desired())
        } else {
            datapath.delete_table(family, border::TABLE)
        };
        self.border_lacks = matches!(&done, Err(error) if error.is_absent());
        // What a kernel lacks is told elsewhere, and keeps nothing else from being in force.
        if self.border_lacks {
            return Ok(());
        }
        done?;
        self.border_in_force = needed;
        Ok(())
    }
}
