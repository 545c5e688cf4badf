//! What the connections of a frontend have in common.

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use podnet_planner::{
    ruleset::{BackendAddress, FrontendKey},
    services::{
        Serving,
        userspace::{Asked, Choice, Chooser, Guard, Memories},
    },
};

use super::udp::Flow;
use crate::proxy::guests::origin;

/// Who is inside, as all frontends of a program know it.
pub(super) type Insiders = Arc<RwLock<Arc<BTreeSet<IpAddr>>>>;

/// A frontend that is served.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) key: FrontendKey,
    insiders: Insiders,
    guard: Mutex<Guard>,
    chooser: Mutex<Chooser>,
    flows: Mutex<Flows>,
    /// Where random numbers come from.
    random: RandomState,
    asked: AtomicU64,
}

/// Flows of datagrams by client.
#[derive(Debug, Default)]
pub(super) struct Flows {
    pub(super) of: HashMap<SocketAddr, Flow>,
    /// None begins any more.
    pub(super) closed: bool,
}

impl Front {
    pub(super) fn new(key: FrontendKey, guard: Guard, serving: Arc<Serving>, insiders: Insiders) -> Self {
        Self {
            key,
            insiders,
            guard: Mutex::new(guard),
            chooser: Mutex::new(Chooser::new(serving)),
            flows: Mutex::default(),
            random: RandomState::new(),
            asked: AtomicU64::new(0),
        }
    }

    /// Clients that are to stay are remembered in common with the other frontends of the Service's port.
    pub(super) fn remembering(self, memories: &Memories) -> Self {
        let chooser = self.chooser.into_inner().unwrap_or_else(PoisonError::into_inner);
        Self { chooser: Mutex::new(chooser.remembering(self.key.protocol, memories)), ..self }
    }

    /// Something else is done from now on. Flows whose backend answers no more come to another one with the next datagram. Those to one that ends
    /// and answers still go on, and so do those to one that new flows of their client do not come to any more.
    pub(super) fn serve(&self, guard: Guard, serving: &Arc<Serving>) {
        *lock(&self.guard) = guard;
        lock(&self.chooser).serve(serving.clone());
        let answering: HashSet<BackendAddress> = serving.answering().map(|backend| backend.at).collect();
        self.flows().of.retain(|_, flow| answering.contains(&flow.at));
    }

    fn insiders(&self) -> Arc<BTreeSet<IpAddr>> {
        self.insiders.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who comes from the frontend's own address is the node.
    fn is_inside(&self, client: IpAddr, insiders: &BTreeSet<IpAddr>) -> bool {
        client == self.key.addr || insiders.contains(&client)
    }

    /// Who is let in.
    pub(super) fn guard(&self) -> Guard {
        lock(&self.guard).clone()
    }

    /// Whose connections a client's are counted as: who is inside has one address, others of IPv6 have many.
    pub(super) fn origin(&self, client: IpAddr) -> IpAddr {
        if self.insiders().contains(&client) { client } else { origin(client) }
    }

    /// Where a client comes to that did not reach some backends just now.
    pub(super) fn choose(&self, client: IpAddr, without: &[BackendAddress]) -> Choice {
        let inside = self.is_inside(client, &self.insiders());
        if !lock(&self.guard).lets_in(client, inside) {
            return Choice::Dropped;
        }
        let random = self.random.hash_one(self.asked.fetch_add(1, Ordering::Relaxed));
        lock(&self.chooser).choose(&Asked { client, inside, without }, random, Instant::now())
    }

    pub(super) fn flows(&self) -> MutexGuard<'_, Flows> {
        lock(&self.flows)
    }

    /// Ends all flows, and none begins any more.
    pub(super) fn close(&self) {
        let mut flows = self.flows();
        flows.closed = true;
        flows.of.clear();
    }

    /// See [`Front::close`].
    pub(super) fn is_closed(&self) -> bool {
        self.flows().closed
    }
}

/// What a panic left is as good as before: nothing is done halfway under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
