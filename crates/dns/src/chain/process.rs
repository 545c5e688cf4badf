//! The plugins that say nothing about answers: `errors`, `log`, `health`, `ready`, `prometheus`, `reload`, `loadbalance`.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::read;
use crate::corefile::{CorefileError, Directive};

pub(super) fn errors(directive: &Directive, warnings: &mut Vec<String>) -> Result<bool, CorefileError> {
    read::at_most(directive, 1)?;
    if let Some(word) = directive.arguments.first()
        && word.text != "stdout"
    {
        return Err(word.bad("the destination of errors", "stdout"));
    }
    for option in &directive.options {
        match option.name.text.as_str() {
            "consolidate" => warnings.push(format!("{}: errors are not consolidated yet", option.name.place)),
            "stacktrace" => {}
            _ => return Err(read::unknown("errors", option, &["consolidate", "stacktrace"])),
        }
    }
    Ok(true)
}

pub(super) fn log(directive: &Directive, warnings: &mut Vec<String>) -> Result<bool, CorefileError> {
    if let Some(word) = directive.arguments.first() {
        warnings.push(format!("{}: all names are logged, in one format", word.place));
    }
    for option in &directive.options {
        match option.name.text.as_str() {
            "class" => warnings.push(format!("{}: all classes are logged", option.name.place)),
            _ => return Err(read::unknown("log", option, &["class"])),
        }
    }
    Ok(true)
}

pub(super) fn health(directive: &Directive) -> Result<(SocketAddr, Duration), CorefileError> {
    read::at_most(directive, 1)?;
    let addr = match directive.arguments.first() {
        Some(word) => read::listen(word, "the address of health")?,
        None => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080)),
    };
    let mut lameduck = Duration::ZERO;
    for option in &directive.options {
        match option.name.text.as_str() {
            "lameduck" => lameduck = read::duration(read::one(option, "a duration")?, "lameduck")?,
            _ => return Err(read::unknown("health", option, &["lameduck"])),
        }
    }
    Ok((addr, lameduck))
}

pub(super) fn ready(directive: &Directive, warnings: &mut Vec<String>) -> Result<SocketAddr, CorefileError> {
    read::at_most(directive, 1)?;
    for option in &directive.options {
        match option.name.text.as_str() {
            "monitor" => warnings.push(format!("{}: ready once is ready until the end", option.name.place)),
            _ => return Err(read::unknown("ready", option, &["monitor"])),
        }
    }
    match directive.arguments.first() {
        Some(word) => read::listen(word, "the address of ready"),
        None => Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8181))),
    }
}

pub(super) fn prometheus(directive: &Directive) -> Result<SocketAddr, CorefileError> {
    read::no_options(directive)?;
    read::at_most(directive, 1)?;
    match directive.arguments.first() {
        Some(word) => read::listen(word, "the address of prometheus"),
        None => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 9153))),
    }
}

/// `reload [INTERVAL [JITTER]]`, at least 2 s and 1 s; `off` and 0 switch it off.
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
            if jitter < Duration::from_secs(1) {
                return Err(word.bad("the jitter of reload", "at least 1s"));
            }
            jitter.min(interval / 2)
        }
    };
    Ok(Some((interval, jitter)))
}

pub(super) fn loadbalance(directive: &Directive) -> Result<bool, CorefileError> {
    read::no_options(directive)?;
    read::at_most(directive, 1)?;
    match directive.arguments.first() {
        None => Ok(true),
        Some(word) if word.text == "round_robin" => Ok(true),
        Some(word) => Err(word.bad("the policy of loadbalance", "round_robin")),
    }
}
