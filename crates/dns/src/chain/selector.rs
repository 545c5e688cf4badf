//! Label selectors of Kubernetes, as `labels` and `namespace_labels` have them.

use std::fmt;

use crate::corefile::{CorefileError, Directive, Fault, Word};

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
}

impl Selector {
    /// Whether an object is selected whose labels have these values.
    #[must_use]
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let among = |key: &str, values: &[String]| label(key).map(|value| values.iter().any(|one| one == value));
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Missing(key) => label(key).is_none(),
            Requirement::In(key, values) => among(key, values) == Some(true),
            Requirement::NotIn(key, values) => among(key, values) != Some(true),
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
        };
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join(","))
    }
}

/// `labels EXPRESSION`: the rest of the line is one expression.
pub(super) fn parse(option: &Directive) -> Result<Selector, CorefileError> {
    let Some(first) = option.arguments.first() else { return Err(option.missing("a label selector")) };
    let words: Vec<&str> = option.arguments.iter().map(|word| word.text.as_str()).collect();
    let text = words.join(" ");
    selector(&text).map(Selector).ok_or_else(|| {
        let whole = Word { text, ..first.clone() };
        let allowed = "a label selector such as app=web,tier!=test,env in (staging, qa),!old".to_owned();
        whole.error(Fault::BadValue { what: "a label selector".to_owned(), found: whole.text.clone(), allowed })
    })
}

fn selector(text: &str) -> Option<Vec<Requirement>> {
    let mut parts = vec![String::new()];
    let mut depth = 0_u32;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut()?.push(c);
    }
    parts.iter().map(|part| requirement(part.trim())).collect()
}

fn requirement(text: &str) -> Option<Requirement> {
    if let Some(key) = text.strip_prefix('!') {
        return label_key(key).map(Requirement::Missing);
    }
    for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = text.split_once(sign) {
            let (key, values) = (label_key(key)?, vec![label_value(value)?]);
            return Some(if equal { Requirement::In(key, values) } else { Requirement::NotIn(key, values) });
        }
    }
    let Some((head, set)) = text.split_once('(') else { return label_key(text).map(Requirement::Exists) };
    let values = set.strip_suffix(')')?.split(',').map(label_value).collect::<Option<Vec<_>>>()?;
    let mut words = head.split_ascii_whitespace();
    let (key, sign) = (label_key(words.next()?)?, words.next()?);
    match (sign, words.next()) {
        ("in", None) => Some(Requirement::In(key, values)),
        ("notin", None) => Some(Requirement::NotIn(key, values)),
        _ => None,
    }
}

/// `[prefix/]name`, as the API allows them.
fn label_key(text: &str) -> Option<String> {
    let text = text.trim();
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let prefix_right = prefix.is_none_or(|prefix| {
        !prefix.is_empty() && prefix.len() <= 253 && prefix.split('.').all(|part| is_label(part) && !part.is_empty())
    });
    (prefix_right && !name.is_empty() && is_label(name)).then(|| text.to_owned())
}

fn label_value(text: &str) -> Option<String> {
    let text = text.trim();
    is_label(text).then(|| text.to_owned())
}

fn is_label(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    let within = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= 63
        && text.chars().all(within)
        && (text.is_empty() || (text.starts_with(ends) && text.ends_with(ends)))
}
