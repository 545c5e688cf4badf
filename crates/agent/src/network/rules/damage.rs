//! What others did to the rules, where it is known what that was.

use podnet_kernel::{datapath::Datapath, nft::Touched};
use podnet_model::Family;
use podnet_planner::services::nftables;

use super::ClusterRules;
use crate::proxy::mode::RulesError;

impl ClusterRules {
    /// Mends elements that others touched, these alone, and tells how many were wrong; none where everything has to be looked at.
    ///
    /// # Errors
    ///
    /// What was refused; then everything has to be put in force.
    pub(crate) fn mend_elements(
        &mut self,
        touched: &[Touched],
        datapath: &mut dyn Datapath,
    ) -> Result<Option<usize>, RulesError> {
        let (mut wrong, mut rest) = (0, touched.len());
        for family in Family::ALL {
            let is_own = |one: &&Touched| one.is_of(family, nftables::TABLE);
            let touched: Vec<Touched> = touched.iter().filter(is_own).cloned().collect();
            rest -= touched.len();
            if touched.is_empty() {
                continue;
            }
            let own = &mut self.families[family];
            let beside = self.beside.as_mut().filter(|beside| beside.table(family).is_some());
            let done = match beside {
                _ if own.refused => None,
                Some(beside) => beside.mend_elements(family, &touched, datapath)?,
                None => own.rules.mend_elements(&own.services, &touched, datapath)?,
            };
            let Some(done) = done else { return Ok(None) };
            wrong += done;
        }
        // The border's table is small.
        Ok((rest == 0).then_some(wrong))
    }
}
