//! What the server counts, under CoreDNS's metric names, so that its dashboards and alerts go on working.

mod apiserver;
mod counts;
mod tally;
mod upstreams;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub use apiserver::{ApiRequest, ApiServer};
pub(crate) use counts::{Counted, Counts, Place};
pub(crate) use tally::Tally;
pub use upstreams::Upstreams;

use crate::chain::Port;

/// Upper bounds of durations, in microseconds: from a prebuilt answer to a slow upstream.
const BOUNDS: [u64; 12] =
    [10, 50, 250, 1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000];

/// The counters of one server; they survive a reload of the Corefile.
#[derive(Debug, Default)]
pub struct Metrics {
    places: Mutex<BTreeMap<Place, Arc<Counts>>>,
    cache_requests: AtomicU64,
    cache_hits: [AtomicU64; 2],
    cache_evictions: [AtomicU64; 2],
    cache_misses: AtomicU64,
    cache_prefetched: AtomicU64,
    cache_stale: AtomicU64,
    cache_drops: AtomicU64,
    searched: AtomicU64,
    tallies: tally::Tallies,
    dropped: AtomicU64,
    rejected: AtomicU64,
    members_left_out: AtomicU64,
    localhosts: AtomicU64,
    /// Responses of HTTP, by where they were asked for and by their status.
    https: Mutex<BTreeMap<(Port, u16), u64>>,
    requests_exceeded: AtomicU64,
    responses_exceeded: AtomicU64,
    /// What is counted of upstreams.
    pub upstreams: Upstreams,
    /// What is counted of the Kubernetes API.
    pub api: ApiServer,
    /// Corefiles that were taken over.
    pub reloads: AtomicU64,
    /// Corefiles that could not be loaded.
    pub reload_failures: AtomicU64,
}

/// Numbers that are read when the metrics are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Cached answers with records.
    pub cache_success: usize,
    /// Cached answers without.
    pub cache_denial: usize,
    /// The entries of `hosts`, and when they were read last, in seconds since 1970; none without that plugin.
    pub hosts: Option<(usize, u64)>,
    /// Sets whose signatures are kept (`dnssec`), and how often they were found and were not.
    pub signatures: (usize, u64, u64),
    /// Questions that are being asked upstream.
    pub flights: usize,
    /// Bytes of records that zones have which catalogs list.
    pub member_bytes: usize,
    /// The cluster's state is known.
    pub synced: bool,
    /// The plugins of the Corefile in force, each with its listener, zone and view.
    pub plugins: Vec<([String; 3], &'static str)>,
}

