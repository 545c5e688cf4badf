//! `cache`.

use std::time::Duration;

use super::{read, scope::Scope};
use crate::{
    corefile::{CorefileError, Directive, Word},
    name::{Name, QueryName},
};

/// What the `cache` plugin keeps, and how long. Capacities and defaults are CoreDNS's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// The zones whose names are kept.
    pub zones: Vec<Name>,
    /// Answers with records.
    pub success: Share,
    /// Answers that say there is nothing.
    pub denial: Share,
    /// How long a SERVFAIL is kept, at most 5 minutes (RFC 2308 §7.1); zero when it is not.
    pub servfail: Duration,
    /// Zones whose answers with records are not kept; the root means all.
    pub success_disabled: Vec<Name>,
    /// Zones whose answers without records are not kept; the root means all.
    pub denial_disabled: Vec<Name>,
    /// What is kept is told with the time to live with which it was told first.
    pub keep_ttl: bool,
    /// Answers that are asked for often are fetched again before they end.
    pub prefetch: Option<Prefetch>,
    /// Answers that have ended are given out while there is nothing newer (RFC 8767).
    pub serve_stale: Option<ServeStale>,
}

/// What is fetched before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// So many questions make an answer popular; 0: nothing is fetched early.
    pub amount: u32,
    /// The longest pause between them; a minute by default.
    pub within: Duration,
    /// It is fetched when this share of its time to live is left, in percent (10–90); 10 by default.
    pub percentage: u8,
}

/// What is given out after its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeStale {
    /// How long after its end; an hour by default.
    pub up_to: Duration,
    /// When a newer answer is asked for.
    pub refresh: Refresh,
    /// How long [`Refresh::Verify`] waits for the newer answer; none: as long as the source takes.
    pub verify_timeout: Option<Duration>,
    /// The time to live that is told of its records, in seconds. 0 by default, as with CoreDNS: clients ask again at once when there
    /// is news. RFC 8767 §4 has 30.
    pub ttl: u32,
    /// How long nothing newer is asked for after that failed, at most 5 minutes; none: as the mode has it.
    pub recheck: Option<Duration>,
}

impl ServeStale {
    /// How long nothing newer is asked for after that failed. Where the Corefile says nothing, who verifies asks each time, as with
    /// CoreDNS; who tells at once asks every 5 seconds at most: who serves the name has trouble enough.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.recheck.unwrap_or(match self.refresh {
            Refresh::Immediate => Duration::from_secs(5),
            Refresh::Verify => Duration::ZERO,
        })
    }
}

/// When a newer answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// After the old one was given out.
    Immediate,
    /// Before; the old one is given out when there is no newer one.
    Verify,
}

/// One half of the cache. Its times hold for what is told of names of the cache's zones, whether it is kept or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// How many answers.
    pub capacity: usize,
    /// The longest time that one is kept, in seconds.
    pub max_ttl: u32,
    /// The shortest, in seconds.
    pub min_ttl: u32,
}

impl Share {
    /// For how many seconds an answer counts whose records live for `ttl` seconds. The longest time goes before the shortest.
    #[must_use]
    pub fn bounded(&self, ttl: u32) -> u32 {
        ttl.clamp(self.min_ttl.min(self.max_ttl), self.max_ttl)
    }
}

impl CacheOptions {
    /// Whether answers for a name are kept.
    #[must_use]
    pub fn covers(&self, name: &QueryName) -> bool {
        self.zones.iter().any(|zone| name.within(zone).is_some())
    }
}

/// RFC 2181 §8: a time to live has 31 bits.
const MAX_TTL: u64 = i32::MAX as u64;
const KNOWN: [&str; 7] = ["success", "denial", "servfail", "disable", "keepttl", "prefetch", "serve_stale"];

/// `cache [TTL] [ZONES…]`.
pub(super) fn parse(directive: &Directive, scope: &mut Scope<'_>) -> Result<CacheOptions, CorefileError> {
    let mut success = Share { capacity: 9984, max_ttl: 3600, min_ttl: 5 };
    let mut denial = Share { max_ttl: 1800, ..success };
    let mut words = directive.arguments.as_slice();
    if let Some((first, rest)) = words.split_first()
        && first.text.parse::<i64>().is_ok()
    {
        let ttl = read::number(first, "the time to live of cache", 1, MAX_TTL)? as u32;
        (success.max_ttl, denial.max_ttl) = (ttl, ttl);
        words = rest;
    }
    let mut options = CacheOptions {
        zones: scope.zones_or(read::zones(words, "a zone of cache")?),
        success,
        denial,
        servfail: Duration::from_secs(5),
        success_disabled: Vec::new(),
        denial_disabled: Vec::new(),
        keep_ttl: false,
        prefetch: None,
        serve_stale: None,
    };
    scope.options(directive, |_, option| {
        match option.name.text.as_str() {
            "success" => share(option, &mut options.success)?,
            "denial" => share(option, &mut options.denial)?,
            "servfail" => options.servfail = servfail(read::one(option, "a duration")?)?,
            "keepttl" => options.keep_ttl = read::nothing(option).map(|()| true)?,
            "disable" => disable(option, &mut options)?,
            "prefetch" => options.prefetch = Some(prefetch(option)?),
            "serve_stale" => options.serve_stale = Some(serve_stale(option)?),
            _ => return Err(read::unknown("cache", option, &KNOWN)),
        }
        Ok(())
    });
    Ok(options)
}

