//! Bodies in protobuf: newer clients with built-in types (kubectl's imperative `create`, `auth`, `drain`) send nothing else to the
//! kinds that they know. Answers are always JSON, which all of them accept.
//!
//! A body is an envelope (<https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>) around a message whose fields
//! are told by [`schema`]. Go writes fields without value as zeros; as JSON leaves those out, so does this, except where a zero means
//! something else than nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

mod schema;
mod wire;

use schema::{Field, Form, Shape};
use wire::{Reader, Wire};

/// What every body starts with.
const MAGIC: &[u8] = b"k8s\0";

/// Nesting of messages at most; Kubernetes' own go less than 15 deep.
const MAX_DEPTH: usize = 32;

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It is not one of Kubernetes' envelopes.
    #[error("the body does not start with the envelope of Kubernetes' protobuf encoding")]
    Envelope,
    /// It ends in the middle of a field, or is otherwise not protobuf.
    #[error("the protobuf body is malformed")]
    Malformed,
    /// Its messages lie too deep in each other.
    #[error("the protobuf body is nested deeper than {MAX_DEPTH} messages")]
    TooDeep,
    /// Nothing is known of its kind.
    #[error("protobuf is not spoken for {kind} of {api_version}: use application/json")]
    UnknownKind {
        /// The kind.
        kind: String,
        /// Its group and version.
        api_version: String,
    },
}

/// Reads an object.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::Envelope)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Reader::new(envelope) {
        match field? {
            (1, Wire::Bytes(type_meta)) => {
                for field in Reader::new(type_meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = text_of(text)?,
                        (2, Wire::Bytes(text)) => kind = text_of(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(message)) => raw = message,
            _ => {}
        }
    }
    let Some(message) = schema::of_kind(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { kind, api_version });
    };
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), Value::from(api_version));
    object.insert("kind".to_owned(), Value::from(kind));
    read_message(message, raw, MAX_DEPTH, &mut object)?;
    Ok(Value::Object(object))
}

fn text_of(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Malformed)
}

