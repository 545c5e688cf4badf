//! Which addresses of load balancers are served.
//!
//! Whoever may write a Service's status can name any address there, and every node would lead to the Service what is sent to that address; each
//! agent may, as any of them may be the one that gives addresses. So an address counts where it lies in one of the pools that addresses
//! are given from, or where the Service names another controller, which has its addresses from elsewhere. Where there is no pool at all
//! something else gives addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use podnet_model::{Service, ServiceKey, balancer::AddressPool};

use super::{Services, settle::Draft};

/// The pools, and who has an address of none.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// By namespace and name.
    pools: BTreeMap<ServiceKey, Arc<AddressPool>>,
    strangers: BTreeMap<ServiceKey, BTreeSet<IpAddr>>,
    /// How often these may have changed.
    moved: u64,
}

impl Given {
    /// The addresses of a Service that count; the others are noted.
    pub(super) fn look(&mut self, service: &Service) -> Vec<IpAddr> {
        let all = service.ingress.iter().filter(|ingress| !ingress.is_proxy).map(|ingress| ingress.addr);
        let (given, strange): (Vec<IpAddr>, Vec<IpAddr>) = all.partition(|addr| self.counts(service, *addr));
        if strange.is_empty() {
            self.forget(&service.key);
        } else {
            self.strangers.insert(service.key.clone(), strange.into_iter().collect());
            self.moved += 1;
        }
        given
    }

    /// A Service is gone, or another one: it is looked at anew.
    pub(super) fn forget(&mut self, service: &ServiceKey) {
        self.moved += u64::from(self.strangers.remove(service).is_some());
    }

    pub(super) const fn moved(&self) -> u64 {
        self.moved
    }

    fn counts(&self, service: &Service, addr: IpAddr) -> bool {
        let mut spans = self.pools.values().flat_map(|pool| &pool.spans);
        service.is_anothers || self.pools.is_empty() || spans.any(|span| span.contains(addr))
    }
}

impl Services {
    /// The Services with addresses of load balancers that do not count, and those.
    pub fn strangers(&self) -> impl Iterator<Item = (&ServiceKey, IpAddr)> {
        let of_family = |addr: &&IpAddr| podnet_model::Family::of(addr) == self.config.family;
        self.given
            .strangers
            .iter()
            .flat_map(move |(service, addrs)| addrs.iter().filter(of_family).map(move |addr| (service, *addr)))
    }

    pub(super) fn apply_address_pool(&mut self, key: &ServiceKey, pool: Option<Arc<AddressPool>>, draft: &mut Draft) {
        let spans = |pool: &Option<Arc<AddressPool>>| pool.as_ref().map(|pool| pool.spans.clone());
        let after = spans(&pool);
        let before = match pool {
            Some(pool) => self.given.pools.insert(key.clone(), pool),
            None => self.given.pools.remove(key),
        };
        if spans(&before) == after {
            return;
        }
        let has_address = |service: &Service| !service.ingress.is_empty();
        let known = self.services.iter().filter(|(_, known)| known.service.as_ref().is_some_and(has_address));
        let keys: Vec<ServiceKey> = known.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.replan(&key, draft);
        }
    }
}
