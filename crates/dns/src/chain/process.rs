//! The plugins that say something about the process and its sockets rather than about answers.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{read, scope::Scope};
use crate::corefile::{CorefileError, Directive, Word};

/// `health`: HTTP `/health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthOptions {
    /// Where it is served; port 8080 of all addresses by default.
    pub listen: SocketAddr,
    /// How long queries are answered on after a stop was asked for; zero by default.
    pub lameduck: Duration,
}

/// `ready`: HTTP `/ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyOptions {
    /// Where it is served; port 8181 of all addresses by default.
    pub listen: SocketAddr,
    /// How plugins are asked.
    pub monitor: Monitor,
}

/// How plugins are asked whether they are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Monitor {
    /// Ready once is ready until the end.
    #[default]
    UntilReady,
    /// Each time anew.
    Continuously,
}

/// `bind`: where the server block listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindOptions {
    /// The addresses, at least one: those that are named, and those that the interfaces had when this was read.
    pub addresses: Vec<IpAddr>,
}

/// `timeouts`: times of connections to this server (1 s to 24 h); none means the server's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutOptions {
    /// For a query to come in.
    pub read: Option<Duration>,
    /// For an answer to go out.
    pub write: Option<Duration>,
    /// Between queries.
    pub idle: Option<Duration>,
    /// Queries that a connection may carry; none means any number.
    pub max_queries: Option<u32>,
}

/// `root PATH`.
pub(super) fn root(directive: &Directive, scope: &mut Scope<'_>) -> Result<String, CorefileError> {
    read::no_options(directive)?;
    let path = read::one(directive, "a directory")?.text.clone();
    if (scope.environment.list)(&path).is_err() {
        let word = &directive.arguments[0];
        scope
            .warnings
            .push(format!("{}: the directory {path:?} cannot be read: files below it are not found", word.place));
    }
    scope.root = Some(path.clone());
    Ok(path)
}

/// `cancel [TIMEOUT]`: 5001 ms, a millisecond after most clients ask again.
pub(super) fn cancel(directive: &Directive) -> Result<Duration, CorefileError> {
    read::no_options(directive)?;
    read::at_most(directive, 1)?;
    match directive.arguments.first() {
        None => Ok(Duration::from_millis(5001)),
        Some(word) => positive(word, "the time of cancel"),
    }
}

fn positive(word: &Word, what: &str) -> Result<Duration, CorefileError> {
    let time = read::duration(word, what)?;
    if time.is_zero() { Err(word.bad(what, "a duration above zero")) } else { Ok(time) }
}

pub(super) fn timeouts(directive: &Directive, scope: &mut Scope<'_>) -> Result<TimeoutOptions, CorefileError> {
    read::at_most(directive, 0)?;
    if directive.options.is_empty() {
        return Err(directive.missing("{ read, write or idle with a duration }"));
    }
    let mut options = TimeoutOptions::default();
    scope.options(directive, |_, option| {
        match option.name.text.as_str() {
            "read" => options.read = Some(timeout(option)?),
            "write" => options.write = Some(timeout(option)?),
            "idle" => options.idle = Some(timeout(option)?),
            "maxtcpqueries" => {
                let word = read::one(option, "a number, or -1 for any")?;
                options.max_queries = match word.text.as_str() {
                    "-1" => None,
                    _ => Some(read::number(word, "maxtcpqueries", 1, u32::MAX.into())? as u32),
                };
            }
            _ => return Err(read::unknown("timeouts", option, &["read", "write", "idle", "maxtcpqueries"])),
        }
        Ok(())
    });
    Ok(options)
}

fn timeout(option: &Directive) -> Result<Duration, CorefileError> {
    let word = read::one(option, "a duration")?;
    let time = read::duration(word, "a time of timeouts")?;
    if (1..=86_400).contains(&time.as_secs()) && time <= Duration::from_secs(86_400) {
        return Ok(time);
    }
    Err(word.bad("a time of timeouts", "1s to 24h"))
}

/// `multisocket [NUM_SOCKETS]`.
pub(super) fn multisocket(directive: &Directive) -> Result<Option<usize>, CorefileError> {
    read::no_options(directive)?;
    read::at_most(directive, 1)?;
    let number = |word| read::number(word, "the number of sockets", 1, 1024).map(|number| number as usize);
    directive.arguments.first().map(number).transpose()
}

/// `nsid [DATA…]`.
pub(super) fn nsid(directive: &Directive) -> Result<Option<String>, CorefileError> {
    read::no_options(directive)?;
    let words: Vec<&str> = directive.arguments.iter().map(|word| word.text.as_str()).collect();
    Ok(Some(words.join(" ")).filter(|data| !data.is_empty()))
}

/// `bufsize [SIZE]`: 1232 by default, the size that no path's IPv6 cuts (DNS flag day 2020).
pub(super) fn bufsize(directive: &Directive) -> Result<u16, CorefileError> {
    read::no_options(directive)?;
    read::at_most(directive, 1)?;
    match directive.arguments.first() {
        None => Ok(1232),
        Some(word) => read::number(word, "bufsize", 512, 4096).map(|size| size as u16),
    }
}

