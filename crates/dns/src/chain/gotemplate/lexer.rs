//! Words of a template.

use super::{Fraction, TemplateError, error};
use crate::chain::escape;

/// A part of a template.
#[derive(Debug)]
pub(super) enum Item {
    Text(String),
    /// What stands between `{{` and `}}`.
    Action {
        at: usize,
        tokens: Vec<Token>,
    },
}

/// A word of an action, and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: Kind,
    /// White space stands before it.
    pub(super) spaced: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `.` without a name.
    Dot,
    /// `.Name`
    Field(String),
    /// `$` or `$name`, without the sign.
    Variable(String),
    Word(String),
    Text(String),
    Int(i128),
    Float(Fraction),
    Pipe,
    Open,
    Close,
    Comma,
    Declare,
    Assign,
}

pub(super) fn items(text: &str) -> Result<Vec<Item>, TemplateError> {
    let chars: Vec<char> = text.chars().collect();
    let mut items = Vec::new();
    let (mut at, mut trim) = (0, false);
    while at < chars.len() {
        let open = find(&chars, at, "{{").unwrap_or(chars.len());
        let trims = open + 3 < chars.len() && chars[open + 2] == '-' && chars[open + 3].is_whitespace();
        let mut plain: String = chars[at..open].iter().collect();
        if trim {
            plain = plain.trim_start().to_owned();
        }
        if trims {
            plain = plain.trim_end().to_owned();
        }
        if !plain.is_empty() {
            items.push(Item::Text(plain));
        }
        if open == chars.len() {
            break;
        }
        let start = open + if trims { 3 } else { 2 };
        let action = action(&chars, start, open)?;
        (at, trim) = (action.end, action.trims);
        if let Some(tokens) = action.tokens {
            items.push(Item::Action { at: open + 1, tokens });
        }
    }
    Ok(items)
}

struct Action {
    /// None: a comment.
    tokens: Option<Vec<Token>>,
    /// Behind the `}}`.
    end: usize,
    /// White space behind it is left out.
    trims: bool,
}

fn find(chars: &[char], from: usize, what: &str) -> Option<usize> {
    let what: Vec<char> = what.chars().collect();
    (from..chars.len()).find(|&at| chars[at..].starts_with(&what))
}

/// The `}}` at `at`, perhaps with a trimming mark before it.
fn closes(chars: &[char], at: usize) -> Option<(usize, bool)> {
    let rest = chars.get(at..)?;
    match rest {
        ['}', '}', ..] => Some((at + 2, false)),
        [space, '-', '}', '}', ..] if space.is_whitespace() => Some((at + 4, true)),
        _ => None,
    }
}

fn action(chars: &[char], start: usize, open: usize) -> Result<Action, TemplateError> {
    let unclosed = || error(open + 1, "this \"{{\" is never closed");
    let first = (start..chars.len()).find(|&at| !chars[at].is_whitespace()).unwrap_or(start);
    if chars[first..].starts_with(&['/', '*']) {
        let Some(end) = find(chars, first + 2, "*/") else { return error(first + 1, "this comment never ends") };
        return match closes(chars, end + 2) {
            Some((end, trims)) => Ok(Action { tokens: None, end, trims }),
            None => error(end + 1, "behind a comment has to stand \"}}\""),
        };
    }
    let mut tokens = Vec::new();
    let (mut at, mut spaced) = (start, true);
    loop {
        if let Some((end, trims)) = closes(chars, at) {
            return Ok(Action { tokens: Some(tokens), end, trims });
        }
        let Some(&next) = chars.get(at) else { return unclosed() };
        if next.is_whitespace() {
            (at, spaced) = (at + 1, true);
            continue;
        }
        let (kind, end) = token(chars, at)?;
        tokens.push(Token { at: at + 1, kind, spaced });
        (at, spaced) = (end, false);
    }
}

