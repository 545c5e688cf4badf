//! Addresses of load balancers: which Service has which, out of which pool.
//!
//! Everything that is known follows from pools and Services: nothing is stored beside the Services' status. A Service keeps what it
//! has as long as it may; sharing, requests and pools mean what they mean in MetalLB.

pub mod announcer;
mod free;
pub mod posts;
mod refusal;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use podnet_model::{Family, Protocol, ServiceKey, balancer::AddressPool, labels::Labels};
pub use refusal::Refusal;
pub use usage::Usage;

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The Service.
    pub key: ServiceKey,
    /// Its labels.
    pub labels: Labels,
    /// Its namespace's labels.
    pub namespace_labels: Labels,
    /// The families that it has cluster addresses of.
    pub families: Vec<Family>,
    /// Whether it needs an address of each family (`RequireDualStack`), and not only of those that a pool has.
    pub needs_all: bool,
    /// The addresses that it asks for; none: any.
    pub asked: Vec<IpAddr>,
    /// The pool that it asks for; none: any that gives addresses to who does not ask.
    pub pool: Option<Arc<str>>,
    /// Its ports.
    pub ports: BTreeSet<(Protocol, u16)>,
    /// With whom it shares an address.
    pub sharing: Option<Sharing>,
}

/// With whom a Service shares an address: with those that say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// The key that the Services agree on.
    pub key: Arc<str>,
    /// Where the address leads to on each node, where that depends on the node (`externalTrafficPolicy: Local`): the Service's
    /// selector. Services whose address is announced by other nodes cannot share it.
    pub backends: Option<Arc<str>>,
}

/// Who has which address.
#[derive(Clone, Debug, Default)]
pub struct Balancers {
    pools: Vec<AddressPool>,
    /// There are pools that say nothing that can be understood: an address in no pool may be of one of those.
    unsure: bool,
    holders: BTreeMap<IpAddr, BTreeMap<ServiceKey, Claim>>,
    services: BTreeMap<ServiceKey, Vec<IpAddr>>,
}

/// How a Service uses an address.
#[derive(Clone, Debug)]
struct Claim {
    ports: BTreeSet<(Protocol, u16)>,
    sharing: Option<Sharing>,
}

impl Balancers {
    /// These are the pools from now on; with `unsure` there are others that cannot be understood, and Services keep what they have of no
    /// pool. What was given stays until the Services are settled again.
    pub fn set_pools(&mut self, mut pools: Vec<AddressPool>, unsure: bool) {
        pools.sort_by(|one, other| one.name.cmp(&other.name));
        (self.pools, self.unsure) = (pools, unsure);
    }

    /// The pool that an address is of.
    #[must_use]
    pub fn pool_of(&self, addr: IpAddr) -> Option<&AddressPool> {
        self.pools.iter().find(|pool| has(pool, addr))
    }

    /// A Service has these addresses, as its status says: they are nobody else's until it is settled.
    pub fn restore(&mut self, request: &Request, current: &[IpAddr]) {
        self.take(request, current.to_vec());
    }

    /// Decides what a Service has, given what its status says: that, where it may keep it, else another one. A status that says nothing
    /// may be older than what was given: that counts.
    ///
    /// # Errors
    ///
    /// Why there is no address for it; it has none then.
    pub fn settle(&mut self, request: &Request, current: &[IpAddr]) -> Result<Vec<IpAddr>, Refusal> {
        let given = self.services.get(&request.key).filter(|_| current.is_empty()).cloned();
        let current = given.as_deref().unwrap_or(current);
        self.release(&request.key);
        let decided =
            if self.may_keep(request, current) { Ok(current.to_vec()) } else { self.decide(request, current) };
        if let Ok(addresses) = &decided {
            self.take(request, addresses.clone());
        }
        decided
    }

    /// A Service is gone, or no load balancer's any more. Answers whether something became free.
    pub fn release(&mut self, key: &ServiceKey) -> bool {
        let Some(addresses) = self.services.remove(key) else { return false };
        for addr in &addresses {
            if let Some(claims) = self.holders.get_mut(addr) {
                claims.remove(key);
                if claims.is_empty() {
                    self.holders.remove(addr);
                }
            }
        }
        !addresses.is_empty()
    }

    fn take(&mut self, request: &Request, addresses: Vec<IpAddr>) {
        self.release(&request.key);
        for addr in &addresses {
            let claim = Claim { ports: request.ports.clone(), sharing: request.sharing.clone() };
            self.holders.entry(*addr).or_default().insert(request.key.clone(), claim);
        }
        self.services.insert(request.key.clone(), addresses);
    }

    fn may_keep(&self, request: &Request, current: &[IpAddr]) -> bool {
        let asked: BTreeSet<_> = request.asked.iter().collect();
        !current.is_empty()
            && fit(request, current).is_ok()
            && (asked.is_empty() || asked == current.iter().collect())
            && current.iter().all(|addr| match self.check(request, *addr) {
                Ok(()) => true,
                Err(Refusal::InNoPool(_)) => self.unsure && self.others(request, *addr).is_ok(),
                Err(_) => false,
            })
    }

    fn decide(&self, request: &Request, current: &[IpAddr]) -> Result<Vec<IpAddr>, Refusal> {
        if !request.asked.is_empty() {
            fit(request, &request.asked)?;
            request.asked.iter().try_for_each(|addr| self.check(request, *addr))?;
            return Ok(request.asked.clone());
        }
        let mut best: Vec<IpAddr> = Vec::new();
        for pool in self.candidates(request)? {
            let found = self.free_of(pool, request, current);
            if found.len() > best.len() {
                best = found;
            }
            if best.len() == request.families.len() {
                break;
            }
        }
        let too_few = best.is_empty() || (request.needs_all && best.len() < request.families.len());
        if too_few { Err(Refusal::exhausted(request)) } else { Ok(best) }
    }

