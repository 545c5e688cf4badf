//! What keeps a program alive after it was left, and what there is of it then.

use std::{
    collections::BTreeSet,
    error::Error,
    net::IpAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use podnet_planner::{ruleset::FrontendKey, services::userspace::Led};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{
    super::room::{Connected, Room},
    Shared,
};

/// How many programs of this process there are.
static LIVING: AtomicUsize = AtomicUsize::new(0);

/// Whether there is any program, be it one that was left, or whose way is being taken away.
pub(in crate::proxy::userspace) fn is_any() -> bool {
    LIVING.load(Ordering::Acquire) > 0
}

/// Counts a program until it has taken away all that it made, which it begins with when nobody has it any more: the process is not to end
/// in between.
#[derive(Debug)]
pub(super) struct Living;

impl Living {
    pub(super) fn new() -> Self {
        LIVING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        LIVING.fetch_sub(1, Ordering::Release);
    }
}

/// What of a program that was left keeps another mode away, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// Something is listened at yet: connections may come to be at any address.
    pub listens: bool,
    /// The addresses at which there are connections: to become fewer, once nothing is listened at.
    pub held: BTreeSet<IpAddr>,
}

impl Remains {
    /// Connections may be, or come to be, at any address.
    #[must_use]
    pub const fn anywhere() -> Self {
        Self { listens: true, held: BTreeSet::new() }
    }
}

/// What is there of a program that was left: connections, and for a while what listens.
#[derive(Debug)]
pub struct Remaining(pub(super) Weak<Shared>);

impl Remaining {
    /// Whether it is not over yet.
    pub fn is_there(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// What of it keeps another mode away; none where it is over.
    pub fn remains(&self) -> Option<Remains> {
        let shared = self.0.upgrade()?;
        // In this order: what is taken before the last socket is closed is counted by then.
        let listens = !shared.lock().doors.is_empty();
        let held = shared.held().keys().copied().collect();
        Some(Remains { listens, held })
    }

    /// Where it is listened at still.
    pub fn frontends(&self) -> Vec<FrontendKey> {
        self.0.upgrade().map_or_else(Vec::new, |shared| shared.lock().doors.keys().copied().collect())
    }

    /// Leads there what goes to addresses with connections alone, once nothing is listened at.
    pub fn narrow(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut inner = shared.lock();
        if !inner.doors.is_empty() {
            return;
        }
        let held: BTreeSet<IpAddr> = shared.held().keys().copied().collect();
        let fewer: Vec<Led> = inner.apart.led().iter().filter(|led| !held.contains(&led.addr())).copied().collect();
        if let Err(error) = inner.apart.leave(&fewer) {
            warn!(error = &error as &dyn Error, "addresses of Services lead to where they are served no more");
        }
    }

    /// Closes what listens for frontends that are not served any more. Connections go on.
    pub fn close(&self, is_served: &dyn Fn(&FrontendKey) -> bool) {
        if let Some(shared) = self.0.upgrade() {
            shared.lock().doors.retain(|key, _| is_served(key));
        }
    }
}

/// What keeps a program alive while there are connections. What listens does not.
#[derive(Clone, Debug)]
pub(in crate::proxy::userspace) struct Life {
    pub(super) shared: Weak<Shared>,
    pub(in crate::proxy::userspace) room: Arc<Room>,
}

/// A connection's part of it.
#[derive(Debug)]
pub(in crate::proxy::userspace) struct Stay {
    _room: Connected,
    _held: Held,
}

/// A client is connected at an address: what leads there stays.
#[derive(Debug)]
pub(in crate::proxy::userspace) struct Held {
    shared: Arc<Shared>,
    at: IpAddr,
}

impl Held {
    fn new(shared: Arc<Shared>, at: IpAddr) -> Self {
        *shared.held().entry(at).or_default() += 1;
        Self { shared, at }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.shared.held();
        if let Some(count) = held.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.at);
            }
        }
    }
}

impl Life {
    /// Counts a connection at an address, as soon as it is taken: it may have to wait for room, and for a thread before that. None where the
    /// program is over.
    pub(in crate::proxy::userspace) fn hold(&self, at: IpAddr) -> Option<Held> {
        Some(Held::new(self.shared.upgrade()?, at))
    }

    /// For a client's connection that is counted, as soon as there is room for another one; none where the client has too many.
    pub(in crate::proxy::userspace) async fn connection(&self, client: IpAddr, held: Held) -> Option<Stay> {
        let room = self.room.connection(client).await?;
        Some(Stay { _room: room, _held: held })
    }
}
