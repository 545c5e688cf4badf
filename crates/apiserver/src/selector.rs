//! Label and field selectors as lists and watches take them.

mod field;
mod label;

pub use field::FieldSelector;
pub use label::LabelSelector;

/// Why a selector cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text is not a selector.
    #[error("unable to parse requirement {requirement:?}: {reason}")]
    Requirement {
        /// The part that is wrong.
        requirement: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The selector ends inside a requirement.
    #[error("unable to parse selector {selector:?}: {reason}")]
    Unfinished {
        /// The whole selector.
        selector: String,
        /// What is missing.
        reason: &'static str,
    },
    /// Objects of this kind cannot be selected by this field.
    #[error("field label not supported: {field}; {kind} can be selected by: {supported}")]
    UnsupportedField {
        /// The field asked for.
        field: String,
        /// The kind of the objects.
        kind: String,
        /// What can be asked for.
        supported: String,
    },
}

#[cfg(test)]
mod tests;
