//! What is counted of the Kubernetes API: how it is asked, and how soon its changes are answered.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, RwLock},
    time::Duration,
};

use super::{counts::Histogram, header};
use crate::server::lock;

/// Upper bounds of requests' durations, in microseconds: those of CoreDNS.
const BOUNDS: [u64; 11] =
    [5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000];
/// Of the time from a change to its answer: from 1 ms doubled to 9 min.
const PROGRAMMED: [u64; 20] = {
    let (mut bounds, mut at) = ([0; 20], 0);
    while at < 20 {
        bounds[at] = 1000 << at;
        at += 1;
    }
    bounds
};

type Durations = Histogram<{ BOUNDS.len() + 1 }>;

/// Counters of the Kubernetes API.
#[derive(Debug, Default)]
pub struct ApiServer {
    /// Whether it answered last; none while it was not asked.
    answers: RwLock<Option<bool>>,
    /// By method, code and host.
    requests: Mutex<BTreeMap<[String; 3], u64>>,
    /// By verb and host: how long requests took, and how long they were held back before.
    durations: Mutex<BTreeMap<[String; 2], [Durations; 2]>>,
    programmed: Histogram<{ PROGRAMMED.len() + 1 }>,
}

/// A request to the API server that ended, or whose answer began.
#[derive(Clone, Copy, Debug)]
pub struct ApiRequest<'a> {
    /// Whom it was sent to: name and port.
    pub host: &'a str,
    /// `GET`.
    pub method: &'a str,
    /// The status; none where there was no answer.
    pub code: Option<u16>,
    /// How long it was held back.
    pub held: Duration,
    /// How long it took then.
    pub took: Duration,
}

impl ApiServer {
    /// A request has its answer, or never will.
    pub fn asked(&self, request: &ApiRequest<'_>) {
        let answers = request.code.is_some_and(|code| code < 500);
        *self.answers.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(answers);
        let code = request.code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        let (host, method) = (request.host.to_owned(), request.method.to_owned());
        *lock(&self.requests).entry([method.clone(), code, host.clone()]).or_default() += 1;
        let mut durations = lock(&self.durations);
        for (histogram, time) in durations.entry([method, host]).or_default().iter().zip([request.took, request.held]) {
            histogram.add(micros(time), &BOUNDS);
        }
    }

    /// A change of a headless Service's endpoints is answered, so long after it was made.
    pub fn programmed(&self, after: Duration) {
        self.programmed.add(micros(after), &PROGRAMMED);
    }

    pub(super) fn render(&self, out: &mut String) -> std::fmt::Result {
        let Some(answers) = *self.answers.read().unwrap_or_else(std::sync::PoisonError::into_inner) else {
            return Ok(());
        };
        let name = "podnet_dns_kubernetes_connected";
        header(
            out,
            name,
            "gauge",
            "1 when the API server answered last; while it is 0, what was known last is served.",
        )?;
        writeln!(out, "{name} {}", u8::from(answers))?;
        let name = "coredns_kubernetes_rest_client_requests_total";
        header(out, name, "counter", "Requests to the API server, by method, status and host.")?;
        for ([method, code, host], count) in lock(&self.requests).iter() {
            writeln!(out, "{name}{{code=\"{code}\",host=\"{host}\",method=\"{method}\"}} {count}")?;
        }
        for (which, name, help) in [
            (0, "coredns_kubernetes_rest_client_request_duration_seconds", "Time until the API server answered."),
            (1, "coredns_kubernetes_rest_client_rate_limiter_duration_seconds", "Time that requests were held back."),
        ] {
            header(out, name, "histogram", help)?;
            for ([verb, host], histograms) in lock(&self.durations).iter() {
                histograms[which].render(name, &format!("host=\"{host}\",verb=\"{verb}\""), &BOUNDS, 1e6, out)?;
            }
        }
        let name = "coredns_kubernetes_dns_programming_duration_seconds";
        header(out, name, "histogram", "Time from a change of endpoints until it is answered.")?;
        self.programmed.render(name, "service_kind=\"headless_with_selector\"", &PROGRAMMED, 1e6, out)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_and_whether_the_last_one_was_answered_is_told() {
        let api = ApiServer::default();
        let told = || {
            let mut out = String::new();
            api.render(&mut out).unwrap();
            out
        };
        assert_eq!(told(), "", "nobody asks an API server");
        let ms = Duration::from_millis;
        let asked = |code| api.asked(&ApiRequest { host: "a:6443", method: "GET", code, held: ms(7), took: ms(30) });
        for (code, connected) in [(Some(200), 1), (Some(503), 0), (Some(404), 1), (None, 0)] {
            asked(code);
            assert!(told().contains(&format!("\npodnet_dns_kubernetes_connected {connected}\n")), "{code:?}");
        }
        api.programmed(ms(3));
        for line in [
            "coredns_kubernetes_rest_client_requests_total{code=\"<error>\",host=\"a:6443\",method=\"GET\"} 1",
            "coredns_kubernetes_rest_client_requests_total{code=\"200\",host=\"a:6443\",method=\"GET\"} 1",
            "coredns_kubernetes_rest_client_request_duration_seconds_bucket{host=\"a:6443\",verb=\"GET\",le=\"0.025\"} 0",
            "coredns_kubernetes_rest_client_request_duration_seconds_bucket{host=\"a:6443\",verb=\"GET\",le=\"0.05\"} 4",
            "coredns_kubernetes_rest_client_rate_limiter_duration_seconds_bucket{host=\"a:6443\",verb=\"GET\",le=\"0.01\"} 4",
            "coredns_kubernetes_dns_programming_duration_seconds_bucket{service_kind=\"headless_with_selector\",le=\"0.002\"} 0",
            "coredns_kubernetes_dns_programming_duration_seconds_bucket{service_kind=\"headless_with_selector\",le=\"0.004\"} 1",
        ] {
            assert!(told().lines().any(|told| told == line), "{line}: {}", told());
        }
    }
}
