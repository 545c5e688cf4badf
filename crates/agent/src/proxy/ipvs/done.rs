//! What was done to make what is there what is wanted.

use podnet_planner::{iptables::Rewrite, ipvs::Edit};

/// By what it was done to.
#[derive(Default)]
pub(super) struct Done {
    pub(super) edits: Vec<Edit>,
    pub(super) rewrite: Rewrite,
    /// Rules and routes that lead to virtual servers.
    pub(super) ways: usize,
}

impl Done {
    /// What was mended; none where nothing was.
    pub(super) fn words(&self) -> Option<String> {
        let chains = self.rewrite.chains.len() + self.rewrite.gone.len() + self.rewrite.hooks.len();
        let parts = [
            (self.edits.len(), "of virtual servers, their addresses and sets"),
            (self.ways, "rules and routes that lead there"),
            (chains, "chains of iptables and ways into them"),
        ];
        let done = parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let done: Vec<String> = done.collect();
        (!done.is_empty()).then(|| done.join("; "))
    }
}
