//! What is translated on this node: by its stack, and by a program where that takes connections and passes them on (mode `userspace`).

use podnet_flow::{Key, Translations};
use podnet_kernel::conntrack::Backends;

use crate::proxy::userspace;

/// Knows both.
pub(super) struct Translated(Option<Backends>);

impl Translated {
    /// Of the namespace that the calling thread is in. Without netfilter its stack translates nothing.
    pub(super) fn open() -> Self {
        Self(Backends::open().ok())
    }
}

impl Translations for Translated {
    fn onward(&mut self, key: &Key) -> Option<Key> {
        userspace::onward(key).or_else(|| self.0.as_mut()?.onward(key))
    }

    fn origin(&mut self, key: &Key) -> Option<Key> {
        userspace::origin(key).or_else(|| self.0.as_mut()?.origin(key))
    }
}
