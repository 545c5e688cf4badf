//! The upstreams of one `forward` plugin, and how they are doing.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::{ATTEMPT_TIMEOUT, query};
use crate::{
    chain::{ForwardOptions, Policy},
    message::{flag, question, rtype},
    server::{Exchange, Parts, Transport},
};

/// The upstreams of one `forward` plugin.
#[derive(Debug)]
pub struct Upstreams {
    options: ForwardOptions,
    addrs: Vec<SocketAddr>,
    states: Vec<State>,
    turn: AtomicUsize,
    checked: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct State {
    /// Failures since the last success.
    fails: AtomicU32,
    /// It asks this very server.
    loops: AtomicBool,
}

impl Upstreams {
    /// Upstreams that are all up.
    #[must_use]
    pub fn new(options: ForwardOptions) -> Self {
        let states = options.upstreams.iter().map(|_| State::default()).collect();
        let addrs = options.upstreams.iter().map(|upstream| upstream.addr).collect();
        Self { options, addrs, states, turn: AtomicUsize::new(0), checked: Mutex::new(None) }
    }

    /// What the Corefile says.
    #[must_use]
    pub fn options(&self) -> &ForwardOptions {
        &self.options
    }

    /// The order in which to ask: by the policy, those that are down last (all may only seem to be), none that loops.
    #[must_use]
    pub fn order(&self, random: u64) -> Vec<usize> {
        let count = self.states.len();
        let first = match self.options.policy {
            Policy::Sequential => 0,
            Policy::Random => random as usize % count.max(1),
            Policy::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed) % count.max(1),
        };
        let mut order: Vec<usize> = (0..count).map(|step| (first + step) % count).collect();
        order.retain(|&index| !self.states[index].loops.load(Ordering::Relaxed));
        order.sort_by_key(|&index| self.down(index));
        order
    }

    /// Whether an upstream counts as down.
    #[must_use]
    pub fn down(&self, index: usize) -> bool {
        let fails = self.states.get(index).map_or(0, |state| state.fails.load(Ordering::Relaxed));
        self.options.max_fails > 0 && fails >= self.options.max_fails
    }

    /// An upstream answered.
    pub fn succeeded(&self, index: usize) {
        if let Some(state) = self.states.get(index) {
            state.fails.store(0, Ordering::Relaxed);
        }
    }

    /// A question to an upstream failed: from now on it is checked.
    pub fn suspected(&self, index: usize) {
        if let Some(state) = self.states.get(index) {
            state.fails.fetch_max(1, Ordering::Relaxed);
        }
    }

    /// A check of an upstream failed.
    pub fn check_failed(&self, index: usize) {
        if let Some(state) = self.states.get(index) {
            let _ = state.fails.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |fails| fails.checked_add(1));
        }
    }

    /// An upstream asks this very server: it is not asked again.
    pub fn looped(&self, index: usize) {
        if let Some(state) = self.states.get(index) {
            state.loops.store(true, Ordering::Relaxed);
        }
    }

    /// Has the upstreams that failed asked whether they are up again, where that is due.
    pub fn check(self: &Arc<Self>, parts: &Parts) {
        let now = parts.outside.now();
        {
            let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
            let due = checked.is_none_or(|last| now.saturating_duration_since(last) >= self.options.health_check);
            if !due || self.options.max_fails == 0 {
                return;
            }
            *checked = Some(now);
        }
        let ask = question(self.options.health_domain.wire(), rtype::NS);
        let flags = if self.options.health_recursion { flag::RD } else { 0 };
        let failed = self.states.iter().enumerate();
        for (index, _) in failed.filter(|(_, state)| state.fails.load(Ordering::Relaxed) > 0) {
            let sent = parts.outside.exchange(Exchange {
                upstream: self.addrs[index],
                transport: if self.options.force_tcp { Transport::Tcp } else { Transport::Udp },
                message: query(parts.outside.random() as u16, &ask, false, false, flags),
                timeout: ATTEMPT_TIMEOUT,
            });
            let upstreams = Arc::clone(self);
            parts.outside.spawn(Box::pin(async move {
                match sent.await {
                    Ok(_) => upstreams.succeeded(index),
                    Err(_) => upstreams.check_failed(index),
                }
            }));
        }
    }

    /// The addresses.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }
}
