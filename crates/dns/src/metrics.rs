//! What the server counts, under CoreDNS's metric names, so that its dashboards and alerts go on working.

mod apiserver;
mod counting;
mod counts;
mod family;
mod health;
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
pub(crate) use counting::{ByListener, Counting};
pub(crate) use counts::{Counted, Counts, Place};
use family::Families;
pub(crate) use family::{Counter, Family, labels};
pub use health::Health;
pub use upstreams::Upstreams;
pub(crate) use upstreams::{Asker, Validated};

use crate::chain::Port;

/// Upper bounds of durations, in microseconds: from a prebuilt answer to a slow upstream.
const BOUNDS: [u64; 12] =
    [10, 50, 250, 1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000];

/// The counters of one server; they survive a reload of the Corefile.
#[derive(Debug, Default)]
pub struct Metrics {
    places: Mutex<BTreeMap<Place, Arc<Counts>>>,
    families: Families,
    mismatched: AtomicU64,
    dropped: AtomicU64,
    rejected: AtomicU64,
    members_left_out: AtomicU64,
    localhosts: AtomicU64,
    panics: AtomicU64,
    /// Responses of HTTP, by where they were asked for and by their status.
    https: Mutex<BTreeMap<(Port, u16), u64>>,
    /// What is counted of upstreams.
    pub upstreams: Upstreams,
    /// What is counted of the Kubernetes API.
    pub api: ApiServer,
    /// How the process answers its own question for its health.
    pub health: Health,
    /// Corefiles that were taken over.
    pub reloads: AtomicU64,
    /// Corefiles that could not be loaded.
    pub reload_failures: AtomicU64,
}

/// Numbers that are read when the metrics are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Cached answers with records, and those without, by the labels of their cache.
    pub cache: BTreeMap<String, (usize, usize)>,
    /// The entries of `hosts`, and when they were read last, in seconds since 1970; none without that plugin.
    pub hosts: Option<(usize, u64)>,
    /// Sets whose signatures are kept (`dnssec`), by their labels.
    pub signatures: BTreeMap<String, usize>,
    /// Questions that are being asked upstream.
    pub flights: usize,
    /// Upstreams that lead back to this server (`loop`).
    pub looping: usize,
    /// Bytes of records that zones have which catalogs list.
    pub member_bytes: usize,
    /// The cluster's state is known.
    pub synced: bool,
    /// The plugins of the Corefile in force, each with its listener, zone and view.
    pub plugins: Vec<([String; 3], &'static str)>,
    /// Which Corefile is in force; none where it is not looked at again (`reload`).
    pub version: Option<String>,
}

