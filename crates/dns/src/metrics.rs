//! What the server counts, under CoreDNS's metric names, so that its dashboards and alerts go on working.

mod upstreams;

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

pub use upstreams::Upstreams;

use crate::{
    message::{Rcode, rtype},
    server::Transport,
};

/// Upper bounds of the duration histogram, in microseconds: from a prebuilt answer to a slow upstream.
const BOUNDS: [u64; 12] =
    [10, 50, 250, 1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000];
/// The query types that have a row of their own; the others share the last one.
const TYPES: [u16; 12] = [
    rtype::A,
    rtype::AAAA,
    rtype::SRV,
    rtype::PTR,
    rtype::CNAME,
    rtype::TXT,
    rtype::NS,
    rtype::SOA,
    15,
    65,
    rtype::ANY,
    0,
];
/// The response codes that have a row of their own.
const RCODES: [Rcode; 8] = [
    Rcode::NOERROR,
    Rcode::FORMERR,
    Rcode::SERVFAIL,
    Rcode::NXDOMAIN,
    Rcode::NOTIMP,
    Rcode::REFUSED,
    Rcode::BADVERS,
    Rcode(u16::MAX),
];

/// The counters of one server; they survive a reload of the Corefile.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: [[AtomicU64; TYPES.len()]; 4],
    responses: [AtomicU64; RCODES.len()],
    durations: [AtomicU64; BOUNDS.len() + 1],
    duration_sum_us: AtomicU64,
    cache_hits: [AtomicU64; 2],
    cache_misses: AtomicU64,
    cache_prefetched: AtomicU64,
    cache_stale: AtomicU64,
    searched: AtomicU64,
    dropped: AtomicU64,
    rejected: AtomicU64,
    /// What is counted of upstreams.
    pub upstreams: Upstreams,
    /// Corefiles that were taken over.
    pub reloads: AtomicU64,
    /// Corefiles that could not be loaded.
    pub reload_failures: AtomicU64,
}

/// Numbers that are read when the metrics are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Cached answers with records.
    pub cache_success: usize,
    /// Cached answers without.
    pub cache_denial: usize,
    /// Questions that are being asked upstream.
    pub flights: usize,
    /// The cluster's state is known.
    pub synced: bool,
}

impl Metrics {
    pub(crate) fn request(&self, transport: Transport, v4: bool, qtype: u16) {
        let row = TYPES.iter().position(|known| *known == qtype).unwrap_or(TYPES.len() - 1);
        let column = usize::from(transport == Transport::Tcp) << 1 | usize::from(!v4);
        self.requests[column][row].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn response(&self, rcode: Rcode) {
        let row = RCODES.iter().position(|known| *known == rcode).unwrap_or(RCODES.len() - 1);
        self.responses[row].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn cache(&self, hit: Option<crate::cache::Half>) {
        match hit {
            Some(half) => self.cache_hits[half as usize].fetch_add(1, Ordering::Relaxed),
            None => self.cache_misses.fetch_add(1, Ordering::Relaxed),
        };
    }

    pub(crate) fn prefetched(&self) {
        self.cache_prefetched.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stale(&self) {
        self.cache_stale.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn searched(&self) {
        self.searched.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long a response took.
    pub fn took(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.durations[bucket].fetch_add(1, Ordering::Relaxed);
        self.duration_sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// The metrics in Prometheus' text format 0.0.4; `server` is the label of that name.
    #[must_use]
    pub fn render(&self, server: &str, gauges: Gauges) -> String {
        let mut out = String::new();
        let _ = self.queries(server, &mut out);
        let _ = self.parts(server, gauges, &mut out);
        out
    }

    fn queries(&self, server: &str, out: &mut String) -> std::fmt::Result {
        header(out, "coredns_dns_requests_total", "counter", "Queries.")?;
        for (column, rows) in self.requests.iter().enumerate() {
            let proto = if column & 2 == 0 { "udp" } else { "tcp" };
            let family = if column & 1 == 0 { 1 } else { 2 };
            for (row, count) in rows.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let kind = rtype::mnemonic(TYPES[row]);
                    writeln!(
                        out,
                        "coredns_dns_requests_total{{server=\"{server}\",zone=\".\",view=\"\",proto=\"{proto}\",\
                         family=\"{family}\",type=\"{kind}\"}} {count}"
                    )?;
                }
            }
        }
        header(out, "coredns_dns_responses_total", "counter", "Responses, by code.")?;
        for (row, count) in self.responses.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let rcode = RCODES[row].mnemonic();
                writeln!(
                    out,
                    "coredns_dns_responses_total{{server=\"{server}\",zone=\".\",view=\"\",rcode=\"{rcode}\",\
                     plugin=\"\"}} {count}"
                )?;
            }
        }
        let name = "coredns_dns_request_duration_seconds";
        header(out, name, "histogram", "Time from a query to its response.")?;
        let labels = format!("server=\"{server}\",zone=\".\",view=\"\"");
        let mut total = 0;
        for (bucket, count) in self.durations.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            match BOUNDS.get(bucket) {
                Some(bound) => writeln!(out, "{name}_bucket{{{labels},le=\"{}\"}} {total}", *bound as f64 / 1e6)?,
                None => writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}")?,
            }
        }
        let sum = self.duration_sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {total}")
    }

