//! Which backend a client comes to.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use podnet_model::{PortName, Protocol, ServiceKey};

use super::super::{Backend, Backends, Serving};
use crate::ruleset::BackendAddress;

/// So many clients are remembered at once of one port of a Service; who comes beyond them is not.
const MOST: usize = 65_536;
/// How often it is looked at most who is forgotten, where there are so many.
const SWEEP: Duration = Duration::from_secs(1);

/// Chooses for the clients of one frontend, and remembers what it chose where they are to stay.
#[derive(Debug)]
pub struct Chooser {
    serving: Arc<Serving>,
    memory: Arc<Mutex<Memory>>,
    /// Where the memory comes from, and the frontend's protocol.
    shared: Option<(Memories, Protocol)>,
}

/// Which backend the clients of a port of a Service had.
#[derive(Debug, Default)]
struct Memory {
    clients: HashMap<IpAddr, Remembered>,
    swept: Option<Instant>,
}

type ServicePort = (ServiceKey, PortName, Protocol);

/// The memories that frontends have in common: a client has one backend at all addresses of a Service's port.
#[derive(Clone, Debug, Default)]
pub struct Memories(Arc<Mutex<HashMap<ServicePort, Weak<Mutex<Memory>>>>>);

impl Memories {
    fn of(&self, serving: &Serving, protocol: Protocol) -> Arc<Mutex<Memory>> {
        if serving.affinity.is_none() {
            return Arc::default();
        }
        let mut all = lock(&self.0);
        let port = (serving.service.clone(), serving.port.clone(), protocol);
        if let Some(memory) = all.get(&port).and_then(Weak::upgrade) {
            return memory;
        }
        // Now and then: those that nobody has any more.
        if all.len().is_power_of_two() {
            all.retain(|_, memory| memory.strong_count() > 0);
        }
        let memory = Arc::default();
        all.insert(port, Arc::downgrade(&memory));
        memory
    }
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    at: BackendAddress,
    until: Instant,
}

/// Where a client comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// To this backend.
    To(BackendAddress),
    /// Nowhere, and it is told so.
    Refused,
    /// Nowhere, and it hears nothing.
    Dropped,
}

/// Who asks for a backend.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its address.
    pub client: IpAddr,
    /// It is the node or one of its pods.
    pub inside: bool,
    /// Backends that did not answer it just now.
    pub without: &'a [BackendAddress],
}

impl Chooser {
    /// For what is done for a frontend.
    #[must_use]
    pub fn new(serving: Arc<Serving>) -> Self {
        Self { serving, memory: Arc::default(), shared: None }
    }

    /// With the memory that it has in common with the other frontends of its Service's port.
    #[must_use]
    pub fn remembering(self, protocol: Protocol, memories: &Memories) -> Self {
        let memory = memories.of(&self.serving, protocol);
        Self { memory, shared: Some((memories.clone(), protocol)), ..self }
    }

    /// Something else is done from now on. Who was remembered stays so while its backend is one.
    pub fn serve(&mut self, serving: Arc<Serving>) {
        let port = |serving: &Serving| (serving.service.clone(), serving.port.clone(), serving.affinity.is_some());
        match &self.shared {
            Some((memories, protocol)) if port(&serving) != port(&self.serving) => {
                self.memory = memories.of(&serving, *protocol);
            }
            None if serving.affinity.is_none() => self.memory = Arc::default(),
            _ => {}
        }
        self.serving = serving;
    }

    /// What is done.
    #[must_use]
    pub const fn serving(&self) -> &Arc<Serving> {
        &self.serving
    }

    /// Chooses: the backend that the client had before, where it is to stay with it, or each with equal chances, by a random number.
    pub fn choose(&mut self, asked: &Asked<'_>, random: u64, now: Instant) -> Choice {
        let backends = match if asked.inside { &self.serving.inside } else { &self.serving.outside } {
            Backends::Reject => return Choice::Refused,
            Backends::Drop => return Choice::Dropped,
            Backends::Of(backends) => backends.clone(),
        };
        let is_one =
            |at: BackendAddress| backends.iter().any(|backend| backend.at == at) && !asked.without.contains(&at);
        if self.serving.affinity.is_none() {
            return any(&backends, asked.without, random).map_or(Choice::Refused, Choice::To);
        }
        let mut memory = lock(&self.memory);
        let remembered = memory.clients.get(&asked.client).filter(|known| known.until > now && is_one(known.at));
        let at = remembered.map(|known| known.at).or_else(|| any(&backends, asked.without, random));
        let Some(at) = at else { return Choice::Refused };
        if let Some(seconds) = self.serving.affinity {
            memory.remember(asked.client, Remembered { at, until: now + Duration::from_secs(seconds.into()) }, now);
        }
        Choice::To(at)
    }
}

impl Memory {
    fn remember(&mut self, client: IpAddr, what: Remembered, now: Instant) {
        let is_full = self.clients.len() >= MOST && !self.clients.contains_key(&client);
        if is_full && self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
            self.swept = Some(now);
            self.clients.retain(|_, known| known.until > now);
        }
        if self.clients.len() < MOST || self.clients.contains_key(&client) {
            self.clients.insert(client, what);
        }
    }
}

/// What a panic left is as good as before: nothing is done halfway under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn any(backends: &[Backend], without: &[BackendAddress], random: u64) -> Option<BackendAddress> {
    let left: Vec<BackendAddress> =
        backends.iter().map(|backend| backend.at).filter(|at| is_elsewhere(at.addr) && !without.contains(at)).collect();
    let number = u64::try_from(left.len()).ok().filter(|count| *count > 0)?;
    left.get(usize::try_from(random % number).ok()?).copied()
}

#[cfg(test)]
impl Chooser {
    pub(super) fn remembered(&self) -> usize {
        lock(&self.memory).clients.len()
    }
}

/// Whether others than the node itself may reach it. The node connects to backends: to what it alone may reach nobody is led. Packets of
/// others to such addresses the kernel refuses.
#[must_use]
pub fn is_elsewhere(addr: IpAddr) -> bool {
    let addr = addr.to_canonical();
    let is_link_local = match addr {
        IpAddr::V4(addr) => addr.is_link_local() || addr.is_broadcast(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    !(addr.is_loopback() || addr.is_unspecified() || addr.is_multicast() || is_link_local)
}
