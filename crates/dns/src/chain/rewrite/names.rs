//! Names that are rewritten.

use super::{Rewrite, read};
use crate::{
    chain::Pattern,
    corefile::{CorefileError, Word},
};

/// Which names: all texts are in lower case, and names end with a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameMatch {
    /// This one.
    Exact(String),
    /// Those that begin so.
    Prefix(String),
    /// Those that end so.
    Suffix(String),
    /// Those that have this in them.
    Substring(String),
    /// Those that the expression finds something in.
    Regex(Pattern),
}

/// Which names, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Which names.
    pub from: NameMatch,
    /// What stands in place of what matched; of a regular expression: the whole new name, with `{1}` for its first group.
    pub to: String,
}

/// What happens to the answer of a rewritten question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerRewrites {
    /// The new name is replaced by the one that was asked for, in owners and data. Always so for [`NameMatch::Exact`].
    pub auto: bool,
    /// Owners of records.
    pub names: Vec<Replacement>,
    /// Names in the data of records.
    pub values: Vec<Replacement>,
}

impl NameMatch {
    /// Whether a name (in lower case, with the dot at its end) is one of these.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(own) => name == own,
            Self::Prefix(own) => name.starts_with(own.as_str()),
            Self::Suffix(own) => name.ends_with(own.as_str()),
            Self::Substring(own) => name.contains(own.as_str()),
            Self::Regex(pattern) => pattern.regex().is_match(name),
        }
    }
}

impl Replacement {
    /// What becomes of a name (in lower case, with the dot at its end); none when it is not one of those.
    #[must_use]
    pub fn replace(&self, name: &str) -> Option<String> {
        match &self.from {
            NameMatch::Exact(own) => (name == own).then(|| self.to.clone()),
            NameMatch::Prefix(own) => name.strip_prefix(own.as_str()).map(|rest| format!("{}{rest}", self.to)),
            NameMatch::Suffix(own) => name.strip_suffix(own.as_str()).map(|rest| format!("{rest}{}", self.to)),
            NameMatch::Substring(own) => name.contains(own.as_str()).then(|| name.replace(own.as_str(), &self.to)),
            NameMatch::Regex(pattern) => {
                let groups = pattern.regex().captures(name)?;
                let text = |index| groups.get(index).map_or("", |group| group.as_str());
                let mut out = self.to.clone();
                for index in 0..groups.len() {
                    out = out.replace(&format!("{{{index}}}"), text(index));
                }
                Some(out)
            }
        }
    }
}

/// `[MATCH] STRING STRING [answer auto|name STRING STRING|value STRING STRING]…`.
pub(super) fn question(values: &[&Word], last: &Word) -> Result<Rewrite, CorefileError> {
    let at = values.iter().position(|word| word.text.eq_ignore_ascii_case("answer")).filter(|at| *at >= 2);
    let (own, mut rest) = values.split_at(at.unwrap_or(values.len()));
    let replacement = replacement(own, own.last().copied().unwrap_or(last))?;
    let auto = matches!(replacement.from, NameMatch::Exact(_));
    let mut answers = AnswerRewrites { auto, ..AnswerRewrites::default() };
    while let [answer, after @ ..] = rest {
        if !answer.text.eq_ignore_ascii_case("answer") {
            return Err(answer.bad("a word of rewrite", "answer auto, answer name … or answer value …"));
        }
        let [kind, after @ ..] = after else { return Err(answer.missing("auto, name or value")) };
        let pair = || match after {
            [from, to, ..] => {
                let pattern = Pattern::read(from, "the expression of an answer")?;
                let to = read::replacement(to, "the new name of an answer", &pattern)?;
                Ok(Replacement { from: NameMatch::Regex(pattern), to })
            }
            _ => Err(kind.missing("an expression and the new name")),
        };
        rest = after;
        match kind.text.to_ascii_lowercase().as_str() {
            "auto" => {
                answers.auto = true;
                continue;
            }
            "name" => answers.names.push(pair()?),
            "value" => answers.values.push(pair()?),
            _ => return Err(kind.bad("what of the answer is rewritten", "auto, name or value")),
        }
        rest = &after[2..];
    }
    Ok(Rewrite::Name { replacement, answers })
}

/// `[MATCH] STRING STRING`.
pub(super) fn replacement(values: &[&Word], last: &Word) -> Result<Replacement, CorefileError> {
    let (from, rest) = matched(values, last, 1)?;
    let [to] = rest else { return Err(count(rest, 1, last, "the new name")) };
    let text = to.text.to_ascii_lowercase();
    let to = match &from {
        NameMatch::Exact(_) | NameMatch::Suffix(_) => dotted(text),
        NameMatch::Regex(pattern) => read::replacement(to, "the new name", pattern)?,
        NameMatch::Prefix(_) | NameMatch::Substring(_) => text,
    };
    Ok(Replacement { from, to })
}

/// `[MATCH] STRING` before `more` words.
pub(super) fn matched<'a, 'w>(
    values: &'a [&'w Word],
    last: &Word,
    more: usize,
) -> Result<(NameMatch, &'a [&'w Word]), CorefileError> {
    let (kind, rest) = match values {
        [kind, rest @ ..] if values.len() > more + 1 => (Some(*kind), rest),
        _ => (None, values),
    };
    let [word, rest @ ..] = rest else { return Err(last.missing("a name, and what becomes of it")) };
    let text = word.text.to_ascii_lowercase();
    let kind_text = kind.map_or("exact".to_owned(), |kind| kind.text.to_ascii_lowercase());
    let matching = match (kind_text.as_str(), kind) {
        ("exact", _) => NameMatch::Exact(dotted(text)),
        ("prefix", _) => NameMatch::Prefix(text),
        ("suffix", _) => NameMatch::Suffix(dotted(text)),
        ("substring", _) => NameMatch::Substring(text),
        ("regex", _) => NameMatch::Regex(Pattern::read(word, "the expression of rewrite")?),
        (_, kind) => {
            let word = kind.unwrap_or(word);
            return Err(word.bad("how rewrite matches", "exact, prefix, suffix, substring or regex"));
        }
    };
    Ok((matching, rest))
}

/// The error that there are not `wanted` words left.
pub(super) fn count(rest: &[&Word], wanted: usize, last: &Word, needed: &str) -> CorefileError {
    match rest.get(wanted) {
        Some(more) => more.bad("a word of rewrite", "the end of the line"),
        None => last.missing(needed),
    }
}

fn dotted(text: String) -> String {
    if text.ends_with('.') { text } else { text + "." }
}
