//! What can change in a rule set.

use super::{BackendAddress, BackendKey, Chain, FrontendKey, RuleName, Set};

/// One change of a rule set. A list of edits is one transaction: all are in force, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Make the chain, or replace its rules.
    SetChain(RuleName, Chain),
    /// Remove a chain that nothing refers to any more.
    RemoveChain(RuleName),
    /// Make an empty verdict map.
    AddVerdictMap(RuleName),
    /// Make an empty backend map.
    AddBackendMap(RuleName),
    /// Make an empty memory; it is removed as a set is.
    AddMemory(RuleName),
    /// Make a set with the elements that it starts with.
    AddSet(RuleName, Set),
    /// Remove a map or set, with its elements, that no rule refers to any more (maps and sets share one name space, and the
    /// kernel removes both by the same message).
    RemoveSet(RuleName),
    /// Point a frontend at a chain, replacing where it pointed.
    SetVerdict {
        /// The verdict map.
        map: RuleName,
        /// The frontend.
        key: FrontendKey,
        /// The chain.
        chain: RuleName,
        /// Where it pointed before: the kernel removes an element by key, but the renderer needs no read back.
        replaces: bool,
    },
    /// Forget a frontend.
    RemoveVerdict {
        /// The verdict map.
        map: RuleName,
        /// The frontend.
        key: FrontendKey,
    },
    /// Fill a slot, replacing what it held.
    SetBackend {
        /// The backend map.
        map: RuleName,
        /// The slot.
        key: BackendKey,
        /// The backend.
        to: BackendAddress,
        /// The slot was filled before.
        replaces: bool,
    },
    /// Empty a slot.
    RemoveBackend {
        /// The backend map.
        map: RuleName,
        /// The slot.
        key: BackendKey,
    },
    /// Add an element to a set; the set given holds just the new elements, of the kind of the named set.
    AddElements(RuleName, Set),
    /// Remove elements from a set.
    RemoveElements(RuleName, Set),
}
