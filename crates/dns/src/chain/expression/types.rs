//! What values are, and what goes together.

use std::fmt;

use super::{Compare, ExpressionError, Node, Number, TextTest, error};
use crate::chain::Pattern;

/// How deep the tree of an expression may be.
pub(super) const DEPTH: usize = 64;

/// What is known of a value before there is a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Type {
    base: Base,
    /// How many lists are around it.
    lists: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    Bool,
    Int,
    Float,
    Text,
    /// Names with values, of which only the question tells what they are.
    Map,
    Nil,
    /// Only the question tells.
    Any,
}

impl Type {
    pub(super) const BOOL: Self = Self { base: Base::Bool, lists: 0 };
    pub(super) const INT: Self = Self { base: Base::Int, lists: 0 };
    pub(super) const FLOAT: Self = Self { base: Base::Float, lists: 0 };
    pub(super) const TEXT: Self = Self { base: Base::Text, lists: 0 };
    pub(super) const MAP: Self = Self { base: Base::Map, lists: 0 };
    pub(super) const NIL: Self = Self { base: Base::Nil, lists: 0 };
    pub(super) const ANY: Self = Self { base: Base::Any, lists: 0 };

    /// A list of these.
    pub(super) const fn listed(self) -> Self {
        Self { base: self.base, lists: self.lists.saturating_add(1) }
    }

    /// What the elements of a list are; none: it is no list.
    pub(super) fn element(self) -> Option<Self> {
        match self {
            Self { lists: 0, base: Base::Any } => Some(Self::ANY),
            Self { lists: 0, .. } => None,
            Self { lists, base } => Some(Self { base, lists: lists - 1 }),
        }
    }

    /// Whether it can stand where the other is wanted.
    pub(super) fn fits(self, wanted: Self) -> bool {
        if self == Self::ANY || wanted == Self::ANY {
            return true;
        }
        match (self.element(), wanted.element()) {
            (Some(one), Some(other)) => one.fits(other),
            _ => self == wanted || (self == Self::INT && wanted == Self::FLOAT),
        }
    }

    /// What both are; none: they are different.
    pub(super) fn joint(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::NIL, kind) | (kind, Self::NIL) => Some(kind),
            _ if self.fits(other) => Some(other),
            _ if other.fits(self) => Some(self),
            _ => None,
        }
    }

    /// Whether two of these may be equal.
    fn compares(self, other: Self) -> bool {
        self.joint(other).is_some()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, several) = match self.base {
            Base::Bool => ("a truth", "truths"),
            Base::Int => ("a number", "numbers"),
            Base::Float => ("a fraction", "fractions"),
            Base::Text => ("a text", "texts"),
            Base::Map => ("a map", "maps"),
            Base::Nil => ("nil", "nil"),
            Base::Any => ("any value", "any values"),
        };
        match self.lists {
            0 => f.write_str(one),
            lists => write!(f, "a list of {}{several}", "lists of ".repeat(usize::from(lists) - 1)),
        }
    }
}

/// A value, what it is, and how deep its tree is.
#[derive(Clone, Debug)]
pub(super) struct Typed {
    pub(super) node: Node,
    pub(super) kind: Type,
    pub(super) deep: usize,
}

impl Typed {
    pub(super) const fn leaf(node: Node, kind: Type) -> Self {
        Self { node, kind, deep: 1 }
    }

    /// A node over others, of which the deepest is `below` deep.
    pub(super) fn over(at: usize, node: Node, kind: Type, below: usize) -> Result<Self, ExpressionError> {
        if below >= DEPTH { too_deep(at) } else { Ok(Self { node, kind, deep: below + 1 }) }
    }
}

pub(super) fn too_deep<T>(at: usize) -> Result<T, ExpressionError> {
    error(at, format!("the expression is nested more than {DEPTH} deep"))
}

/// What stands between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Compare(Compare),
    In,
    Test(TextTest),
    Matches,
    Range,
    Number(Number),
    Else,
}

/// Two values with an operator between them.
pub(super) fn combine(
    at: usize,
    right_at: usize,
    operator: Operator,
    left: Typed,
    right: Typed,
) -> Result<Typed, ExpressionError> {
    let (one, other) = (left.kind, right.kind);
    let Some(kind) = kind(operator, one, other) else {
        return error(at, format!("{one} and {other} do not go together here"));
    };
    let below = left.deep.max(right.deep);
    let over = |node| Typed::over(at, node, kind, below);
    match operator {
        Operator::And => {
            // A chain of them is one node, however long.
            let (mut all, below) = match left.node {
                Node::All(all) => (all, (left.deep - 1).max(right.deep)),
                node => (vec![node], below),
            };
            all.push(right.node);
            return Typed::over(at, Node::All(all), kind, below);
        }
        Operator::Or => {
            let (mut any, below) = match left.node {
                Node::Any(any) => (any, (left.deep - 1).max(right.deep)),
                node => (vec![node], below),
            };
            any.push(right.node);
            return Typed::over(at, Node::Any(any), kind, below);
        }
        Operator::Matches => {
            return match right.node {
                Node::Text(text) => match Pattern::compile(&text) {
                    Ok(pattern) => over(Node::Matches(Box::new(left.node), pattern)),
                    Err(reason) => error(right_at, format!("{text:?} is no regular expression: {reason}")),
                },
                _ => error(right_at, "a regular expression has to stand here as a text"),
            };
        }
        _ => {}
    }
    let (left, right) = (Box::new(left.node), Box::new(right.node));
    over(match operator {
        Operator::Compare(how) => Node::Compare(how, left, right),
        Operator::In => Node::In(left, right),
        Operator::Test(test) => Node::Test(test, left, right),
        Operator::Range => Node::Range(left, right),
        Operator::Number(how) => Node::Number(how, left, right),
        // The others have been made.
        _ => Node::Else(left, right),
    })
}

/// What an operator makes of two values; none: they do not go together.
fn kind(operator: Operator, one: Type, other: Type) -> Option<Type> {
    let both = |wanted: Type| one.fits(wanted) && other.fits(wanted);
    let right = match operator {
        Operator::And | Operator::Or => both(Type::BOOL),
        Operator::Compare(Compare::Equal | Compare::Differ) => one.compares(other),
        Operator::Compare(_) => both(Type::FLOAT) || both(Type::TEXT),
        Operator::In if other == Type::MAP => one.fits(Type::TEXT),
        Operator::In => other.element().is_some_and(|element| one.compares(element)),
        Operator::Test(_) | Operator::Matches => both(Type::TEXT),
        Operator::Range => return both(Type::INT).then_some(Type::INT.listed()),
        Operator::Number(how) => return number(how, one, other),
        Operator::Else => return Some(one.joint(other).unwrap_or(Type::ANY)),
    };
    right.then_some(Type::BOOL)
}

fn number(how: Number, one: Type, other: Type) -> Option<Type> {
    let both = |wanted: Type| one.fits(wanted) && other.fits(wanted);
    match how {
        Number::Plus if both(Type::TEXT) && (one == Type::TEXT || other == Type::TEXT) => Some(Type::TEXT),
        Number::Remainder => both(Type::INT).then_some(Type::INT),
        _ if !both(Type::FLOAT) => None,
        Number::Divide | Number::Power => Some(Type::FLOAT),
        _ if one == Type::ANY || other == Type::ANY => Some(Type::ANY),
        _ if one == Type::INT && other == Type::INT => Some(Type::INT),
        _ => Some(Type::FLOAT),
    }
}
