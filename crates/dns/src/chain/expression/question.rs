//! What an expression is told of a question.

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;

use super::{ExpressionData, Field, Node, value::Value};

/// What is told of a question.
pub(super) fn field<'a>(field: Field, data: &ExpressionData<'a>) -> Value<'a> {
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

/// Whether it is an address, which CoreDNS documents in brackets where it is IPv6's, and tells without.
pub(super) fn is_address(node: &Node) -> bool {
    matches!(node, Node::Field(Field::ClientIp | Field::ServerIp))
}

/// What is compared with an address: either way of writing one is the same.
pub(super) fn bare(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Text(text) if text.starts_with('[') && text.ends_with(']') => {
            Value::Text(Cow::Owned(text[1..text.len() - 1].to_owned()))
        }
        other => other,
    }
}

/// Whether an address, in brackets or not, is in a network.
pub(super) fn within(address: &str, network: &IpNet) -> bool {
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok_and(|address| network.contains(&address.to_canonical()))
}
