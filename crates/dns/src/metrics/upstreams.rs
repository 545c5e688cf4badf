//! What is counted of upstreams.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{BOUNDS, header};
use crate::{destination::Destination, server::lock};

type Durations = [u64; BOUNDS.len() + 1];

/// How often an answer of one kind came from one upstream, and how long that took.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    durations: Durations,
    micros: u64,
}

/// Counters of upstreams, by where they are.
#[derive(Debug, Default)]
pub struct Upstreams {
    attempts: Mutex<BTreeMap<(Destination, &'static str), u64>>,
    answers: Mutex<BTreeMap<(Destination, &'static str), Answers>>,
    failed_checks: Mutex<BTreeMap<Destination, u64>>,
    /// Connections that were there already, and new ones.
    connections: Mutex<BTreeMap<(Destination, &'static str), [u64; 2]>>,
    all_down: AtomicU64,
    denied: AtomicU64,
}

impl Upstreams {
    /// An attempt to ask an upstream ended: with an answer after a time, or without.
    pub(crate) fn asked(&self, upstream: &Destination, result: &'static str, took: Option<Duration>) {
        *lock(&self.attempts).entry((upstream.clone(), result)).or_default() += 1;
        let Some(took) = took else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut all = lock(&self.answers);
        let answers = all.entry((upstream.clone(), result)).or_default();
        answers.durations[BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len())] += 1;
        answers.micros = answers.micros.saturating_add(micros);
    }

    /// A check of an upstream failed.
    pub(crate) fn check_failed(&self, upstream: &Destination) {
        *lock(&self.failed_checks).entry(upstream.clone()).or_default() += 1;
    }

    /// A question was denied by what upstreams have proved before.
    pub(crate) fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// A question came while all its upstreams were down.
    pub(crate) fn all_down(&self) {
        self.all_down.fetch_add(1, Ordering::Relaxed);
    }

    /// A message went over a connection (`tcp`, `tcp-tls`) that was kept, or over a new one.
    pub fn connection(&self, upstream: &Destination, proto: &'static str, kept: bool) {
        lock(&self.connections).entry((upstream.clone(), proto)).or_default()[usize::from(!kept)] += 1;
    }

    pub(super) fn render(&self, out: &mut String) -> std::fmt::Result {
        header(out, "podnet_dns_forwards_total", "counter", "Attempts to ask an upstream, by result.")?;
        for ((to, result), count) in lock(&self.attempts).iter() {
            writeln!(out, "podnet_dns_forwards_total{{to=\"{to}\",result=\"{result}\"}} {count}")?;
        }
        self.render_answers(out)?;
        let name = "coredns_proxy_healthcheck_failures_total";
        header(out, name, "counter", "Checks of upstreams that failed.")?;
        for (to, count) in lock(&self.failed_checks).iter() {
            writeln!(out, "{name}{{proxy_name=\"forward\",to=\"{to}\"}} {count}")?;
        }
        let connections = lock(&self.connections);
        for (place, name, help) in [
            (0, "coredns_proxy_conn_cache_hits_total", "Messages over connections that were there."),
            (1, "coredns_proxy_conn_cache_misses_total", "Messages over new connections."),
        ] {
            header(out, name, "counter", help)?;
            for ((to, proto), counts) in connections.iter() {
                let count = counts[place];
                writeln!(out, "{name}{{proxy_name=\"forward\",to=\"{to}\",proto=\"{proto}\"}} {count}")?;
            }
        }
        let name = "coredns_forward_healthcheck_broken_total";
        header(out, name, "counter", "Questions that came while all upstreams were down.")?;
        writeln!(out, "{name} {}", self.all_down.load(Ordering::Relaxed))?;
        let name = "podnet_dns_denials_synthesized_total";
        header(out, name, "counter", "Questions denied by what upstreams had proved before (RFC 8198).")?;
        writeln!(out, "{name} {}", self.denied.load(Ordering::Relaxed))
    }

    fn render_answers(&self, out: &mut String) -> std::fmt::Result {
        let answers = lock(&self.answers).clone();
        let mut by_upstream: BTreeMap<Destination, u64> = BTreeMap::new();
        for ((to, _), count) in lock(&self.attempts).iter() {
            *by_upstream.entry(to.clone()).or_default() += count;
        }
        header(out, "coredns_forward_requests_total", "counter", "Questions to upstreams.")?;
        for (to, count) in &by_upstream {
            writeln!(out, "coredns_forward_requests_total{{to=\"{to}\"}} {count}")?;
        }
        header(out, "coredns_forward_responses_total", "counter", "Answers of upstreams, by code.")?;
        for ((to, rcode), answers) in &answers {
            let count: u64 = answers.durations.iter().sum();
            writeln!(out, "coredns_forward_responses_total{{to=\"{to}\",rcode=\"{rcode}\"}} {count}")?;
        }
        let name = "coredns_proxy_request_duration_seconds";
        header(out, name, "histogram", "Time from a question to its upstream's answer.")?;
        for ((to, rcode), answers) in &answers {
            let labels = format!("proxy_name=\"forward\",to=\"{to}\",rcode=\"{rcode}\"");
            let mut total = 0;
            for (bucket, count) in answers.durations.iter().enumerate() {
                total += count;
                match BOUNDS.get(bucket) {
                    Some(bound) => writeln!(out, "{name}_bucket{{{labels},le=\"{}\"}} {total}", *bound as f64 / 1e6)?,
                    None => writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}")?,
                }
            }
            writeln!(out, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {total}", answers.micros as f64 / 1e6)?;
        }
        Ok(())
    }
}
