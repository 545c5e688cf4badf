//! What plugins count by themselves: counters under CoreDNS's names, each with labels.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::header;
use crate::server::lock;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
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
    /// `autopath` found a name along a search path.
    Searched,
    /// The cache was asked.
    CacheRequests,
    /// It had an answer.
    CacheHits,
    /// It had none.
    CacheMisses,
    /// It had an answer fetched anew before that ended.
    CachePrefetches,
    /// It gave out what had ended.
    CacheStale,
    /// Answers gave way to others in it.
    CacheEvictions,
    /// A question went beyond its network's allowance (`rrl`).
    RequestsExceeded,
    /// A response did.
    ResponsesExceeded,
    /// A signature was there already (`dnssec`).
    SignaturesFound,
    /// One had to be made.
    SignaturesMade,
    /// A question was one for a `template`.
    TemplateMatches,
    /// A `template` had no text for a question.
    TemplateFailures,
    /// Its text was no record.
    TemplateRecordFailures,
}

const TOLD: [(&str, &str); 19] = [
    ("coredns_acl_allowed_requests_total", "Questions that acl let pass."),
    ("coredns_acl_blocked_requests_total", "Questions that acl refused."),
    ("coredns_acl_filtered_requests_total", "Questions that acl answered with nothing."),
    ("coredns_acl_dropped_requests_total", "Questions that acl did not answer."),
    ("coredns_dns64_requests_translated_total", "Questions for which IPv6 addresses were made of IPv4 addresses."),
    ("coredns_autopath_success_total", "Names found along a client's search path."),
    ("coredns_cache_requests_total", "Questions that the cache was asked."),
    ("coredns_cache_hits_total", "Questions answered from the cache."),
    ("coredns_cache_misses_total", "Questions that the cache had no answer for."),
    ("coredns_cache_prefetch_total", "Answers that were fetched anew before they ended."),
    ("coredns_cache_served_stale_total", "Questions answered with what had ended."),
    ("coredns_cache_evictions_total", "Answers that gave way to others in the cache."),
    ("coredns_rrl_requests_exceeded_total", "Questions beyond the allowance of a client's network."),
    ("coredns_rrl_responses_exceeded_total", "Responses beyond the allowance of a client's network."),
    ("coredns_dnssec_cache_hits_total", "How often a signature was there already."),
    ("coredns_dnssec_cache_misses_total", "How often a signature had to be made."),
    ("coredns_template_matches_total", "Questions that a template was made for."),
    ("coredns_template_template_failures_total", "How often a template had no text for a question."),
    ("coredns_template_rr_failures_total", "How often the text of a template was no record."),
];

/// One counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Counts one more.
    pub(crate) fn count(&self) {
        self.add(1);
    }

    /// Counts so many more.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// The counters of all families, by their labels.
#[derive(Debug, Default)]
pub(super) struct Families([Mutex<BTreeMap<String, Counter>>; TOLD.len()]);

impl Families {
    /// The counter of a family with these labels: whoever asks for the same counts in the same one.
    pub(super) fn counter(&self, family: Family, labels: String) -> Counter {
        lock(&self.0[family as usize]).entry(labels).or_default().clone()
    }

    pub(super) fn render(&self, out: &mut String) -> fmt::Result {
        for ((name, help), counters) in TOLD.iter().zip(&self.0) {
            header(out, name, "counter", help)?;
            for (labels, Counter(count)) in lock(counters).iter() {
                writeln!(out, "{name}{{{labels}}} {}", count.load(Ordering::Relaxed))?;
            }
        }
        Ok(())
    }
}

/// Labels as they stand between braces: of values backslashes, quotes and line ends are escaped, as the text format has it.
pub(crate) fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        let between = if out.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(out, "{between}{name}=\"");
        for letter in value.chars() {
            match letter {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                plain => out.push(plain),
            }
        }
        out.push('"');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped_so_that_a_line_stays_one() {
        assert_eq!(labels(&[]), "");
        let text = labels(&[("server", "dns://:53"), ("template", "{{ index \"a\\b\" }}\nx"), ("view", "")]);
        assert_eq!(text, r#"server="dns://:53",template="{{ index \"a\\b\" }}\nx",view="""#);
    }

    #[test]
    fn whoever_asks_for_the_same_labels_counts_in_the_same_counter() {
        let families = Families::default();
        let counter = |family, server: &str| families.counter(family, labels(&[("server", server)]));
        counter(Family::AclAllowed, "a").count();
        counter(Family::AclAllowed, "b").add(5);
        counter(Family::AclAllowed, "a").add(2);
        counter(Family::TemplateRecordFailures, "a").count();
        let mut out = String::new();
        families.render(&mut out).unwrap();
        for line in [
            "coredns_acl_allowed_requests_total{server=\"a\"} 3",
            "coredns_acl_allowed_requests_total{server=\"b\"} 5",
            "coredns_template_rr_failures_total{server=\"a\"} 1",
        ] {
            assert!(out.lines().any(|told| told == line), "{line}: {out}");
        }
        assert_eq!(out.lines().filter(|line| !line.starts_with('#')).count(), 3, "{out}");
    }
}
