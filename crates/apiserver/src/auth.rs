//! Who asks, and may they.
//!
//! Nobody is anonymous: a client certificate of the cluster's authority or a service account's token says who it is
//! ([`Identity`]); what they may do is a table ([`rules`]).

mod identity;
mod review;
pub mod rules;
mod tokens;

pub use identity::{Identity, MASTERS, NODES};
pub use review::{access_review, self_review, subject_access_review};
pub use tokens::{BoundAccount, TokenError, Tokens};
