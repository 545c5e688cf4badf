//! `cache`: answers from elsewhere, kept for as long as they say. It says how long all answers behind it live, too (`cache::bounds`);
//! what those tell at once is bounded where it is written (`server::block::bounded`).

use std::{sync::Arc, time::Duration};

use futures::future::{Either, select};

use crate::{
    answer::extended,
    cache::{Age, Divided, Hit, Key},
    chain::{CacheOptions, Refresh, ServeStale},
    message::Rcode,
    metrics::{ByListener, Counter, Counting, Family, labels},
    name::{Name, QueryName},
    server::{Answering, Arrival, Failure, Link, Look, Next, Outside, Parts, Pen, Query, Quick, Reply},
    zone::Zone,
};

/// How often what is popular is fetched before its end, at most, while that fails.
const PREFETCH_PAUSE: Duration = Duration::from_secs(5);

/// What metrics call the halves of a cache, in the order of [`crate::cache::Half`].
const KINDS: [&str; 2] = ["success", "denial"];

/// The plugin.
pub struct Cached {
    cache: Arc<Divided>,
    options: CacheOptions,
    /// Zones that this server is the authority of: nothing of them is in the cache.
    own: Vec<Name>,
    counts: ByListener<Counts>,
    parts: Parts,
}

/// What is counted at a listener.
#[derive(Debug)]
struct Counts {
    requests: Counter,
    /// Of answers with records, and of those without.
    hits: [Counter; 2],
    misses: Counter,
    prefetches: Counter,
    stale: Counter,
    /// As `hits`.
    evictions: [Counter; 2],
}

impl Cached {
    /// The plugin of a chain in which `zone` stands behind it.
    pub(crate) fn new(cache: Arc<Divided>, zone: Option<&Zone>, counting: &Counting, parts: Parts) -> Self {
        let own = zone.map(|zone| zone.options().zones.clone());
        let options = cache.options().clone();
        let counts = counting.each(|spot| {
            let labels = labels_of(&options, &spot.server, spot.view);
            let one = |family| spot.labelled(family, labels.clone());
            let both = |family| KINDS.map(|kind| spot.labelled(family, format!("type=\"{kind}\",{labels}")));
            Counts {
                requests: one(Family::CacheRequests),
                hits: both(Family::CacheHits),
                misses: one(Family::CacheMisses),
                prefetches: one(Family::CachePrefetches),
                stale: one(Family::CacheStale),
                evictions: both(Family::CacheEvictions),
            }
        });
        Self { cache, options, own: own.unwrap_or_default(), counts, parts }
    }
}

/// What metrics call a cache at a listener.
pub(crate) fn labels_of(options: &CacheOptions, server: &str, view: &str) -> String {
    let zones: Vec<String> = options.zones.iter().map(ToString::to_string).collect();
    labels(&[("server", server), ("zones", zones.join(",").as_str()), ("view", view)])
}

