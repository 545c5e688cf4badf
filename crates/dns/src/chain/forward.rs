//! `forward`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Environment, read};
use crate::{
    corefile::{CorefileError, Directive, Fault, Word},
    name::{Name, QueryName},
};

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardOptions {
    /// The names that are asked for: this one and those below.
    pub from: Name,
    /// The upstreams, at least one.
    pub upstreams: Vec<SocketAddr>,
    /// Names, with those below, that are not asked for.
    pub except: Vec<Name>,
    /// The most questions in flight; beyond it REFUSED is answered. None: this server's own bound, and SERVFAIL.
    pub max_concurrent: Option<usize>,
    /// The order in which upstreams are asked.
    pub policy: Policy,
    /// TCP always.
    pub force_tcp: bool,
    /// UDP also for those who asked over TCP.
    pub prefer_udp: bool,
    /// So many failed checks make an upstream count as down; 0: it never does.
    pub max_fails: u32,
    /// How long an idle connection is kept.
    pub expire: Duration,
    /// How often an upstream that failed is checked.
    pub health_check: Duration,
    /// The checks ask for recursion.
    pub health_recursion: bool,
    /// The name that the checks ask for.
    pub health_domain: Name,
    /// The `resolv.conf` files that the upstreams were read from.
    pub files: Vec<String>,
}

/// The order in which upstreams are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// By chance.
    Random,
    /// In turn.
    RoundRobin,
    /// The first that is up.
    Sequential,
}

impl ForwardOptions {
    /// Whether a name is asked for here.
    #[must_use]
    pub fn covers(&self, name: &QueryName) -> bool {
        name.within(&self.from).is_some() && !self.except.iter().any(|except| name.within(except).is_some())
    }
}

/// As CoreDNS.
const MAX_UPSTREAMS: usize = 15;
const KNOWN: [&str; 8] =
    ["except", "max_concurrent", "policy", "prefer_udp", "force_tcp", "max_fails", "expire", "health_check"];

pub(super) fn parse(directive: &Directive, environment: &Environment<'_>) -> Result<ForwardOptions, CorefileError> {
    let Some((from, to)) = directive.arguments.split_first() else {
        return Err(directive.missing("the names to forward (\".\" is all) and the upstreams"));
    };
    if to.is_empty() {
        return Err(directive.missing("at least one upstream: an address, address:port or a resolv.conf"));
    }
    let from_name = Name::parse(&from.text).map_err(|_| from.bad("the names to forward", "a domain name"))?;
    let mut options = ForwardOptions {
        from: from_name,
        upstreams: Vec::new(),
        except: Vec::new(),
        max_concurrent: None,
        policy: Policy::Random,
        force_tcp: false,
        prefer_udp: false,
        max_fails: 2,
        expire: Duration::from_secs(10),
        health_check: Duration::from_millis(500),
        health_recursion: true,
        health_domain: Name::root(),
        files: Vec::new(),
    };
    for word in to {
        upstreams(word, environment, &mut options)?;
    }
    if let Some(word) = to.get(MAX_UPSTREAMS) {
        return Err(word.bad("an upstream", &format!("at most {MAX_UPSTREAMS} of them")));
    }
    for option in &directive.options {
        apply(&mut options, option)?;
    }
    Ok(options)
}

fn upstreams(word: &Word, environment: &Environment<'_>, options: &mut ForwardOptions) -> Result<(), CorefileError> {
    let text = word.text.strip_prefix("dns://").unwrap_or(&word.text);
    let bad = || word.bad("an upstream", "an address, address:port, [address]:port or the path of a resolv.conf");
    if text.contains("://") {
        return Err(word.bad("an upstream", "plain DNS: an address, optionally after dns://"));
    }
    if let Some(addr) = upstream(text) {
        options.upstreams.push(addr);
        return Ok(());
    }
    if !text.contains('/') {
        return Err(bad());
    }
    let unreadable = |reason| word.error(Fault::Unreadable { path: text.to_owned(), reason });
    let file = (environment.file)(text).map_err(|error| unreadable(error.to_string()))?;
    let before = options.upstreams.len();
    options.upstreams.extend(name_servers(&file));
    if options.upstreams.len() == before {
        return Err(unreadable("it names no nameserver".to_owned()));
    }
    options.files.push(text.to_owned());
    Ok(())
}

/// An upstream's address, on port 53 where none stands.
fn upstream(text: &str) -> Option<SocketAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(addr) = bare.parse::<IpAddr>() {
        return Some(SocketAddr::new(addr, 53));
    }
    text.parse().ok()
}

/// The `nameserver` lines of a `resolv.conf(5)`.
fn name_servers(text: &str) -> impl Iterator<Item = SocketAddr> + '_ {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next().and_then(upstream)).flatten()
    })
}

fn apply(options: &mut ForwardOptions, option: &Directive) -> Result<(), CorefileError> {
    match option.name.text.as_str() {
        "except" => {
            if option.arguments.is_empty() {
                return Err(option.missing("at least one name"));
            }
            options.except.extend(read::zones(&option.arguments, "a name of except")?);
        }
        "max_concurrent" => {
            let word = read::one(option, "a number")?;
            let max = read::number(word, "max_concurrent", 0, 10_000_000)? as usize;
            options.max_concurrent = (max > 0).then_some(max);
        }
        "policy" => {
            let allowed = "random, round_robin or sequential";
            let word = read::one(option, allowed)?;
            options.policy = match word.text.as_str() {
                "random" => Policy::Random,
                "round_robin" => Policy::RoundRobin,
                "sequential" => Policy::Sequential,
                _ => return Err(word.bad("policy", allowed)),
            };
        }
        "prefer_udp" => {
            read::nothing(option)?;
            options.prefer_udp = true;
        }
        "force_tcp" => {
            read::nothing(option)?;
            options.force_tcp = true;
        }
        "max_fails" => {
            options.max_fails = read::number(read::one(option, "a number")?, "max_fails", 0, u32::MAX.into())? as u32;
        }
        "expire" => options.expire = read::duration(read::one(option, "a duration")?, "expire")?,
        "health_check" => health_check(options, option)?,
        _ => return Err(read::unknown("forward", option, &KNOWN)),
    }
    Ok(())
}

/// `health_check DURATION [no_rec] [domain FQDN]`.
fn health_check(options: &mut ForwardOptions, option: &Directive) -> Result<(), CorefileError> {
    let Some((interval, rest)) = option.arguments.split_first() else {
        return Err(option.missing("a duration"));
    };
    let every = read::duration(interval, "health_check")?;
    if every.is_zero() {
        return Err(interval.bad("health_check", "a duration above zero"));
    }
    options.health_check = every;
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match word.text.as_str() {
            "no_rec" => options.health_recursion = false,
            "domain" => {
                let name = rest.next().ok_or_else(|| option.missing("a domain name after domain"))?;
                options.health_domain = Name::parse(&name.text).map_err(|_| name.bad("domain", "a domain name"))?;
            }
            _ => return Err(word.bad("an option of health_check", "no_rec or domain <name>")),
        }
    }
    Ok(())
}
