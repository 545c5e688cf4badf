//! `cache`: answers from elsewhere, kept for as long as they say.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::{
    cache::{Cache, Key},
    chain::CacheOptions,
    message::question,
    name::{Name, QueryName},
    server::{Answering, Failure, Link, Look, Next, Parts, Pen, Query, Quick, Reply, lock},
    zone::Zone,
};

/// The plugin.
pub struct Cached {
    cache: Arc<Mutex<Cache>>,
    options: CacheOptions,
    /// Zones that this server is the authority of: nothing of them is in the cache.
    own: Vec<Name>,
    parts: Parts,
}

impl Cached {
    /// The plugin of a chain in which `zone` stands behind it.
    #[must_use]
    pub fn new(cache: Arc<Mutex<Cache>>, zone: Option<&Arc<RwLock<Zone>>>, parts: Parts) -> Self {
        let own = zone.map(|zone| zone.read().unwrap_or_else(PoisonError::into_inner).options().zones.clone());
        let options = lock(&cache).options().clone();
        Self { cache, options, own: own.unwrap_or_default(), parts }
    }
}

impl Link for Cached {
    fn quick(&self, look: &Look<'_>, pen: &mut Pen<'_>) -> Quick {
        if self.own.iter().any(|zone| look.name.within(zone).is_some()) {
            return Quick::Around;
        }
        if !self.options.covers(look.name) {
            return Quick::Pass;
        }
        let key = key(look.name, look.qtype, look.head);
        match lock(&self.cache).find(&key, look.now) {
            Some((half, kept)) => {
                self.parts.metrics.cache(Some(half));
                pen.kept(kept, look.now)
            }
            None => Quick::Around,
        }
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        Box::pin(self.answer(query, next))
    }
}

impl Cached {
    async fn answer(&self, query: &Query, next: Next<'_>) -> Result<Reply, Failure> {
        let key = key(&query.name, query.qtype, &query.head);
        if !self.options.covers(&query.name) {
            return next.run(query).await;
        }
        if let Some((half, kept)) = lock(&self.cache).find(&key, query.now) {
            self.parts.metrics.cache(Some(half));
            return Ok(Reply { fresh: false, ..Reply::own(kept.aged(query.now)) });
        }
        let reply = next.run(query).await?;
        if !reply.fresh {
            self.parts.metrics.cache(None);
            lock(&self.cache).insert(key, &reply, self.parts.outside.now());
        }
        Ok(reply)
    }
}

fn key(name: &QueryName, qtype: u16, head: &crate::message::Head) -> Key {
    Key::new(question(name.wire(), qtype), head.dnssec_ok(), head.checking_disabled())
}
