//! What plugins count by themselves, under CoreDNS's names.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use super::header;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    /// `acl` let a question pass.
    AclAllowed,
    /// `acl` refused one.
    AclBlocked,
    /// `acl` answered one with nothing.
    AclFiltered,
    /// `acl` did not answer one.
    AclDropped,
    /// `dns64` made addresses.
    Translated,
}

const TOLD: [(&str, &str); 5] = [
    ("coredns_acl_allowed_requests_total", "Questions that acl let pass."),
    ("coredns_acl_blocked_requests_total", "Questions that acl refused."),
    ("coredns_acl_filtered_requests_total", "Questions that acl answered with nothing."),
    ("coredns_acl_dropped_requests_total", "Questions that acl did not answer."),
    ("coredns_dns64_requests_translated_total", "Questions for which IPv6 addresses were made of IPv4 addresses."),
];

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Tallies([AtomicU64; TOLD.len()]);

impl Tallies {
    pub(super) fn count(&self, what: Tally) {
        self.0[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn render(&self, server: &str, out: &mut String) -> std::fmt::Result {
        for ((name, help), count) in TOLD.iter().zip(&self.0) {
            header(out, name, "counter", help)?;
            writeln!(out, "{name}{{server=\"{server}\"}} {}", count.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}
