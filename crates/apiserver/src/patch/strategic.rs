//! Strategic merge: a merge patch in which some lists are maps, with directives for what a merge alone cannot say
//! (Kubernetes documentation, "Update API objects in place using kubectl patch").
//!
//! | directive | where | meaning |
//! |---|---|---|
//! | `$patch: merge`, `replace`, `delete` | object, element of a keyed list | how this object is taken |
//! | `$retainKeys: [a, b]` | object | fields that are not named go |
//! | `$deleteFromPrimitiveList/f: [x]` | beside the list `f` | these values go |
//! | `$setElementOrder/f: [{key: x}]` | beside the list `f` | the order of the elements afterwards |

use serde_json::{Map, Value};

use super::{
    PatchError,
    schema::{Field, PLAIN, Type},
};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// Merges the patch into the object. On an error the object may be half merged.
pub(super) fn merge(target: &mut Object, patch: &Object, schema: &Type) -> Result<(), PatchError> {
    merge_object(target, patch, schema, "")
}

fn merge_object(target: &mut Object, patch: &Object, schema: &Type, path: &str) -> Result<(), PatchError> {
    match Mode::of(patch, path)? {
        Mode::Delete => {
            target.clear();
            return Ok(());
        }
        Mode::Replace => target.clear(),
        Mode::Merge => retain_keys(target, patch, path)?,
    }
    let orders = element_orders(target, patch, schema, path)?;
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(target, list, value, path)?;
        } else if name == PATCH || name == RETAIN_KEYS || name.starts_with(ELEMENT_ORDER) {
            continue;
        } else if value.is_null() {
            target.shift_remove(name);
        } else {
            merge_field(target, name, value, schema.field(name), &below(path, name))?;
        }
    }
    for order in orders {
        if let Some(Value::Array(list)) = target.get_mut(order.list) {
            order.sort(list);
        }
    }
    Ok(())
}

fn merge_field(
    target: &mut Object,
    name: &str,
    value: &Value,
    field: Option<&'static Field>,
    path: &str,
) -> Result<(), PatchError> {
    match (value, field) {
        (Value::Object(patch), field) => {
            let schema = if let Some(Field::Object(schema)) = field { schema } else { &PLAIN };
            let slot = target.entry(name).or_insert(Value::Null);
            let mut object = if let Value::Object(known) = std::mem::take(slot) { known } else { Object::new() };
            merge_object(&mut object, patch, schema, path)?;
            *slot = Value::Object(object);
            Ok(())
        }
        (Value::Array(patch), Some(Field::Keyed(key, schema))) => {
            let slot = target.entry(name).or_insert(Value::Null);
            let mut list = if let Value::Array(known) = std::mem::take(slot) { known } else { Vec::new() };
            merge_keyed(&mut list, patch, key, schema, path)?;
            *slot = Value::Array(list);
            Ok(())
        }
        (Value::Array(patch), Some(Field::Primitives)) => {
            let slot = target.entry(name).or_insert(Value::Null);
            let mut list = if let Value::Array(known) = std::mem::take(slot) { known } else { Vec::new() };
            for value in patch {
                if !list.contains(value) {
                    list.push(value.clone());
                }
            }
            *slot = Value::Array(list);
            Ok(())
        }
        (Value::Array(patch), _) => {
            let taken = patch.iter().filter(|element| element.get(PATCH).is_none()).cloned().collect();
            target.insert(name.to_owned(), Value::Array(taken));
            Ok(())
        }
        (scalar, _) => {
            target.insert(name.to_owned(), scalar.clone());
            Ok(())
        }
    }
}

fn merge_keyed(
    list: &mut Vec<Value>,
    patch: &[Value],
    key: &'static str,
    schema: &Type,
    path: &str,
) -> Result<(), PatchError> {
    let is_replace = |element: &Value| element.get(PATCH).and_then(Value::as_str) == Some("replace");
    let replaces = patch.iter().any(is_replace);
    if replaces {
        list.clear();
    }
    for (i, element) in patch.iter().enumerate() {
        let at = format!("{path}[{i}]");
        let Value::Object(element) = element else {
            return Err(PatchError::Directive { path: at, reason: "an object is expected here".to_owned() });
        };
        let mode = Mode::of(element, &at)?;
        let Some(id) = element.get(key) else {
            if mode == Mode::Replace {
                continue;
            }
            return Err(PatchError::MissingMergeKey { path: at, key });
        };
        if mode == Mode::Delete {
            list.retain(|known| known.get(key) != Some(id));
            continue;
        }
        // A list that is given as a whole may hold several of one key: a node has an internal address of each family.
        let slot = if replaces { None } else { position(list, element, key, id) };
        if let Some(Value::Object(known)) = slot.and_then(|slot| list.get_mut(slot)) {
            merge_object(known, element, schema, &at)?;
        } else {
            let mut new = Object::new();
            merge_object(&mut new, element, schema, &at)?;
            list.push(Value::Object(new));
        }
    }
    Ok(())
}

