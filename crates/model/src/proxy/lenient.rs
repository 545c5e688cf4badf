//! A document as kube-proxy reads it where its strict reading fails: of fields that stand twice the last one counts.

use std::{cell::RefCell, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_norway::{Mapping, Value};

/// The document, and the paths of the fields that stand twice.
pub(super) fn read(text: &str) -> Result<(Value, Vec<String>), serde_norway::Error> {
    let twice = RefCell::default();
    let part = Part { path: String::new(), twice: &twice };
    let document = part.deserialize(serde_norway::Deserializer::from_str(text))?;
    Ok((document, twice.into_inner()))
}

struct Part<'a> {
    path: String,
    twice: &'a RefCell<Vec<String>>,
}

impl Part<'_> {
    fn below(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { path, twice: self.twice }
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of YAML without tags")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(part) = parts.next_element_seed(self.below(&format!("[{}]", list.len())))? {
            list.push(part);
        }
        Ok(Value::Sequence(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut mapping = Mapping::new();
        while let Some(key) = fields.next_key_seed(self.below("?"))? {
            let below = self.below(key.as_str().unwrap_or("?"));
            let path = below.path.clone();
            if mapping.insert(key, fields.next_value_seed(below)?).is_some() {
                self.twice.borrow_mut().push(path);
            }
        }
        Ok(Value::Mapping(mapping))
    }
}
