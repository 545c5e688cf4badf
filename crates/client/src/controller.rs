//! What every controller is made of: a loop that makes the cluster fit what somebody wants of it.
//!
//! [`cache`]s follow the API and tell the controllers which [`key`]s changed; a [`queue`] holds each key once; a [`worker`] takes a
//! key, reads the present state, decides and writes; a [`recorder`] tells people about it. Nothing depends on the order of events, nor
//! on their number: what is written follows from what is there.

pub mod cache;
pub mod key;
pub mod queue;
pub mod recorder;
pub mod worker;
