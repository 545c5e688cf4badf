//! Why edits cannot be done.

use super::super::{InvalidRuleSet, RuleName};

/// Why an edit was refused; the rule set is as it was before the first edit of the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// What would result is not a rule set.
    #[error(transparent)]
    Invalid(#[from] InvalidRuleSet),
    /// A base chain's hook is fixed for its life.
    #[error("cannot change the hook of chain {chain}: it is fixed when the chain is made")]
    HookChanged {
        /// The chain.
        chain: RuleName,
    },
    /// No such chain.
    #[error("cannot remove chain {chain}: there is none")]
    NoChain {
        /// The chain.
        chain: RuleName,
    },
    /// No such map or set, or one of another kind.
    #[error("cannot change {name}: there is no {expected} of that name")]
    NoObject {
        /// The name.
        name: RuleName,
        /// What it should be.
        expected: &'static str,
    },
    /// A rule or an element still refers to it.
    #[error("cannot remove {name}: {by} refers to it")]
    InUse {
        /// What was to be removed.
        name: RuleName,
        /// What refers to it.
        by: RuleName,
    },
    /// The element is there already.
    #[error("cannot add {element} to {name}: it is there already")]
    Duplicate {
        /// The map or set.
        name: RuleName,
        /// The element.
        element: String,
    },
    /// The element is not there.
    #[error("cannot replace or remove {element} of {name}: it is not there")]
    Missing {
        /// The map or set.
        name: RuleName,
        /// The element.
        element: String,
    },
}
