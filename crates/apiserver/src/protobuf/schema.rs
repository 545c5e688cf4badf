//! The messages that are understood, from a table: one line for each message, `number:name:type` for each field.
//!
//! Types: `s` text, `i` integer, `b` boolean, `f` number, `y` bytes, `t` time, `u` time in microseconds, `q` quantity, `o` integer or
//! text, `r` JSON within, `x` list of texts within a message, or another message's name. Before the type: `*` list, `{}` map from
//! text, `?` a zero counts, `^` the message's fields lie in the object itself.

use std::collections::HashMap;
use std::sync::LazyLock;

const TABLE: &str = include_str!("messages.txt");

static MESSAGES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| parse(TABLE));

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) form: Form,
}

/// How often a value occurs, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Once; a zero is nothing.
    Plain,
    /// Once; a zero is a value.
    Counted,
    /// Any number of times.
    List,
    /// Any number of times, with keys.
    Map,
    /// Once; its fields belong to the message around it.
    Inline,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Integer,
    Boolean,
    Data,
    Time,
    MicroTime,
    Quantity,
    IntOrText,
    Json,
    Texts,
    Message(&'static str),
}

/// The message of a kind.
pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    // Groups that belong to Kubernetes are called by their first word; DeleteOptions is one message for all groups.
    let group = if kind == "DeleteOptions" { "meta" } else { group.strip_suffix(".k8s.io").unwrap_or(group) };
    MESSAGES.get(format!("{group}.{version}.{kind}").as_str()).map(Vec::as_slice)
}

/// A message by its name in the table.
pub(super) fn message(name: &str) -> &'static [Field] {
    MESSAGES.get(name).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
pub(super) fn is_known(name: &str) -> bool {
    MESSAGES.contains_key(name)
}

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static [Field])> {
    MESSAGES.iter().map(|(name, fields)| (*name, fields.as_slice()))
}

fn parse(table: &'static str) -> HashMap<&'static str, Vec<Field>> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.filter_map(parse_field).collect()))
        })
        .collect()
}

fn parse_field(word: &'static str) -> Option<Field> {
    let mut parts = word.splitn(3, ':');
    let (number, name, form) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    let shapes = [("*", Shape::List), ("{}", Shape::Map), ("?", Shape::Counted), ("^", Shape::Inline)];
    let found = shapes.into_iter().find_map(|(prefix, shape)| Some((form.strip_prefix(prefix)?, shape)));
    let (form, shape) = found.unwrap_or((form, Shape::Plain));
    Some(Field { number, name, shape, form: parse_form(form) })
}

fn parse_form(form: &'static str) -> Form {
    match form {
        "s" => Form::Text,
        "i" | "f" => Form::Integer,
        "b" => Form::Boolean,
        "y" => Form::Data,
        "t" => Form::Time,
        "u" => Form::MicroTime,
        "q" => Form::Quantity,
        "o" => Form::IntOrText,
        "r" => Form::Json,
        "x" => Form::Texts,
        name => Form::Message(name),
    }
}
