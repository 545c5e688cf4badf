//! What may be damaged, and when it is looked at.

use std::time::{Duration, Instant};

use podnet_kernel::monitor::{Notice, Transaction};
use podnet_planner::ipvs::{DEVICE, ROUTES, State};

/// How often is looked, at most.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// How long it is waited for what else somebody changes.
const GATHER: Duration = Duration::from_millis(50);
/// How often the chains, and the ways to virtual servers, are compared though nothing is suspected.
const COMPARE: Duration = Duration::from_secs(60);
/// Where a comparison takes long, so many times as long goes by before the next one.
const REST: u32 = 100;
/// The same for a glance at what there is, by which most damage shows.
const REST_OF_GLANCE: u32 = 20;
/// And so many times as long where somebody changes things all the time.
const REST_OF_SUSPICION: u32 = 10;
/// How often it is looked whether the connections of what goes are over.
const DRAIN: Duration = Duration::from_secs(5);
/// The device that all ways to virtual servers lead to.
const LOOPBACK: &str = "lo";

/// The suspicions and times of one family.
#[derive(Debug)]
pub(super) struct Watch {
    /// Somebody may have damaged the virtual servers and what goes with them.
    pub(super) servers: bool,
    /// The chains.
    pub(super) chains: bool,
    /// The rules and routes that lead to virtual servers.
    pub(super) ways: bool,
    pub(super) next_look: Instant,
    pub(super) next_glance: Instant,
    pub(super) next_servers: Instant,
    pub(super) next_chains: Instant,
    pub(super) next_drain: Instant,
}

impl Watch {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            servers: false,
            chains: false,
            ways: false,
            next_look: now,
            next_glance: now,
            next_servers: now,
            next_chains: now,
            next_drain: now,
        }
    }

    /// The kernel tells of something; whether somebody else touched the chains is asked.
    pub(super) fn hear(&mut self, notice: &Notice, there: &State, is_touched: impl FnOnce(&Transaction) -> bool) {
        let (servers, chains, ways) = match notice {
            Notice::LinkGone(link) => (link.name.as_str() == DEVICE, false, false),
            Notice::Address { addr, flags: None, .. } => (there.addrs.contains(&addr.addr()), false, false),
            // Routes that go with a device that is down are not told of.
            Notice::Link(link) => (false, false, link.name.as_str() == LOOPBACK),
            Notice::WayGone { table } => (false, false, *table == ROUTES),
            Notice::Rules(transaction) => (false, is_touched(transaction), false),
            Notice::RulesLost => (false, true, false),
            Notice::Lost => (true, true, true),
            _ => (false, false, false),
        };
        if servers && !self.servers || chains && !self.chains || ways && !self.ways {
            // What somebody does in several steps is looked at once.
            self.next_look = self.next_look.max(Instant::now() + GATHER);
        }
        self.servers |= servers;
        self.chains |= chains;
        self.ways |= ways;
    }

    /// When something is to be done, `often` where the chains tell nobody of their changes.
    pub(super) fn due(&self, often: bool, drains: bool) -> Instant {
        let suspected = self.servers || self.chains || self.ways;
        let usual = self.next_servers.min(self.next_chains).min(self.next_glance).max(self.next_look);
        let looks = if often || suspected { self.next_look } else { usual };
        if drains { looks.min(self.next_drain) } else { looks }
    }

    /// Whether it is to be looked now; then it is not soon again.
    pub(super) fn looks(&mut self, now: Instant) -> bool {
        let is_due = now >= self.next_look;
        if is_due {
            self.next_look = now + LOOK;
        }
        is_due
    }

    /// The same for connections.
    pub(super) fn drains(&mut self, now: Instant) -> bool {
        let is_due = now >= self.next_drain;
        if is_due {
            self.next_drain = now + DRAIN;
        }
        is_due
    }

    /// What was begun then was done. Whoever does so all the time has to wait.
    pub(super) fn looked(&mut self, began: Instant) {
        self.next_look = Instant::now() + LOOK.max(began.elapsed() * REST_OF_SUSPICION);
    }

    pub(super) fn glanced(&mut self, began: Instant) {
        self.next_glance = Instant::now() + LOOK.max(began.elapsed() * REST_OF_GLANCE);
    }

    pub(super) fn compared_servers(&mut self, began: Instant, sync_period: Duration) {
        self.servers = false;
        self.next_servers = Instant::now() + (began.elapsed() * REST).clamp(LOOK, sync_period.max(LOOK));
        self.next_glance = Instant::now() + LOOK;
    }

    pub(super) fn compared_chains(&mut self, began: Instant) {
        self.chains = false;
        self.next_chains = Instant::now() + COMPARE.max(began.elapsed() * REST);
    }
}
