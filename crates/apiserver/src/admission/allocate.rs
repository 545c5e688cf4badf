//! The addresses and node ports of Services: who has which, and which is next.
//!
//! Addresses are given in ascending order and the order goes on after the last one that was given, so that an address which has
//! just become free is not somebody else's at once, while nodes may still translate to its old backends. Both ranges keep a band
//! at their beginning for addresses and ports that Services ask for by themselves (Kubernetes documentation, "Service ClusterIP
//! allocation"); the band is given away last.

mod ranges;
mod request;

use std::{
    ops::RangeInclusive,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use serde_json::Value;

use super::FieldError;
use ranges::Ranges;
use request::Holdings;
pub(super) use request::inherit;

/// Gives Services their cluster addresses and node ports. Everything it knows it learns from the Services themselves.
#[derive(Debug)]
pub struct ServiceAllocator {
    ranges: Mutex<Ranges>,
}

impl ServiceAllocator {
    /// An allocator of which nothing is taken yet.
    pub fn new(service_cidr: IpNet, node_ports: RangeInclusive<u16>) -> Self {
        Self { ranges: Mutex::new(Ranges::new(service_cidr, node_ports)) }
    }

    /// Fills a Service's `clusterIP`, `clusterIPs`, `ipFamilies`, `ipFamilyPolicy` and `nodePort`s, and takes what it fills.
    ///
    /// With `old`, the Service as it was: what it had and still needs it keeps, what it no longer needs (another type, a port
    /// less) becomes free. When storing the Service fails afterwards, call it again the other way round (the old object with
    /// the new one as `old`), or [`Self::release`] for a new Service. For a dry run do the same at once.
    ///
    /// # Errors
    /// The fields that ask for what is not there; nothing is taken and nothing becomes free then.
    pub fn assign(&self, service: &mut Value, old: Option<&Value>) -> Result<(), Vec<FieldError>> {
        if let (Some(old), Some(service)) = (old, service.as_object_mut()) {
            inherit(old, service);
        }
        let held = old.map(Holdings::of).unwrap_or_default();
        let mut ranges = self.lock();
        let wanted = request::fill(service, &ranges, &held)?;
        ranges.give_back(&held);
        ranges.take(&wanted);
        Ok(())
    }

    /// Frees what a Service has: it was deleted.
    pub fn release(&self, service: &Value) {
        self.lock().give_back(&Holdings::of(service));
    }

    /// Takes what a stored Service has: the server starts. New addresses then follow the highest one, whatever the order in which
    /// the Services are restored.
    pub fn restore(&self, service: &Value) {
        self.lock().restore(&Holdings::of(service));
    }

    fn lock(&self) -> MutexGuard<'_, Ranges> {
        // Each change of the ranges is complete before anything can panic.
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
