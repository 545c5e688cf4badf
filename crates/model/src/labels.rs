//! Labels and the selectors that match them.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

mod kubernetes;
mod parse;

/// An object's `metadata.labels`.
pub type Labels = Arc<BTreeMap<String, String>>;

/// A pool's `nodeSelector`, in Calico's selector language: `all()`, `has(k)`, `k == 'v'`, `k != 'v'`, `k in {'a', 'b'}`,
/// `k not in {'a'}`, `k contains 'v'`, `k starts with 'v'`, `k ends with 'v'`, `!`, `&&`, `||` and parentheses.
///
/// The empty text selects everything, as it does in Calico.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSelector {
    text: Arc<str>,
    expression: Expression,
}

impl NodeSelector {
    /// Selects every node.
    #[must_use]
    pub fn all() -> Self {
        Self { text: Arc::from("all()"), expression: Expression::All }
    }

    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.expression.matches(labels)
    }
}

impl Default for NodeSelector {
    fn default() -> Self {
        Self::all()
    }
}

impl FromStr for NodeSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.trim().is_empty() {
            return Ok(Self::all());
        }
        Ok(Self { text: Arc::from(text), expression: parse::parse(text)? })
    }
}

impl fmt::Display for NodeSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where and why a selector cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: expected {expected}, found {found}")]
pub struct SelectorError {
    /// The column, in characters, from 1.
    pub column: usize,
    /// What may stand there.
    pub expected: &'static str,
    /// What stands there.
    pub found: String,
}

/// What a selector says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    /// `all()`; also `global()`, since nodes live in no namespace.
    All,
    Has(String),
    Equals(String, String),
    /// Also where there is no such label.
    Differs(String, String),
    In(String, Vec<String>),
    /// Also where there is no such label.
    NotIn(String, Vec<String>),
    Contains(String, String),
    StartsWith(String, String),
    EndsWith(String, String),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

impl Expression {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let is = |key: &str, test: &dyn Fn(&str) -> bool| labels.get(key).is_some_and(|value| test(value));
        match self {
            Self::All => true,
            Self::Has(key) => labels.contains_key(key),
            Self::Equals(key, wanted) => is(key, &|value| value == wanted),
            Self::Differs(key, unwanted) => !is(key, &|value| value == unwanted),
            Self::In(key, wanted) => is(key, &|value| wanted.iter().any(|one| one == value)),
            Self::NotIn(key, unwanted) => !is(key, &|value| unwanted.iter().any(|one| one == value)),
            Self::Contains(key, part) => is(key, &|value| value.contains(part.as_str())),
            Self::StartsWith(key, part) => is(key, &|value| value.starts_with(part.as_str())),
            Self::EndsWith(key, part) => is(key, &|value| value.ends_with(part.as_str())),
            Self::Not(inner) => !inner.matches(labels),
            Self::And(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }
}

#[cfg(test)]
mod tests;