    fn parts(&self, server: &str, gauges: Gauges, out: &mut String) -> std::fmt::Result {
        let labels = format!("server=\"{server}\",zones=\".\",view=\"\"");
        header(out, "coredns_cache_hits_total", "counter", "Questions answered from the cache.")?;
        for (kind, count) in ["success", "denial"].into_iter().zip(&self.cache_hits) {
            let count = count.load(Ordering::Relaxed);
            writeln!(out, "coredns_cache_hits_total{{type=\"{kind}\",{labels}}} {count}")?;
        }
        header(out, "coredns_cache_misses_total", "counter", "Questions that the cache had no answer for.")?;
        writeln!(out, "coredns_cache_misses_total{{{labels}}} {}", self.cache_misses.load(Ordering::Relaxed))?;
        let (name, prefetched) = ("coredns_cache_prefetch_total", self.cache_prefetched.load(Ordering::Relaxed));
        header(out, name, "counter", "Answers that were fetched anew before they ended.")?;
        writeln!(out, "{name}{{{labels}}} {prefetched}")?;
        let (name, stale) = ("coredns_cache_served_stale_total", self.cache_stale.load(Ordering::Relaxed));
        header(out, name, "counter", "Questions answered with what had ended.")?;
        writeln!(out, "{name}{{{labels}}} {stale}")?;
        let (name, searched) = ("coredns_autopath_success_total", self.searched.load(Ordering::Relaxed));
        header(out, name, "counter", "Names found along a client's search path.")?;
        writeln!(out, "{name}{{server=\"{server}\"}} {searched}")?;
        header(out, "coredns_cache_entries", "gauge", "Answers in the cache.")?;
        for (kind, count) in [("success", gauges.cache_success), ("denial", gauges.cache_denial)] {
            writeln!(out, "coredns_cache_entries{{type=\"{kind}\",{labels}}} {count}")?;
        }
        header(out, "coredns_forward_max_concurrent_rejects_total", "counter", "Questions beyond the bound.")?;
        let rejected = self.rejected.load(Ordering::Relaxed);
        writeln!(out, "coredns_forward_max_concurrent_rejects_total {rejected}")?;
        self.upstreams.render(out)?;
        header(out, "podnet_dns_flights", "gauge", "Questions that are being asked upstream.")?;
        writeln!(out, "podnet_dns_flights {}", gauges.flights)?;
        header(out, "podnet_dns_dropped_total", "counter", "Packets that were no query.")?;
        writeln!(out, "podnet_dns_dropped_total {}", self.dropped.load(Ordering::Relaxed))?;
        header(out, "podnet_dns_synced", "gauge", "1 when the cluster's state is known.")?;
        writeln!(out, "podnet_dns_synced {}", u8::from(gauges.synced))?;
        header(out, "coredns_reload_failed_total", "counter", "Corefiles that could not be loaded.")?;
        writeln!(out, "coredns_reload_failed_total {}", self.reload_failures.load(Ordering::Relaxed))?;
        header(out, "podnet_dns_reloads_total", "counter", "Corefiles that were taken over.")?;
        writeln!(out, "podnet_dns_reloads_total {}", self.reloads.load(Ordering::Relaxed))
    }
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}
