//! The upstreams of one `forward` plugin, and how they are doing.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    ATTEMPT_TIMEOUT,
    budget::{Asking, Budget},
    manners::{Manners, Pace},
    query, secure,
};
use crate::{
    chain::{ForwardOptions, Policy, UpstreamAddr, UpstreamTransport},
    destination::Destination,
    message::{flag, question, rtype},
    metrics::Asker,
    server::{Carrier, Debugger, Exchange, Keep, Outside, Parts, Secure, Transport, lock},
};

/// The upstreams of one `forward` plugin.
#[derive(Debug)]
pub struct Upstreams {
    options: ForwardOptions,
    /// They are asked for what they do not know themselves, too (RD).
    recursion: bool,
    addrs: Vec<Destination>,
    states: Vec<State>,
    turn: AtomicUsize,
    checked: Mutex<Option<Instant>>,
    budget: Budget,
}

#[derive(Debug, Default)]
struct State {
    /// Failures since the last success.
    fails: AtomicU32,
    /// It asks this very server.
    loops: AtomicBool,
    manners: Mutex<Manners>,
    pace: Mutex<Pace>,
    /// What is needed to ask it over TLS.
    secure: Option<Arc<Secure>>,
    carrier: Carrier,
}

impl State {
    fn new(options: &ForwardOptions, upstream: &UpstreamAddr) -> Self {
        let secure = secure(options, upstream).map(Arc::new);
        let carrier = match &upstream.transport {
            UpstreamTransport::Https { path } => Carrier::Https { path: path.clone(), get: options.https_get },
            UpstreamTransport::Grpc { .. } => Carrier::Grpc,
            _ => Carrier::Dns,
        };
        Self { secure, carrier, ..Self::default() }
    }
}

impl Upstreams {
    /// Upstreams that are all up. `recursion`: they are to ask others in turn.
    #[must_use]
    pub fn new(options: ForwardOptions, recursion: bool) -> Self {
        let states = options.upstreams.iter().map(|upstream| State::new(&options, upstream)).collect();
        let addrs = options.upstreams.iter().map(|upstream| upstream.addr.clone()).collect();
        let (turn, checked, budget) = (AtomicUsize::new(0), Mutex::new(None), Budget::default());
        Self { options, recursion, addrs, states, turn, checked, budget }
    }

    /// A question begins to be asked.
    pub(super) fn begin(&self) -> Asking<'_> {
        self.budget.begin()
    }

    /// The flags of a query for a client. AD asks to be told whether the answer is authentic (RFC 6840 §5.7).
    #[must_use]
    pub(super) fn flags(&self, checking_disabled: bool) -> u16 {
        let bit = |wanted: bool, flag: u16| if wanted { flag } else { 0 };
        flag::AD | bit(self.recursion, flag::RD) | bit(checking_disabled, flag::CD)
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

    /// How many of them ask this very server.
    #[must_use]
    pub fn looping(&self) -> usize {
        self.states.iter().filter(|state| state.loops.load(Ordering::Relaxed)).count()
    }

    /// Whose upstreams they are.
    pub(crate) fn asker(&self) -> Asker {
        match self.options.upstreams.first().map(|upstream| &upstream.transport) {
            Some(UpstreamTransport::Grpc { .. }) => Asker::Grpc,
            _ => Asker::Forward,
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
            let transport = if self.options.force_tcp { Transport::Tcp } else { Transport::Udp };
            let message = query(parts.outside.random() as u16, &ask, false, false, flags);
            let sent = parts.outside.exchange(self.exchange(index, transport, message, ATTEMPT_TIMEOUT));
            let (upstreams, metrics) = (Arc::clone(self), Arc::clone(&parts.metrics));
            parts.outside.spawn(Box::pin(async move {
                match sent.await {
                    Ok(_) => upstreams.succeeded(index),
                    Err(_) => {
                        metrics.upstreams.check_failed(upstreams.asker(), &upstreams.addrs[index]);
                        upstreams.check_failed(index);
                    }
                }
            }));
        }
    }

    /// Where they are.
    #[must_use]
    pub fn addrs(&self) -> &[Destination] {
        &self.addrs
    }

    /// A message to an upstream, the way that the Corefile wants it.
    #[must_use]
    pub fn exchange(&self, index: usize, transport: Transport, message: Vec<u8>, timeout: Duration) -> Exchange {
        let secure = self.states.get(index).and_then(|state| state.secure.clone());
        let carrier = self.states.get(index).map(|state| state.carrier.clone()).unwrap_or_default();
        let transport = if self.connected(index) { Transport::Tcp } else { transport };
        let ForwardOptions { expire: idle, max_age: age, max_idle: most, .. } = self.options;
        let keep = Keep { idle, age, most };
        let upstream = self.addrs[index].clone();
        let (fresh, debug) = (false, Debugger::default());
        Exchange { upstream, transport, carrier, secure, keep, fresh, message, timeout, debug }
    }

    /// Whether an upstream is asked over connections alone, into which nobody speaks as easily as into datagrams.
    pub(super) fn connected(&self, index: usize) -> bool {
        self.states.get(index).is_some_and(|state| state.secure.is_some() || state.carrier != Carrier::Dns)
    }

    /// Whether nobody can speak in an upstream's name: it is asked over TLS, or on this very machine.
    pub(super) fn vouched(&self, index: usize) -> bool {
        self.states[index].secure.is_some() || self.addrs[index].is_local()
    }

    /// What is known of how an upstream speaks.
    pub(super) fn manners(&self, index: usize) -> Manners {
        lock(&self.states[index].manners).clone()
    }

    /// The cookie for an upstream: our part, made once, and its own where it has told it.
    pub(super) fn cookie(&self, index: usize, outside: &dyn Outside) -> Vec<u8> {
        lock(&self.states[index].manners).cookie(outside)
    }

    /// An upstream has told its part of the cookie.
    pub(super) fn learn_cookie(&self, index: usize, server: &[u8]) {
        lock(&self.states[index].manners).server_cookie = Some(server.into());
    }

    /// It no longer tells a cookie.
    pub(super) fn forget_cookie(&self, index: usize) {
        lock(&self.states[index].manners).server_cookie = None;
    }

    /// It takes queries with a cookie for broken ones.
    pub(super) fn refuse_cookies(&self, index: usize) {
        let mut manners = lock(&self.states[index].manners);
        manners.refuses_cookies = true;
        manners.server_cookie = None;
    }

    /// It changes the case of questions.
    pub(super) fn folds(&self, index: usize, now: Instant) {
        lock(&self.states[index].manners).folds = Some(now);
    }

    /// Its answers cannot be told from forged ones: it takes no connections.
    pub(super) fn distrusted(&self, index: usize, now: Instant) {
        let mut manners = lock(&self.states[index].manners);
        manners.folds = Some(now);
        manners.server_cookie = None;
    }

    /// An upstream answered after a time, or was silent for at least that long.
    pub(super) fn heard(&self, index: usize, took: Duration) {
        lock(&self.states[index].pace).heard(took);
    }

    /// How long it may be silent until the next one is asked besides.
    pub(super) fn pause(&self, index: usize) -> Duration {
        lock(&self.states[index].pace).pause()
    }
}
