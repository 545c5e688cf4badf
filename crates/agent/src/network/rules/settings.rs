//! What kube-proxy's configuration says of the rules.

use podnet_model::Family;
use podnet_planner::proxy::RuleSettings;

use super::ClusterRules;

impl ClusterRules {
    /// As [`ClusterRules::learn`], for what kube-proxy's configuration says.
    pub(in crate::network) fn configure(&mut self, settings: &RuleSettings) {
        if self.ipvs != settings.ipvs {
            self.ipvs = settings.ipvs.clone();
            // What others own is not taken away with what an earlier agent left.
            if self.left.is_untried() {
                self.suspect_others();
            }
        }
        for family in Family::ALL {
            let own = &mut self.families[family];
            let before = own.services.config();
            let before = (before.masquerade_mark, before.masquerade_all, before.drops_invalid);
            let plan = settings.configure(&mut own.services);
            self.take(family, plan, Vec::new());
            if before != (settings.masquerade_mark, settings.masquerade_all, settings.drops_invalid) {
                let own = &mut self.families[family];
                own.rules.begin_anew(&own.services);
                if let Some(beside) = &mut self.beside {
                    beside.begin_anew(family);
                }
            }
            let own = &mut self.families[family];
            own.rules.configure(&own.services, &settings.ipvs);
            self.learn(&settings.range_of_pods(family));
        }
    }
}
