//! Connections whose backend is gone are ended, so that their clients come to another one.
//!
//! Which there are is asked on a thread of its own: the kernel goes through all sockets of every pod for it. Who of them has lost its backend
//! is decided by the plan.

use std::{
    collections::HashMap,
    io, mem,
    sync::mpsc::{Receiver, Sender, TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

use podnet_kernel::{
    cgroup::Cgroup,
    sockets::{Connections, Opened, SocketsError},
};
use podnet_model::Change;
use podnet_planner::services::ebpf::Fate;
use tracing::{debug, warn};

use crate::network::rules::ClusterRules;

/// Between two times that it is asked.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the answer takes, as a rule.
const ANSWER: Duration = Duration::from_millis(10);
/// Without a suspicion it is asked as often.
const ROUND: Duration = Duration::from_secs(30);
/// For how long a connection goes on of whose Service no endpoint is known. A controller writes a new Service's endpoints within a second or two.
const DOUBT: Duration = Duration::from_secs(3);
/// After so many lists in a row without a connection there is none, where no more can be opened: one may have been about to be.
const NONE: u32 = 2;

enum Ask {
    List,
    End(Vec<Opened>),
}

#[derive(Debug)]
pub(super) struct LostConnections {
    ask: Sender<Ask>,
    /// None where that failed.
    listed: Receiver<Option<Vec<Opened>>>,
    /// It was asked, and the answer is fetched then.
    fetch: Option<Instant>,
    /// It is asked then.
    next: Option<Instant>,
    /// Not before.
    not_before: Instant,
    /// It is asked once more afterwards: a connection may have been about to be opened.
    again: bool,
    /// Connections of which nobody knows whether somebody is at their other end, and since when.
    doubtful: HashMap<Opened, Instant>,
    /// Some backends left their Services and live on: who ends is told of pods and of the account of addresses then.
    have_left: bool,
    /// How many lists in a row named none.
    none: u32,
}

impl LostConnections {
    /// Of those that were opened before the mode was another.
    pub(super) fn left(cgroup: &Cgroup) -> Result<Option<Self>, SocketsError> {
        Ok(Connections::left(cgroup)?.map(Self::start).transpose()?)
    }

    pub(super) fn start(connections: Connections) -> Result<Self, io::Error> {
        let (ask, asked) = channel();
        let (tell, listed) = channel();
        thread::Builder::new().name("connections".into()).spawn(move || work(&connections, &asked, &tell))?;
        let now = Instant::now();
        let (doubtful, have_left, none) = (HashMap::new(), false, 0);
        Ok(Self { ask, listed, fetch: None, next: Some(now), not_before: now, again: true, doubtful, have_left, none })
    }

    /// A change was taken in: connections may have lost their backend where endpoints changed, or whoever was one.
    pub(super) fn heard(&mut self, change: &Change) {
        match change {
            Change::Service(..) | Change::Slice(..) => self.suspect(),
            Change::Pod(..) | Change::Block(..) | Change::Node(..) if self.have_left => self.suspect(),
            _ => {}
        }
    }

    pub(super) fn suspect(&mut self) {
        let soon = self.not_before.max(Instant::now());
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
        self.again = true;
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.fetch.or(self.next)
    }

    /// There are none, where no more can be opened.
    pub(super) const fn are_over(&self) -> bool {
        self.none >= NONE
    }

    pub(super) fn look(&mut self, rules: &ClusterRules) {
        let now = Instant::now();
        if self.fetch.is_some_and(|fetch| fetch <= now) {
            let listed = self.listed.try_recv();
            self.fetch = matches!(listed, Err(TryRecvError::Empty)).then_some(now + ANSWER);
            if let Ok(Some(listed)) = listed {
                self.judge(listed, rules, now);
            }
        }
        if self.fetch.is_none() && self.next.is_some_and(|next| next <= now) {
            // Where the thread is gone nothing is waited for, and it is not asked without a pause.
            self.fetch = self.ask.send(Ask::List).is_ok().then_some(now + ANSWER);
            self.not_before = now + PAUSE;
            let again = std::mem::take(&mut self.again);
            self.next = Some(now + if again { PAUSE * 2 } else { ROUND });
        }
    }

    fn judge(&mut self, listed: Vec<Opened>, rules: &ClusterRules, now: Instant) {
        self.none = if listed.is_empty() { self.none.saturating_add(1) } else { 0 };
        let before = mem::take(&mut self.doubtful);
        self.have_left = false;
        let (mut lost, mut fates) = (Vec::new(), HashMap::new());
        for opened in listed {
            // Of many connections to one backend it is asked once.
            let ask = || rules.fate(&opened.frontend, opened.backend);
            match *fates.entry((opened.frontend, opened.backend)).or_insert_with(ask) {
                Fate::Served => {}
                Fate::Left => self.have_left = true,
                Fate::Lost => lost.push(opened),
                Fate::Unsure => {
                    let since = before.get(&opened).copied().unwrap_or(now);
                    if now.duration_since(since) < DOUBT {
                        self.doubtful.insert(opened, since);
                    } else {
                        lost.push(opened);
                    }
                }
            }
        }
        if let Some(since) = self.doubtful.values().min() {
            let due = *since + DOUBT;
            self.next = Some(self.next.map_or(due, |next| next.min(due)));
        }
        if !lost.is_empty() {
            // The thread ends with this value.
            let _ = self.ask.send(Ask::End(lost));
        }
    }
}

fn work(connections: &Connections, asked: &Receiver<Ask>, tell: &Sender<Option<Vec<Opened>>>) {
    for ask in asked {
        match ask {
            // Whoever waits for the list is told of a failure too: he is not to wait for ever.
            Ask::List => {
                if tell.send(succeeded(connections.list())).is_err() {
                    return;
                }
            }
            Ask::End(lost) => {
                if let Some(ended @ 1..) = succeeded(connections.end(&lost)) {
                    debug!(ended, "connections to backends that are gone are ended");
                }
            }
        }
    }
}

fn succeeded<T>(done: Result<T, SocketsError>) -> Option<T> {
    let failed = |error: &SocketsError| {
        warn!(error = error as &dyn std::error::Error, "connections to backends that are gone are not ended");
    };
    done.inspect_err(failed).ok()
}
