//! What is counted for each zone of each server block.

use std::{
    fmt::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{BOUNDS, family::labels};
use crate::{
    chain::PLUGINS,
    message::{Rcode, rtype},
    server::{Arrival, Transport},
};

/// Upper bounds of sizes, in bytes: CoreDNS's.
const SIZES: [u64; 14] = [0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000];
/// The query types that have a row of their own; the others share the last one.
const TYPES: [u16; 19] = [
    rtype::A,
    rtype::AAAA,
    rtype::SRV,
    rtype::PTR,
    rtype::CNAME,
    rtype::TXT,
    rtype::NS,
    rtype::SOA,
    rtype::MX,
    // HTTPS, DS, RRSIG, NSEC, DNSKEY, NSEC3.
    65,
    43,
    46,
    47,
    48,
    50,
    rtype::IXFR,
    rtype::AXFR,
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

/// Whose questions are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The listener, such as `dns://:53`.
    pub(crate) server: String,
    /// The zone of the server block; `dropped` for questions that belong to none.
    pub(crate) zone: String,
    /// The block's `view`; mostly none.
    pub(crate) view: String,
}

/// The counters of one place.
#[derive(Debug)]
pub(crate) struct Counts {
    requests: [[AtomicU64; TYPES.len()]; 4],
    /// For each code those of each plugin, and those that no plugin answered.
    responses: [[AtomicU64; PLUGINS.len() + 1]; RCODES.len()],
    /// Those that ask for signatures (RFC 3225).
    dnssec_ok: AtomicU64,
    durations: Histogram<{ BOUNDS.len() + 1 }>,
    request_sizes: [Histogram<{ SIZES.len() + 1 }>; 2],
    response_sizes: [Histogram<{ SIZES.len() + 1 }>; 2],
}

/// A question that was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted<'a> {
    pub(crate) arrival: &'a Arrival,
    pub(crate) qtype: u16,
    /// The question's size in bytes.
    pub(crate) size: usize,
    /// Signatures are asked for.
    pub(crate) dnssec_ok: bool,
    pub(crate) rcode: Rcode,
    /// The response's size in bytes.
    pub(crate) response_size: usize,
    pub(crate) took: Duration,
    /// The plugin that answered, by its place in [`PLUGINS`].
    pub(crate) plugin: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Histogram<const BUCKETS: usize> {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            requests: Default::default(),
            responses: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            dnssec_ok: AtomicU64::new(0),
            durations: Histogram::default(),
            request_sizes: Default::default(),
            response_sizes: Default::default(),
        }
    }
}

impl<const BUCKETS: usize> Default for Histogram<BUCKETS> {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl<const BUCKETS: usize> Histogram<BUCKETS> {
    pub(super) fn add(&self, value: u64, bounds: &[u64]) {
        let bucket = bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Writes it with its labels; one that nothing was counted in only where it has none.
    pub(super) fn render(&self, name: &str, labels: &str, bounds: &[u64], unit: f64, out: &mut String) -> fmt::Result {
        let counts = self.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        let all: u64 = counts.iter().sum();
        if all == 0 && !labels.is_empty() {
            return Ok(());
        }
        let (before, around) = match labels {
            "" => (String::new(), String::new()),
            labels => (format!("{labels},"), format!("{{{labels}}}")),
        };
        let mut total = 0;
        for (bucket, count) in counts.into_iter().enumerate() {
            total += count;
            match bounds.get(bucket) {
                Some(bound) => writeln!(out, "{name}_bucket{{{before}le=\"{}\"}} {total}", *bound as f64 / unit)?,
                None => writeln!(out, "{name}_bucket{{{before}le=\"+Inf\"}} {total}")?,
            }
        }
        let sum = self.sum.load(Ordering::Relaxed) as f64 / unit;
        writeln!(out, "{name}_sum{around} {sum}\n{name}_count{around} {total}")
    }
}

impl Counts {
    /// Counts an answered question.
    pub(crate) fn count(&self, question: &Counted<'_>) {
        self.asked(question.arrival, question.qtype, question.size);
        if question.dnssec_ok {
            self.dnssec_ok.fetch_add(1, Ordering::Relaxed);
        }
        let row = RCODES.iter().position(|known| *known == question.rcode).unwrap_or(RCODES.len() - 1);
        let plugin = question.plugin.unwrap_or(PLUGINS.len()).min(PLUGINS.len());
        self.responses[row][plugin].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(question.took.as_micros()).unwrap_or(u64::MAX);
        self.durations.add(micros, &BOUNDS);
        self.response_sizes[over_tcp(question.arrival)].add(question.response_size as u64, &SIZES);
    }