/// The element that a patch's element means. Ports may share their number and differ in protocol, so that among several with
/// the same key the one of the same protocol is meant.
fn position(list: &[Value], patch: &Object, key: &str, id: &Value) -> Option<usize> {
    let same_key = |element: &Value| element.get(key) == Some(id);
    let same_protocol = |element: &Value| {
        patch.get("protocol").is_some_and(|wanted| element.get("protocol").is_some_and(|found| found == wanted))
    };
    list.iter()
        .position(|element| same_key(element) && same_protocol(element))
        .or_else(|| list.iter().position(same_key))
}

fn retain_keys(target: &mut Object, patch: &Object, path: &str) -> Result<(), PatchError> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let Some(keys) = keys.as_array() else {
        return Err(directive(path, RETAIN_KEYS, "has to be a list of field names"));
    };
    let retained = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    let stray = patch.iter().find(|(name, value)| !name.starts_with('$') && !value.is_null() && !retained(name));
    if let Some((name, _)) = stray {
        return Err(directive(path, RETAIN_KEYS, &format!("does not name {name:?}, which the patch sets")));
    }
    target.retain(|name, _| retained(name));
    Ok(())
}

fn delete_primitives(target: &mut Object, name: &str, values: &Value, path: &str) -> Result<(), PatchError> {
    let Some(values) = values.as_array() else {
        return Err(directive(path, &format!("{DELETE_PRIMITIVES}{name}"), "has to be a list of values"));
    };
    if let Some(Value::Array(list)) = target.get_mut(name) {
        list.retain(|value| !values.contains(value));
    }
    Ok(())
}

fn element_orders<'p>(
    target: &Object,
    patch: &'p Object,
    schema: &Type,
    path: &str,
) -> Result<Vec<ElementOrder<'p>>, PatchError> {
    let mut orders = Vec::new();
    for (name, wanted) in patch {
        let Some(list) = name.strip_prefix(ELEMENT_ORDER) else { continue };
        let Some(wanted) = wanted.as_array() else {
            return Err(directive(path, name, "has to be a list of keys"));
        };
        let key = if let Some(Field::Keyed(key, _)) = schema.field(list) { Some(*key) } else { None };
        let before = target.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        orders.push(ElementOrder { list, key, wanted, before });
    }
    Ok(orders)
}

/// The order that a list's elements are to have.
struct ElementOrder<'p> {
    list: &'p str,
    key: Option<&'static str>,
    wanted: &'p [Value],
    before: Vec<Value>,
}

impl ElementOrder<'_> {
    /// Puts the elements that the order names into it. Those that it does not name (somebody else's) keep their place relative
    /// to each other, and stay before the elements that they were before.
    fn sort(&self, list: &mut Vec<Value>) {
        let (mut named, foreign): (Vec<_>, Vec<_>) =
            std::mem::take(list).into_iter().partition(|element| self.index(self.wanted, element).is_some());
        named.sort_by_key(|element| self.index(self.wanted, element));
        let mut named = named.into_iter().peekable();
        for element in foreign {
            let place = self.index(&self.before, &element);
            let goes_first =
                |known: &Value| matches!((self.index(&self.before, known), place), (Some(k), Some(p)) if k < p);
            while let Some(known) = named.next_if(goes_first) {
                list.push(known);
            }
            list.push(element);
        }
        list.extend(named);
    }

    fn index(&self, order: &[Value], element: &Value) -> Option<usize> {
        order.iter().position(|other| match self.key {
            Some(key) => element.get(key).is_some() && other.get(key) == element.get(key),
            None => other == element,
        })
    }
}

/// How an object of the patch is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Merge,
    Replace,
    Delete,
}

impl Mode {
    fn of(patch: &Object, path: &str) -> Result<Self, PatchError> {
        match patch.get(PATCH) {
            None => Ok(Self::Merge),
            Some(Value::String(word)) if word == "merge" => Ok(Self::Merge),
            Some(Value::String(word)) if word == "replace" => Ok(Self::Replace),
            Some(Value::String(word)) if word == "delete" => Ok(Self::Delete),
            Some(other) => Err(directive(path, PATCH, &format!("may be merge, replace or delete, and is {other}"))),
        }
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn directive(path: &str, name: &str, reason: &str) -> PatchError {
    PatchError::Directive { path: below(path, name), reason: reason.to_owned() }
}
