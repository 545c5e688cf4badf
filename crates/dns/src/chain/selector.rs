//! Label selectors of Kubernetes, as `labels` and `namespace_labels` have them.

use std::fmt;

use super::read;
use crate::corefile::{CorefileError, Directive, Fault};

/// A label selector: all requirements hold. Its text is what the API's `labelSelector` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

/// What a label has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The label exists.
    Exists(String),
    /// The label does not exist.
    Missing(String),
    /// The label is one of these.
    In(String, Vec<String>),
    /// The label is none of these, or does not exist.
    NotIn(String, Vec<String>),
    /// The label is a whole number above this.
    Above(String, i64),
    /// The label is a whole number below this.
    Below(String, i64),
}

impl Selector {
    /// Whether an object is selected whose labels have these values.
    #[must_use]
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let among = |key: &str, values: &[String]| label(key).map(|value| values.iter().any(|one| one == value));
        let number = |key: &str| label(key).and_then(|value| value.parse::<i64>().ok());
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Missing(key) => label(key).is_none(),
            Requirement::In(key, values) => among(key, values) == Some(true),
            Requirement::NotIn(key, values) => among(key, values) != Some(true),
            Requirement::Above(key, bound) => number(key).is_some_and(|number| number > *bound),
            Requirement::Below(key, bound) => number(key).is_some_and(|number| number < *bound),
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |requirement: &Requirement| match requirement {
            Requirement::Exists(key) => key.clone(),
            Requirement::Missing(key) => format!("!{key}"),
            Requirement::In(key, values) => format!("{key} in ({})", values.join(",")),
            Requirement::NotIn(key, values) => format!("{key} notin ({})", values.join(",")),
            Requirement::Above(key, bound) => format!("{key}>{bound}"),
            Requirement::Below(key, bound) => format!("{key}<{bound}"),
        };
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join(","))
    }
}

/// `labels EXPRESSION`: the rest of the line is one expression. Without any requirement it selects all.
pub(super) fn parse(option: &Directive) -> Result<Selector, CorefileError> {
    if option.arguments.is_empty() {
        return Err(option.missing("a label selector"));
    }
    let words: Vec<&str> = option.arguments.iter().map(|word| word.text.as_str()).collect();
    let text = words.join(" ");
    let mut parser = Parser { tokens: tokens(&text), next: 0, end: text.chars().count() };
    parser.requirements().map(Selector).map_err(|Wrong { at, reason }| {
        let (what, found) = ("the label selector".to_owned(), text.clone());
        CorefileError { place: read::place_in(option, at), fault: Fault::Malformed { what, found, reason } }
    })
}

/// What is wrong with a selector, and at which character, counted from 0.
struct Wrong {
    at: usize,
    reason: String,
}