impl Metrics {
    /// The counters of a place; what was counted there before counts on.
    pub(crate) fn counts(&self, place: Place) -> Arc<Counts> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(place).or_default())
    }

    /// The counter of a family with these labels; what was counted there before counts on.
    pub(crate) fn counter(&self, family: Family, labels: String) -> Counter {
        self.families.counter(family, labels)
    }

    /// Counts a message that came as an upstream's answer and is for another question: it is neither given out nor kept.
    pub fn mismatched(&self) {
        self.mismatched.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a zone that a catalog lists and that was not taken, since there was no room for it.
    pub(crate) fn left_out(&self) {
        self.members_left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a question for a name below `localhost`, or for `localhost` below some other name.
    pub(crate) fn localhost(&self) {
        self.localhosts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a panic on the way to an answer that was survived.
    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a response of DNS over HTTPS: `status` is HTTP's.
    pub fn https_answered(&self, port: Port, status: u16) {
        *self.https.lock().unwrap_or_else(PoisonError::into_inner).entry((port, status)).or_default() += 1;
    }

    pub(crate) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// The metrics in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self, gauges: &Gauges) -> String {
        let mut out = String::new();
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let places: Vec<(&Place, &Counts)> = places.iter().map(|(place, counts)| (place, &**counts)).collect();
        let _ = counts::render(&places, &mut out);
        let _ = self.families.render(&mut out);
        let _ = kept(gauges, &mut out);
        let _ = self.parts(gauges, &mut out);
        let _ = self.members(gauges, &mut out);
        let _ = self.clients(&mut out);
        let _ = self.health.render(&mut out);
        let _ = process(gauges, self.panics.load(Ordering::Relaxed), &mut out);
        out
    }

    fn parts(&self, gauges: &Gauges, out: &mut String) -> std::fmt::Result {
        // They were noticed where nobody knows whose question it was.
        let (name, drops) = ("coredns_cache_drops_total", self.mismatched.load(Ordering::Relaxed));
        header(out, name, "counter", "Messages that came as answers and were for other questions.")?;
        writeln!(out, "{name} {drops}")?;
        header(out, "coredns_forward_max_concurrent_rejects_total", "counter", "Questions beyond the bound.")?;
        let rejected = self.rejected.load(Ordering::Relaxed);
        writeln!(out, "coredns_forward_max_concurrent_rejects_total {rejected}")?;
        self.upstreams.render(out)?;
        self.api.render(out)?;
        header(out, "podnet_dns_flights", "gauge", "Questions that are being asked upstream.")?;
        writeln!(out, "podnet_dns_flights {}", gauges.flights)?;
        header(out, "podnet_dns_looping_upstreams", "gauge", "Upstreams that lead back here and are not asked.")?;
        writeln!(out, "podnet_dns_looping_upstreams {}", gauges.looping)?;
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
        header(out, name, "counter", "Questions for names below localhost, and for localhost below some other name.")?;
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

/// What is kept, and since when.
fn kept(gauges: &Gauges, out: &mut String) -> std::fmt::Result {
    let name = "coredns_cache_entries";
    header(out, name, "gauge", "Answers in the cache.")?;
    for (labels, (success, denial)) in &gauges.cache {
        for (kind, count) in [("success", success), ("denial", denial)] {
            writeln!(out, "{name}{{type=\"{kind}\",{labels}}} {count}")?;
        }
    }
    if let Some((entries, read)) = gauges.hosts {
        let (name, when) = ("coredns_hosts_entries", "coredns_hosts_reload_timestamp_seconds");
        header(out, name, "gauge", "Addresses of names and names of addresses in hosts files and the Corefile.")?;
        writeln!(out, "{name} {entries}")?;
        header(out, when, "gauge", "When hosts files were read last.")?;
        writeln!(out, "{when} {read}")?;
    }
    let name = "coredns_dnssec_cache_entries";
    header(out, name, "gauge", "Sets of records whose signatures are kept.")?;
    for (labels, entries) in &gauges.signatures {
        writeln!(out, "{name}{{{labels}}} {entries}")?;
    }
    Ok(())
}

/// What the process is, and what it runs.
fn process(gauges: &Gauges, panics: u64, out: &mut String) -> std::fmt::Result {
    let name = "coredns_plugin_enabled";
    header(out, name, "gauge", "1 for each plugin of each zone.")?;
    for ([server, zone, view], plugin) in &gauges.plugins {
        let place = [("server", server.as_str()), ("zone", zone.as_str()), ("view", view.as_str()), ("name", *plugin)];
        let labels = labels(&place);
        writeln!(out, "{name}{{{labels}}} 1")?;
    }
    if let Some(version) = &gauges.version {
        let name = "coredns_reload_version_info";
        header(out, name, "gauge", "1, with the SHA-512 of the words of the Corefile in force.")?;
        writeln!(out, "{name}{{hash=\"sha512\",value=\"{version}\"}} 1")?;
    }
    let name = "coredns_panics_total";
    header(out, name, "counter", "Panics on the way to answers, which were survived.")?;
    writeln!(out, "{name} {panics}")?;
    let name = "coredns_build_info";
    header(out, name, "gauge", "1, with the version of podnet; it is built with no Go.")?;
    writeln!(out, "{name}{{goversion=\"\",revision=\"\",version=\"podnet-{}\"}} 1", env!("CARGO_PKG_VERSION"))
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}
