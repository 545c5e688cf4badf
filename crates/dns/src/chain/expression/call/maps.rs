//! Functions of maps, and other ways of writing values down.

use data_encoding::BASE64;
use serde_json::{Number, Value as Json};

use crate::chain::expression::{
    functions::OfMap,
    value::{LONGEST_LIST, LONGEST_TEXT, Value},
};

pub(super) fn call<'a>(function: OfMap, values: &[Value<'a>]) -> Option<Value<'a>> {
    match (function, values) {
        (OfMap::Keys, [Value::Map(map)]) => {
            map.iter().map(|(name, _)| Value::made(name.clone())).collect::<Option<_>>().map(Value::List)
        }
        (OfMap::Values, [Value::Map(map)]) => Some(Value::List(map.iter().map(|(_, value)| value.clone()).collect())),
        (OfMap::ToPairs, [Value::Map(map)]) => {
            let pair = |(name, value): &(String, Value<'a>)| {
                Some(Value::List(vec![Value::made(name.clone())?, value.clone()]))
            };
            map.iter().map(pair).collect::<Option<_>>().map(Value::List)
        }
        (OfMap::FromPairs, [Value::List(pairs)]) => {
            let entry = |pair: &Value<'a>| match pair {
                Value::List(pair) => match &pair[..] {
                    [name, value] => Some((name.name()?, value.clone())),
                    _ => None,
                },
                _ => None,
            };
            Value::map(pairs.iter().map(entry).collect::<Option<Vec<_>>>()?)
        }
        (OfMap::ToJson, [value]) => {
            let text = serde_json::to_string_pretty(&json(value)?).ok()?;
            // As in Go: what means something in HTML is written by its number. It stands within texts alone.
            Value::made(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
        }
        (OfMap::FromJson, [Value::Text(text)]) => of_json(serde_json::from_str(text).ok()?),
        (OfMap::ToBase64, [Value::Text(text)]) if text.len() <= LONGEST_TEXT / 2 => {
            Value::made(BASE64.encode(text.as_bytes()))
        }
        (OfMap::FromBase64, [Value::Text(text)]) => {
            Value::made(String::from_utf8(BASE64.decode(text.as_bytes()).ok()?).ok()?)
        }
        _ => None,
    }
}

/// The elements by what came of asking them.
pub(in crate::chain::expression) fn grouped<'a>(list: Vec<Value<'a>>, asked: &[Value<'a>]) -> Option<Value<'a>> {
    let mut groups: Vec<(String, Vec<Value<'a>>)> = Vec::new();
    for (element, value) in list.into_iter().zip(asked) {
        let name = value.name()?;
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, group)) => group.push(element),
            None => groups.push((name, vec![element])),
        }
    }
    Value::map(groups.into_iter().map(|(name, group)| (name, Value::List(group))))
}

/// A value as JSON, names in their order; none: it has no such form.
fn json(value: &Value<'_>) -> Option<Json> {
    Some(match value {
        Value::Nil => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Int(number) => Json::Number((*number).into()),
        // A fraction that is none is written without one.
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => Json::Number((*number as i64).into()),
        Value::Float(number) => Json::Number(Number::from_f64(*number)?),
        Value::Text(text) => Json::String(text.to_string()),
        Value::List(list) => Json::Array(list.iter().map(json).collect::<Option<_>>()?),
        Value::Map(map) => {
            let mut sorted: Vec<_> = map.iter().collect();
            sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
            let entries = sorted.into_iter().map(|(name, value)| Some((name.clone(), json(value)?)));
            Json::Object(entries.collect::<Option<_>>()?)
        }
    })
}

/// What JSON says; none: it says too much.
fn of_json<'a>(json: Json) -> Option<Value<'a>> {
    match json {
        Json::Null => Some(Value::Nil),
        Json::Bool(truth) => Some(Value::Bool(truth)),
        Json::Number(number) => number.as_f64().map(Value::Float),
        Json::String(text) => Value::made(text),
        Json::Array(list) if list.len() <= LONGEST_LIST => {
            list.into_iter().map(of_json).collect::<Option<_>>().map(Value::List)
        }
        Json::Array(_) => None,
        Json::Object(map) => {
            let entries = map.into_iter().map(|(name, value)| Some((name, of_json(value)?)));
            Value::map(entries.collect::<Option<Vec<_>>>()?)
        }
    }
}
