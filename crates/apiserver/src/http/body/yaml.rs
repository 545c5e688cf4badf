//! YAML as JSON, without its bombs: aliases may make a document of a few kilobytes one of many gigabytes. What is read here may not
//! have more values and characters than its text could spell out.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Brackets within each other at most, counted without regard to quotes: the parser's work grows with the square of them.
const MAX_BRACKETS: usize = 1000;

/// Reads a document.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, serde_norway::Error> {
    if open_brackets(bytes) > MAX_BRACKETS {
        return Err(serde_norway::Error::custom(format!(
            "more than {MAX_BRACKETS} brackets are open within each other"
        )));
    }
    // Each value needs a byte of text at least; an escape such as `\L` of two bytes stands for a character of three.
    let left = Cell::new(bytes.len().saturating_mul(2).saturating_add(2));
    Budget { left: &left }.deserialize(serde_norway::Deserializer::from_slice(bytes))
}

/// The most brackets that are open at any point.
fn open_brackets(bytes: &[u8]) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for byte in bytes {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// How much may still be read: one for each value and for each byte of texts.
#[derive(Clone, Copy)]
struct Budget<'a> {
    left: &'a Cell<usize>,
}

impl Budget<'_> {
    fn spend<E: Error>(self, cost: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(cost);
        self.left.set(left.unwrap_or(0));
        left.map(drop).ok_or_else(|| E::custom("aliases make the document much larger than its text"))
    }
}

impl<'de> DeserializeSeed<'de> for Budget<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.spend(1)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Budget<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has as well")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom(format!("JSON has no number {value}")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.spend(text.len())?;
        Ok(Value::from(text))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(self)? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            self.spend(name.len())?;
            let value = entries.next_value_seed(self)?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_what_it_says_and_an_alias_what_it_names() {
        let text = "a: &x {n: 1, yes: true, no: ~}\nb: *x\nlist: [1.5, -2, 'text', \"\\L\"]\n1: one\n";
        let same = json!({"n": 1, "yes": true, "no": null});
        let wanted = json!({"a": same, "b": same, "list": [1.5, -2, "text", "\u{2028}"], "1": "one"});
        assert_eq!(decode(text.as_bytes()).unwrap(), wanted);
        assert_eq!(decode(b"").unwrap(), Value::Null);
    }

    #[test]
    fn a_document_that_aliases_make_enormous_is_refused() {
        let many = vec!["1"; 20_000].join(",");
        let again = vec!["*a"; 20_000].join(",");
        let error = decode(format!("a: &a [{many}]\nb: [{again}]\n").as_bytes()).unwrap_err();
        assert!(error.to_string().contains("much larger than its text"), "{error}");
        let text = "x".repeat(100_000);
        assert!(decode(format!("a: &a {text}\nb: [{again}]\n").as_bytes()).is_err());
    }

    #[test]
    fn a_document_that_is_nested_too_deep_is_refused_at_once() {
        for level in ["[", "{", "- ", "? ", "{a: ", "[&a "] {
            let begun = std::time::Instant::now();
            assert!(decode(level.repeat(1_000_000 / level.len()).as_bytes()).is_err(), "{level}");
            assert!(begun.elapsed().as_secs() < 10, "{level} took {:?}", begun.elapsed());
        }
    }
}
