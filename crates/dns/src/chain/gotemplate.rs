//! Go's `text/template` as far as the plugin `template` has use for it.
//!
//! A template is parsed, and everything in it looked up, when the Corefile is loaded: fields, groups, functions and their numbers of
//! arguments, verbs of `printf`. What is not known is an error that names it. What is left to the answer is only what depends on
//! the question, such as an index beyond the end of a list.
//!
//! Known are `.Zone`, `.Name`, `.Class`, `.Type`, `.Regex`, `.Remote`, `.Match`, `.Group.x`, `.Question.Name|Qtype|Qclass`,
//! `.Message` with its header's fields, `.Message.Question` and `.Message.IsEdns0`, `.Meta "label"`; variables, pipelines, parentheses,
//! `if`, `with`, `range` with `else`, `break` and `continue`, trimming and comments; `and`, `or`, `not`, `len`, `index`, `slice`,
//! `print`, `printf`, `println`, `html`, `js`, `urlquery`, `eq`, `ne`, `lt`, `le`, `gt`, `ge` and `parseInt`.
//! Fractions, templates within templates and a message's records are not known.

mod escape;
mod eval;
mod functions;
mod lexer;
mod parser;
mod print;
mod shape;
#[cfg(test)]
mod tests;

use functions::Function;

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoTemplate {
    text: String,
    nodes: Vec<Node>,
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
        let nodes = parser::parse(lexer::items(text)?, groups)?;
        Ok(Self { text: text.to_owned(), nodes })
    }

    /// The text for a question.
    ///
    /// # Errors
    /// When a value is not what the template takes it for: a number that is none, an index beyond the end.
    pub fn render(&self, data: &TemplateData<'_>) -> Result<String, TemplateError> {
        eval::render(&self.nodes, data)
    }

    /// The template's own text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Nil,
    Bool(bool),
    Int(i128),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
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