    /// Counts a question; alone where it gets no answer.
    pub(crate) fn asked(&self, arrival: &Arrival, qtype: u16, size: usize) {
        let row = TYPES.iter().position(|known| *known == qtype).unwrap_or(TYPES.len() - 1);
        let column = over_tcp(arrival) << 1 | usize::from(!arrival.from.is_ipv4());
        self.requests[column][row].fetch_add(1, Ordering::Relaxed);
        self.request_sizes[over_tcp(arrival)].add(size as u64, &SIZES);
    }
}

fn over_tcp(arrival: &Arrival) -> usize {
    usize::from(arrival.transport == Transport::Tcp)
}

const PROTOCOLS: [&str; 2] = ["udp", "tcp"];

/// Writes what was counted, family by family.
pub(super) fn render<'a>(all: &[(&'a Place, &'a Counts)], out: &mut String) -> fmt::Result {
    super::header(out, "coredns_dns_requests_total", "counter", "Queries.")?;
    each(all, out, |counts, labels, out| {
        for (column, rows) in counts.requests.iter().enumerate() {
            let (proto, family) = (PROTOCOLS[column >> 1], 1 + (column & 1));
            for (row, count) in rows.iter().enumerate() {
                let (kind, count) = (rtype::mnemonic(TYPES[row]), count.load(Ordering::Relaxed));
                if count > 0 {
                    writeln!(
                        out,
                        "coredns_dns_requests_total{{{labels},proto=\"{proto}\",family=\"{family}\",type=\"{kind}\"}} \
                         {count}"
                    )?;
                }
            }
        }
        Ok(())
    })?;
    let name = "coredns_dns_do_requests_total";
    super::header(out, name, "counter", "Queries that ask for signatures (DO).")?;
    each(all, out, |counts, labels, out| {
        let count = counts.dnssec_ok.load(Ordering::Relaxed);
        if count > 0 { writeln!(out, "{name}{{{labels}}} {count}") } else { Ok(()) }
    })?;
    super::header(out, "coredns_dns_responses_total", "counter", "Responses, by code and plugin.")?;
    each(all, out, |counts, labels, out| {
        for (row, plugins) in counts.responses.iter().enumerate() {
            for (place, count) in plugins.iter().enumerate() {
                let (rcode, plugin) = (RCODES[row].mnemonic(), PLUGINS.get(place).unwrap_or(&""));
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    writeln!(
                        out,
                        "coredns_dns_responses_total{{{labels},rcode=\"{rcode}\",plugin=\"{plugin}\"}} {count}"
                    )?;
                }
            }
        }
        Ok(())
    })?;
    let name = "coredns_dns_request_duration_seconds";
    super::header(out, name, "histogram", "Time from a query to its response.")?;
    each(all, out, |counts, labels, out| counts.durations.render(name, labels, &BOUNDS, 1e6, out))?;
    sizes(all, "coredns_dns_request_size_bytes", "Sizes of queries.", |counts| &counts.request_sizes, out)?;
    sizes(all, "coredns_dns_response_size_bytes", "Sizes of responses.", |counts| &counts.response_sizes, out)
}

fn sizes(
    all: &[(&Place, &Counts)],
    name: &str,
    help: &str,
    of: impl Fn(&Counts) -> &[Histogram<{ SIZES.len() + 1 }>; 2],
    out: &mut String,
) -> fmt::Result {
    super::header(out, name, "histogram", help)?;
    each(all, out, |counts, labels, out| {
        for (proto, sizes) in PROTOCOLS.iter().zip(of(counts)) {
            sizes.render(name, &format!("{labels},proto=\"{proto}\""), &SIZES, 1.0, out)?;
        }
        Ok(())
    })
}

fn each(
    all: &[(&Place, &Counts)],
    out: &mut String,
    write: impl Fn(&Counts, &str, &mut String) -> fmt::Result,
) -> fmt::Result {
    for (Place { server, zone, view }, counts) in all {
        let place = [("server", server.as_str()), ("zone", zone.as_str()), ("view", view.as_str())];
        write(counts, &labels(&place), out)?;
    }
    Ok(())
}