    /// The pools that the Service may have an address of, the best one first.
    fn candidates(&self, request: &Request) -> Result<Vec<&AddressPool>, Refusal> {
        if let Some(name) = &request.pool {
            let named: Vec<_> = self.pools.iter().filter(|pool| pool.name == *name).collect();
            if named.is_empty() {
                return Err(Refusal::UnknownPool(name.clone()));
            }
            let allowed: Vec<_> = named.into_iter().filter(|pool| serves(pool, request)).collect();
            return if allowed.is_empty() { Err(Refusal::NotForIt(name.clone())) } else { Ok(allowed) };
        }
        let mut pools: Vec<_> = self.pools.iter().filter(|pool| pool.auto_assign && serves(pool, request)).collect();
        // Those that are reserved for such Services come first, by priority; 0 is the last one.
        pools.sort_by_key(|pool| match pool.reserved.as_ref().map(|reserved| reserved.priority) {
            Some(0) => u64::MAX - 1,
            Some(priority) => priority.min(u64::MAX - 2),
            None => u64::MAX,
        });
        if pools.is_empty() { Err(Refusal::NoPool) } else { Ok(pools) }
    }

    /// An address of the pool for each family of the Service, as far as there are any; what it has already comes first.
    fn free_of(&self, pool: &AddressPool, request: &Request, current: &[IpAddr]) -> Vec<IpAddr> {
        let of_family = |family: &Family| {
            let kept = current.iter().find(|addr| Family::of(addr) == *family && has(pool, **addr));
            if let Some(kept) = kept.filter(|addr| self.check(request, **addr).is_ok()) {
                return Some(*kept);
            }
            let spans = pool.spans.iter().filter(move |span| span.family() == *family);
            let shared = spans.clone().find_map(|span| self.shared_in(span, request));
            shared.or_else(|| spans.into_iter().find_map(|span| free::first(&self.holders, span, pool.avoid_buggy)))
        };
        request.families.iter().filter_map(of_family).collect()
    }

    /// An address that others have who share it with the Service.
    fn shared_in(&self, span: &podnet_model::balancer::Span, request: &Request) -> Option<IpAddr> {
        request.sharing.as_ref()?;
        let mut held = self.holders.range(span.first()..=span.last()).map(|(addr, _)| *addr);
        held.find(|addr| self.check(request, *addr).is_ok())
    }

    /// Whether the Service may have that very address.
    fn check(&self, request: &Request, addr: IpAddr) -> Result<(), Refusal> {
        let in_pools: Vec<_> = self.pools.iter().filter(|pool| has(pool, addr)).collect();
        if in_pools.is_empty() {
            return Err(Refusal::InNoPool(addr));
        }
        let fits =
            |pool: &&AddressPool| serves(pool, request) && request.pool.as_ref().is_none_or(|name| pool.name == *name);
        if !in_pools.iter().any(fits) {
            return Err(Refusal::InAnotherPool(addr, in_pools[0].name.clone()));
        }
        self.others(request, addr)
    }

    /// Whether those who have the address let the Service have it as well.
    fn others(&self, request: &Request, addr: IpAddr) -> Result<(), Refusal> {
        let others = self.holders.get(&addr).into_iter().flatten().filter(|(key, _)| **key != request.key);
        for (other, claim) in others {
            if claim.sharing.is_none() || claim.sharing != request.sharing {
                return Err(Refusal::Taken { addr, by: other.clone() });
            }
            if let Some((protocol, port)) = claim.ports.intersection(&request.ports).next() {
                return Err(Refusal::PortTaken { addr, port: *port, protocol: *protocol, by: other.clone() });
            }
        }
        Ok(())
    }
}

/// Whether the addresses are of the Service's families, one of each, and all where it needs all.
fn fit(request: &Request, addresses: &[IpAddr]) -> Result<(), Refusal> {
    let mut families = BTreeSet::new();
    for addr in addresses {
        let family = Family::of(addr);
        if !request.families.contains(&family) || !families.insert(family) {
            return Err(Refusal::WrongFamily(*addr));
        }
    }
    let missing = request.families.iter().find(|family| !families.contains(family));
    match missing {
        Some(family) if request.needs_all => Err(Refusal::FamilyMissing(*family)),
        _ => Ok(()),
    }
}

fn has(pool: &AddressPool, addr: IpAddr) -> bool {
    pool.spans.iter().any(|span| span.contains(addr)) && !(pool.avoid_buggy && free::is_buggy(addr))
}

/// Whether Services such as this one may have addresses of the pool.
fn serves(pool: &AddressPool, request: &Request) -> bool {
    let Some(reserved) = &pool.reserved else { return true };
    let by_namespace = !reserved.namespaces.is_empty() || !reserved.namespace_selectors.is_empty();
    let of_namespace = reserved.namespaces.contains(request.key.namespace.as_str())
        || reserved.namespace_selectors.iter().any(|selector| selector.matches(&request.namespace_labels));
    let of_service = reserved.service_selectors.is_empty()
        || reserved.service_selectors.iter().any(|selector| selector.matches(&request.labels));
    (!by_namespace || of_namespace) && of_service
}

#[cfg(test)]
mod tests;
