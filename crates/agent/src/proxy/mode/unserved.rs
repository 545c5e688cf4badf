//! What of Services is not served, as it is told.

use std::{borrow::Cow, cmp::Ordering};

use podnet_model::ServiceKey;

/// The reason of events of what is not served at all.
pub const NOT_SERVED: &str = "NotServed";

/// Something that is not served, or otherwise than the Service asks.
#[derive(Clone, Debug)]
pub struct Unserved {
    /// Whose it is.
    pub service: ServiceKey,
    /// That of the event: one word in camel case.
    pub reason: &'static str,
    /// What it is and why, and what helps.
    pub message: Cow<'static, str>,
    /// For what is so on every node: what it is, in words that stay the same while it is so. None for what is this node's.
    pub fact: Option<String>,
}

impl Unserved {
    fn key(&self) -> (&ServiceKey, bool, &str) {
        (&self.service, self.fact.is_some(), self.fact.as_deref().unwrap_or(&self.message))
    }
}

/// What is told once is the same where the fact is, whatever else the message says of it.
impl Ord for Unserved {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Unserved {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Unserved {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Unserved {}
