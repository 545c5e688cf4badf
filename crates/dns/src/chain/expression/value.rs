//! Values of expressions.

use std::{borrow::Cow, cmp::Ordering};

use super::Number;

/// The longest text that is made, in bytes, and the longest list: names are shorter by far.
pub(super) const LONGEST_TEXT: usize = 65_536;
pub(super) const LONGEST_LIST: usize = 1024;

#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Map(Map<'a>),
}

/// Names and values, each name once.
pub(super) type Map<'a> = Vec<(String, Value<'a>)>;

impl<'a> Value<'a> {
    /// A text that was made; none: it is too long.
    pub(super) fn made(text: String) -> Option<Self> {
        (text.len() <= LONGEST_TEXT).then_some(Self::Text(Cow::Owned(text)))
    }

    /// A list that was made; none: it is too long.
    pub(super) fn list(list: Vec<Self>) -> Option<Self> {
        (list.len() <= LONGEST_LIST).then_some(Self::List(list))
    }

    /// A map of these, in their order; of two of one name the last one counts. None: there are too many.
    pub(super) fn map(entries: impl IntoIterator<Item = (String, Self)>) -> Option<Self> {
        let mut map: Map<'a> = Vec::new();
        for (name, value) in entries {
            match map.iter().position(|(known, _)| *known == name) {
                Some(at) => map[at].1 = value,
                None if map.len() == LONGEST_LIST => return None,
                None => map.push((name, value)),
            }
        }
        Some(Self::Map(map))
    }

    /// The value of a name in a map, and `nil` where it has none; none: it is no map, or that is no name.
    pub(super) fn member(&self, name: &Value<'_>) -> Option<Self> {
        let (Self::Map(map), Some(name)) = (self, name.name()) else { return None };
        Some(map.iter().find(|(known, _)| *known == name).map_or(Value::Nil, |(_, value)| value.clone()))
    }

    /// The value as the name of something in a map.
    pub(super) fn name(&self) -> Option<String> {
        matches!(self, Self::Text(_) | Self::Int(_) | Self::Bool(_)).then(|| self.print())
    }

    /// Whether two values are equal: numbers by what they are worth, lists by their elements. Values of different kinds never are.
    pub(super) fn same(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Nil, Value::Nil) => true,
            (Self::Bool(one), Value::Bool(other)) => one == other,
            (Self::List(one), Value::List(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.same(other))
            }
            (Self::Map(one), Value::Map(other)) => {
                let has = |name: &String, value: &Value<'_>| {
                    other.iter().any(|(known, other)| known == name && value.same(other))
                };
                one.len() == other.len() && one.iter().all(|(name, value)| has(name, value))
            }
            _ => self.order(other).is_some_and(Ordering::is_eq),
        }
    }

    /// The order of two numbers or two texts; none: they have none.
    pub(super) fn order(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(one), Value::Int(other)) => Some(one.cmp(other)),
            (Self::Text(one), Value::Text(other)) => Some((**one).cmp(&**other)),
            _ => self.float()?.partial_cmp(&other.float()?),
        }
    }

    /// A number as a fraction; none: it is no number.
    pub(super) fn float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The value as text, as Go's `fmt` writes it.
    pub(super) fn print(&self) -> String {
        match self {
            Self::Nil => "<nil>".to_owned(),
            Self::Bool(truth) => truth.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Text(text) => text.to_string(),
            Self::List(list) => format!("[{}]", list.iter().map(Value::print).collect::<Vec<_>>().join(" ")),
            Self::Map(map) => {
                let mut all: Vec<String> =
                    map.iter().map(|(name, value)| format!("{name}:{}", value.print())).collect();
                all.sort_unstable();
                format!("map[{}]", all.join(" "))
            }
        }
    }

    /// How many bytes it takes beside those of the expression and the question, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(Cow::Owned(text)) => size_of::<Self>() + text.len(),
            Self::Map(map) => {
                let entry = |(name, value): &(String, Value<'_>)| size_of::<String>() + name.len() + value.bytes();
                size_of::<Self>() + map.iter().map(entry).sum::<usize>()
            }
            Self::List(list) => size_of::<Self>() + list.iter().map(Value::bytes).sum::<usize>(),
            _ => size_of::<Self>(),
        }
    }
}

/// What an operator makes of two numbers, or of two texts; none: it cannot be computed.
pub(super) fn number<'a>(how: Number, one: &Value<'a>, other: &Value<'a>) -> Option<Value<'a>> {
    let floats = || one.float().zip(other.float());
    Some(match (how, one, other) {
        (Number::Plus, Value::Text(one), Value::Text(other)) => Value::made(format!("{one}{other}"))?,
        (Number::Divide, ..) => floats().map(|(one, other)| Value::Float(one / other))?,
        (Number::Power, ..) => floats().map(|(one, other)| Value::Float(one.powf(other)))?,
        (Number::Plus, Value::Int(one), Value::Int(other)) => Value::Int(one.checked_add(*other)?),
        (Number::Minus, Value::Int(one), Value::Int(other)) => Value::Int(one.checked_sub(*other)?),
        (Number::Times, Value::Int(one), Value::Int(other)) => Value::Int(one.checked_mul(*other)?),
        (Number::Remainder, Value::Int(one), Value::Int(other)) => Value::Int(one.checked_rem(*other)?),
        (Number::Remainder, ..) => return None,
        (Number::Plus, ..) => floats().map(|(one, other)| Value::Float(one + other))?,
        (Number::Minus, ..) => floats().map(|(one, other)| Value::Float(one - other))?,
        (Number::Times, ..) => floats().map(|(one, other)| Value::Float(one * other))?,
    })
}
