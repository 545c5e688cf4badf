//! What plugins tell of a question (`metadata`), under labels such as `kubernetes/namespace`.

use super::{Look, Server};
use crate::name::QueryName;

impl Server {
    /// What is told of a block's question under a label; none where the block has no `metadata` for its name, or nobody tells it.
    pub(super) fn label(&self, block: usize, label: &str, look: &Look<'_>) -> Option<String> {
        if !self.tells(block, look.name) {
            return None;
        }
        let block = self.blocks.get(block)?;
        if label == "view/name" {
            return Some(block.view.clone()).filter(|name| !name.is_empty());
        }
        block.links.iter().find_map(|link| link.label(label, look))
    }

    /// Whether a block's plugins tell of questions for a name.
    pub(super) fn tells(&self, block: usize, name: &QueryName) -> bool {
        let zones = self.blocks.get(block).map(|block| &block.metadata);
        zones.is_some_and(|zones| zones.iter().any(|zone| name.within(zone).is_some()))
    }
}
