//! What happens to an object between the request and the store: defaults, what clients may not set, validation.
//!
//! The order for a new object: [`decode_check`] (are the types right?), [`unknown_fields`], [`prepare_create`],
//! [`default_object`], [`validate_create`], and for Services [`allocate::ServiceAllocator::assign`]. For a change: the same checks,
//! [`prepare_update`] (or [`prepare_status_update`] for the status subresource), [`default_object`], [`validate_update`], the
//! allocator, and then [`generation_bumped`] says whether `metadata.generation` counts the change.
//!
//! Everything here knows built-in kinds; of custom resources it knows their metadata alone, except for [`pools`].

pub mod allocate;
mod decode;
mod defaults;
mod field_error;
mod names;
pub mod pools;
mod prepare;
pub(crate) mod quantity;
mod tree;
mod validate;

pub use decode::{decode_check, unknown_fields};
pub use defaults::default_object;
pub use field_error::{FieldError, FieldErrorKind};
pub use prepare::{generation_bumped, prepare_create, prepare_status_update, prepare_update};
pub use validate::{validate_create, validate_update};

#[cfg(test)]
mod tests;
