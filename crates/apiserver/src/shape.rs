//! How large and how deep JSON values are, and how large and deep objects may be.

use std::io::{self, Write};

use serde_json::Value;

/// Bytes of an object's JSON at most, however it grew: what a request may hold (3 MiB).
pub(crate) const MAX_BYTES: usize = 3 << 20;

/// Nesting of an object at most. What is stored has to be readable again, and serde_json reads 127 levels.
pub(crate) const MAX_DEPTH: usize = 100;

/// Whether a value has more than `levels` of lists and objects within each other. Looks no deeper than that.
pub(crate) fn is_deeper_than(value: &Value, levels: usize) -> bool {
    let below = |mut values: Box<dyn Iterator<Item = &Value> + '_>| match levels.checked_sub(1) {
        Some(levels) => values.any(|value| is_deeper_than(value, levels)),
        None => true,
    };
    match value {
        Value::Array(elements) => below(Box::new(elements.iter())),
        Value::Object(fields) => below(Box::new(fields.values())),
        _ => false,
    }
}

/// Bytes of a value's JSON.
pub(crate) fn bytes(value: &Value) -> usize {
    let mut counted = Count(0);
    // Counting never fails, and a value's keys are all texts.
    let _ = serde_json::to_writer(&mut counted, value);
    counted.0
}

struct Count(usize);

impl Write for Count {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0 += buffer.len();
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn depth_counts_lists_and_objects() {
        let value = json!({"a": [{"b": 1}]});
        assert!(is_deeper_than(&value, 2));
        assert!(!is_deeper_than(&value, 3));
        assert!(!is_deeper_than(&json!("text"), 0));
        assert!(is_deeper_than(&json!([]), 0));
    }

    #[test]
    fn what_is_as_deep_as_it_may_be_can_be_read_again() {
        let deepest = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        let value: Value = serde_json::from_str(&deepest).unwrap();
        assert!(!is_deeper_than(&value, MAX_DEPTH));
        assert_eq!(bytes(&value), deepest.len());
    }
}
