//! The agent against the embedded API, as an account that may do what the shipped roles allow and nothing else.
#![allow(clippy::unwrap_used, missing_docs)]

mod account;
mod addresses;
mod election;
mod fixture;
mod roles;