impl Link for Cached {
    fn quick(&self, look: &Look<'_>, pen: &mut Pen<'_>) -> Quick {
        if self.own.iter().any(|zone| look.name.within(zone).is_some()) || self.is_proved(look.name, look.qtype) {
            return Quick::Around;
        }
        if !self.options.covers(look.name) {
            return Quick::Pass;
        }
        let key = key(look.name, look.qtype, look.head);
        self.cache.find(&key, look.now, |hit| match hit {
            Some(Hit { half, kept, age: Age::Fresh }) => {
                if let Some(counts) = self.counts.at(look.arrival) {
                    counts.requests.count();
                    counts.hits[half as usize].count();
                }
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
        self.count(query, |counts| &counts.requests);
        let known = if self.is_proved(&query.name, query.qtype) { None } else { self.known(&key, query) };
        match known {
            Some((reply, Age::Fresh)) => Ok(reply),
            Some((reply, Age::Popular)) => {
                self.count(query, |counts| &counts.prefetches);
                self.refresh(key, query, next);
                Ok(reply)
            }
            Some((reply, Age::Stale)) => self.stale(reply, key, query, next).await,
            None => {
                let mut reply = next.run(query).await?;
                if !reply.fresh {
                    self.count(query, |counts| &counts.misses);
                    self.keeper(query).keep(&key, &reply);
                }
                self.cache.bound(&key, &mut reply);
                Ok(reply)
            }
        }
    }

    /// Whether a question is for what proves a domain now, and is known behind this link: before, others may have denied it.
    fn is_proved(&self, name: &QueryName, qtype: u16) -> bool {
        self.parts.challenges.as_ref().is_some_and(|challenges| challenges.has(name, qtype))
    }

    fn count(&self, query: &Query, which: impl FnOnce(&Counts) -> &Counter) {
        if let Some(counts) = self.counts.at(&query.arrival) {
            which(counts).count();
        }
    }

    /// What is kept for a question. What has to be fetched anew is told once; until that has come it counts as fresh.
    fn known(&self, key: &Key, query: &Query) -> Option<(Reply, Age)> {
        self.cache.find(key, query.now, |hit| hit.map(|hit| self.told(hit, query)))
    }

    fn told(&self, hit: Hit<'_>, query: &Query) -> (Reply, Age) {
        let (Hit { half, kept, age }, now) = (hit, query.now);
        let stale = self.options.serve_stale.filter(|_| age == Age::Stale);
        let answer = stale.map_or_else(|| kept.aged(now), |stale| kept.stale(stale.ttl));
        let mut reply = Reply { fresh: false, ..Reply::own(answer) };
        if age == Age::Stale {
            self.count(query, |counts| &counts.stale);
            let missing = reply.answer.rcode == Rcode::NXDOMAIN;
            let code = if missing { extended::STALE_NXDOMAIN } else { extended::STALE };
            reply.answer = reply.answer.because(code, "");
        }
        self.count(query, |counts| &counts.hits[half as usize]);
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
            Some(mut reply) => {
                self.keeper(query).keep(&key, &reply);
                self.cache.bound(&key, &mut reply);
                Ok(reply)
            }
            None => {
                self.keeper(query).failed(&key);
                Ok(old)
            }
        }
    }

    /// Has a newer answer fetched, for which nobody waits.
    fn refresh(&self, key: Key, query: &Query, next: Next<'_>) {
        let keeper = self.keeper(query);
        next.apart(query.clone(), move |reply| {
            if !reply.as_ref().is_ok_and(is_news) {
                keeper.failed(&key);
            }
            if let Ok(reply) = reply {
                keeper.keep(&key, &reply);
            }
        });
    }

    fn keeper(&self, query: &Query) -> Keeper {
        let (cache, outside) = (Arc::clone(&self.cache), Arc::clone(&self.parts.outside));
        Keeper { cache, outside, counts: self.counts.clone(), arrival: query.arrival }
    }
}

/// Takes care of what comes for a question, be it after its client has had an answer.
struct Keeper {
    cache: Arc<Divided>,
    outside: Arc<dyn Outside>,
    counts: ByListener<Counts>,
    arrival: Arrival,
}

impl Keeper {
    /// Keeps an answer from now on, where it may be kept. What this server itself says is not: it ends what others said before.
    fn keep(&self, key: &Key, reply: &Reply) {
        if reply.fresh {
            if is_news(reply) {
                self.cache.forget(key);
            }
            return;
        }
        let Some((half, gone)) = self.cache.insert(key, reply, self.outside.now()) else { return };
        if let Some(counts) = self.counts.at(&self.arrival) {
            counts.evictions[half as usize].add(gone as u64);
        }
    }

    /// Nothing newer came for what is kept: it is not asked for again for some time.
    fn failed(&self, key: &Key) {
        let now = self.outside.now();
        self.cache.find(key, now, |hit| {
            if let Some(hit) = hit.filter(|hit| hit.age == Age::Stale) {
                hit.kept.refreshed(now);
            }
        });
    }
}

/// Whether an answer takes the place of what has ended: a failure does not (RFC 8767 §4), nor what is cut.
fn is_news(reply: &Reply) -> bool {
    !reply.truncated && matches!(reply.answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
}

fn key(name: &QueryName, qtype: u16, head: &crate::message::Head) -> Key {
    Key::of(name, qtype, head.dnssec_ok(), head.checking_disabled())
}
