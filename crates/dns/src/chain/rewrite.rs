//! `rewrite`.

mod edns;
mod names;

pub use edns::{EdnsAction, EdnsData, EdnsOption, EdnsRewrite};
pub use names::{AnswerRewrites, NameMatch, Replacement};

use super::{read, scope::Scope};
use crate::{
    corefile::{CorefileError, Directive, Word},
    message::Rcode,
};

/// One rule of `rewrite`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteOptions {
    /// After this rule applied, the next one is looked at, too.
    pub goes_on: bool,
    /// What is rewritten.
    pub rewrite: Rewrite,
}

/// What is rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// The name that is asked for, and names in the answer.
    Name {
        /// Which names, and what becomes of them.
        replacement: Replacement,
        /// What happens to the answer.
        answers: AnswerRewrites,
    },
    /// The type that is asked for.
    Type {
        /// This one…
        from: u16,
        /// … becomes this one.
        to: u16,
    },
    /// The class that is asked for.
    Class {
        /// This one…
        from: u16,
        /// … becomes this one.
        to: u16,
    },
    /// The time to live of the answer's records, in seconds.
    Ttl {
        /// Of questions for these names.
        names: NameMatch,
        /// It is at least this…
        min: u32,
        /// … and at most this.
        max: u32,
    },
    /// Targets of aliases in the answer; the new one is looked up.
    Cname(Replacement),
    /// The response code.
    Rcode {
        /// Of questions for these names.
        names: NameMatch,
        /// This one…
        from: Rcode,
        /// … becomes this one.
        to: Rcode,
    },
    /// An EDNS option of the question.
    Edns(EdnsRewrite),
}

const FIELDS: &str = "name, type, class, ttl, cname, rcode or edns0";

/// `rewrite [continue|stop] FIELD …`, or the same in lines between braces.
pub(super) fn parse(directive: &Directive, scope: &mut Scope<'_>) -> Result<RewriteOptions, CorefileError> {
    let mut words: Vec<&Word> = directive.arguments.iter().collect();
    if words.len() < 2 {
        for option in &directive.options {
            read::no_options(option)?;
            words.push(&option.name);
            words.extend(&option.arguments);
        }
    } else {
        read::no_options(directive)?;
    }
    let mut words = words.as_slice();
    let mut goes_on = false;
    if let [first, rest @ ..] = words
        && let mode @ ("continue" | "stop") = first.text.to_ascii_lowercase().as_str()
    {
        goes_on = mode == "continue";
        words = rest;
    }
    let [field, values @ ..] = words else { return Err(directive.missing(&format!("what to rewrite: {FIELDS}"))) };
    let last = *words.last().unwrap_or(field);
    let rewrite = match field.text.to_ascii_lowercase().as_str() {
        "name" => names::question(values, last)?,
        "type" => {
            let (from, to) = pair(values, last, "two record types")?;
            let rtype = |word| read::record_type(word, "a type of rewrite");
            Rewrite::Type { from: rtype(from)?, to: rtype(to)? }
        }
        "class" => {
            let (from, to) = pair(values, last, "two classes")?;
            let class = |word| read::class(word, "a class of rewrite");
            Rewrite::Class { from: class(from)?, to: class(to)? }
        }
        "ttl" => ttl(values, last)?,
        "cname" => Rewrite::Cname(names::replacement(values, last)?),
        "rcode" => rcode(values, last)?,
        "edns0" => Rewrite::Edns(edns::parse(values, last)?),
        "answer" => return Err(field.bad("what to rewrite", "name: what happens to the answer stands behind it")),
        _ => return Err(field.bad("what to rewrite", FIELDS)),
    };
    let of_plugin = |option: &EdnsOption| matches!(option, EdnsOption::Local { data: EdnsData::Metadata(_), .. });
    if matches!(&rewrite, Rewrite::Edns(EdnsRewrite { option, .. }) if of_plugin(option)) {
        scope.served("rewrite/metadata", last);
    }
    Ok(RewriteOptions { goes_on, rewrite })
}

fn pair<'a>(values: &[&'a Word], last: &Word, needed: &str) -> Result<(&'a Word, &'a Word), CorefileError> {
    match values {
        [from, to] => Ok((from, to)),
        [_, _, more, ..] => Err(more.bad("a word of rewrite", "the end of the line")),
        _ => Err(last.missing(needed)),
    }
}

/// `[MATCH] STRING SECONDS`, the seconds being one number or a range.
fn ttl(values: &[&Word], last: &Word) -> Result<Rewrite, CorefileError> {
    let (names, rest) = names::matched(values, last, 1)?;
    let [word] = rest else { return Err(names::count(rest, 1, last, "a time to live in seconds")) };
    let bad = || word.bad("the time to live of rewrite", "seconds, or a range such as 5-60, 5- or -60");
    let number = |text: &str, none: u32| if text.is_empty() { Some(none) } else { text.parse().ok() };
    let (min, max) = match word.text.split_once('-') {
        None => (word.text.parse().ok(), word.text.parse().ok()),
        Some(("", "")) => (None, None),
        Some((min, max)) => (number(min, 0), number(max, i32::MAX as u32)),
    };
    match (min, max) {
        (Some(min), Some(max)) if min <= max => Ok(Rewrite::Ttl { names, min, max }),
        _ => Err(bad()),
    }
}

/// `[MATCH] STRING RCODE RCODE`.
fn rcode(values: &[&Word], last: &Word) -> Result<Rewrite, CorefileError> {
    let (names, rest) = names::matched(values, last, 2)?;
    let [from, to] = rest else { return Err(names::count(rest, 2, last, "two response codes")) };
    let code = |word| read::response_code(word, "a code of rewrite");
    Ok(Rewrite::Rcode { names, from: code(from)?, to: code(to)? })
}
