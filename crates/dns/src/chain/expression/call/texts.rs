//! Functions of texts. Places in them are counted in bytes, as in Go.

use std::borrow::Cow;

use crate::chain::expression::{
    functions::OfText,
    value::{LONGEST_TEXT, Value},
};

pub(super) fn call<'a>(function: OfText, values: &[Value<'a>]) -> Option<Value<'a>> {
    let text = |index: usize| match values.get(index) {
        Some(Value::Text(text)) => Some(&**text),
        _ => None,
    };
    let number = |index: usize| match values.get(index) {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    };
    let one = text(0)?;
    let owned = |text: &str| Value::made(text.to_owned());
    let place = |found: Option<usize>| Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1));
    match (function, text(1)) {
        (OfText::Trim, None) => owned(one.trim()),
        (OfText::Trim, Some(chars)) => owned(one.trim_matches(|c: char| chars.contains(c))),
        (OfText::TrimPrefix, Some(other)) => owned(one.strip_prefix(other).unwrap_or(one)),
        (OfText::TrimSuffix, Some(other)) => owned(one.strip_suffix(other).unwrap_or(one)),
        (OfText::Upper, _) => Value::made(one.to_uppercase()),
        (OfText::Lower, _) => Value::made(one.to_lowercase()),
        (OfText::Split | OfText::SplitAfter, Some(separator)) => {
            // A number below zero means any, as in Go.
            let most = number(2).map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
            let pieces = pieces(one, separator, most, function == OfText::SplitAfter);
            Value::list(pieces.into_iter().map(|piece| Value::Text(Cow::Owned(piece.to_owned()))).collect())
        }
        (OfText::Replace, Some(old)) => {
            let new = text(2)?;
            let longest = one.matches(old).count().checked_mul(new.len())?.checked_add(one.len())?;
            if longest <= LONGEST_TEXT { Value::made(one.replace(old, new)) } else { None }
        }
        (OfText::Repeat, _) => {
            let count = usize::try_from(number(1)?).ok()?;
            if one.len().checked_mul(count)? <= LONGEST_TEXT { Value::made(one.repeat(count)) } else { None }
        }
        (OfText::IndexOf, Some(other)) => Some(place(one.find(other))),
        (OfText::LastIndexOf, Some(other)) => Some(place(one.rfind(other))),
        (OfText::HasPrefix, Some(other)) => Some(Value::Bool(one.starts_with(other))),
        (OfText::HasSuffix, Some(other)) => Some(Value::Bool(one.ends_with(other))),
        _ => None,
    }
}

/// At most so many pieces of a text, of which the last is the rest; between the characters where there is no separator. `keeps`: each
/// with the separator behind it.
fn pieces<'t>(text: &'t str, separator: &str, most: usize, keeps: bool) -> Vec<&'t str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    if most == 0 || (separator.is_empty() && text.is_empty()) {
        return pieces;
    }
    while pieces.len() + 1 < most {
        let first = || rest.chars().next().map(char::len_utf8).filter(|end| *end < rest.len());
        let found = if separator.is_empty() { first() } else { rest.find(separator) };
        let Some(at) = found else { break };
        let behind = at + separator.len();
        pieces.push(&rest[..if keeps { behind } else { at }]);
        rest = &rest[behind..];
    }
    pieces.push(rest);
    pieces
}
