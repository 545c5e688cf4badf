//! What an expression is for a question.

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;

use super::{Change, Compare, ExpressionData, Field, Node, Number, TextTest};

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value<'a> {
    Bool(bool),
    Int(i64),
    Text(Cow<'a, str>),
}

/// The value; none when it cannot be computed.
pub(super) fn value<'a>(node: &'a Node, data: &ExpressionData<'a>) -> Option<Value<'a>> {
    Some(match node {
        Node::Bool(truth) => Value::Bool(*truth),
        Node::Int(number) => Value::Int(*number),
        Node::Text(text) => Value::Text(Cow::Borrowed(text)),
        // Lists stand only to the right of `in` and in `len`, which look into them themselves.
        Node::List(_) | Node::Range(..) => return None,
        Node::Field(told) => field(*told, data),
        Node::Metadata(label) => Value::Text(Cow::Owned((data.meta)(&text(label, data)?).unwrap_or_default())),
        Node::InNetwork(address, network) => Value::Bool(within(&text(address, data)?, network)),
        Node::InNetworkOf(address, network) => {
            let network: IpNet = text(network, data)?.parse().ok()?;
            Value::Bool(within(&text(address, data)?, &network))
        }
        Node::Not(inner) => Value::Bool(!truth(inner, data)?),
        Node::And(one, other) => Value::Bool(truth(one, data)? && truth(other, data)?),
        Node::Or(one, other) => Value::Bool(truth(one, data)? || truth(other, data)?),
        Node::Choose(condition, one, other) => return value(if truth(condition, data)? { one } else { other }, data),
        Node::Compare(how, one, other) => {
            let (one, other, with_address) =
                (value(one, data)?, value(other, data)?, is_address(one) || is_address(other));
            let order = if with_address { bare(one).cmp(&bare(other)) } else { one.cmp(&other) };
            Value::Bool(match how {
                Compare::Equal => order.is_eq(),
                Compare::Differ => order.is_ne(),
                Compare::Less => order.is_lt(),
                Compare::AtMost => order.is_le(),
                Compare::More => order.is_gt(),
                Compare::AtLeast => order.is_ge(),
            })
        }
        Node::In(one, list) => Value::Bool(contains(list, &value(one, data)?, is_address(one), data)?),
        Node::Test(test, one, other) => {
            let (one, other) = (text(one, data)?, text(other, data)?);
            Value::Bool(match test {
                TextTest::Contains => one.contains(&*other),
                TextTest::StartsWith => one.starts_with(&*other),
                TextTest::EndsWith => one.ends_with(&*other),
            })
        }
        Node::Matches(one, pattern) => Value::Bool(pattern.regex().is_match(&text(one, data)?)),
        Node::Number(how, one, other) => {
            let (one, other) = (number(one, data)?, number(other, data)?);
            Value::Int(match how {
                Number::Plus => one.checked_add(other)?,
                Number::Minus => one.checked_sub(other)?,
                Number::Times => one.checked_mul(other)?,
                Number::Remainder => one.checked_rem(other)?,
            })
        }
        Node::Join(one, other) => Value::Text(Cow::Owned(format!("{}{}", text(one, data)?, text(other, data)?))),
        Node::Negative(inner) => Value::Int(number(inner, data)?.checked_neg()?),
        Node::Len(inner) => Value::Int(len(inner, data)?),
        Node::Change(change, inner) => {
            let text = text(inner, data)?;
            Value::Text(Cow::Owned(match change {
                Change::Lower => text.to_lowercase(),
                Change::Upper => text.to_uppercase(),
                Change::Trim => text.trim().to_owned(),
            }))
        }
    })
}

fn field<'a>(field: Field, data: &ExpressionData<'a>) -> Value<'a> {
    let told = |text: String| Value::Text(Cow::Owned(text));
    match field {
        Field::Bufsize => Value::Int(data.bufsize.into()),
        Field::Class => Value::Text(Cow::Borrowed(data.class)),
        Field::ClientIp => told(data.client_ip.to_canonical().to_string()),
        Field::Do => Value::Bool(data.dnssec_ok),
        Field::Id => Value::Int(data.id.into()),
        Field::Name => Value::Text(Cow::Borrowed(data.name)),
        Field::Opcode => Value::Int(data.opcode.into()),
        Field::Port => told(data.port.to_string()),
        Field::Proto => Value::Text(Cow::Borrowed(data.proto)),
        Field::ServerIp => told(data.server_ip.to_canonical().to_string()),
        Field::ServerPort => told(data.server_port.to_string()),
        Field::Size => Value::Int(i64::try_from(data.size).unwrap_or(i64::MAX)),
        Field::Type => Value::Text(Cow::Borrowed(data.rtype)),
    }
}

fn truth(node: &Node, data: &ExpressionData<'_>) -> Option<bool> {
    match value(node, data)? {
        Value::Bool(truth) => Some(truth),
        _ => None,
    }
}

fn number(node: &Node, data: &ExpressionData<'_>) -> Option<i64> {
    match value(node, data)? {
        Value::Int(number) => Some(number),
        _ => None,
    }
}

fn text<'a>(node: &'a Node, data: &ExpressionData<'a>) -> Option<Cow<'a, str>> {
    match value(node, data)? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// Whether it is an address, which CoreDNS documents in brackets where it is IPv6's, and tells without.
fn is_address(node: &Node) -> bool {
    matches!(node, Node::Field(Field::ClientIp | Field::ServerIp))
}

/// What is compared with an address: either way of writing one is the same.
fn bare(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Text(text) if text.starts_with('[') && text.ends_with(']') => {
            Value::Text(Cow::Owned(text[1..text.len() - 1].to_owned()))
        }
        other => other,
    }
}

fn contains(list: &Node, wanted: &Value<'_>, is_address: bool, data: &ExpressionData<'_>) -> Option<bool> {
    match list {
        Node::List(values) => {
            for one in values {
                let one = value(one, data)?;
                let one = if is_address { bare(one) } else { one };
                if one == *wanted {
                    return Some(true);
                }
            }
            Some(false)
        }
        Node::Range(from, to) => match wanted {
            Value::Int(wanted) => Some((number(from, data)?..=number(to, data)?).contains(wanted)),
            _ => None,
        },
        Node::Choose(condition, one, other) => {
            contains(if truth(condition, data)? { one } else { other }, wanted, is_address, data)
        }
        _ => None,
    }
}

fn len(node: &Node, data: &ExpressionData<'_>) -> Option<i64> {
    match node {
        Node::List(values) => i64::try_from(values.len()).ok(),
        Node::Range(from, to) => {
            let (from, to) = (number(from, data)?, number(to, data)?);
            if from > to { Some(0) } else { to.checked_sub(from)?.checked_add(1) }
        }
        Node::Choose(condition, one, other) => len(if truth(condition, data)? { one } else { other }, data),
        other => i64::try_from(text(other, data)?.chars().count()).ok(),
    }
}

fn within(address: &str, network: &IpNet) -> bool {
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok_and(|address| network.contains(&address.to_canonical()))
}
