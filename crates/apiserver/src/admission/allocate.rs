//! The addresses and node ports of Services: who has which, and which is next.
//!
//! Addresses are given in ascending order and the order goes on after the last one that was given, so that an address which has
//! just become free is not somebody else's at once, while nodes may still translate to its old backends. Both ranges keep a band
//! at their beginning for addresses and ports that Services ask for by themselves (Kubernetes documentation, "Service ClusterIP
//! allocation"); the band is given away last.

//!
//! What a change drops becomes free only when the change is stored ([`ServiceAllocator::settle`]), so that nobody else can have it
//! while it may still be needed.

mod addresses;
mod families;
mod holdings;
mod inherit;
mod ports;
mod ranges;

use std::{
    ops::RangeInclusive,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use serde_json::Value;

use super::FieldError;
use holdings::Holdings;
pub(super) use holdings::{is_external, needs_health_check};
pub(super) use inherit::inherit;
use ports::Ports;
use ranges::Ranges;

/// Gives Services their cluster addresses and node ports. Everything it knows it learns from the Services themselves.
#[derive(Debug)]
pub struct ServiceAllocator {
    ranges: Mutex<Ranges>,
}

/// What was free and was taken for a Service. What that had already is not among it, unless somebody freed it in between: the Service was
/// changed by another one, and what has become of this one will not be stored.
#[derive(Debug)]
pub struct Taken(Holdings);

impl ServiceAllocator {
    /// An allocator of which nothing is taken yet. The first network is that which Services get an address from without asking;
    /// there may be another one of the other family.
    pub fn new(networks: impl IntoIterator<Item = IpNet>, node_ports: RangeInclusive<u16>) -> Self {
        Self { ranges: Mutex::new(Ranges::new(networks, node_ports)) }
    }

    /// Fills a Service's `clusterIP`, `clusterIPs`, `ipFamilies`, `ipFamilyPolicy`, `nodePort`s and `healthCheckNodePort`, and takes
    /// what it fills.
    ///
    /// With `old`, the Service as it was: what it had and still needs it keeps. Whoever calls this says afterwards that it was
    /// stored ([`Self::settle`]) or not ([`Self::give_back`], with what this answers).
    ///
    /// # Errors
    /// The fields that ask for what is not there; nothing is taken then.
    pub fn assign(&self, service: &mut Value, old: Option<&Value>) -> Result<Taken, Vec<FieldError>> {
        if let (Some(old), Some(service)) = (old, service.as_object_mut()) {
            inherit(old, service);
        }
        let held = old.map(Holdings::of).unwrap_or_default();
        let mut ranges = self.lock();
        let wanted = fill(service, old, &ranges, &held)?;
        Ok(Taken(ranges.take(&wanted)))
    }

    /// A changed Service is stored now: frees what only the former one had.
    pub fn settle(&self, stored: &Value, former: &Value) {
        self.lock().give_back(&Holdings::of(former), &Holdings::of(stored));
    }

    /// Frees what was taken for a Service that was not stored.
    pub fn give_back(&self, taken: &Taken) {
        self.lock().give_back(&taken.0, &Holdings::default());
    }

    /// Frees what a Service has: it was deleted.
    pub fn release(&self, service: &Value) {
        self.lock().give_back(&Holdings::of(service), &Holdings::default());
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

/// Completes a Service from what is free or its own already; says what it then has.
fn fill(
    service: &mut Value,
    old: Option<&Value>,
    ranges: &Ranges,
    held: &Holdings,
) -> Result<Holdings, Vec<FieldError>> {
    let Some(spec) = service.get_mut("spec") else { return Ok(Holdings::default()) };
    let mut errors = Vec::new();
    if holdings::needs_address(spec) {
        families::fill_families(spec, old, ranges, &mut errors);
        if errors.is_empty() {
            families::fill_addresses(spec, ranges, held, &mut errors);
        }
    }
    let mut ports = Ports::new(ranges, held);
    if holdings::takes_node_ports(spec) {
        ports.check(spec, &mut errors);
        if errors.is_empty() && holdings::wants_node_ports(spec) {
            ports.fill(spec, &mut errors);
        }
        if errors.is_empty() {
            ports.fill_health_check(spec, &mut errors);
        }
    }
    if errors.is_empty() { Ok(Holdings::of(service)) } else { Err(errors) }
}

#[cfg(test)]
mod tests;
