//! `$ORIGIN`, `$TTL`, `$INCLUDE` (RFC 1035 §5.1, RFC 2308 §4) and BIND's `$GENERATE`.

use std::{borrow::Cow, sync::Arc};

use super::{
    error::ZoneFault,
    lexer::Line,
    parser::{Reader, Trouble, place_of, value},
};
use crate::authority::rdata::{self, Word};

/// How many records one range may make: as many as an IPv4 /16 has addresses.
const MAX_GENERATED: u64 = 65_536;

pub(super) fn run(reader: &mut Reader<'_>, name: &Arc<str>, text: &str, line: &Line<'_>) -> Result<(), Trouble> {
    let (first, rest) = line.words.split_first().unwrap_or((&line.words[0], &[]));
    let missing = |needed: &str| Trouble::Here((line.end, ZoneFault::Missing { needed: needed.to_owned() }));
    let end = |rest: &[Word<'_>], taken: usize| match rest.get(taken) {
        Some(word) => Err(Trouble::Here((word.at, ZoneFault::Extra { found: word.text.clone().into_owned() }))),
        None => Ok(()),
    };
    match first.text.to_ascii_uppercase().as_str() {
        "$ORIGIN" => {
            let word = rest.first().ok_or_else(|| missing("a name"))?;
            end(rest, 1)?;
            reader.origin = reader.name(word)?.wire().to_vec();
        }
        "$TTL" => {
            let word = rest.first().ok_or_else(|| missing("a time in seconds"))?;
            end(rest, 1)?;
            let ttl = rdata::period(&word.text);
            let allowed = "seconds, or units as in 1h30m, up to 4294967295 s";
            reader.default_ttl = Some(ttl.ok_or_else(|| value(word, "the time to live", allowed))?);
        }
        "$INCLUDE" => {
            let path = rest.first().ok_or_else(|| missing("a file"))?;
            end(rest, 2)?;
            let origin = rest.get(1).map(|word| reader.name(word)).transpose()?;
            reader.include(path, origin.map(|name| name.wire().to_vec()))?;
        }
        "$GENERATE" => {
            let (range, template) = rest.split_first().ok_or_else(|| missing("a range such as 1-10"))?;
            if template.len() < 3 {
                return Err(missing("an owner, a type and data"));
            }
            let numbers = self::range(range)?;
            let place = place_of(name, text, first);
            for number in numbers {
                let words = template.iter().map(|word| substitute(word, number)).collect::<Result<Vec<_>, _>>()?;
                reader.record(&words, false, line.end, place.clone())?;
            }
        }
        _ => return Err((first.at, ZoneFault::Directive { found: first.text.clone().into_owned() }).into()),
    }
    Ok(())
}

/// `start-stop` or `start-stop/step`.
fn range(word: &Word<'_>) -> Result<impl Iterator<Item = i64> + use<>, Trouble> {
    let parsed = || {
        let (span, step) = word.text.split_once('/').unwrap_or((&word.text, "1"));
        let (start, stop) = span.split_once('-')?;
        let number = |text: &str| text.parse::<u32>().ok().filter(|value| *value <= i32::MAX as u32);
        let (start, stop, step) = (number(start)?, number(stop)?, number(step)?);
        (start <= stop && step > 0).then_some((start, stop, step))
    };
    let allowed = "start-stop or start-stop/step, numbers up to 2147483647, the start not above the stop";
    let (start, stop, step) = parsed().ok_or_else(|| value(word, "the range", allowed))?;
    let found = u64::from((stop - start) / step) + 1;
    if found > MAX_GENERATED {
        return Err((word.at, ZoneFault::Range { found, limit: MAX_GENERATED }).into());
    }
    Ok((i64::from(start)..=i64::from(stop)).step_by(step as usize))
}

/// Puts a number in place of `$` and `${offset[,width[,base]]}`; `$$` and `\$` stand for the sign itself.
fn substitute<'a>(word: &Word<'a>, number: i64) -> Result<Word<'a>, Trouble> {
    if !word.text.contains('$') {
        return Ok(word.clone());
    }
    let mut out = String::with_capacity(word.text.len() + 4);
    let mut rest = &*word.text;
    while let Some(at) = rest.find(['$', '\\']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(tail) = rest.strip_prefix("\\$").or_else(|| rest.strip_prefix("$$")) {
            // Later steps take an escaped sign for the sign.
            out.push('$');
            rest = tail;
        } else if rest.starts_with('\\') {
            let size = rest.chars().take(2).map(char::len_utf8).sum();
            out.push_str(&rest[..size]);
            rest = &rest[size..];
        } else if let Some(tail) = rest.strip_prefix("${") {
            let (modifier, tail) = tail.split_once('}').unwrap_or((tail, ""));
            let allowed = "${offset[,width[,base]]}, base one of d o x X n N";
            out.push_str(&modified(modifier, number).ok_or_else(|| value(word, "the template", allowed))?);
            rest = tail;
        } else {
            out.push_str(&number.to_string());
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(Word { text: Cow::Owned(out), ..word.clone() })
}

fn modified(modifier: &str, number: i64) -> Option<String> {
    let mut parts = modifier.split(',');
    let offset: i64 = parts.next()?.parse().ok().filter(|offset: &i64| offset.abs() <= i64::from(i32::MAX))?;
    let width: usize = parts.next().map_or(Some(0), |width| width.parse().ok())?;
    let base = parts.next().unwrap_or("d");
    let value = u64::try_from(number + offset).ok()?;
    if parts.next().is_some() || width > 255 {
        return None;
    }
    Some(match base {
        "d" => format!("{value:0width$}"),
        "o" => format!("{value:0width$o}"),
        "x" => format!("{value:0width$x}"),
        "X" => format!("{value:0width$X}"),
        // Digits from the last to the first, a dot between: parts of names below ip6.arpa. The width counts the dots.
        "n" | "N" => {
            let digits = width.div_ceil(2);
            let hex = if base == "n" { format!("{value:0digits$x}") } else { format!("{value:0digits$X}") };
            hex.chars().rev().map(String::from).collect::<Vec<_>>().join(".")
        }
        _ => return None,
    })
}
