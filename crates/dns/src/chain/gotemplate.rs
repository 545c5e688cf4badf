//! Go's `text/template` as far as the plugin `template` has use for it.
//!
//! A template is parsed, and everything in it looked up, when the Corefile is loaded: fields, groups, functions and their numbers of
//! arguments, verbs of `printf`. What is not known is an error that names it. What is left to the answer is only what depends on
//! the question, such as an index beyond the end of a list.
//!
//! Known are `.Zone`, `.Name`, `.Class`, `.Type`, `.Regex`, `.Remote`, `.Match`, `.Group.x`, `.Question.Name|Qtype|Qclass`,
//! `.Message` with its header's fields, `.Message.Question`, `.Message.Answer|Ns|Extra` and `.Message.IsEdns0`, `.Meta "label"`; variables,
//! pipelines, parentheses, `if`, `with`, `range` with `else`, `break` and `continue`, `define`, `template` and `block`, trimming and
//! comments; `and`, `or`, `not`, `len`, `index`, `slice`, `print`, `printf`, `println`, `html`, `js`, `urlquery`, `eq`, `ne`, `lt`,
//! `le`, `gt`, `ge` and `parseInt`. Of the message's records the header (`.Hdr`, `.Header`) and the text are known, and no fields of a type's own; of
//! EDNS' record its options, too. What a template that others call is given is known only when it is called: so are its fields.

mod escape;
mod eval;
mod fraction;
mod functions;
mod lexer;
mod message;
mod parser;
mod print;
mod shape;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use fraction::Fraction;
use functions::Function;

use super::PodLabels;
use crate::message::Expanded;

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoTemplate {
    text: String,
    pod_labels: PodLabels,
    parsed: Parsed,
}

/// What a template can tell of.
#[derive(Clone, Copy)]
pub struct TemplateData<'a> {
    /// The zone of the plugin that the name lies in.
    pub zone: &'a str,
    /// The name that is asked for, in lower case, with the dot at its end.
    pub name: &'a str,
    /// The class that is asked for.
    pub class: &'a str,
    /// The type that is asked for.
    pub rtype: &'a str,
    /// The expression that matched the name.
    pub regex: &'a str,
    /// What its groups matched, all of it first.
    pub matches: &'a [&'a str],
    /// What its named groups matched.
    pub groups: &'a [(&'a str, &'a str)],
    /// The client's address.
    pub remote: &'a str,
    /// The type and the class as numbers.
    pub question: (u16, u16),
    /// The id of the message, and its flags as they stand in the header's second word.
    pub header: (u16, u16),
    /// The UDP size that the client's EDNS tells, and whether it wants DNSSEC's records; none: there is no EDNS.
    pub edns: Option<(u16, bool)>,
    /// The options of that, as they came.
    pub options: &'a [u8],
    /// What the message has beside its question and EDNS.
    pub records: &'a [Expanded],
    /// What plugins tell under a label.
    pub meta: &'a dyn Fn(&str) -> Option<String>,
}

/// What is wrong with a template, or why it has no text for a question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (at character {at})")]
pub struct TemplateError {
    /// The character in the template's text, from 1.
    pub at: usize,
    /// What is wrong.
    pub reason: String,
}

impl GoTemplate {
    /// Parses a template. `groups` are the names of the groups that an expression may have matched.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn parse(text: &str, groups: &[&str]) -> Result<Self, TemplateError> {
        let items = lexer::items(text)?;
        Ok(Self { text: text.to_owned(), pod_labels: pod_labels(&items), parsed: parser::parse(items, groups)? })
    }

    /// The labels of pods that it asks for.
    #[must_use]
    pub fn pod_labels(&self) -> &PodLabels {
        &self.pod_labels
    }

    /// Whether it tells of the message's records, or of the options of its EDNS.
    #[must_use]
    pub fn reads_records(&self) -> bool {
        self.parsed.reads_records
    }

    /// The text for a question.
    ///
    /// # Errors
    /// When a value is not what the template takes it for: a number that is none, an index beyond the end.
    pub fn render(&self, data: &TemplateData<'_>) -> Result<String, TemplateError> {
        eval::render(&self.parsed, data)
    }

    /// The template's own text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The labels of pods that are asked for: all where a label is computed.
fn pod_labels(items: &[lexer::Item]) -> PodLabels {
    let mut labels = PodLabels::default();
    for item in items {
        let lexer::Item::Action { tokens, .. } = item else { continue };
        let mut kinds = tokens.iter().map(|token| &token.kind).peekable();
        while let Some(kind) = kinds.next() {
            if matches!(kind, lexer::Kind::Field(name) if name == "Meta") {
                labels.ask(match kinds.peek() {
                    Some(lexer::Kind::Text(label)) => Some(label.as_str()),
                    _ => None,
                });
            }
        }
    }
    labels
}

/// A value. What is large is shared: a value is copied each time that it is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Nil,
    Bool(bool),
    Int(i128),
    Float(Fraction),
    Text(String),
    List(Arc<[Value]>),
    Map(Arc<[(String, Value)]>),
    /// What has a text of its own, and fields.
    Record(Arc<(String, Vec<(String, Value)>)>),
}

/// What became of a template's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parsed {
    nodes: Vec<Node>,
    /// The templates within it, by their names.
    defined: Vec<(String, Vec<Node>)>,
    reads_records: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Text(String),
    Print(Pipeline),
    /// The value is not printed: a declaration or an assignment.
    Set(Pipeline),
    If {
        pipeline: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        pipeline: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        pipeline: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
    /// Another template, with what becomes its dot.
    Template {
        at: usize,
        name: String,
        pipeline: Option<Pipeline>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pipeline {
    at: usize,
    /// The variables that the value goes into.
    variables: Vec<String>,
    /// They are new.
    declares: bool,
    commands: Vec<Command>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Command {
    at: usize,
    call: Call,
    arguments: Vec<Operand>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    /// No call: the value itself.
    Value(Operand),
    /// `.Meta`.
    Meta,
    Function(Function),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operand {
    Dot,
    Root,
    Constant(Value),
    Variable(String),
    Field(Box<Operand>, String),
    Pipeline(Box<Pipeline>),
}

fn error<T>(at: usize, reason: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError { at, reason: reason.into() })
}
