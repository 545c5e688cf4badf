//! What a PATCH makes of an object: JSON merge patch, JSON patch and strategic merge patch.
//!
//! Pure: an object and a patch in, the patched object out. Whether the result is a valid object is for `admission` to say.

mod operations;
mod schema;
mod strategic;

use serde_json::Value;

/// How a patch is written; the request's `Content-Type` says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/merge-patch+json` (RFC 7396).
    JsonMerge,
    /// `application/strategic-merge-patch+json`: merge patch that knows which lists are maps.
    Strategic,
    /// `application/json-patch+json` (RFC 6902).
    Json,
}

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Only built-in kinds have the schema that a strategic merge needs.
    #[error(
        "strategic merge patch is not supported for {kind} of group {group:?}: use application/merge-patch+json or \
         application/json-patch+json"
    )]
    StrategicUnsupported {
        /// The object's group.
        group: String,
        /// The object's kind.
        kind: String,
    },
    /// A merge patch has to be an object.
    #[error("the patch has to be a JSON object and is {found}")]
    NotAnObject {
        /// What it is instead.
        found: &'static str,
    },
    /// The body is not a list of RFC 6902 operations.
    #[error("the JSON patch cannot be read: {reason}")]
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// An operation of a JSON patch failed; nothing was applied.
    #[error("operation {index} of the JSON patch cannot be applied at {path:?}: {reason}")]
    Operation {
        /// Which one, from 0.
        index: usize,
        /// The JSON pointer that it names.
        path: String,
        /// Why.
        reason: String,
    },
    /// An element of a keyed list has no key.
    #[error("{path}: the element has no field {key:?}, by which elements of this list are told apart")]
    MissingMergeKey {
        /// The element.
        path: String,
        /// The merge key.
        key: &'static str,
    },
    /// A `$patch`, `$retainKeys`, `$setElementOrder/…` or `$deleteFromPrimitiveList/…` that means nothing.
    #[error("{path}: {reason}")]
    Directive {
        /// Where it stands.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What kind of failure a [`PatchError`] is; it decides the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchFault {
    /// This kind cannot be patched so: 415.
    Unsupported,
    /// The patch is not well-formed: 400.
    Malformed,
    /// The patch is well-formed and does not fit the object: 422.
    Inapplicable,
}

impl PatchError {
    /// Whose fault it is.
    pub fn fault(&self) -> PatchFault {
        match self {
            Self::StrategicUnsupported { .. } => PatchFault::Unsupported,
            Self::Operation { .. } => PatchFault::Inapplicable,
            Self::NotAnObject { .. }
            | Self::Unreadable { .. }
            | Self::MissingMergeKey { .. }
            | Self::Directive { .. } => PatchFault::Malformed,
        }
    }
}

/// Whether objects of this kind take strategic merge patches: the built-in ones do, custom resources do not.
pub fn strategic_supported(group: &str, resource_kind: &str) -> bool {
    schema::root(group, resource_kind).is_some()
}

/// Applies a patch to an object.
///
/// # Errors
/// See [`PatchError`]; the object given is never changed.
pub fn apply(
    kind: PatchKind,
    group: &str,
    resource_kind: &str,
    current: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    match kind {
        PatchKind::JsonMerge => {
            object(patch)?;
            let mut result = current.clone();
            json_patch::merge(&mut result, patch);
            Ok(result)
        }
        PatchKind::Json => operations::apply(current, patch),
        PatchKind::Strategic => {
            let schema = schema::root(group, resource_kind).ok_or_else(|| PatchError::StrategicUnsupported {
                group: group.to_owned(),
                kind: resource_kind.to_owned(),
            })?;
            let mut result = object(current)?.clone();
            strategic::merge(&mut result, object(patch)?, schema)?;
            Ok(Value::Object(result))
        }
    }
}

fn object(value: &Value) -> Result<&serde_json::Map<String, Value>, PatchError> {
    value.as_object().ok_or(PatchError::NotAnObject { found: type_name(value) })
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
