//! JSON patch (RFC 6902), with bounds on what a small patch can make of an object: a dozen `copy` operations could double it a dozen
//! times, and a few thousand `move` operations nest it deeper than any stack.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::{PatchError, object};
use crate::shape::{self, MAX_BYTES, MAX_DEPTH};

/// Operations at most, as Kubernetes has it.
const MAX_OPERATIONS: usize = 10_000;

/// Applies a list of operations, all or none.
pub(super) fn apply(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let unreadable = |reason: String| PatchError::Unreadable { reason };
    let operations = patch.as_array().map_or(0, Vec::len);
    if operations > MAX_OPERATIONS {
        return Err(unreadable(format!("{operations} operations are more than {MAX_OPERATIONS}")));
    }
    let Patch(operations) = serde_json::from_value(patch.clone()).map_err(|error| unreadable(error.to_string()))?;
    let mut result = current.clone();
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        let refused = |reason: String| PatchError::Operation { index, path: operation.path().to_string(), reason };
        copied += check(&result, operation).map_err(refused)?;
        if copied > MAX_BYTES {
            return Err(refused(format!("the patch copies and moves more than {MAX_BYTES} bytes")));
        }
        json_patch::patch_unsafe(&mut result, std::slice::from_ref(operation))
            .map_err(|error| refused(error.kind.to_string()))?;
    }
    object(&result)?;
    Ok(result)
}

/// Refuses an operation that would nest too deep; answers how many bytes it copies or moves.
fn check(document: &Value, operation: &PatchOperation) -> Result<usize, String> {
    let found = |from: &str| document.pointer(from);
    let (value, moved) = match operation {
        PatchOperation::Add(add) => (Some(&add.value), false),
        PatchOperation::Replace(replace) => (Some(&replace.value), false),
        PatchOperation::Move(from) => (found(from.from.as_str()), true),
        PatchOperation::Copy(from) => (found(from.from.as_str()), true),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => (None, false),
    };
    // What is not there is for the operation itself to report.
    let Some(value) = value else { return Ok(0) };
    let above = operation.path().as_str().matches('/').count();
    if MAX_DEPTH.checked_sub(above).is_none_or(|levels| shape::is_deeper_than(value, levels)) {
        return Err(format!("the object would be nested deeper than {MAX_DEPTH} levels"));
    }
    Ok(if moved { shape::bytes(value) } else { 0 })
}