/// Signs and what stands between them, each with its first character's number.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let is_sign = |c: char| matches!(c, '(' | ')' | ',' | '!' | '=' | '<' | '>');
    let mut tokens = Vec::new();
    let (mut rest, mut at) = (text, 0);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            c if c.is_whitespace() => c.len_utf8(),
            '=' | '!' if rest[1..].starts_with('=') => 2,
            c if is_sign(c) => 1,
            _ => rest.find(|c: char| c.is_whitespace() || is_sign(c)).unwrap_or(rest.len()),
        };
        let (token, behind) = rest.split_at(length);
        if !first.is_whitespace() {
            tokens.push((at, token));
        }
        at += token.chars().count();
        rest = behind;
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<(usize, &'a str)>,
    next: usize,
    /// Behind the last character.
    end: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.next).map(|(_, token)| *token)
    }

    fn take(&mut self, sign: &str) -> bool {
        let is = self.peek() == Some(sign);
        self.next += usize::from(is);
        is
    }

    fn wrong<T>(&self, allowed: &str) -> Result<T, Wrong> {
        let (at, found) = match self.tokens.get(self.next) {
            Some((at, token)) => (*at, format!("found {token:?}")),
            None => (self.end, "it ends here".to_owned()),
        };
        Err(Wrong { at, reason: format!("{found}, allowed here: {allowed}") })
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, Wrong> {
        let mut all = Vec::new();
        if self.peek().is_none() {
            return Ok(all);
        }
        loop {
            all.push(self.requirement()?);
            if self.peek().is_none() {
                return Ok(all);
            }
            if !self.take(",") {
                return self.wrong("\",\" or the end");
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, Wrong> {
        if self.take("!") {
            return self.key().map(Requirement::Missing);
        }
        let key = self.key()?;
        let Some(sign) = self.peek().filter(|sign| *sign != ",") else { return Ok(Requirement::Exists(key)) };
        self.next += 1;
        Ok(match sign {
            "=" | "==" => Requirement::In(key, vec![self.value()?]),
            "!=" => Requirement::NotIn(key, vec![self.value()?]),
            "in" => Requirement::In(key, self.set()?),
            "notin" => Requirement::NotIn(key, self.set()?),
            ">" => Requirement::Above(key, self.number()?),
            "<" => Requirement::Below(key, self.number()?),
            _ => {
                self.next -= 1;
                return self.wrong("=, ==, !=, in, notin, <, >, \",\" or the end");
            }
        })
    }

    fn key(&mut self) -> Result<String, Wrong> {
        match self.peek().filter(|key| is_key(key)) {
            Some(key) => {
                self.next += 1;
                Ok(key.to_owned())
            }
            None => self.wrong("a label such as app or example.org/app"),
        }
    }

    /// A value, which may be nothing.
    fn value(&mut self) -> Result<String, Wrong> {
        match self.peek() {
            None | Some("," | ")") => Ok(String::new()),
            Some(value) if is_name(value) => {
                self.next += 1;
                Ok(value.to_owned())
            }
            Some(_) => {
                self.wrong("a label's value: up to 63 letters, digits, -, _ and ., with a letter or digit at both ends")
            }
        }
    }

    fn set(&mut self) -> Result<Vec<String>, Wrong> {
        if !self.take("(") {
            return self.wrong("a list such as (a, b)");
        }
        let mut values = vec![self.value()?];
        while self.take(",") {
            values.push(self.value()?);
        }
        if self.take(")") { Ok(values) } else { self.wrong("\",\" or \")\"") }
    }

    fn number(&mut self) -> Result<i64, Wrong> {
        let number = self.peek().filter(|number| is_name(number)).and_then(|number| number.parse().ok());
        match number {
            Some(number) => {
                self.next += 1;
                Ok(number)
            }
            None => self.wrong("a whole number"),
        }
    }
}

/// `[prefix/]name`, as the API allows them.
fn is_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let domain = |part: &str| {
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(lower) && part.ends_with(lower) && part.chars().all(|c| lower(c) || c == '-')
    };
    prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(domain)) && is_name(name)
}

fn is_name(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    let within = |c: char| ends(c) || matches!(c, '-' | '_' | '.');
    text.len() <= 63 && text.starts_with(ends) && text.ends_with(ends) && text.chars().all(within)
}

#[cfg(test)]
mod tests {
    use super::{Parser, Selector, tokens};

    fn selector(text: &str) -> Result<Selector, (usize, String)> {
        let mut parser = Parser { tokens: tokens(text), next: 0, end: text.chars().count() };
        parser.requirements().map(Selector).map_err(|wrong| (wrong.at, wrong.reason))
    }

    #[test]
    fn selectors_are_read_as_the_api_reads_them() {
        let labels = [("app", "web"), ("size", "12"), ("none", ""), ("example.org/tier", "front.1")];
        let label = |key: &str| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        for (text, expected) in [
            ("", true),
            ("app", true),
            ("! other , app", true),
            ("!app", false),
            ("app=web", true),
            ("app == web,size!=13", true),
            ("app != web", false),
            ("other!=web", true),
            ("none=", true),
            ("none=,app", true),
            ("none!=", false),
            ("app in (api,web)", true),
            ("app in(web),size notin ( 1 , 2 )", true),
            ("app notin (web)", false),
            ("none in ()", true),
            ("none in (a,)", true),
            ("size > 11, size<13", true),
            ("size>12", false),
            ("size < 12", false),
            ("app > 1", false),
            ("other < 1", false),
            ("example.org/tier=front.1", true),
        ] {
            assert_eq!(selector(text).map(|selector| selector.matches(label)), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_selector_is_told_as_it_is_read() {
        for text in ["app in (a,b),!old,now,tier notin (x),size>5,size<9", "none in ()", ""] {
            assert_eq!(selector(text).unwrap().to_string(), text);
            assert_eq!(selector(&selector(text).unwrap().to_string()), selector(text));
        }
    }

    #[test]
    fn what_is_no_selector_is_told_with_its_place() {
        for (text, at, reason) in [
            ("app in web", 7, "found \"web\", allowed here: a list such as (a, b)"),
            ("app in (web", 11, "it ends here, allowed here: \",\" or \")\""),
            ("app,", 4, "it ends here, allowed here: a label"),
            ("=web", 0, "found \"=\", allowed here: a label"),
            ("app web", 4, "found \"web\", allowed here: =, ==, !=, in"),
            ("app=web=x", 7, "found \"=\", allowed here: \",\" or the end"),
            ("app=web)", 7, "found \")\", allowed here: \",\" or the end"),
            ("-app", 0, "found \"-app\", allowed here: a label"),
            ("Example.org/app", 0, "found \"Example.org/app\""),
            ("/app", 0, "found \"/app\""),
            ("app=-web", 4, "found \"-web\", allowed here: a label's value"),
            ("size>many", 5, "found \"many\", allowed here: a whole number"),
            ("size>", 5, "it ends here, allowed here: a whole number"),
            ("äpp", 0, "found \"äpp\""),
            ("app=ä,b=ö", 4, "found \"ä\""),
        ] {
            let (found, told) = selector(text).unwrap_err();
            assert!(found == at && told.starts_with(reason), "{text}: {found} {told}");
        }
    }
}
