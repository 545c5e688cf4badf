//! `etcd`: the names of services that etcd keeps, as SkyDNS lays them out.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::{
    answer::{Answer, Section, composed},
    authority::kind,
    chain::EtcdOptions,
    etcd::{self, Host, Place, Service, Store, grouped, records},
    forward::flights::{Flights, Full},
    message::{Expanded, Rcode, expand, rtype},
    name::{Name, QueryName},
    server::{Answering, Failure, Link, Look, Next, Parts, Pen, Query, Quick, Reply},
    zone::{Authority, soa},
};

/// The time to live of the zone's own records, in seconds: CoreDNS's.
const TTL: u32 = 30;
/// How many aliases are followed one after the other: CoreDNS's number.
const MAX_ALIASES: usize = 8;
/// How often the store is asked for one question: aliases and targets branch.
const MAX_SEARCHES: usize = 64;
/// How much the store is asked at once; what is asked beyond it fails, so that nothing waits behind a store that is slow.
pub(super) const AT_ONCE: usize = 256;

/// What the store has for those who wait for it.
type Told = Result<Arc<Vec<etcd::Entry>>, Failure>;

/// The plugin.
pub struct Etcd {
    options: EtcdOptions,
    store: Arc<dyn Store>,
    /// What it is being asked, each once for all who want to know.
    flights: Arc<Flights<etcd::Keys, Told>>,
    parts: Parts,
}

impl Etcd {
    /// The plugin, with the store that its options name.
    #[must_use]
    pub fn new(options: EtcdOptions, parts: Parts) -> Self {
        Self { store: parts.outside.store(&options), options, flights: Arc::default(), parts }
    }

    fn zone(&self, name: &QueryName) -> Option<&Name> {
        let zones = self.options.zones.iter().filter(|zone| name.within(zone).is_some());
        zones.max_by_key(|zone| zone.labels())
    }

    async fn answer(&self, zone: &Name, query: &Query, next: Next<'_>) -> Result<Reply, Failure> {
        let name = Name::from_query(&query.name);
        let mut search = Search { etcd: self, zone, query, next, left: MAX_SEARCHES, truncated: false };
        let found = match query.qtype {
            rtype::SOA if name == *zone => {
                return Ok(self.reply(self.authority(zone, |authority| authority.itself(&query.name)), false));
            }
            qtype @ (rtype::A | rtype::AAAA | rtype::TXT) => search.leaves(name.clone(), qtype, Vec::new()).await?,
            rtype::CNAME => search.alias(&name).await?,
            rtype::PTR => search.pointers(&name).await?,
            rtype::SRV => search.pointing(&name, &name, records::locations).await?,
            kind::MX => search.pointing(&name, &name, records::exchangers).await?,
            rtype::NS if name == *zone => match zone.prefixed_text("ns.dns") {
                Ok(place) => search.pointing(&place, &name, records::name_servers).await?,
                Err(_) => Some(Vec::new()),
            },
            _ => search.at(&name, false).await?.map(|_| Vec::new()),
        };
        let truncated = search.truncated;
        // The zone itself is there whatever the store has.
        let found = found.or_else(|| (name == *zone).then(Vec::new));
        match found {
            None if self.options.fallthrough.holds(&query.name) => next.run(query).await,
            None => Ok(self.nothing(zone, query, Rcode::NXDOMAIN)),
            Some(records) if records.is_empty() => Ok(self.nothing(zone, query, Rcode::NOERROR)),
            Some(records) => {
                let answer = Answer { authoritative: true, ..composed(&name, Rcode::NOERROR, &records) };
                Ok(self.reply(answer, truncated))
            }
        }
    }

    fn nothing(&self, zone: &Name, query: &Query, rcode: Rcode) -> Reply {
        self.reply(self.authority(zone, |authority| authority.answer(&query.name, rcode)), false)
    }

    /// What etcd told may be kept, as CoreDNS's `cache` does.
    fn reply(&self, answer: Answer, truncated: bool) -> Reply {
        Reply { truncated, fresh: false, ..Reply::own(answer) }
    }

    fn authority(&self, zone: &Name, then: impl FnOnce(Authority<'_>) -> Answer) -> Answer {
        let within = |text: &str| zone.prefixed_text(text).unwrap_or_else(|_| zone.clone());
        // Nobody counts changes: the time rises as well.
        let serial = self.parts.outside.unix() as u32;
        let soa = soa(&within("ns.dns"), &within("hostmaster"), [7200, 1800, 86_400, TTL]);
        then(Authority { zone, soa: &soa, serial, ttl: TTL })
    }
}

impl Link for Etcd {
    fn quick(&self, look: &Look<'_>, _: &mut Pen<'_>) -> Quick {
        if self.zone(look.name).is_some() { Quick::Slow } else { Quick::Pass }
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        match self.zone(&query.name) {
            Some(zone) => Box::pin(self.answer(zone, query, next)),
            None => next.run(query),
        }
    }
}

/// What is found out for one question. Nothing found means that there is no such name; empty lists, that it has nothing of the kind.
struct Search<'a> {
    etcd: &'a Etcd,
    zone: &'a Name,
    query: &'a Query,
    next: Next<'a>,
    /// How often the store may still be asked.
    left: usize,
    truncated: bool,
}

type Found<T> = Result<Option<Vec<T>>, Failure>;

