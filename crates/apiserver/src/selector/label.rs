//! Label selectors: `app=web,tier!=db,env in (a,b),!legacy` (Kubernetes documentation, "Labels and Selectors").

use serde_json::{Map, Value};

use super::SelectorError;

/// Requirements on labels, all of which must hold. The empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl LabelSelector {
    /// Parses the text of a `labelSelector` parameter.
    ///
    /// # Errors
    /// Names the requirement that is not well-formed.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let requirements =
            split(text)?.into_iter().map(Requirement::parse).collect::<Result<Vec<_>, SelectorError>>()?;
        Ok(Self { requirements })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.and_then(|labels| labels.get(&requirement.key)).and_then(Value::as_str);
            requirement.test.holds(value)
        })
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Exists, value) => value.is_some(),
            (Self::Absent, value) => value.is_none(),
            (Self::In(allowed), Some(value)) => allowed.iter().any(|a| a == value),
            (Self::NotIn(refused), Some(value)) => !refused.iter().any(|r| r == value),
            (Self::NotIn(_), None) => true,
            (Self::Greater(bound), Some(value)) => value.parse::<i64>().is_ok_and(|n| n > *bound),
            (Self::Less(bound), Some(value)) => value.parse::<i64>().is_ok_and(|n| n < *bound),
            (Self::In(_) | Self::Greater(_) | Self::Less(_), None) => false,
        }
    }
}

/// Splits at the commas that are not inside parentheses.
fn split(text: &str) -> Result<Vec<&str>, SelectorError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut parts = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' if inside => return Err(unfinished(text, "'(' inside parentheses")),
            b'(' => inside = true,
            b')' if !inside => return Err(unfinished(text, "')' without '('")),
            b')' => inside = false,
            b',' if !inside => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(unfinished(text, "')' is missing"));
    }
    parts.push(text[start..].trim());
    Ok(parts)
}

impl Requirement {
    fn parse(text: &str) -> Result<Self, SelectorError> {
        let wrong =
            |reason: &str| SelectorError::Requirement { requirement: text.to_owned(), reason: reason.to_owned() };
        if let Some(key) = text.strip_prefix('!') {
            return Ok(Self { key: checked_key(key.trim()).map_err(|e| wrong(&e))?, test: Test::Absent });
        }
        let end = text.find(|c: char| c.is_whitespace() || "=!<>(".contains(c)).unwrap_or(text.len());
        let (key, rest) = text.split_at(end);
        let key = checked_key(key).map_err(|e| wrong(&e))?;
        let rest = rest.trim_start();
        let test = if rest.is_empty() {
            Test::Exists
        } else if let Some(value) = rest.strip_prefix("!=") {
            Test::NotIn(vec![checked_value(value).map_err(|e| wrong(&e))?])
        } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
            Test::In(vec![checked_value(value).map_err(|e| wrong(&e))?])
        } else if let Some(bound) = rest.strip_prefix('>') {
            Test::Greater(bound.trim().parse().map_err(|_| wrong("'>' needs an integer"))?)
        } else if let Some(bound) = rest.strip_prefix('<') {
            Test::Less(bound.trim().parse().map_err(|_| wrong("'<' needs an integer"))?)
        } else if let Some(list) = rest.strip_prefix("notin") {
            Test::NotIn(values(list).map_err(|e| wrong(&e))?)
        } else if let Some(list) = rest.strip_prefix("in") {
            Test::In(values(list).map_err(|e| wrong(&e))?)
        } else {
            return Err(wrong("found no operator: one of =, ==, !=, in, notin, <, > is expected after the key"));
        };
        Ok(Self { key, test })
    }
}

fn values(text: &str) -> Result<Vec<String>, String> {
    let inner = text
        .trim()
        .strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'))
        .ok_or("in and notin need a list in parentheses")?;
    inner.split(',').map(checked_value).collect()
}

fn checked_key(key: &str) -> Result<String, String> {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_fits = prefix.is_none_or(|p| {
        !p.is_empty()
            && p.len() <= 253
            && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
    });
    if prefix_fits && is_label_text(name) && !name.is_empty() {
        Ok(key.to_owned())
    } else {
        Err(format!("{key:?} is not a label key"))
    }
}

fn checked_value(value: &str) -> Result<String, String> {
    let value = value.trim();
    if is_label_text(value) { Ok(value.to_owned()) } else { Err(format!("{value:?} is not a label value")) }
}

/// At most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends; or nothing.
fn is_label_text(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_none_or(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

fn unfinished(text: &str, reason: &'static str) -> SelectorError {
    SelectorError::Unfinished { selector: text.to_owned(), reason }
}
