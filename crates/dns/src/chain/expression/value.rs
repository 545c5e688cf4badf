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
}

impl<'a> Value<'a> {
    /// A text that was made; none: it is too long.
    pub(super) fn made(text: String) -> Option<Self> {
        (text.len() <= LONGEST_TEXT).then_some(Self::Text(Cow::Owned(text)))
    }

    /// A list that was made; none: it is too long.
    pub(super) fn list(list: Vec<Self>) -> Option<Self> {
        (list.len() <= LONGEST_LIST).then_some(Self::List(list))
    }

    /// Whether two values are equal: numbers by what they are worth, lists by their elements. Values of different kinds never are.
    pub(super) fn same(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Nil, Value::Nil) => true,
            (Self::Bool(one), Value::Bool(other)) => one == other,
            (Self::List(one), Value::List(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.same(other))
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
        }
    }

    /// How many bytes it takes beside those of the expression and the question, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(Cow::Owned(text)) => size_of::<Self>() + text.len(),
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