impl Search<'_> {
    /// The services of a name, and below it unless only its own key counts.
    async fn services(&mut self, name: &Name, exact: bool) -> Found<Service> {
        let options = &self.etcd.options;
        let Some(place) = Place::of(options.path.trim_end_matches('/'), name) else { return Ok(None) };
        let mut entries = Vec::new();
        if !exact || place.own().is_none() {
            entries = self.find(place.below()).await?;
            entries.retain(|entry| place.takes(&entry.key, exact));
        }
        if let Some(own) = place.own().filter(|_| entries.is_empty()) {
            entries = self.find(own).await?;
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let read = entries.iter().map(|entry| Service::read(entry, options)).collect::<Result<Vec<_>, _>>();
        let mut services = read.map_err(|_| Failure::BadRecord)?;
        services.retain(|service| service.counts(self.query.qtype == rtype::TXT));
        Ok(Some(grouped(services)))
    }

    async fn find(&mut self, keys: etcd::Keys) -> Result<Vec<etcd::Entry>, Failure> {
        self.left = self.left.checked_sub(1).ok_or(Failure::TooMany)?;
        let Etcd { store, flights, .. } = self.etcd;
        let begin = || -> BoxFuture<'static, Told> {
            let found = store.find(keys.clone());
            Box::pin(async move { found.await.map(Arc::new).map_err(|_| Failure::NoStore) })
        };
        let flight = flights.join(&keys, AT_ONCE, begin).map_err(|Full| Failure::TooMany)?;
        flight.await.map(Arc::unwrap_or_clone)
    }

    /// The services of a name; those of the zone itself have a place of their own.
    async fn at(&mut self, name: &Name, exact: bool) -> Found<Service> {
        if name == self.zone
            && let Ok(apex) = name.prefixed_text("apex.dns")
        {
            let found = self.services(&apex, exact).await?;
            if found.is_some() || self.etcd.options.no_apex_fallback {
                return Ok(found);
            }
        }
        self.services(name, exact).await
    }

    /// Records of A, AAAA or TXT, with the aliases that lead to them. `before` are those that led here.
    fn leaves(&mut self, name: Name, qtype: u16, before: Vec<(Name, Name)>) -> BoxFuture<'_, Found<Expanded>> {
        Box::pin(async move {
            let found =
                if qtype == rtype::TXT { self.services(&name, false).await } else { self.at(&name, false).await };
            let Some(services) = found? else { return Ok(None) };
            let mut told: Vec<Expanded> = Vec::new();
            for service in &services {
                if let Some(record) = records::own(service, &name, qtype)
                    && !told.iter().any(|other| other.rdata == record.rdata && other.owner == record.owner)
                {
                    told.push(record);
                }
                let Host::Alias(host) = &service.host else { continue };
                let step = (name.clone(), host.clone());
                // What lies below a name answers for it: an alias to there leads in a circle.
                if host.within(&name) || before.len() >= MAX_ALIASES || before.contains(&step) {
                    continue;
                }
                let alias = records::record(&name, rtype::CNAME, service.ttl, host.wire().to_vec());
                let further = if host.within(self.zone) {
                    let path = before.iter().cloned().chain([step]).collect();
                    let further = self.leaves(host.clone(), qtype, path).await?.unwrap_or_default();
                    if further.is_empty() {
                        continue;
                    }
                    further
                } else {
                    match self.elsewhere(host, qtype).await {
                        Some(further) => further,
                        None => continue,
                    }
                };
                told.push(alias);
                told.extend(further);
            }
            Ok(Some(told))
        })
    }

    /// What the whole server says of a name that is not in the zone.
    async fn elsewhere(&mut self, name: &Name, qtype: u16) -> Option<Vec<Expanded>> {
        let reply = self.next.look_up(self.query, name, qtype).await.ok()?;
        self.truncated |= reply.truncated;
        let mut records = expand(name, &reply.answer);
        records.retain(|record| record.section == Section::Answer);
        Some(records)
    }

    /// Records that point to names, with these names' addresses.
    async fn pointing(
        &mut self,
        place: &Name,
        owner: &Name,
        made: impl Fn(&[Service], &Name) -> records::Pointing,
    ) -> Found<Expanded> {
        let Some(services) = self.services(place, false).await? else { return Ok(None) };
        let records::Pointing { mut records, targets } = made(&services, owner);
        for target in targets {
            for qtype in [rtype::A, rtype::AAAA] {
                let told = if target.within(self.zone) {
                    self.leaves(target.clone(), qtype, Vec::new()).await.ok().flatten()
                } else {
                    self.elsewhere(&target, qtype).await
                };
                // Aliases stand before the addresses of each family, and are told once.
                let new = told.into_iter().flatten().map(|record| Expanded { section: Section::Additional, ..record });
                let new: Vec<Expanded> = new.filter(|record| !records.contains(record)).collect();
                records.extend(new);
            }
        }
        Ok(Some(records))
    }

    async fn alias(&mut self, name: &Name) -> Found<Expanded> {
        let Some(services) = self.exactly(name).await? else { return Ok(None) };
        let aliases = services.iter().take(1).filter_map(|service| match &service.host {
            Host::Alias(host) => Some(records::record(name, rtype::CNAME, service.ttl, host.wire().to_vec())),
            _ => None,
        });
        Ok(Some(aliases.collect()))
    }

    async fn pointers(&mut self, name: &Name) -> Found<Expanded> {
        let Some(services) = self.exactly(name).await? else { return Ok(None) };
        let mut told: Vec<Expanded> = Vec::new();
        for service in &services {
            let Host::Alias(host) = &service.host else { continue };
            if !told.iter().any(|record| record.rdata == host.wire()) {
                told.push(records::record(name, rtype::PTR, service.ttl, host.wire().to_vec()));
            }
        }
        Ok(Some(told))
    }

    /// The services of a name's own key; where only names below it are there, it has none.
    async fn exactly(&mut self, name: &Name) -> Found<Service> {
        match self.services(name, true).await? {
            None => Ok(self.services(name, false).await?.map(|_| Vec::new())),
            found => Ok(found),
        }
    }
}
