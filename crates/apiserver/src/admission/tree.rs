//! Reading and filling untyped objects. What has an unexpected type reads as nothing and is left alone when filling:
//! `decode_check` reports it.

use serde_json::{Map, Value};

pub(super) type Object = Map<String, Value>;

/// A list's elements; none where it is not a list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text; empty where it is not one.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The fields of an object; none where it is not one.
pub(super) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Sets a field that is missing or null.
pub(super) fn set_default(object: &mut Object, field: &str, value: impl Into<Value>) {
    if object.get(field).is_none_or(Value::is_null) {
        object.insert(field.to_owned(), value.into());
    }
}

/// As [`set_default`], also where the field is the empty text: an unset text of a typed client.
pub(super) fn set_default_text(object: &mut Object, field: &str, value: &str) {
    if object.get(field).is_none_or(|known| known.is_null() || known == "") {
        object.insert(field.to_owned(), value.into());
    }
}

/// The object in a field, made where the field is missing or null; none where something else is in the way.
pub(super) fn object_at<'o>(object: &'o mut Object, field: &str) -> Option<&'o mut Object> {
    set_default(object, field, Object::new());
    object.get_mut(field)?.as_object_mut()
}

/// The objects of a list.
pub(super) fn each<'o>(object: &'o mut Object, field: &str) -> impl Iterator<Item = &'o mut Object> {
    let list = object.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Makes a field of one object what it is in another, be it nothing.
pub(super) fn copy(from: &Value, to: &mut Object, field: &str) {
    match from.get(field) {
        Some(value) => to.insert(field.to_owned(), value.clone()),
        None => to.shift_remove(field),
    };
}
