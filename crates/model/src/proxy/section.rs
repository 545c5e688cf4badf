//! Reading a document field by field: each is asked for by its name and kind, and what nobody asked for is not known.

use std::{cell::RefCell, fmt::Display, ops::RangeInclusive, time::Duration};

use serde_norway::{Mapping, Value};

use super::{Fault, duration};

/// A part of the document.
pub(super) struct Section<'a> {
    path: String,
    fields: Option<&'a Mapping>,
    asked: Vec<&'static str>,
    given: &'a Given,
}

/// What a document has.
#[derive(Default)]
pub(super) struct Given {
    /// The paths of the fields that say something, and the text of what they say.
    pub(super) said: RefCell<Vec<(String, String)>>,
    /// The paths of fields that nobody knows.
    pub(super) unknown: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub(super) fn whole(document: &'a Value, given: &'a Given) -> Result<Self, Fault> {
        let fields = document.as_mapping().ok_or_else(|| Fault {
            field: "the document".to_owned(),
            value: shown(document),
            allowed: "a mapping: fields of a KubeProxyConfiguration".to_owned(),
        })?;
        Ok(Self { path: String::new(), fields: Some(fields), asked: Vec::new(), given })
    }

    /// A mapping below this one; an empty one where it is not given.
    pub(super) fn section(&mut self, name: &'static str) -> Result<Section<'a>, Fault> {
        let fields = match self.value(name) {
            Some(Value::Mapping(fields)) => Some(fields),
            Some(other) => return Err(self.fault(name, &shown(other), "a mapping")),
            None => None,
        };
        Ok(Section { path: self.path_of(name), fields, asked: Vec::new(), given: self.given })
    }

    /// A text; none where it is empty.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<&'a str>, Fault> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => {
                self.note(name, text);
                Ok(Some(text))
            }
            Some(other) => Err(self.fault(name, &shown(other), "a text")),
        }
    }

    /// A text that `read` makes something of; `allowed` is what it takes.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        allowed: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        read(text).map(Some).ok_or_else(|| self.fault(name, text, allowed))
    }

    /// true or false; none where it is not given.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<Option<bool>, Fault> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => {
                if *flag {
                    self.note(name, "true");
                }
                Ok(Some(*flag))
            }
            Some(other) => Err(self.fault(name, &shown(other), "true or false")),
        }
    }

    /// A whole number; none where it is not given.
    pub(super) fn number(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Result<Option<i64>, Fault> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.as_i64().filter(|number| range.contains(number));
        let allowed = || format!("a whole number, {} to {}", range.start(), range.end());
        let number = number.ok_or_else(|| self.fault(name, &shown(value), &allowed()))?;
        if number != 0 {
            self.note(name, &number);
        }
        Ok(Some(number))
    }

    /// A duration; none where it is not given, zero where it is zero.
    pub(super) fn duration(&mut self, name: &'static str) -> Result<Option<Duration>, Fault> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let read = match value {
            Value::String(text) => duration::parse(text),
            // A metav1.Duration is a text; 0 alone is often written without a unit.
            Value::Number(number) => (number.as_i64() == Some(0)).then_some(Duration::ZERO),
            _ => None,
        };
        let allowed = "a duration of zero or more with units, for example 30s or 1h0m0s";
        let read = read.ok_or_else(|| self.fault(name, &shown(value), allowed))?;
        if !read.is_zero() {
            self.note(name, &shown(value));
        }
        Ok(Some(read))
    }

    /// A list of texts; none is an empty one. Each comes with its path.
    pub(super) fn texts(&mut self, name: &'static str) -> Result<Vec<(String, &'a str)>, Fault> {
        let list = match self.value(name) {
            None => return Ok(Vec::new()),
            Some(Value::Sequence(list)) => list,
            Some(other) => return Err(self.fault(name, &shown(other), "a list of texts")),
        };
        let path = self.path_of(name);
        let entry = |(place, value): (usize, &'a Value)| {
            let field = format!("{path}[{place}]");
            match value {
                Value::String(text) => Ok((field, text.as_str())),
                other => Err(Fault { field, value: shown(other), allowed: "a text".to_owned() }),
            }
        };
        let texts: Vec<_> = list.iter().enumerate().map(entry).collect::<Result<_, _>>()?;
        if let [(_, first), ..] = texts[..] {
            self.note(name, &first);
        }
        Ok(texts)
    }

    /// A mapping from names of anybody's choice to true or false.
    pub(super) fn flags(&mut self, name: &'static str) -> Result<(), Fault> {
        let section = self.section(name)?;
        for (key, value) in section.fields.into_iter().flatten() {
            let field = format!("{}.{}", section.path, shown(key));
            if !value.is_bool() {
                return Err(Fault { field, value: shown(value), allowed: "true or false".to_owned() });
            }
            self.given.said.borrow_mut().push((field, shown(value)));
        }
        Ok(())
    }

    /// Anything at all. That it says something is noted where it is neither zero nor empty.
    pub(super) fn anything(&mut self, name: &'static str) {
        if let Some(value) = self.value(name).filter(|value| !is_zero(value)) {
            self.note(name, &shown(value));
        }
    }

    /// The section is read: what nobody asked for is not known.
    pub(super) fn end(self) {
        let known = |key: &Value| key.as_str().is_some_and(|key| self.asked.contains(&key));
        let others = self.fields.into_iter().flatten().map(|(key, _)| key).filter(|key| !known(key));
        self.given.unknown.borrow_mut().extend(others.map(|key| self.path_of(&shown(key))));
    }

    /// What is wrong with a field of this section.
    pub(super) fn fault(&self, name: &str, value: &(impl Display + ?Sized), allowed: &str) -> Fault {
        Fault { field: self.path_of(name), value: value.to_string(), allowed: allowed.to_owned() }
    }

    fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.asked.push(name);
        self.fields?.get(name).filter(|value| !value.is_null())
    }

    fn note(&self, name: &str, value: &(impl Display + ?Sized)) {
        self.given.said.borrow_mut().push((self.path_of(name), value.to_string()));
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Sequence(list) => list.is_empty(),
        Value::Mapping(fields) => fields.values().all(is_zero),
        Value::Tagged(_) => false,
    }
}

/// The value as somebody would find it in the document, short.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = match value {
        Value::String(text) => text.clone(),
        other => serde_norway::to_string(other).unwrap_or_default().trim().replace('\n', " "),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
