//! Reading the values of directives.

use std::{net::SocketAddr, time::Duration};

use super::Fallthrough;
use crate::{
    corefile::{CorefileError, Directive, Fault, Word},
    name::Name,
};

/// The directive has neither arguments nor options.
pub(super) fn nothing(directive: &Directive) -> Result<(), CorefileError> {
    no_options(directive)?;
    at_most(directive, 0)
}

/// The directive has no braces.
pub(super) fn no_options(directive: &Directive) -> Result<(), CorefileError> {
    match directive.options.first() {
        None => Ok(()),
        Some(option) => Err(option.name.error(Fault::Unexpected {
            found: option.name.text.clone(),
            allowed: format!("no options: {:?} has none", directive.name.text),
        })),
    }
}

/// The directive has at most `count` arguments.
pub(super) fn at_most(directive: &Directive, count: usize) -> Result<(), CorefileError> {
    match directive.arguments.get(count) {
        None => Ok(()),
        Some(word) => Err(word.error(Fault::Unexpected {
            found: word.text.clone(),
            allowed: match count {
                0 => format!("nothing: {:?} takes no arguments", directive.name.text),
                count => format!("the end of the line: {:?} takes at most {count}", directive.name.text),
            },
        })),
    }
}

/// Its one argument.
pub(super) fn one<'a>(directive: &'a Directive, needed: &str) -> Result<&'a Word, CorefileError> {
    at_most(directive, 1)?;
    directive.arguments.first().ok_or_else(|| directive.missing(needed))
}

/// An option that the plugin does not have.
pub(super) fn unknown(plugin: &'static str, option: &Directive, known: &[&'static str]) -> CorefileError {
    option.name.error(Fault::UnknownOption { plugin, found: option.name.text.clone(), known: known.to_vec() })
}

/// A whole number within bounds.
pub(super) fn number(word: &Word, what: &str, min: u64, max: u64) -> Result<u64, CorefileError> {
    let value = word.text.parse().ok().filter(|value| (min..=max).contains(value));
    value.ok_or_else(|| word.bad(what, &format!("a whole number from {min} to {max}")))
}

/// A duration as Go spells it (`1h30m`, `500ms`); a bare number is seconds.
pub(super) fn duration(word: &Word, what: &str) -> Result<Duration, CorefileError> {
    parse_duration(&word.text).ok_or_else(|| word.bad(what, "a duration such as 500ms, 5s or 1m30s"))
}

fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(value * seconds).ok()?)?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total)
}

/// An address to listen on: `:8080`, `127.0.0.1:8080`, `localhost:9153`.
pub(super) fn listen(word: &Word, what: &str) -> Result<SocketAddr, CorefileError> {
    let bad = || word.bad(what, "[address]:port");
    let (host, port) = word.text.rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse::<u16>().map_err(|_| bad())?;
    let host = match host {
        "" => "::",
        "localhost" => "127.0.0.1",
        host => host.trim_start_matches('[').trim_end_matches(']'),
    };
    Ok(SocketAddr::new(host.parse().map_err(|_| bad())?, port))
}

/// Zones: names, or CIDRs for their reverse zones.
pub(super) fn zones(words: &[Word], what: &str) -> Result<Vec<Name>, CorefileError> {
    let mut zones = Vec::new();
    for word in words {
        let named = crate::corefile::zones(&word.text);
        zones.extend(named.ok_or_else(|| word.bad(what, "a domain name or a CIDR such as 10.0.0.0/24"))?);
    }
    Ok(zones)
}

/// `fallthrough [ZONES…]`.
pub(super) fn fallthrough(option: &Directive) -> Result<Fallthrough, CorefileError> {
    no_options(option)?;
    if option.arguments.is_empty() {
        return Ok(Fallthrough::all());
    }
    Ok(Fallthrough::zones(zones(&option.arguments, "a zone of fallthrough")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [("30", 30_000), ("500ms", 500), ("1m30s", 90_000), ("1.5h", 5_400_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5x", "-1s", "1..2s", "5 s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
