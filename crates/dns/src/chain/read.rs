//! Reading the values of directives.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use domain::base::iana::{Class, Rtype};
use ipnet::IpNet;

use super::{Fallthrough, Pattern, scope::Scope};
use crate::{
    corefile::{CorefileError, Directive, Fault, Place, Word},
    message::Rcode,
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

/// Where a character, counted from 0, of an option's arguments stands, which make up one text with a space between any two.
pub(super) fn place_in(option: &Directive, character: usize) -> Place {
    let mut place = option.name.place.clone();
    let mut left = character;
    for word in &option.arguments {
        let length = word.text.chars().count();
        place = word.place_of(left.min(length));
        match left.checked_sub(length + 1) {
            Some(behind) => left = behind,
            None => break,
        }
    }
    place
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

/// `reload DURATION` and the like: how often something is looked at; none for 0, which means never.
pub(super) fn interval(option: &Directive) -> Result<Option<Duration>, CorefileError> {
    let every = duration(one(option, "a duration")?, &option.name.text)?;
    Ok(Some(every).filter(|every| !every.is_zero()))
}

/// A domain name.
pub(super) fn name(word: &Word, what: &str) -> Result<Name, CorefileError> {
    Name::parse(&word.text).map_err(|_| word.bad(what, "a domain name"))
}

/// A network; a bare address is a network of its own.
pub(super) fn network(word: &Word, what: &str) -> Result<IpNet, CorefileError> {
    let net = word.text.parse::<IpNet>().ok().map(|net| net.trunc());
    net.or_else(|| word.text.parse::<IpAddr>().ok().map(IpNet::from))
        .ok_or_else(|| word.bad(what, "an address or a network such as 10.0.0.0/8"))
}

/// A server's address, on `port` where none stands: `192.0.2.1`, `192.0.2.1:5353`, `[2001:db8::1]:53`, `2001:db8::1`.
pub(super) fn server(word: &Word, what: &str, port: u16) -> Result<SocketAddr, CorefileError> {
    server_address(&word.text, port).ok_or_else(|| word.bad(what, "an address, address:port or [address]:port"))
}

pub(super) fn server_address(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(addr) = bare.parse::<IpAddr>() {
        return Some(SocketAddr::new(addr, port));
    }
    text.parse().ok().filter(|addr: &SocketAddr| addr.port() != 0)
}

/// The text of a file below `root`, which is looked at again when the Corefile is.
pub(super) fn text(word: &Word, scope: &mut Scope<'_>) -> Result<String, CorefileError> {
    let path = scope.path(&word.text);
    scope.files.push(PathBuf::from(&path));
    (scope.environment.file)(&path).map_err(|error| word.error(Fault::Unreadable { path, reason: error.to_string() }))
}

/// A record type: a mnemonic, or `TYPE65280` (RFC 3597 §5).
pub(super) fn record_type(word: &Word, what: &str) -> Result<u16, CorefileError> {
    let rtype: Option<Rtype> = word.text.to_ascii_uppercase().parse().ok();
    rtype.map(Rtype::to_int).ok_or_else(|| word.bad(what, "a record type such as A, AAAA, MX or TYPE65280"))
}

/// A class: `IN`, `CH`, `HS`, `ANY`.
pub(super) fn class(word: &Word, what: &str) -> Result<u16, CorefileError> {
    let text = word.text.to_ascii_uppercase();
    let class: Option<Class> = if text == "ANY" { Some(Class::ANY) } else { text.parse().ok() };
    class.map(Class::to_int).ok_or_else(|| word.bad(what, "a class: IN, CH, HS or ANY"))
}

/// The response codes and what they are called (IANA, DNS parameters).
const RCODES: [(&str, u16); 21] = [
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
    ("YXDOMAIN", 6),
    ("YXRRSET", 7),
    ("NXRRSET", 8),
    ("NOTAUTH", 9),
    ("NOTZONE", 10),
    ("DSOTYPENI", 11),
    ("BADSIG", 16),
    ("BADVERS", 16),
    ("BADKEY", 17),
    ("BADTIME", 18),
    ("BADMODE", 19),
    ("BADNAME", 20),
    ("BADALG", 21),
    ("BADTRUNC", 22),
    ("BADCOOKIE", 23),
];

/// A response code: a mnemonic, or its number.
pub(super) fn response_code(word: &Word, what: &str) -> Result<Rcode, CorefileError> {
    let named = RCODES.iter().find(|(name, _)| name.eq_ignore_ascii_case(&word.text)).map(|(_, code)| *code);
    let code = named.or_else(|| word.text.parse().ok().filter(|code| *code <= 23));
    code.map(Rcode).ok_or_else(|| word.bad(what, "a response code such as NXDOMAIN, SERVFAIL or REFUSED"))
}

/// A text with `{1}` for what the first group of a pattern matched, `{0}` for all of it.
pub(super) fn replacement(word: &Word, what: &str, pattern: &Pattern) -> Result<String, CorefileError> {
    let mut rest = word.text.as_str();
    let groups = pattern.regex().captures_len();
    while let Some((_, tail)) = rest.split_once('{') {
        rest = tail;
        let Some(number) = tail.split_once('}').and_then(|(number, _)| number.parse::<usize>().ok()) else { continue };
        if number >= groups {
            return Err(word.bad(what, &format!("{{0}} to {{{}}}: the expression has no more groups", groups - 1)));
        }
    }
    Ok(word.text.clone())
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