/// `bind ADDRESS|IFACE… { except ADDRESS|IFACE… }`.
pub(super) fn bind(directive: &Directive, scope: &mut Scope<'_>) -> Result<BindOptions, CorefileError> {
    if directive.arguments.is_empty() {
        return Err(directive.missing("at least one address or interface"));
    }
    let mut addresses = targets(&directive.arguments, scope)?;
    scope.options(directive, |scope, option| {
        match option.name.text.as_str() {
            "except" if option.arguments.is_empty() => {
                return Err(option.missing("at least one address or interface"));
            }
            "except" => {
                let except = targets(&option.arguments, scope)?;
                addresses.retain(|address| !except.contains(address));
            }
            _ => return Err(read::unknown("bind", option, &["except"])),
        }
        Ok(())
    });
    // To listen everywhere instead is what nobody means who names addresses.
    if addresses.is_empty() {
        return Err(directive.missing("an address, or an interface with one, that is not left out again"));
    }
    Ok(BindOptions { addresses })
}

fn targets(words: &[Word], scope: &mut Scope<'_>) -> Result<Vec<IpAddr>, CorefileError> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for word in words {
        for address in target(word, scope)? {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    Ok(addresses)
}

fn target(word: &Word, scope: &mut Scope<'_>) -> Result<Vec<IpAddr>, CorefileError> {
    if let Ok(address) = word.text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(vec![address]);
    }
    // An interface's name has at most 15 bytes (IFNAMSIZ), and the kernel refuses these.
    let name = &word.text;
    let interface = !name.is_empty() && name.len() < 16 && !name.contains(['/', ':']) && name != "." && name != "..";
    if !interface {
        return Err(word.bad("what to bind to", "an address, or the name of an interface (at most 15 characters)"));
    }
    scope.interfaces.push(name.clone());
    let found = (scope.environment.interface)(name);
    let found = found.map_err(|error| word.malformed("the interface to bind to", &error.to_string()))?;
    // Link-local addresses mean nothing without their interface (RFC 4291 §2.5.6): they are left out, as in CoreDNS.
    Ok(found.into_iter().filter(|address| !link_local(*address)).collect())
}

fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

pub(super) fn health(directive: &Directive, scope: &mut Scope<'_>) -> Result<HealthOptions, CorefileError> {
    read::at_most(directive, 1)?;
    let listen = match directive.arguments.first() {
        Some(word) => read::listen(word, "the address of health")?,
        None => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080)),
    };
    let mut lameduck = Duration::ZERO;
    scope.options(directive, |_, option| {
        match option.name.text.as_str() {
            "lameduck" => lameduck = read::duration(read::one(option, "a duration")?, "lameduck")?,
            _ => return Err(read::unknown("health", option, &["lameduck"])),
        }
        Ok(())
    });
    Ok(HealthOptions { listen, lameduck })
}

pub(super) fn ready(directive: &Directive, scope: &mut Scope<'_>) -> Result<ReadyOptions, CorefileError> {
    read::at_most(directive, 1)?;
    let listen = match directive.arguments.first() {
        Some(word) => read::listen(word, "the address of ready")?,
        None => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8181)),
    };
    let mut monitor = Monitor::default();
    scope.options(directive, |_, option| {
        if option.name.text != "monitor" {
            return Err(read::unknown("ready", option, &["monitor"]));
        }
        let word = read::one(option, "until-ready or continuously")?;
        monitor = match word.text.as_str() {
            "until-ready" => Monitor::UntilReady,
            "continuously" => Monitor::Continuously,
            _ => return Err(word.bad("monitor", "until-ready or continuously")),
        };
        Ok(())
    });
    Ok(ReadyOptions { listen, monitor })
}

/// `reload [INTERVAL [JITTER]]`, at least 2 s and 1 s; `off` and 0 switch it off, and a jitter of 0 the spread.
pub(super) fn reload(directive: &Directive) -> Result<Option<(Duration, Duration)>, CorefileError> {
    read::no_options(directive)?;
    read::at_most(directive, 2)?;
    let Some(word) = directive.arguments.first() else {
        return Ok(Some((Duration::from_secs(30), Duration::from_secs(15))));
    };
    if word.text == "off" {
        return Ok(None);
    }
    let interval = read::duration(word, "the interval of reload")?;
    if interval.is_zero() {
        return Ok(None);
    }
    if interval < Duration::from_secs(2) {
        return Err(word.bad("the interval of reload", "at least 2s, or off"));
    }
    let jitter = match directive.arguments.get(1) {
        None => interval / 2,
        Some(word) => {
            let jitter = read::duration(word, "the jitter of reload")?;
            if !jitter.is_zero() && jitter < Duration::from_secs(1) {
                return Err(word.bad("the jitter of reload", "at least 1s, or 0s for none"));
            }
            jitter.min(interval / 2)
        }
    };
    Ok(Some((interval, jitter)))
}
