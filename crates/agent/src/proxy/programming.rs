//! Which of the cluster's changes are in force on this node, and since when: what kube-proxy's metrics and health tell.

use std::{
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use podnet_model::{Change, Family};

use super::{facts::label, histogram::Histogram};

/// The same moment on the clock that never goes back and on the one of the wall.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For what lasts.
    pub at: Instant,
    /// For what is told.
    pub wall: Timestamp,
}

impl Moment {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        Self { at: Instant::now(), wall: Timestamp::now() }
    }
}

/// How much of the rules a round wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// All of them.
    Full,
    /// What changed.
    Partial,
}

/// Changes on their way into force. Shared by the thread that does them and those who are asked.
#[derive(Debug)]
pub struct Programming(Mutex<State>);

#[derive(Debug)]
struct State {
    began: Timestamp,
    /// What is not in force yet waits since then.
    pending_since: Option<Moment>,
    last_queued: Option<Timestamp>,
    last_updated: Option<Timestamp>,
    /// The node takes load balancers' traffic.
    eligible: bool,
    /// What waits longer means that programming hangs.
    patience: Duration,
    services: Changes,
    endpoints: Changes,
    /// When the changes that wait were made, as whoever made them says.
    triggered: Vec<Timestamp>,
    failures: u64,
    rounds: Histogram,
    full: Histogram,
    partial: Histogram,
    programming: Histogram,
}

#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    pending: u64,
    total: u64,
}

/// The delays of so many changes are counted at most that came into force together, so that nothing grows while the kernel refuses.
const TRIGGERED: usize = 1 << 14;

/// How it is with programming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Nothing waits for too long.
    pub healthy: bool,
    /// The node is neither being deleted nor about to be, as far as is known.
    pub eligible: bool,
    /// When all was in force last; now, where nothing waits for too long.
    pub last_updated: Option<Timestamp>,
}

