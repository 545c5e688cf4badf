//! Where a server block counts: at each of its listeners, which counters name.

use std::sync::Arc;

use super::{
    Metrics,
    family::{Counter, Family, labels},
};
use crate::{chain::Port, server::Arrival};

/// Where a server block counts.
#[derive(Clone, Debug)]
pub(crate) struct Counting {
    pub(crate) metrics: Arc<Metrics>,
    /// Its listeners, each once.
    pub(crate) ports: Vec<Port>,
    /// What its view is called; mostly nothing.
    pub(crate) view: String,
}

/// One listener of a server block, as counters name it.
#[derive(Debug)]
pub(crate) struct Spot<'a> {
    metrics: &'a Metrics,
    /// The listener, such as `dns://:53`.
    pub(crate) server: String,
    /// The block's view.
    pub(crate) view: &'a str,
}

/// Something for each listener of a server block.
#[derive(Debug)]
pub(crate) struct ByListener<T>(Arc<[(Port, T)]>);

impl Counting {
    /// Of a server block that serves these at its listeners.
    pub(crate) fn new(metrics: &Arc<Metrics>, ports: impl Iterator<Item = Port>, view: &str) -> Self {
        let mut ports: Vec<Port> = ports.collect();
        ports.sort_unstable();
        ports.dedup();
        Self { metrics: Arc::clone(metrics), ports, view: view.to_owned() }
    }

    /// What is counted at each listener.
    pub(crate) fn each<T>(&self, make: impl Fn(&Spot<'_>) -> T) -> ByListener<T> {
        let at = |port: &Port| {
            let spot = Spot { metrics: &self.metrics, server: port.to_string(), view: &self.view };
            (*port, make(&spot))
        };
        ByListener(self.ports.iter().map(at).collect())
    }
}

impl Spot<'_> {
    /// The counter of a family with these labels.
    pub(crate) fn counter(&self, family: Family, pairs: &[(&str, &str)]) -> Counter {
        self.labelled(family, labels(pairs))
    }

    /// The same with labels that stand in a text already.
    pub(crate) fn labelled(&self, family: Family, labels: String) -> Counter {
        self.metrics.counter(family, labels)
    }
}

impl<T> ByListener<T> {
    /// What is for the listener that something came to.
    pub(crate) fn at(&self, arrival: &Arrival) -> Option<&T> {
        let port = arrival.port();
        self.0.iter().find(|(known, _)| *known == port).map(|(_, counted)| counted)
    }
}

impl<T> Clone for ByListener<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