impl Metrics {
    /// The counters of a place; what was counted there before counts on.
    pub(crate) fn counts(&self, place: Place) -> Arc<Counts> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(place).or_default())
    }

    /// Counts a question that the cache was asked.
    pub(crate) fn cache_asked(&self) {
        self.cache_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts answers that gave way to others in a half of the cache.
    pub(crate) fn cache_evicted(&self, half: crate::cache::Half, count: usize) {
        self.cache_evictions[half as usize].fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn cache(&self, hit: Option<crate::cache::Half>) {
        match hit {
            Some(half) => self.cache_hits[half as usize].fetch_add(1, Ordering::Relaxed),
            None => self.cache_misses.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Counts one of what plugins count by themselves.
    pub(crate) fn tally(&self, what: Tally) {
        self.tallies.count(what);
    }

    pub(crate) fn prefetched(&self) {
        self.cache_prefetched.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stale(&self) {
        self.cache_stale.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message that came as an upstream's answer and is for another question: it is neither given out nor kept.
    pub fn mismatched(&self) {
        self.cache_drops.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn searched(&self) {
        self.searched.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn requests_exceeded(&self) {
        self.requests_exceeded.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn responses_exceeded(&self) {
        self.responses_exceeded.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a zone that a catalog lists and that was not taken, since there was no room for it.
    pub(crate) fn left_out(&self) {
        self.members_left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a question for `localhost` below some other name.
    pub(crate) fn localhost(&self) {
        self.localhosts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a response of DNS over HTTPS: `status` is HTTP's.
    pub fn https_answered(&self, port: Port, status: u16) {
        *self.https.lock().unwrap_or_else(PoisonError::into_inner).entry((port, status)).or_default() += 1;
    }

    pub(crate) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// The metrics in Prometheus' text format 0.0.4; `server` is the label of that name.
    #[must_use]
    pub fn render(&self, server: &str, gauges: &Gauges) -> String {
        let mut out = String::new();
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let places: Vec<(&Place, &Counts)> = places.iter().map(|(place, counts)| (place, &**counts)).collect();
        let _ = counts::render(&places, &mut out);
        let _ = self.parts(server, gauges, &mut out);
        let _ = self.members(gauges, &mut out);
        let _ = self.clients(&mut out);
        let _ = process(gauges, &mut out);
        out
    }

    fn parts(&self, server: &str, gauges: &Gauges, out: &mut String) -> std::fmt::Result {
        let labels = format!("server=\"{server}\",zones=\".\",view=\"\"");
        let (name, asked) = ("coredns_cache_requests_total", self.cache_requests.load(Ordering::Relaxed));
        header(out, name, "counter", "Questions that the cache was asked.")?;
        writeln!(out, "{name}{{{labels}}} {asked}")?;
        let name = "coredns_cache_evictions_total";
        header(out, name, "counter", "Answers that gave way to others in the cache.")?;
        for (kind, count) in ["success", "denial"].into_iter().zip(&self.cache_evictions) {
            writeln!(out, "{name}{{type=\"{kind}\",{labels}}} {}", count.load(Ordering::Relaxed))?;
        }
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
        let (name, drops) = ("coredns_cache_drops_total", self.cache_drops.load(Ordering::Relaxed));
        header(out, name, "counter", "Messages that came as answers and were for other questions.")?;
        writeln!(out, "{name}{{{labels}}} {drops}")?;
        let (name, searched) = ("coredns_autopath_success_total", self.searched.load(Ordering::Relaxed));
        header(out, name, "counter", "Names found along a client's search path.")?;
        writeln!(out, "{name}{{server=\"{server}\"}} {searched}")?;
        self.tallies.render(server, out)?;
        let exceeded = [("requests", &self.requests_exceeded), ("responses", &self.responses_exceeded)];
        for (what, count) in exceeded {
            let (name, count) = (format!("coredns_rrl_{what}_exceeded_total"), count.load(Ordering::Relaxed));
            header(out, &name, "counter", "What went beyond the allowance of a client's network.")?;
            writeln!(out, "{name}{{server=\"{server}\"}} {count}")?;
        }
        header(out, "coredns_cache_entries", "gauge", "Answers in the cache.")?;
        for (kind, count) in [("success", gauges.cache_success), ("denial", gauges.cache_denial)] {
            writeln!(out, "coredns_cache_entries{{type=\"{kind}\",{labels}}} {count}")?;
        }
        if let Some((entries, read)) = gauges.hosts {
            let (name, when) = ("coredns_hosts_entries", "coredns_hosts_reload_timestamp_seconds");
            header(out, name, "gauge", "Addresses of names and names of addresses in hosts files and the Corefile.")?;
            writeln!(out, "{name} {entries}")?;
            header(out, when, "gauge", "When hosts files were read last.")?;
            writeln!(out, "{when} {read}")?;
        }
        let (entries, hits, misses) = gauges.signatures;
        header(out, "coredns_dnssec_cache_entries", "gauge", "Sets of records whose signatures are kept.")?;
        writeln!(out, "coredns_dnssec_cache_entries{{server=\"{server}\",type=\"signature\"}} {entries}")?;
        for (what, count) in [("hits", hits), ("misses", misses)] {
            let name = format!("coredns_dnssec_cache_{what}_total");
            header(out, &name, "counter", "How often a signature was there already, or had to be made.")?;
            writeln!(out, "{name}{{server=\"{server}\"}} {count}")?;
        }
        header(out, "coredns_forward_max_concurrent_rejects_total", "counter", "Questions beyond the bound.")?;
        let rejected = self.rejected.load(Ordering::Relaxed);
        writeln!(out, "coredns_forward_max_concurrent_rejects_total {rejected}")?;
        self.upstreams.render(out)?;
        self.api.render(out)?;
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

    /// What is counted of clients beside their questions.
    fn clients(&self, out: &mut String) -> std::fmt::Result {
        let name = "coredns_dns_https_responses_total";
        header(out, name, "counter", "Responses of DNS over HTTPS, by HTTP's status.")?;
        for ((port, status), count) in self.https.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            writeln!(out, "{name}{{server=\"{port}\",status=\"{status}\"}} {count}")?;
        }
        let name = "coredns_local_localhost_requests_total";
        header(out, name, "counter", "Questions for localhost below some other name.")?;
        writeln!(out, "{name} {}", self.localhosts.load(Ordering::Relaxed))
    }

    /// What is counted of zones that catalogs list.
    fn members(&self, gauges: &Gauges, out: &mut String) -> std::fmt::Result {
        let name = "podnet_dns_catalog_bytes";
        header(out, name, "gauge", "Bytes of records that zones have which catalogs list.")?;
        writeln!(out, "{name} {}", gauges.member_bytes)?;
        let (name, count) = ("podnet_dns_catalog_refused_total", self.members_left_out.load(Ordering::Relaxed));
        header(out, name, "counter", "Transfers of such zones that were refused since there was no room for them.")?;
        writeln!(out, "{name} {count}")
    }
}

/// What the process is, and what it runs.
fn process(gauges: &Gauges, out: &mut String) -> std::fmt::Result {
    let name = "coredns_plugin_enabled";
    header(out, name, "gauge", "1 for each plugin of each zone.")?;
    for ([server, zone, view], plugin) in &gauges.plugins {
        writeln!(out, "{name}{{server=\"{server}\",zone=\"{zone}\",view=\"{view}\",name=\"{plugin}\"}} 1")?;
    }
    let name = "coredns_panics_total";
    header(out, name, "counter", "Panics that were survived: none is, each ends the process.")?;
    writeln!(out, "{name} 0")?;
    let name = "coredns_build_info";
    header(out, name, "gauge", "1, with the version of podnet; it is built with no Go.")?;
    writeln!(out, "{name}{{goversion=\"\",revision=\"\",version=\"podnet-{}\"}} 1", env!("CARGO_PKG_VERSION"))
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}