impl Programming {
    /// Of an agent that begins now. Changes that were made before are not its delay.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        Self(Mutex::new(State {
            began: now.wall,
            pending_since: None,
            last_queued: None,
            last_updated: None,
            eligible: true,
            patience: Duration::from_secs(60),
            services: Changes::default(),
            endpoints: Changes::default(),
            triggered: Vec::new(),
            failures: 0,
            rounds: Histogram::of_rounds(),
            full: Histogram::of_rounds(),
            partial: Histogram::of_rounds(),
            programming: Histogram::of_programming(),
        }))
    }

    /// What waits for twice a period of looking at all rules (`syncPeriod`) waits too long, as in kube-proxy.
    pub fn set_sync_period(&self, period: Duration) {
        self.state().patience = period.saturating_mul(2);
    }

    /// A change came in that is not in force yet. Those that concern no Service are none.
    pub fn queued(&self, change: &Change, now: Moment) {
        let mut state = self.state();
        let changes = match change {
            Change::Service(..) => &mut state.services,
            Change::Slice(..) => &mut state.endpoints,
            _ => return,
        };
        changes.pending += 1;
        changes.total += 1;
        state.last_queued = Some(now.wall);
        state.pending_since.get_or_insert(now);
        if let Change::Slice(_, Some(slice)) = change {
            let counts = |time: &Timestamp| *time >= state.began && state.triggered.len() < TRIGGERED;
            let triggered = slice.triggered.filter(counts);
            state.triggered.extend(triggered);
        }
    }

    /// The node is being deleted, or about to be.
    pub fn set_leaving(&self, leaving: bool) {
        self.state().eligible = !leaving;
    }

    /// All that came in is in force; the round took so long. A part of the rules is written for what came in alone.
    pub fn done(&self, round: Round, took: Duration, now: Moment) {
        let mut state = self.state();
        if round == Round::Partial && state.pending_since.is_none() {
            return;
        }
        let of = match round {
            Round::Full => &mut state.full,
            Round::Partial => &mut state.partial,
        };
        of.observe(took);
        state.rounds.observe(took);
        for triggered in std::mem::take(&mut state.triggered) {
            // Where the clocks differ it may be later than now.
            state.programming.observe(now.wall.duration_since(triggered).try_into().unwrap_or_default());
        }
        state.services.pending = 0;
        state.endpoints.pending = 0;
        state.pending_since = None;
        state.last_updated = Some(now.wall);
    }

    /// The kernel refused.
    pub fn refused(&self) {
        self.state().failures += 1;
    }

    /// How it is now. While the cluster's state is not complete yet, which is before anything was tried, nothing is late.
    #[must_use]
    pub fn health(&self, now: Moment) -> Health {
        let state = self.state();
        let late = state.pending_since.is_some_and(|since| now.at.duration_since(since.at) >= state.patience);
        let healthy = !late || (state.last_updated.is_none() && state.failures == 0);
        let last_updated = if healthy { Some(now.wall) } else { state.last_updated };
        Health { healthy, eligible: state.eligible, last_updated }
    }

    /// In the text format of Prometheus, under kube-proxy's names. A round is about both families here: their lines tell the same.
    #[must_use]
    pub fn metrics(&self) -> String {
        let state = self.state();
        let mut text = String::new();
        let seconds = |time: Option<Timestamp>| time.map_or(0.0, |time| time.as_duration().as_secs_f64());
        for (name, kind, help, value) in [
            ("last_timestamp_seconds", "gauge", "When all rules were last in force.", seconds(state.last_updated)),
            ("last_queued_timestamp_seconds", "gauge", "When a change last came in.", seconds(state.last_queued)),
        ] {
            let name = format!("kubeproxy_sync_proxy_rules_{name}");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for family in Family::ALL {
                let _ = writeln!(text, "{name}{{{}}} {value}", label(family));
            }
        }
        for (name, kind, help, value) in [
            (
                "endpoint_changes_pending",
                "gauge",
                "Changed EndpointSlices that are not in force yet.",
                state.endpoints.pending,
            ),
            ("endpoint_changes_total", "counter", "Changed EndpointSlices.", state.endpoints.total),
            ("service_changes_pending", "gauge", "Changed Services that are not in force yet.", state.services.pending),
            ("service_changes_total", "counter", "Changed Services.", state.services.total),
        ] {
            let name = format!("kubeproxy_sync_proxy_rules_{name}");
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        for (name, help, histogram) in [
            ("sync_proxy_rules_duration_seconds", "How long it took to put changes in force.", &state.rounds),
            ("sync_full_proxy_rules_duration_seconds", "Of these, where all rules were written.", &state.full),
            ("sync_partial_proxy_rules_duration_seconds", "Of these, where what changed was written.", &state.partial),
            (
                "network_programming_duration_seconds",
                "From a change of endpoints in the cluster until it was in force here.",
                &state.programming,
            ),
        ] {
            histogram.render(&mut text, &format!("kubeproxy_{name}"), help);
        }
        text
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;
    use podnet_model::{EndpointSlice, ServiceKey, SliceKey};

    use super::*;

    fn after(start: Moment, seconds: u64) -> Moment {
        Moment {
            at: start.at + Duration::from_secs(seconds),
            wall: start.wall + SignedDuration::from_secs(seconds.try_into().unwrap()),
        }
    }

    fn slice(triggered: Timestamp) -> Change {
        let key = SliceKey::new("test", "web-1");
        let slice = EndpointSlice {
            key: key.clone(),
            service: ServiceKey::new("test", "web"),
            ports: Vec::new(),
            endpoints: Vec::new(),
            triggered: Some(triggered),
            unproxied: false,
        };
        Change::Slice(key, Some(slice))
    }

    #[test]
    fn what_waits_for_two_periods_is_late_unless_the_agent_only_begins() {
        let start = Moment::now();
        let programming = Programming::new(start);
        let healthy = |seconds| programming.health(after(start, seconds)).healthy;
        let service = Change::Service(ServiceKey::new("test", "web"), None);
        programming.queued(&service, start);
        assert!(healthy(1000), "it waits for the first lists");
        programming.done(Round::Full, Duration::from_millis(5), after(start, 1));
        programming.queued(&service, after(start, 10));
        programming.queued(&service, after(start, 50));
        assert!(healthy(69) && !healthy(70));
        assert_eq!(programming.health(after(start, 75)).last_updated, Some(after(start, 1).wall));
        programming.set_sync_period(Duration::from_secs(60));
        assert!(healthy(129) && !healthy(130));
        programming.done(Round::Partial, Duration::from_millis(1), after(start, 131));
        assert!(healthy(1000));
        assert_eq!(programming.health(after(start, 1000)).last_updated, Some(after(start, 1000).wall));
        programming.set_leaving(true);
        let health = programming.health(after(start, 1000));
        assert!(health.healthy && !health.eligible);
    }

    #[test]
    fn a_node_whose_rules_never_came_into_force_is_not_healthy_until_they_do() {
        let start = Moment::now();
        let programming = Programming::new(start);
        let healthy = |seconds| programming.health(after(start, seconds)).healthy;
        programming.queued(&Change::Service(ServiceKey::new("test", "web"), None), start);
        programming.refused();
        assert!(healthy(59) && !healthy(60));
        assert_eq!(programming.health(after(start, 60)).last_updated, None);
        programming.done(Round::Full, Duration::from_millis(5), after(start, 70));
        assert!(healthy(1000));
    }

    #[test]
    fn what_waits_for_ever_takes_no_more_room() {
        let start = Moment::now();
        let programming = Programming::new(start);
        let change = slice(after(start, 1).wall);
        for _ in 0..20_000 {
            programming.queued(&change, after(start, 1));
        }
        assert_eq!(programming.state().triggered.len(), TRIGGERED);
        assert!(programming.metrics().contains("endpoint_changes_pending 20000"));
    }

    #[test]
    fn metrics_tell_what_waits_and_how_long_it_took_since_the_change_was_made() {
        let start = Moment::now();
        let programming = Programming::new(start);
        programming.queued(&slice(start.wall - SignedDuration::from_secs(100)), after(start, 1));
        programming.queued(&slice(after(start, 2).wall), after(start, 3));
        programming.queued(&Change::Node("node1".into(), None), after(start, 3));
        let has = |line: &str| {
            let text = programming.metrics();
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        };
        has("kubeproxy_sync_proxy_rules_endpoint_changes_pending 2");
        has("kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 0");
        programming.done(Round::Partial, Duration::from_millis(3), after(start, 4));
        programming.refused();
        for line in [
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 2",
            "kubeproxy_sync_proxy_rules_service_changes_total 0",
            "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 1",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 1",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 0",
            "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"1\"} 0",
            "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"2\"} 1",
            "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv6\"} 1",
        ] {
            has(line);
        }
    }
}