/// Reads a message's fields into an object.
fn read_message(
    fields: &[Field],
    bytes: &[u8],
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), ProtobufError> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
    for entry in Reader::new(bytes) {
        let (number, wire) = entry?;
        let Some(field) = fields.iter().find(|field| field.number == number) else { continue };
        if field.shape == Shape::Map {
            let (key, value) = read_entry(&field.form, wire, depth)?;
            if let Value::Object(map) = object.entry(field.name).or_insert_with(|| json!({})) {
                map.insert(key, value);
            }
            continue;
        }
        if let (Shape::Inline, Form::Message(name), Wire::Bytes(inner)) = (&field.shape, &field.form, &wire) {
            read_message(schema::message(name), inner, depth, object)?;
            continue;
        }
        let value = read_value(&field.form, &wire, depth)?;
        match field.shape {
            Shape::List => {
                if let Value::Array(list) = object.entry(field.name).or_insert_with(|| json!([])) {
                    list.push(value);
                }
            }
            Shape::Plain if is_zero(&value) => {}
            _ if value.is_null() => {}
            _ => {
                object.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// A map's entry: a message of key and value.
fn read_entry(form: &Form, wire: Wire<'_>, depth: usize) -> Result<(String, Value), ProtobufError> {
    let Wire::Bytes(entry) = wire else { return Err(ProtobufError::Malformed) };
    let (mut key, mut value) = (String::new(), read_value(form, &Wire::Bytes(&[]), depth)?);
    for field in Reader::new(entry) {
        match field? {
            (1, Wire::Bytes(text)) => key = text_of(text)?,
            (2, wire) => value = read_value(form, &wire, depth)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn read_value(form: &Form, wire: &Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    let value = match (form, wire) {
        (Form::Text, Wire::Bytes(text)) => Value::from(text_of(text)?),
        (Form::Integer, Wire::Number(number)) => Value::from(signed(*number)),
        (Form::Boolean, Wire::Number(number)) => Value::from(*number != 0),
        (Form::Data, Wire::Bytes(bytes)) => Value::from(STANDARD.encode(bytes)),
        (Form::Message(name), Wire::Bytes(inner)) => {
            let mut object = Map::new();
            read_message(schema::message(name), inner, depth, &mut object)?;
            Value::Object(object)
        }
        (Form::Time | Form::MicroTime, Wire::Bytes(inner)) => time(form, inner)?,
        (Form::Quantity, Wire::Bytes(inner)) => Value::from(texts(inner, 1)?.pop().unwrap_or_default()),
        (Form::Texts, Wire::Bytes(inner)) => Value::from(texts(inner, 1)?),
        (Form::IntOrText, Wire::Bytes(inner)) => int_or_text(inner)?,
        (Form::Json, Wire::Bytes(inner)) => {
            let raw = Reader::new(inner).find_map(|field| match field {
                Ok((1, Wire::Bytes(raw))) => Some(raw),
                _ => None,
            });
            serde_json::from_slice(raw.unwrap_or(b"null")).map_err(|_| ProtobufError::Malformed)?
        }
        _ => return Err(ProtobufError::Malformed),
    };
    Ok(value)
}

/// Protobuf writes negative numbers of its `int32` and `int64` as 64 bits in two's complement.
fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn texts(message: &[u8], wanted: u32) -> Result<Vec<String>, ProtobufError> {
    let mut found = Vec::new();
    for field in Reader::new(message) {
        if let (number, Wire::Bytes(text)) = field?
            && number == wanted
        {
            found.push(text_of(text)?);
        }
    }
    Ok(found)
}

/// Seconds and nanoseconds since 1970; no time at all when both are missing.
fn time(form: &Form, message: &[u8]) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanos) = (None, 0);
    for field in Reader::new(message) {
        match field? {
            (1, Wire::Number(number)) => seconds = Some(signed(number)),
            (2, Wire::Number(number)) => nanos = u32::try_from(number).map_err(|_| ProtobufError::Malformed)?,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let time = DateTime::<Utc>::from_timestamp(seconds, nanos).ok_or(ProtobufError::Malformed)?;
    let precision = if *form == Form::MicroTime { SecondsFormat::Micros } else { SecondsFormat::Secs };
    Ok(Value::from(time.to_rfc3339_opts(precision, true)))
}

/// Field 1 tells which it is: 0 the integer in field 2, 1 the text in field 3.
fn int_or_text(message: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Reader::new(message) {
        match field? {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(value)) => number = signed(value),
            (3, Wire::Bytes(value)) => text = text_of(value)?,
            _ => {}
        }
    }
    Ok(if is_text { Value::from(text) } else { Value::from(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn body(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, message)].concat()
    }

    #[test]
    fn a_configmap_is_read() {
        let metadata = [field(1, b"cm"), field(3, b""), field(8, b"")].concat();
        let entry = [field(1, b"key"), field(2, b"value")].concat();
        let message = [field(1, &metadata), field(2, &entry)].concat();
        assert_eq!(
            decode(&body("v1", "ConfigMap", &message)).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"key": "value"}})
        );
    }

    #[test]
    fn a_zero_is_nothing_except_where_it_means_something() {
        let spec = [&[0x08, 0x00][..], &[0x28, 0x00]].concat();
        let deployment = decode(&body("apps/v1", "Deployment", &field(2, &spec))).unwrap();
        assert_eq!(deployment["spec"], json!({"replicas": 0}));
    }

    #[test]
    fn what_is_not_an_envelope_not_known_or_cut_short_is_refused() {
        assert_eq!(decode(b"{}"), Err(ProtobufError::Envelope));
        assert!(matches!(decode(&body("v1", "Dinosaur", b"")), Err(ProtobufError::UnknownKind { .. })));
        let whole = body("v1", "ConfigMap", &field(1, &field(1, b"cm")));
        for end in MAGIC.len() + 1..whole.len() {
            assert_ne!(decode(&whole[..end]), decode(&whole), "cut at {end}");
        }
    }

    #[test]
    fn every_message_that_a_message_names_is_there() {
        for (name, fields) in schema::all() {
            for field in fields {
                if let Form::Message(inner) = &field.form {
                    assert!(!schema::message(inner).is_empty() || schema::is_known(inner), "{name}: {inner}");
                }
            }
        }
    }
}
