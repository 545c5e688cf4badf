//! What values are, and what goes together.

use super::{Change, Compare, ExpressionError, Field, Node, Number, TextTest, error};
use crate::chain::Pattern;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int,
    Text,
    Ints,
    Texts,
    /// The empty list.
    Nothing,
}

/// A value and what it is.
pub(super) type Typed = (Node, Type);

/// What stands between two values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Compare(Compare),
    In,
    Test(TextTest),
    Matches,
    Range,
    Number(Number),
}

/// What is told of a question.
pub(super) const FIELDS: [(&str, Field, Type); 13] = [
    ("bufsize", Field::Bufsize, Type::Int),
    ("class", Field::Class, Type::Text),
    ("client_ip", Field::ClientIp, Type::Text),
    ("do", Field::Do, Type::Bool),
    ("id", Field::Id, Type::Int),
    ("name", Field::Name, Type::Text),
    ("opcode", Field::Opcode, Type::Int),
    ("port", Field::Port, Type::Text),
    ("proto", Field::Proto, Type::Text),
    ("server_ip", Field::ServerIp, Type::Text),
    ("server_port", Field::ServerPort, Type::Text),
    ("size", Field::Size, Type::Int),
    ("type", Field::Type, Type::Text),
];

/// A call of a function.
pub(super) fn function(word: &str, at: usize, arguments: Vec<Typed>) -> Result<Typed, ExpressionError> {
    let kinds: Vec<Type> = arguments.iter().map(|(_, kind)| *kind).collect();
    let mut nodes = arguments.into_iter().map(|(node, _)| Box::new(node));
    let (Some(first), second) = (nodes.next(), nodes.next()) else {
        return match word {
            "incidr" | "metadata" | "len" | "lower" | "upper" | "trim" => {
                error(at, format!("{word}() has no arguments"))
            }
            _ => unknown(word, at),
        };
    };
    let text = matches!(kinds.as_slice(), [Type::Text]);
    match (word, second) {
        ("incidr", Some(network)) if kinds == [Type::Text, Type::Text] => match *network {
            Node::Text(text) => match text.parse() {
                Ok(network) => Ok((Node::InNetwork(first, network), Type::Bool)),
                Err(_) => error(at, format!("{text:?} is no network such as 10.0.0.0/8")),
            },
            other => Ok((Node::InNetworkOf(first, Box::new(other)), Type::Bool)),
        },
        ("incidr", _) => error(at, "incidr() takes an address and a network, both as texts"),
        ("metadata", None) if text => Ok((Node::Metadata(first), Type::Text)),
        ("lower", None) if text => Ok((Node::Change(Change::Lower, first), Type::Text)),
        ("upper", None) if text => Ok((Node::Change(Change::Upper, first), Type::Text)),
        ("trim", None) if text => Ok((Node::Change(Change::Trim, first), Type::Text)),
        ("len", None) if !matches!(kinds[0], Type::Bool | Type::Int) => Ok((Node::Len(first), Type::Int)),
        ("metadata" | "lower" | "upper" | "trim", _) => error(at, format!("{word}() takes one text")),
        ("len", _) => error(at, "len() takes one text or list"),
        _ => unknown(word, at),
    }
}

fn unknown(word: &str, at: usize) -> Result<Typed, ExpressionError> {
    let fields: Vec<&str> = FIELDS.iter().map(|(name, ..)| *name).collect();
    let known = format!("{}, incidr, metadata, len, lower, upper, trim", fields.join(", "));
    error(at, format!("function {word:?} is not known; known are {known}"))
}

/// Two values with an operator between them.
pub(super) fn combine(
    at: usize,
    right_at: usize,
    operator: Operator,
    left: Typed,
    right: Typed,
) -> Result<Typed, ExpressionError> {
    let ((left, one), (right, other)) = (left, right);
    let (left, right) = (Box::new(left), Box::new(right));
    let kinds = || error(at, format!("{} and {} do not go together here", name(one), name(other)));
    let bool = |node| Ok((node, Type::Bool));
    match (operator, one, other) {
        (Operator::And, Type::Bool, Type::Bool) => bool(Node::And(left, right)),
        (Operator::Or, Type::Bool, Type::Bool) => bool(Node::Or(left, right)),
        (Operator::Compare(how @ (Compare::Equal | Compare::Differ)), one, other)
            if one == other && matches!(one, Type::Bool | Type::Int | Type::Text) =>
        {
            bool(Node::Compare(how, left, right))
        }
        (Operator::Compare(how), Type::Int, Type::Int) | (Operator::Compare(how), Type::Text, Type::Text) => {
            bool(Node::Compare(how, left, right))
        }
        (Operator::In, Type::Int, Type::Ints | Type::Nothing)
        | (Operator::In, Type::Text, Type::Texts | Type::Nothing) => bool(Node::In(left, right)),
        (Operator::Test(test), Type::Text, Type::Text) => bool(Node::Test(test, left, right)),
        (Operator::Matches, Type::Text, Type::Text) => match *right {
            Node::Text(text) => match Pattern::compile(&text) {
                Ok(pattern) => bool(Node::Matches(left, pattern)),
                Err(reason) => error(right_at, format!("{text:?} is no regular expression: {reason}")),
            },
            _ => error(right_at, "a regular expression has to stand here as a text"),
        },
        (Operator::Range, Type::Int, Type::Int) => Ok((Node::Range(left, right), Type::Ints)),
        (Operator::Number(how), Type::Int, Type::Int) => Ok((Node::Number(how, left, right), Type::Int)),
        (Operator::Number(Number::Plus), Type::Text, Type::Text) => Ok((Node::Join(left, right), Type::Text)),
        _ => kinds(),
    }
}

/// What a type is called.
pub(super) fn name(kind: Type) -> &'static str {
    match kind {
        Type::Bool => "a truth",
        Type::Int => "a number",
        Type::Text => "a text",
        Type::Ints => "a list of numbers",
        Type::Texts => "a list of texts",
        Type::Nothing => "an empty list",
    }
}