fn token(chars: &[char], at: usize) -> Result<(Kind, usize), TemplateError> {
    let name = |from: usize| {
        let len = chars[from..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
        (chars[from..from + len].iter().collect::<String>(), from + len)
    };
    let next = chars.get(at + 1).copied();
    Ok(match chars[at] {
        '.' if next.is_some_and(|c| c.is_alphabetic() || c == '_') => {
            let (name, end) = name(at + 1);
            (Kind::Field(name), end)
        }
        '.' if next.is_some_and(|c| c.is_ascii_digit()) => number(chars, at)?,
        '.' => (Kind::Dot, at + 1),
        '$' => {
            let (name, end) = name(at + 1);
            (Kind::Variable(name), end)
        }
        '|' => (Kind::Pipe, at + 1),
        '(' => (Kind::Open, at + 1),
        ')' => (Kind::Close, at + 1),
        ',' => (Kind::Comma, at + 1),
        ':' if next == Some('=') => (Kind::Declare, at + 2),
        '=' => (Kind::Assign, at + 1),
        '"' => quoted(chars, at)?,
        '`' => match find(chars, at + 1, "`") {
            Some(end) => (Kind::Text(chars[at + 1..end].iter().collect()), end + 1),
            None => return error(at + 1, "this text never ends"),
        },
        '\'' => character(chars, at)?,
        c if c.is_ascii_digit() => number(chars, at)?,
        '-' | '+' if next.is_some_and(|c| c == '.' || c.is_ascii_digit()) => number(chars, at)?,
        c if c.is_alphabetic() || c == '_' => {
            let (name, end) = name(at);
            (Kind::Word(name), end)
        }
        other => return error(at + 1, format!("{other:?} cannot stand in an action")),
    })
}

fn number(chars: &[char], at: usize) -> Result<(Kind, usize), TemplateError> {
    let mut unsigned = chars[at..].iter().skip_while(|c| matches!(c, '-' | '+'));
    let hexadecimal = unsigned.nth(1).is_some_and(|c| matches!(c, 'x' | 'X'));
    let mut len = 1;
    while let Some(c) = chars.get(at + len) {
        // The sign of an exponent.
        let signed = matches!(c, '-' | '+') && !hexadecimal && matches!(chars[at + len - 1], 'e' | 'E');
        if !(c.is_alphanumeric() || matches!(c, '_' | '.') || signed) {
            break;
        }
        len += 1;
    }
    let text: String = chars[at..at + len].iter().filter(|c| **c != '_').collect::<String>().to_ascii_lowercase();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let prefixes = [("0x", 16), ("0b", 2), ("0o", 8)];
    let (radix, digits) = prefixes
        .iter()
        .find_map(|(prefix, radix)| digits.strip_prefix(prefix).map(|digits| (*radix, digits)))
        // As in Go: a zero before it makes it octal.
        .unwrap_or_else(|| match digits.strip_prefix('0') {
            Some(octal) if !octal.is_empty() => (8, octal),
            _ => (10, digits),
        });
    match i64::from_str_radix(digits, radix) {
        Ok(value) => Ok((Kind::Int(if negative { -i128::from(value) } else { value.into() }), at + len)),
        Err(_) => match text.parse::<f64>() {
            Ok(number) if !hexadecimal && number.is_finite() => Ok((Kind::Float(Fraction::of(number)), at + len)),
            _ => error(at + 1, format!("{text:?} is no number")),
        },
    }
}

/// A character between single quotes: its number.
fn character(chars: &[char], at: usize) -> Result<(Kind, usize), TemplateError> {
    let read = match chars.get(at + 1) {
        Some('\\') => escape::read(chars, at + 1),
        Some('\'' | '\n') | None => None,
        Some(c) => Some((*c, at + 2)),
    };
    match read {
        Some((c, end)) if chars.get(end) == Some(&'\'') => Ok((Kind::Int(i128::from(u32::from(c))), end + 1)),
        _ => error(at + 1, "this character is not one between single quotes"),
    }
}

fn quoted(chars: &[char], at: usize) -> Result<(Kind, usize), TemplateError> {
    let mut text = String::new();
    let mut rest = at + 1;
    loop {
        match (chars.get(rest), chars.get(rest + 1)) {
            (Some('"'), _) => return Ok((Kind::Text(text), rest + 1)),
            (Some('\\'), Some(escaped)) => match escape::read(chars, rest) {
                Some((c, end)) => {
                    text.push(c);
                    rest = end;
                }
                None => return error(rest + 1, format!("\"\\{escaped}\" is no escape of a text")),
            },
            (Some('\n') | None, _) | (Some('\\'), None) => return error(at + 1, "this text never ends"),
            (Some(&other), _) => {
                text.push(other);
                rest += 1;
            }
        }
    }
}
