//! `cache`.

use std::time::Duration;

use super::read;
use crate::{
    corefile::{CorefileError, Directive, Word},
    name::{Name, QueryName},
};

/// What the `cache` plugin keeps, and how long. Capacities and defaults are CoreDNS's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// The zones whose names are kept.
    pub zones: Vec<Name>,
    /// Answers with records; none when switched off.
    pub success: Option<Share>,
    /// Answers that say there is nothing; none when switched off.
    pub denial: Option<Share>,
    /// How long a SERVFAIL is kept, at most 5 minutes (RFC 2308 §7.1); zero when it is not.
    pub servfail: Duration,
    /// Zones whose answers with records are not kept.
    pub success_disabled: Vec<Name>,
    /// Zones whose answers without records are not kept.
    pub denial_disabled: Vec<Name>,
    /// Answers keep the time to live that they came with.
    pub keep_ttl: bool,
}

/// One half of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// How many answers.
    pub capacity: usize,
    /// The longest time that one is kept, in seconds.
    pub max_ttl: u32,
    /// The shortest, in seconds.
    pub min_ttl: u32,
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

pub(super) fn parse(
    directive: &Directive,
    zones: Vec<Name>,
    warnings: &mut Vec<String>,
) -> Result<CacheOptions, CorefileError> {
    let mut success = Share { capacity: 9984, max_ttl: 3600, min_ttl: 5 };
    let mut denial = Share { max_ttl: 1800, ..success };
    let mut words = directive.arguments.as_slice();
    if let Some((first, rest)) = words.split_first()
        && first.text.parse::<u32>().is_ok()
    {
        let ttl = read::number(first, "the time to live of cache", 1, MAX_TTL)? as u32;
        (success.max_ttl, denial.max_ttl) = (ttl, ttl);
        words = rest;
    }
    let own = read::zones(words, "a zone of cache")?;
    let mut options = CacheOptions {
        zones: if own.is_empty() { zones } else { own },
        success: None,
        denial: None,
        servfail: Duration::from_secs(5),
        success_disabled: Vec::new(),
        denial_disabled: Vec::new(),
        keep_ttl: false,
    };
    for option in &directive.options {
        match option.name.text.as_str() {
            "success" => share(option, &mut success)?,
            "denial" => share(option, &mut denial)?,
            "servfail" => options.servfail = servfail(read::one(option, "a duration")?)?,
            "keepttl" => {
                read::nothing(option)?;
                options.keep_ttl = true;
            }
            "disable" => disable(option, &mut options)?,
            "prefetch" | "serve_stale" => {
                warnings.push(format!("{}: {:?} has no effect yet", option.name.place, option.name.text));
            }
            _ => return Err(read::unknown("cache", option, &KNOWN)),
        }
    }
    options.success = Some(success).filter(|_| !options.success_disabled.contains(&Name::root()));
    options.denial = Some(denial).filter(|_| !options.denial_disabled.contains(&Name::root()));
    Ok(options)
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
