//! Words of an expression.

use super::{ExpressionError, error};
use crate::chain::escape;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Word(String),
    Text(String),
    Int(i64),
    Float(f64),
    /// `#`, with what stands right behind it.
    Element(String),
    Sign(&'static str),
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    /// The character, from 1.
    pub(super) at: usize,
    pub(super) kind: Kind,
}

/// Longer ones before those that they begin with.
const SIGNS: [&str; 33] = [
    "&&", "||", "==", "!=", "<=", ">=", "..", "??", "?.", "**", "<", ">", "!", "+", "-", "*", "/", "%", "^", "?", ":",
    "(", ")", "[", "]", "{", "}", ",", ";", "|", "=", ".", "$",
];

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ExpressionError> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&next) = chars.get(at) {
        let follows = chars.get(at + 1).copied();
        let (kind, end) = match next {
            c if c.is_whitespace() => {
                at += 1;
                continue;
            }
            '/' if matches!(follows, Some('/' | '*')) => {
                at = comment(&chars, at)?;
                continue;
            }
            '\'' | '"' => quoted(&chars, at)?,
            '`' => match chars[at + 1..].iter().position(|c| *c == '`') {
                Some(len) => (Kind::Text(chars[at + 1..at + 1 + len].iter().collect()), at + len + 2),
                None => return error(at + 1, "this text never ends"),
            },
            '#' => {
                let (name, end) = word(&chars, at + 1);
                (Kind::Element(name), end)
            }
            c if c.is_ascii_digit() || (c == '.' && follows.is_some_and(|c| c.is_ascii_digit())) => number(&chars, at)?,
            c if c.is_alphabetic() || c == '_' => {
                let (word, end) = word(&chars, at);
                (Kind::Word(word), end)
            }
            other => {
                let starts = |sign: &&&str| sign.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
                match SIGNS.iter().find(starts) {
                    Some(sign) => (Kind::Sign(sign), at + sign.len()),
                    None => return error(at + 1, format!("{other:?} is not known")),
                }
            }
        };
        tokens.push(Token { at: at + 1, kind });
        at = end;
    }
    Ok(tokens)
}

/// Letters, digits and underscores, and where they end.
fn word(chars: &[char], at: usize) -> (String, usize) {
    let len = chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
    (chars[at..at + len].iter().collect(), at + len)
}

/// Where a comment ends.
fn comment(chars: &[char], at: usize) -> Result<usize, ExpressionError> {
    if chars[at + 1] == '/' {
        return Ok(chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |len| at + len));
    }
    match chars[at + 2..].windows(2).position(|pair| pair == ['*', '/']) {
        Some(len) => Ok(at + len + 4),
        None => error(at + 1, "this comment never ends"),
    }
}

fn number(chars: &[char], at: usize) -> Result<(Kind, usize), ExpressionError> {
    let radix = match (chars[at], chars.get(at + 1).map(char::to_ascii_lowercase)) {
        ('0', Some('x')) => 16,
        ('0', Some('o')) => 8,
        ('0', Some('b')) => 2,
        _ => 10,
    };
    let (text, end) = if radix == 10 { decimal(chars, at) } else { word(chars, at) };
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let kind = match (radix, plain.parse::<i64>(), plain.parse::<f64>()) {
        (10, Ok(number), _) => Some(Kind::Int(number)),
        // A word such as `1x` or `1e` is neither.
        (10, _, Ok(number)) if number.is_finite() && text.contains(['.', 'e', 'E']) => Some(Kind::Float(number)),
        (10, ..) => None,
        _ => i64::from_str_radix(&plain[2..], radix).ok().map(Kind::Int),
    };
    match kind {
        Some(kind) => Ok((kind, end)),
        None => error(at + 1, format!("{text:?} is no number, or too large a one")),
    }
}

/// The text of a number without a base, with its fraction and exponent, and where it ends. Two dots are no fraction: `1..5` is a range.
fn decimal(chars: &[char], at: usize) -> (String, usize) {
    let (_, mut end) = word(chars, at);
    let is = |at: usize, wanted: fn(char) -> bool| chars.get(at).copied().is_some_and(wanted);
    if is(end, |c| c == '.') && is(end + 1, |c| c.is_ascii_digit()) {
        end = word(chars, end + 1).1;
    }
    let exponent = end > at && matches!(chars[end - 1], 'e' | 'E') && is(end, |c| matches!(c, '+' | '-'));
    if exponent && is(end + 1, |c| c.is_ascii_digit()) {
        end = word(chars, end + 1).1;
    }
    (chars[at..end].iter().collect(), end)
}

fn quoted(chars: &[char], at: usize) -> Result<(Kind, usize), ExpressionError> {
    let quote = chars[at];
    let mut text = String::new();
    let mut rest = at + 1;
    loop {
        match (chars.get(rest), chars.get(rest + 1)) {
            (Some(c), _) if *c == quote => return Ok((Kind::Text(text), rest + 1)),
            (Some('\\'), Some(escaped)) => match escape::read(chars, rest) {
                Some((c, end)) => {
                    text.push(c);
                    rest = end;
                }
                None => {
                    return error(rest + 1, format!("\"\\{escaped}\" is no escape; a backslash is written \"\\\\\""));
                }
            },
            (Some(c), _) if *c != '\\' => {
                text.push(*c);
                rest += 1;
            }
            _ => return error(at + 1, "this text never ends"),
        }
    }
}
