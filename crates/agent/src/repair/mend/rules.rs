//! The tables of nf_tables: those of the cluster and that of pods.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use podnet_kernel::{datapath::KernelDatapath, nft::Touched};
use podnet_model::Family;
use podnet_planner::repair::{Damage, Object};
use tracing::debug;

use super::MendError;
use crate::{
    attach::rules::TABLE as POD_TABLE,
    network::rules::{ClusterRules, TABLES},
    repair::{Repair, suspicion::MOST_TOUCHED},
};

/// After elements were mended one by one, tables are compared as a whole then.
const LEISURE: Duration = Duration::from_secs(30);

impl Repair {
    /// Mends the elements that others touched at once. Everything is compared later, when nobody waits for it.
    pub(super) fn mend_elements(
        &mut self,
        datapath: &mut KernelDatapath,
        rules: &mut ClusterRules,
        since: Instant,
        touched: Vec<Touched>,
        mended: &mut Vec<Damage>,
    ) -> Result<(), MendError> {
        let damage = Damage::new(Object::Table(TABLES[0].into()), "was changed");
        if !self.admit(&damage) {
            self.held.rules_touched = true;
            if self.held.touched.len() + touched.len() > MOST_TOUCHED {
                self.held.rules = Some(since);
            } else {
                self.held.elements = Some(since);
                self.held.touched.extend(touched);
            }
            return Ok(());
        }
        match rules.mend_elements(&touched, datapath) {
            Ok(Some(wrong)) => {
                self.suspicion.compare.get_or_insert(Instant::now() + LEISURE);
                mended.extend((wrong > 0).then_some(damage));
                return Ok(());
            }
            Ok(None) => {}
            Err(error) => debug!(error = &error as &dyn Error, "elements not mended; everything is compared"),
        }
        rules.put(datapath)?;
        mended.push(damage);
        Ok(())
    }

    pub(super) fn mend_rules(
        &mut self,
        datapath: &mut KernelDatapath,
        rules: &mut ClusterRules,
        since: Instant,
        touched: bool,
        mended: &mut Vec<Damage>,
    ) -> Result<(), MendError> {
        let mut missing = None;
        for (family, table) in Family::ALL.into_iter().flat_map(|family| TABLES.map(|table| (family, table))) {
            let is_needed = missing.is_none() && rules.is_needed(family, table);
            if is_needed && !datapath.nft_socket().has_table(family, table)? {
                missing = Some(table);
            }
        }
        let what = if missing.is_none() { "was changed" } else { "was deleted" };
        let damage = Damage::new(Object::Table(missing.unwrap_or(TABLES[0]).into()), what);
        if !self.admit(&damage) {
            self.held.rules = Some(since);
            self.held.rules_touched = touched;
            return Ok(());
        }
        rules.put(datapath)?;
        // Where notices were lost it is put in place to be sure, and nothing is known to have been wrong.
        mended.extend((touched || missing.is_some()).then_some(damage));
        Ok(())
    }

    pub(super) fn mend_pod_rules(
        &mut self,
        since: Instant,
        touched: bool,
        mended: &mut Vec<Damage>,
    ) -> Result<(), MendError> {
        let damage = Damage::new(Object::Table(POD_TABLE.into()), "was changed");
        if !self.admit(&damage) {
            self.held.pod_rules = Some(since);
            self.held.rules_touched = touched;
            return Ok(());
        }
        self.pods.rules().restore()?;
        mended.extend(touched.then_some(damage));
        Ok(())
    }
}
