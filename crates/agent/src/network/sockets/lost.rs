//! Connections whose backend is gone are ended, so that their clients come to another one.
//!
//! Which there are is asked on a thread of its own: the kernel goes through all sockets of every pod for it. Who of them has lost its backend
//! is decided by the plan.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use podnet_kernel::sockets::{Connections, Opened, SocketsError};
use tracing::{debug, warn};

use crate::network::rules::ClusterRules;

/// Between two times that it is asked.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the answer takes, as a rule.
const ANSWER: Duration = Duration::from_millis(10);
/// Without a suspicion it is asked as often.
const ROUND: Duration = Duration::from_secs(30);

enum Ask {
    List,
    End(Vec<Opened>),
}

#[derive(Debug)]
pub(super) struct LostConnections {
    ask: Sender<Ask>,
    listed: Receiver<Vec<Opened>>,
    /// It was asked, and the answer is fetched then.
    fetch: Option<Instant>,
    /// It is asked then.
    next: Option<Instant>,
    /// Not before.
    not_before: Instant,
    /// It is asked once more afterwards: a connection may have been about to be opened.
    again: bool,
}

impl LostConnections {
    pub(super) fn start(connections: Connections) -> Result<Self, io::Error> {
        let (ask, asked) = channel();
        let (tell, listed) = channel();
        thread::Builder::new().name("connections".into()).spawn(move || work(&connections, &asked, &tell))?;
        let now = Instant::now();
        Ok(Self { ask, listed, fetch: None, next: Some(now), not_before: now, again: true })
    }

    pub(super) fn suspect(&mut self) {
        let soon = self.not_before.max(Instant::now());
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
        self.again = true;
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.fetch.or(self.next)
    }

    pub(super) fn look(&mut self, rules: &ClusterRules) {
        let now = Instant::now();
        if self.fetch.is_some_and(|fetch| fetch <= now) {
            let Ok(mut listed) = self.listed.try_recv() else {
                self.fetch = Some(now + ANSWER);
                return;
            };
            self.fetch = None;
            listed.retain(|opened| rules.has_lost(&opened.frontend, opened.backend));
            if !listed.is_empty() {
                // The thread ends with this value.
                let _ = self.ask.send(Ask::End(listed));
            }
        }
        if self.fetch.is_none() && self.next.is_some_and(|next| next <= now) && self.ask.send(Ask::List).is_ok() {
            self.fetch = Some(now + ANSWER);
            self.not_before = now + PAUSE;
            let again = std::mem::take(&mut self.again);
            self.next = Some(now + if again { PAUSE * 2 } else { ROUND });
        }
    }
}

fn work(connections: &Connections, asked: &Receiver<Ask>, tell: &Sender<Vec<Opened>>) {
    for ask in asked {
        let done = match ask {
            Ask::List => connections.list().map(|listed| tell.send(listed).is_ok()),
            Ask::End(lost) => connections.end(&lost).map(|ended| {
                if ended > 0 {
                    debug!(ended, "connections to backends that are gone are ended");
                }
                true
            }),
        };
        match done {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => told_failure(&error, tell),
        }
    }
}

fn told_failure(error: &SocketsError, tell: &Sender<Vec<Opened>>) {
    warn!(error = error as &dyn std::error::Error, "connections to backends that are gone are not ended");
    // Whoever waits for the list is not to wait for ever.
    let _ = tell.send(Vec::new());
}
