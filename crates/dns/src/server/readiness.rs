//! Whether questions should come already (`ready`).

use std::{collections::BTreeSet, sync::Mutex};

use super::{Server, lock};
use crate::chain::Monitor;

/// What is known of plugins that tell whether they are ready.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    monitor: Monitor,
    /// Those that were ready once: block and link.
    seen: Mutex<BTreeSet<(usize, usize)>>,
}

impl Readiness {
    /// Nobody was ready yet.
    pub(super) fn new(monitor: Monitor) -> Self {
        Self { monitor, seen: Mutex::default() }
    }
}

impl Server {
    /// The plugins that are not ready, of the blocks with `ready`. One that was ready once is not asked again, unless the Corefile
    /// wants that.
    #[must_use]
    pub fn waits_for(&self) -> Vec<&'static str> {
        let mut seen = lock(&self.readiness.seen);
        let mut waits = Vec::new();
        for (index, block) in self.blocks.iter().enumerate().filter(|(_, block)| block.plugins.contains(&"ready")) {
            for (place, link) in block.links.iter().enumerate() {
                let Some((plugin, ready)) = link.readiness() else { continue };
                let known = self.readiness.monitor == Monitor::UntilReady && seen.contains(&(index, place));
                if ready {
                    seen.insert((index, place));
                } else if !known && !waits.contains(&plugin) {
                    waits.push(plugin);
                }
            }
        }
        waits
    }
}