/// `prefetch AMOUNT [DURATION [PERCENTAGE%]]`.
fn prefetch(option: &Directive) -> Result<Prefetch, CorefileError> {
    read::at_most(option, 3)?;
    let amount = option.arguments.first().ok_or_else(|| option.missing("a number of questions"))?;
    let mut prefetch = Prefetch {
        amount: read::number(amount, "the amount of prefetch", 0, i32::MAX as u64)? as u32,
        within: Duration::from_secs(60),
        percentage: 10,
    };
    if let Some(word) = option.arguments.get(1) {
        prefetch.within = read::duration(word, "the duration of prefetch")?;
    }
    if let Some(word) = option.arguments.get(2) {
        let percentage = word.text.strip_suffix('%').and_then(|number| number.parse().ok());
        prefetch.percentage = percentage
            .filter(|percentage| (10..=90).contains(percentage))
            .ok_or_else(|| word.bad("the percentage of prefetch", "10% to 90%, with the sign"))?;
    }
    Ok(prefetch)
}

/// `serve_stale [DURATION [immediate [RESPONSE_TTL [FAILURE_RECHECK]]]]`, or with `verify [VERIFY_TIMEOUT [RESPONSE_TTL
/// [FAILURE_RECHECK]]]`.
fn serve_stale(option: &Directive) -> Result<ServeStale, CorefileError> {
    let (up_to, refresh) = (Duration::from_secs(3600), Refresh::Immediate);
    let mut stale = ServeStale { up_to, refresh, verify_timeout: None, ttl: 0, recheck: None };
    let mut words = option.arguments.iter();
    if let Some(word) = words.next() {
        stale.up_to = read::duration(word, "the duration of serve_stale")?;
    }
    if let Some(word) = words.next() {
        stale.refresh = match word.text.to_ascii_lowercase().as_str() {
            "immediate" => Refresh::Immediate,
            // The documentation says one, the program the other.
            "verify" | "verified" => Refresh::Verify,
            _ => return Err(word.bad("the refresh mode of serve_stale", "immediate or verify")),
        };
    }
    let verifies = stale.refresh == Refresh::Verify;
    read::at_most(option, if verifies { 5 } else { 4 })?;
    if let Some(word) = verifies.then(|| words.next()).flatten() {
        stale.verify_timeout = Some(read::duration(word, "the time of serve_stale")?).filter(|time| !time.is_zero());
    }
    if let Some(word) = words.next() {
        stale.ttl = read::duration(word, "the time to live of serve_stale")?.as_secs().min(MAX_TTL) as u32;
    }
    if let Some(word) = words.next() {
        let recheck = read::duration(word, "the recheck of serve_stale")?;
        if recheck > Duration::from_secs(300) {
            return Err(word.bad("the recheck of serve_stale", "at most 5m"));
        }
        stale.recheck = Some(recheck);
    }
    Ok(stale)
}

/// `disable success|denial [ZONES…]`.
fn disable(option: &Directive, options: &mut CacheOptions) -> Result<(), CorefileError> {
    let Some((half, words)) = option.arguments.split_first() else {
        return Err(option.missing("success or denial"));
    };
    let disabled = match half.text.as_str() {
        "success" => &mut options.success_disabled,
        "denial" => &mut options.denial_disabled,
        _ => return Err(half.bad("what cache disables", "success or denial")),
    };
    let zones = read::zones(words, "a zone of disable")?;
    disabled.extend(if zones.is_empty() { vec![Name::root()] } else { zones });
    Ok(())
}

fn servfail(word: &Word) -> Result<Duration, CorefileError> {
    let time = read::duration(word, "servfail")?;
    if time > Duration::from_secs(300) {
        return Err(word.bad("servfail", "at most 5m (RFC 2308)"));
    }
    Ok(time)
}

/// `success CAPACITY [TTL] [MINTTL]`.
fn share(option: &Directive, share: &mut Share) -> Result<(), CorefileError> {
    read::at_most(option, 3)?;
    let capacity = option.arguments.first().ok_or_else(|| option.missing("a capacity"))?;
    share.capacity = read::number(capacity, "the capacity", 1, 100_000_000)? as usize;
    if let Some(word) = option.arguments.get(1) {
        share.max_ttl = read::number(word, "the longest time to live", 1, MAX_TTL)? as u32;
    }
    if let Some(word) = option.arguments.get(2) {
        share.min_ttl = read::number(word, "the shortest time to live", 0, MAX_TTL)? as u32;
    }
    Ok(())
}
