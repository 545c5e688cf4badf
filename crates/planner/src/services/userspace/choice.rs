//! Which backend a client comes to.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::super::{Backend, Backends, Serving};
use crate::ruleset::BackendAddress;

/// So many clients are remembered at once by one frontend; who comes beyond them is not.
const MOST: usize = 65_536;
/// How often it is looked at most who is forgotten, where there are so many.
const SWEEP: Duration = Duration::from_secs(1);

/// Chooses for the clients of one frontend, and remembers what it chose where they are to stay.
#[derive(Debug)]
pub struct Chooser {
    serving: Arc<Serving>,
    pub(super) memory: HashMap<IpAddr, Remembered>,
    swept: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Remembered {
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
        Self { serving, memory: HashMap::new(), swept: None }
    }

    /// Something else is done from now on. Who was remembered stays so while its backend is one.
    pub fn serve(&mut self, serving: Arc<Serving>) {
        if serving.affinity.is_none() {
            self.memory.clear();
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
        let remembered = self.memory.get(&asked.client).filter(|known| known.until > now && is_one(known.at));
        let at = remembered.map(|known| known.at).or_else(|| any(&backends, asked.without, random));
        let Some(at) = at else { return Choice::Refused };
        if let Some(seconds) = self.serving.affinity {
            self.remember(asked.client, Remembered { at, until: now + Duration::from_secs(seconds.into()) }, now);
        }
        Choice::To(at)
    }

    fn remember(&mut self, client: IpAddr, what: Remembered, now: Instant) {
        let is_full = self.memory.len() >= MOST && !self.memory.contains_key(&client);
        if is_full && self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
            self.swept = Some(now);
            self.memory.retain(|_, known| known.until > now);
        }
        if self.memory.len() < MOST || self.memory.contains_key(&client) {
            self.memory.insert(client, what);
        }
    }
}

fn any(backends: &[Backend], without: &[BackendAddress], random: u64) -> Option<BackendAddress> {
    let left: Vec<BackendAddress> =
        backends.iter().map(|backend| backend.at).filter(|at| is_elsewhere(at.addr) && !without.contains(at)).collect();
    let number = u64::try_from(left.len()).ok().filter(|count| *count > 0)?;
    left.get(usize::try_from(random % number).ok()?).copied()
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
