//! Announces the addresses of load balancers that fall to this node, on the underlay (ARP, neighbour discovery).
//!
//! Who announces what is worked out in [`podnet_planner::loadbalancer`]; here is a thread that hears and speaks, and what it is told by
//! the cluster. Packets to such an address are translated by the node's Services like any others; the address is on no device.

mod advertisements;
mod speaker;

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use kube::Client;
use podnet_model::{Change, LinkName, NodeName, ServiceKey, balancer::Advertisement};
use podnet_planner::loadbalancer::announcer::{Announcer, Duty};
use tracing::error;

/// What the cluster says about load balancers' addresses.
#[derive(Debug)]
pub struct Announcements {
    node: NodeName,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    announcer: Announcer,
    /// The device of the underlay; none: not told yet.
    underlay: Option<LinkName>,
    /// Counts what may have changed duties.
    version: u64,
}

impl Announcements {
    /// For this node; nothing is known yet.
    #[must_use]
    pub fn new(node: NodeName) -> Self {
        Self { node, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Takes a change in.
    pub fn learn(&self, change: &Change) {
        let mut state = self.lock();
        if state.announcer.apply(change) {
            self.tell(&mut state);
        }
    }

    fn set_advertisements(&self, advertisements: Vec<Advertisement>) {
        let mut state = self.lock();
        if state.announcer.set_advertisements(advertisements) {
            self.tell(&mut state);
        }
    }

    /// Whether it falls to this node to tell of a Service what all nodes see of it.
    #[must_use]
    pub fn tells_of(&self, service: &ServiceKey) -> bool {
        self.lock().announcer.tells_of(&self.node, service)
    }

    /// How many nodes the cluster has.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.lock().announcer.nodes()
    }

    /// The underlay is on this device from now on.
    pub fn set_underlay(&self, device: &LinkName) {
        let mut state = self.lock();
        if state.underlay.as_ref() != Some(device) {
            state.underlay = Some(device.clone());
            self.tell(&mut state);
        }
    }

    fn tell(&self, state: &mut State) {
        state.version += 1;
        self.changed.notify_all();
    }

    /// The node's duties, where they or the underlay's device may be others than at that version.
    fn news_since(&self, version: u64) -> Option<News> {
        let state = self.lock();
        let news = || {
            let duties = state.announcer.duties(&self.node);
            News { version: state.version, duties, underlay: state.underlay.clone() }
        };
        (state.version != version).then(news)
    }

    /// Waits until duties may be others than at that version.
    fn wait(&self, version: u64) {
        let state = self.lock();
        drop(self.changed.wait_while(state, |state| state.version == version));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A change that panicked half-way leaves an old state of one object behind, which the next change of it replaces.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node announces, and where.
#[derive(Debug)]
struct News {
    version: u64,
    duties: Vec<Duty>,
    underlay: Option<LinkName>,
}

/// Begins to announce, once the rules that serve the addresses are in force.
pub fn start(announcements: &Arc<Announcements>, client: &Client) {
    tokio::spawn(advertisements::follow(client.clone(), announcements.clone()));
    let announcements = announcements.clone();
    let speaking = move || speaker::Speaker::new(announcements).run();
    if let Err(error) = thread::Builder::new().name("announce".into()).spawn(speaking) {
        error!(error = &error as &dyn std::error::Error, "load balancers' addresses are not announced from this node");
    }
}

#[cfg(test)]
mod tests;
