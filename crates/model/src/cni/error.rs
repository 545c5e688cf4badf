//! What can be wrong with a configuration.

/// Why a network configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// A key that nobody heeds.
    #[error(
        "unknown key {key:?} (value {value}) in the network configuration; beside the specification's, podnet knows {known}"
    )]
    UnknownKey {
        /// The key.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// What is known, in words.
        known: String,
    },
    /// A key has a value that it cannot have.
    #[error("key {key} is {value}; {allowed}")]
    Value {
        /// Where the key stands, from the top: `runtimeConfig.portMappings[0].hostPort`.
        key: String,
        /// The value, as JSON.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A pair of `CNI_ARGS` that nobody heeds, or with a value that it cannot have.
    #[error("CNI_ARGS: {key}={value}; {allowed}")]
    Argument {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl InvalidConfig {
    /// The error code of the specification (section 5, "Error").
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::UnknownKey { .. } => 2,
            Self::Value { .. } => 7,
            Self::Argument { .. } => 4,
        }
    }
}
