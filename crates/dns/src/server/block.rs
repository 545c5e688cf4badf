//! One server block at work.

use std::sync::{
    Arc, Mutex, RwLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{Link, Outside, Own, Shape, lock};
use crate::{
    cache::Cache,
    chain::Chain,
    corefile::Key,
    forward::{Crew, Upstreams},
    metrics::Metrics,
    plugin,
    zone::{Cluster, Zone},
};

/// What all links of a server share.
#[derive(Clone)]
pub struct Parts {
    /// The surroundings.
    pub outside: Arc<dyn Outside>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Clients that wait for answers; see [`Parts::places`].
    pub(super) waiting: Arc<AtomicUsize>,
    /// The cluster's state is known.
    pub(super) synced: Arc<AtomicBool>,
}

/// A place among those who wait; it is free again when it is dropped.
#[derive(Debug)]
pub(super) struct PlaceInLine(Arc<AtomicUsize>);

impl Parts {
    /// Whether the cluster's state is known: what is not there does not exist.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// A place among those who wait for answers; none when there are too many.
    pub(super) fn place(&self, limit: usize) -> Option<PlaceInLine> {
        let place = PlaceInLine(Arc::clone(&self.waiting));
        // Counted first, so that two who come at once cannot both take the last one; dropping the place counts it off again.
        (self.waiting.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for PlaceInLine {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One server block at work.
pub(super) struct Block {
    pub(super) keys: Vec<Key>,
    pub(super) errors: bool,
    pub(super) log: bool,
    pub(super) shape: Shape,
    /// In the order in which they are asked.
    pub(super) links: Vec<Box<dyn Link>>,
    pub(super) zone: Option<Arc<RwLock<Zone>>>,
    pub(super) cache: Option<Arc<Mutex<Cache>>>,
    pub(super) crews: Vec<Crew>,
    pub(super) loop_check: bool,
}

impl Block {
    pub(super) fn new(chain: Chain, cluster: &Cluster, serial: u32, parts: &Parts) -> Self {
        let mut links: Vec<Box<dyn Link>> = Vec::new();
        let zone =
            chain.kubernetes().cloned().map(|options| Arc::new(RwLock::new(Zone::new(options, cluster, serial))));
        let upstreams = chain.forwards().cloned().map(Upstreams::new).map(Arc::new);
        let crews: Vec<Crew> = upstreams.map(|upstreams| Crew::new(upstreams, parts.clone())).collect();
        let cache = chain.cache().cloned().map(|options| Arc::new(Mutex::new(Cache::new(options))));
        if let Some(cache) = &cache {
            links.push(Box::new(plugin::Cached::new(Arc::clone(cache), zone.as_ref(), parts.clone())));
        }
        if let Some(options) = chain.hosts().cloned() {
            links.push(Box::new(Own(plugin::Hosts(options))));
        }
        if let Some(zone) = &zone {
            links.push(Box::new(plugin::Kubernetes { zone: Arc::clone(zone), parts: parts.clone() }));
        }
        for crew in &crews {
            links.push(Box::new(plugin::Forward(crew.clone())));
        }
        if chain.whoami() {
            links.push(Box::new(Own(plugin::WhoAmI)));
        }
        let shape = Shape { recursion: !crews.is_empty(), turns: chain.loadbalance() };
        let (errors, log, loop_check) = (chain.errors(), chain.log(), chain.loop_check());
        Self { keys: chain.keys, errors, log, shape, links, zone, cache, crews, loop_check }
    }

    /// How many answers are kept: those with records, and those without.
    pub(super) fn kept(&self) -> (usize, usize) {
        self.cache.as_ref().map_or((0, 0), |cache| lock(cache).entries())
    }
}
