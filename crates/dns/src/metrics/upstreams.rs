//! What is counted of upstreams.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{BOUNDS, header};
use crate::{destination::Destination, server::lock};

/// What carries questions of `grpc` is called so where connections are counted.
const GRPC: &str = "grpc";

/// Which plugin asks an upstream: each has metrics of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asker {
    /// `forward`.
    Forward,
    /// `grpc`.
    Grpc,
}

impl Asker {
    const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Grpc => GRPC,
        }
    }
}

/// What came of validating a denial (RFC 4033 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validated {
    /// It is used.
    Secure,
    /// Nobody vouches for its zone's keys.
    Insecure,
    /// It, or what leads to its zone's keys, is not what it should be.
    Bogus,
    /// What leads there was not told.
    Indeterminate,
}

/// What metrics call them, in their order.
const VALIDATED: [&str; 4] = ["secure", "insecure", "bogus", "indeterminate"];

/// How often answers came, and how long that took.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    durations: [u64; BOUNDS.len() + 1],
    micros: u64,
}

/// By who asks, whom, and what came of it: a code, or `failed`.
type Results<T> = BTreeMap<(Asker, Destination, &'static str), T>;

/// Counters of upstreams, by where they are.
#[derive(Debug, Default)]
pub struct Upstreams {
    attempts: Mutex<Results<u64>>,
    answers: Mutex<Results<Answers>>,
    failed_checks: Mutex<BTreeMap<(Asker, Destination), u64>>,
    /// Connections that were there already, and new ones.
    connections: Mutex<BTreeMap<(Destination, &'static str), [u64; 2]>>,
    /// Connections that `grpc` has open now.
    pooled: Mutex<BTreeMap<Destination, u64>>,
    all_down: AtomicU64,
    denied: AtomicU64,
    validated: [AtomicU64; VALIDATED.len()],
}

impl Upstreams {
    /// An attempt to ask an upstream ended: with an answer after a time, or without.
    pub(crate) fn asked(&self, asker: Asker, upstream: &Destination, result: &'static str, took: Option<Duration>) {
        let key = (asker, upstream.clone(), result);
        *lock(&self.attempts).entry(key.clone()).or_default() += 1;
        let Some(took) = took else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut all = lock(&self.answers);
        let answers = all.entry(key).or_default();
        answers.durations[BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len())] += 1;
        answers.micros = answers.micros.saturating_add(micros);
    }

    /// A check of an upstream failed.
    pub(crate) fn check_failed(&self, asker: Asker, upstream: &Destination) {
        *lock(&self.failed_checks).entry((asker, upstream.clone())).or_default() += 1;
    }

    /// A question was denied by what upstreams have proved before.
    pub(crate) fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// A denial was validated here.
    pub(crate) fn validated(&self, result: Validated) {
        self.validated[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A question came while all its upstreams were down.
    pub(crate) fn all_down(&self, asker: Asker) {
        // CoreDNS tells that of `forward` alone.
        if asker == Asker::Forward {
            self.all_down.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A message went over a connection (`tcp`, `tcp-tls`, `https`, `grpc`) that was kept, or over a new one.
    pub fn connection(&self, upstream: &Destination, proto: &'static str, kept: bool) {
        lock(&self.connections).entry((upstream.clone(), proto)).or_default()[usize::from(!kept)] += 1;
    }

    /// A connection of `grpc` was opened, or is open no more.
    pub fn pooled(&self, upstream: &Destination, opened: bool) {
        let mut pooled = lock(&self.pooled);
        let open = pooled.entry(upstream.clone()).or_default();
        *open = if opened { *open + 1 } else { open.saturating_sub(1) };
    }

    pub(super) fn render(&self, out: &mut String) -> fmt::Result {
        let attempts = lock(&self.attempts).clone();
        let mut results: BTreeMap<(&Destination, &str), u64> = BTreeMap::new();
        for ((_, to, result), count) in &attempts {
            *results.entry((to, *result)).or_default() += count;
        }
        header(out, "podnet_dns_forwards_total", "counter", "Attempts to ask an upstream, by result.")?;
        for ((to, result), count) in results {
            writeln!(out, "podnet_dns_forwards_total{{to=\"{to}\",result=\"{result}\"}} {count}")?;
        }
        let answers = lock(&self.answers).clone();
        for asker in [Asker::Forward, Asker::Grpc] {
            questions(asker, &attempts, &answers, out)?;
        }
        durations(&answers, out)?;
        self.render_checks(out)?;
        self.render_connections(out)?;
        let name = "coredns_forward_healthcheck_broken_total";
        header(out, name, "counter", "Questions that came while all upstreams were down.")?;
        writeln!(out, "{name} {}", self.all_down.load(Ordering::Relaxed))?;
        let name = "podnet_dns_denials_synthesized_total";
        header(out, name, "counter", "Questions denied by what upstreams had proved before (RFC 8198).")?;
        writeln!(out, "{name} {}", self.denied.load(Ordering::Relaxed))?;
        let name = "podnet_dns_denials_validated_total";
        header(out, name, "counter", "Denials by upstreams that were validated here, by what came of it.")?;
        for (result, count) in VALIDATED.iter().zip(&self.validated) {
            writeln!(out, "{name}{{result=\"{result}\"}} {}", count.load(Ordering::Relaxed))?;
        }
        Ok(())
    }

    fn render_checks(&self, out: &mut String) -> fmt::Result {
        let failed = lock(&self.failed_checks);
        // The second name is what CoreDNS gave up; alerts still know it.
        for (asker, name, more) in [
            (Asker::Forward, "coredns_proxy_healthcheck_failures_total", "proxy_name=\"forward\","),
            (Asker::Forward, "coredns_forward_healthcheck_failures_total", ""),
            (Asker::Grpc, "coredns_grpc_healthcheck_failures_total", ""),
        ] {
            header(out, name, "counter", "Checks of upstreams that failed.")?;
            for ((_, to), count) in failed.iter().filter(|((of, _), _)| *of == asker) {
                writeln!(out, "{name}{{{more}to=\"{to}\"}} {count}")?;
            }
        }
        Ok(())
    }

    fn render_connections(&self, out: &mut String) -> fmt::Result {
        let connections = lock(&self.connections);
        let both = [
            (0, "hits", "Messages over connections that were there."),
            (1, "misses", "Messages over new connections."),
        ];
        for (place, what, help) in both {
            let name = format!("coredns_proxy_conn_cache_{what}_total");
            header(out, &name, "counter", help)?;
            for ((to, proto), counts) in connections.iter().filter(|((_, proto), _)| *proto != GRPC) {
                writeln!(out, "{name}{{proxy_name=\"forward\",to=\"{to}\",proto=\"{proto}\"}} {}", counts[place])?;
            }
            let name = format!("coredns_grpc_pool_{what}_total");
            header(out, &name, "counter", help)?;
            for ((to, _), counts) in connections.iter().filter(|((_, proto), _)| *proto == GRPC) {
                writeln!(out, "{name}{{to=\"{to}\"}} {}", counts[place])?;
            }
        }
        let name = "coredns_grpc_pool_size";
        header(out, name, "gauge", "Connections that are open.")?;
        for (to, open) in lock(&self.pooled).iter() {
            writeln!(out, "{name}{{to=\"{to}\"}} {open}")?;
        }
        Ok(())
    }
}

impl Answers {
    fn and(mut self, other: &Self) -> Self {
        for (count, more) in self.durations.iter_mut().zip(&other.durations) {
            *count += more;
        }
        self.micros = self.micros.saturating_add(other.micros);
        self
    }

    fn render(&self, name: &str, labels: &str, out: &mut String) -> fmt::Result {
        let mut total = 0;
        for (bucket, count) in self.durations.iter().enumerate() {
            total += count;
            match BOUNDS.get(bucket) {
                Some(bound) => writeln!(out, "{name}_bucket{{{labels},le=\"{}\"}} {total}", *bound as f64 / 1e6)?,
                None => writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}")?,
            }
        }
        writeln!(out, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {total}", self.micros as f64 / 1e6)
    }
}

/// Questions of a plugin to each upstream, and the codes of the answers.
fn questions(asker: Asker, attempts: &Results<u64>, answers: &Results<Answers>, out: &mut String) -> fmt::Result {
    let mut asked: BTreeMap<&Destination, u64> = BTreeMap::new();
    for ((_, to, _), count) in attempts.iter().filter(|((of, ..), _)| *of == asker) {
        *asked.entry(to).or_default() += count;
    }
    let name = format!("coredns_{}_requests_total", asker.name());
    header(out, &name, "counter", "Questions to upstreams.")?;
    for (to, count) in asked {
        writeln!(out, "{name}{{to=\"{to}\"}} {count}")?;
    }
    let name = format!("coredns_{}_responses_total", asker.name());
    header(out, &name, "counter", "Answers of upstreams, by code.")?;
    for ((_, to, rcode), answers) in answers.iter().filter(|((of, ..), _)| *of == asker) {
        let count: u64 = answers.durations.iter().sum();
        writeln!(out, "{name}{{to=\"{to}\",rcode=\"{rcode}\"}} {count}")?;
    }
    Ok(())
}

/// How long upstreams took; those of `grpc` whatever the code.
fn durations(answers: &Results<Answers>, out: &mut String) -> fmt::Result {
    let help = "Time from a question to its upstream's answer.";
    // The second name is what CoreDNS gave up; dashboards still know it.
    for (name, more) in [
        ("coredns_proxy_request_duration_seconds", "proxy_name=\"forward\","),
        ("coredns_forward_request_duration_seconds", ""),
    ] {
        header(out, name, "histogram", help)?;
        for ((_, to, rcode), answers) in answers.iter().filter(|((of, ..), _)| *of == Asker::Forward) {
            answers.render(name, &format!("{more}to=\"{to}\",rcode=\"{rcode}\""), out)?;
        }
    }
    let mut of_grpc: BTreeMap<&Destination, Answers> = BTreeMap::new();
    for ((_, to, _), answers) in answers.iter().filter(|((of, ..), _)| *of == Asker::Grpc) {
        let sum = of_grpc.entry(to).or_default();
        *sum = sum.and(answers);
    }
    let name = "coredns_grpc_request_duration_seconds";
    header(out, name, "histogram", help)?;
    for (to, answers) in of_grpc {
        answers.render(name, &format!("to=\"{to}\""), out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plugin_that_asks_has_counters_of_its_own_for_an_upstream_that_both_ask() {
        let upstreams = Upstreams::default();
        let to = Destination::from(std::net::SocketAddr::from(([192, 0, 2, 53], 53)));
        let ms = Duration::from_millis;
        upstreams.asked(Asker::Forward, &to, "NOERROR", Some(ms(1)));
        upstreams.asked(Asker::Forward, &to, "failed", None);
        upstreams.asked(Asker::Grpc, &to, "NOERROR", Some(ms(3)));
        upstreams.asked(Asker::Grpc, &to, "NXDOMAIN", Some(ms(1)));
        upstreams.check_failed(Asker::Grpc, &to);
        upstreams.all_down(Asker::Grpc);
        upstreams.connection(&to, "tcp", false);
        for kept in [false, true, true] {
            upstreams.connection(&to, "grpc", kept);
        }
        for opened in [true, true, false] {
            upstreams.pooled(&to, opened);
        }
        let mut out = String::new();
        upstreams.render(&mut out).unwrap();
        let to = "to=\"192.0.2.53:53\"";
        for line in [
            format!("podnet_dns_forwards_total{{{to},result=\"NOERROR\"}} 2"),
            format!("coredns_forward_requests_total{{{to}}} 2"),
            format!("coredns_forward_responses_total{{{to},rcode=\"NOERROR\"}} 1"),
            format!("coredns_proxy_request_duration_seconds_count{{proxy_name=\"forward\",{to},rcode=\"NOERROR\"}} 1"),
            format!("coredns_forward_request_duration_seconds_bucket{{{to},rcode=\"NOERROR\",le=\"0.001\"}} 1"),
            "coredns_forward_healthcheck_broken_total 0".to_owned(),
            format!("coredns_proxy_conn_cache_misses_total{{proxy_name=\"forward\",{to},proto=\"tcp\"}} 1"),
            format!("coredns_grpc_requests_total{{{to}}} 2"),
            format!("coredns_grpc_responses_total{{{to},rcode=\"NXDOMAIN\"}} 1"),
            format!("coredns_grpc_request_duration_seconds_bucket{{{to},le=\"0.001\"}} 1"),
            format!("coredns_grpc_request_duration_seconds_sum{{{to}}} 0.004"),
            format!("coredns_grpc_request_duration_seconds_count{{{to}}} 2"),
            format!("coredns_grpc_healthcheck_failures_total{{{to}}} 1"),
            format!("coredns_grpc_pool_hits_total{{{to}}} 2"),
            format!("coredns_grpc_pool_misses_total{{{to}}} 1"),
            format!("coredns_grpc_pool_size{{{to}}} 1"),
        ] {
            assert!(out.lines().any(|told| told == line), "{line}: {out}");
        }
        for none in ["coredns_forward_healthcheck_failures_total{", "coredns_proxy_healthcheck_failures_total{"] {
            assert!(!out.contains(none), "{none}: {out}");
        }
    }
}
