//! Words of an expression.

use super::{ExpressionError, error};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Word(String),
    Text(String),
    Int(i64),
    Sign(&'static str),
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

/// Longer ones before those that they begin with.
const SIGNS: [&str; 23] = [
    "&&", "||", "==", "!=", "<=", ">=", "..", "<", ">", "!", "+", "-", "*", "%", "?", ":", "(", ")", "[", "]", ",",
    "/", "|",
];

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ExpressionError> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&next) = chars.get(at) {
        let (kind, end) = match next {
            c if c.is_whitespace() => {
                at += 1;
                continue;
            }
            '\'' | '"' => quoted(&chars, at)?,
            '`' => match chars[at + 1..].iter().position(|c| *c == '`') {
                Some(len) => (Kind::Text(chars[at + 1..at + 1 + len].iter().collect()), at + len + 2),
                None => return error(at + 1, "this text never ends"),
            },
            c if c.is_ascii_digit() => number(&chars, at)?,
            c if c.is_alphabetic() || c == '_' => {
                let len = chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
                (Kind::Word(chars[at..at + len].iter().collect()), at + len)
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

fn number(chars: &[char], at: usize) -> Result<(Kind, usize), ExpressionError> {
    let len = chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
    let text: String = chars[at..at + len].iter().filter(|c| **c != '_').collect::<String>().to_ascii_lowercase();
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    // `1..5` is a range; `1.5` is no whole number.
    let fraction = chars.get(at + len) == Some(&'.') && chars.get(at + len + 1) != Some(&'.');
    match parsed {
        Ok(value) if !fraction => Ok((Kind::Int(value), at + len)),
        _ => error(at + 1, "here only a whole number can stand"),
    }
}

fn quoted(chars: &[char], at: usize) -> Result<(Kind, usize), ExpressionError> {
    let quote = chars[at];
    let mut text = String::new();
    let mut rest = at + 1;
    loop {
        match (chars.get(rest), chars.get(rest + 1)) {
            (Some(c), _) if *c == quote => return Ok((Kind::Text(text), rest + 1)),
            (Some('\\'), Some(escaped)) => {
                text.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '\\' | '\'' | '"' | '`' => *escaped,
                    other => {
                        return error(rest + 1, format!("\"\\{other}\" is no escape; a backslash is written \"\\\\\""));
                    }
                });
                rest += 2;
            }
            (Some(c), _) if *c != '\\' => {
                text.push(*c);
                rest += 1;
            }
            _ => return error(at + 1, "this text never ends"),
        }
    }
}
