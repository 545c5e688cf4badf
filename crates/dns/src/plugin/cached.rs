//! `cache`: answers from elsewhere, kept for as long as they say.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::{Either, select};

use crate::{
    answer::extended,
    cache::{Age, Divided, Hit, Key},
    chain::{CacheOptions, Refresh, ServeStale},
    message::Rcode,
    name::{Name, QueryName},
    server::{Answering, Failure, Link, Look, Next, Parts, Pen, Query, Quick, Reply},
    zone::Zone,
};

/// How often what is popular is fetched before its end, at most, while that fails.
const PREFETCH_PAUSE: Duration = Duration::from_secs(5);

/// The plugin.
pub struct Cached {
    cache: Arc<Divided>,
    options: CacheOptions,
    /// Zones that this server is the authority of: nothing of them is in the cache.
    own: Vec<Name>,
    parts: Parts,
}

impl Cached {
    /// The plugin of a chain in which `zone` stands behind it.
    #[must_use]
    pub fn new(cache: Arc<Divided>, zone: Option<&Zone>, parts: Parts) -> Self {
        let own = zone.map(|zone| zone.options().zones.clone());
        let options = cache.options().clone();
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
        self.cache.find(&key, look.now, |hit| match hit {
            Some(Hit { half, kept, age: Age::Fresh }) => {
                self.parts.metrics.cache_asked();
                self.parts.metrics.cache(Some(half));
                pen.kept(kept, look.now)
            }
            // Something is to be fetched besides.
            Some(_) => Quick::Slow,
            None => Quick::Around,
        })
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
        self.parts.metrics.cache_asked();
        match self.known(&key, query.now) {
            Some((reply, Age::Fresh)) => Ok(reply),
            Some((reply, Age::Popular)) => {
                self.parts.metrics.prefetched();
                self.refresh(key, query, next);
                Ok(reply)
            }
            Some((reply, Age::Stale)) => self.stale(reply, key, query, next).await,
            None => {
                let mut reply = next.run(query).await?;
                if !reply.fresh {
                    self.parts.metrics.cache(None);
                    keep(&self.cache, &self.parts, &key, &reply);
                    if !self.options.keep_ttl {
                        self.cache.bound(&key, &mut reply);
                    }
                }
                Ok(reply)
            }
        }
    }

    /// What is kept for a question. What has to be fetched anew is told once; until that has come it counts as fresh.
    fn known(&self, key: &Key, now: Instant) -> Option<(Reply, Age)> {
        self.cache.find(key, now, |hit| hit.map(|hit| self.told(hit, now)))
    }

    fn told(&self, hit: Hit<'_>, now: Instant) -> (Reply, Age) {
        let Hit { half, kept, age } = hit;
        let stale = self.options.serve_stale.filter(|_| age == Age::Stale);
        let answer = stale.map_or_else(|| kept.aged(now), |stale| kept.stale(stale.ttl));
        let mut reply = Reply { fresh: false, ..Reply::own(answer) };
        if age == Age::Stale {
            self.parts.metrics.stale();
            let missing = reply.answer.rcode == Rcode::NXDOMAIN;
            let code = if missing { extended::STALE_NXDOMAIN } else { extended::STALE };
            reply.answer = reply.answer.because(code, "");
        }
        self.parts.metrics.cache(Some(half));
        let pause = stale.map_or(PREFETCH_PAUSE, |stale| stale.pause());
        if age == Age::Fresh || !kept.is_due(pause, now) {
            return (reply, Age::Fresh);
        }
        // All who come before a newer one has come verify it.
        if stale.is_none_or(|stale| stale.refresh == Refresh::Immediate) {
            kept.refreshed(now);
        }
        (reply, age)
    }

    /// Gives out what has ended: at once, or only when there is nothing newer.
    async fn stale(&self, old: Reply, key: Key, query: &Query, next: Next<'_>) -> Result<Reply, Failure> {
        let Some(ServeStale { refresh: Refresh::Verify, verify_timeout, .. }) = self.options.serve_stale else {
            self.refresh(key, query, next);
            return Ok(old);
        };
        let newer = match verify_timeout {
            None => next.run(query).await.ok(),
            Some(time) => match select(next.run(query), self.parts.outside.sleep(time)).await {
                Either::Left((reply, _)) => reply.ok(),
                Either::Right(_) => {
                    // What comes later is kept for the next one who asks.
                    self.refresh(key, query, next);
                    return Ok(old);
                }
            },
        };
        match newer.filter(is_news) {
            Some(reply) => {
                keep(&self.cache, &self.parts, &key, &reply);
                Ok(reply)
            }
            None => {
                failed(&self.cache, &self.parts, &key);
                Ok(old)
            }
        }
    }

    /// Has a newer answer fetched, for which nobody waits.
    fn refresh(&self, key: Key, query: &Query, next: Next<'_>) {
        let (cache, parts) = (Arc::clone(&self.cache), self.parts.clone());
        next.apart(query.clone(), move |reply| {
            if !reply.as_ref().is_ok_and(is_news) {
                failed(&cache, &parts, &key);
            }
            if let Ok(reply) = reply {
                keep(&cache, &parts, &key, &reply);
            }
        });
    }
}

/// Keeps an answer from now on, where it may be kept.
fn keep(cache: &Divided, parts: &Parts, key: &Key, reply: &Reply) {
    if let Some((half, gone)) = cache.insert(key, reply, parts.outside.now()) {
        parts.metrics.cache_evicted(half, gone);
    }
}

/// Whether an answer takes the place of what has ended: a failure does not (RFC 8767 §4), nor what is cut.
fn is_news(reply: &Reply) -> bool {
    !reply.truncated && matches!(reply.answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
}

/// Nothing newer came for what is kept: it is not asked for again for some time.
fn failed(cache: &Divided, parts: &Parts, key: &Key) {
    let now = parts.outside.now();
    cache.find(key, now, |hit| {
        if let Some(hit) = hit.filter(|hit| hit.age == Age::Stale) {
            hit.kept.refreshed(now);
        }
    });
}

fn key(name: &QueryName, qtype: u16, head: &crate::message::Head) -> Key {
    Key::of(name, qtype, head.dnssec_ok(), head.checking_disabled())
}
