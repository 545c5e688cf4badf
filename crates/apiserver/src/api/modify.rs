//! Changing objects: updates and patches, of the object or of one of its subresources.

use std::sync::Arc;

use serde_json::Value;

use super::admit::is_service;
use super::claims::Claim;
use super::metadata::{check_type, keep_identity, may_go};
use super::{Api, Place, Saved, WriteOptions, stored_spelling};
use crate::admission::FieldError;
use crate::admission::allocate::Taken;
use crate::errors::ApiError;
use crate::patch::{self, PatchError, PatchFault, PatchKind};
use crate::registry::{Resource, to_view};
use crate::store::{Object, Write, WriteError};

/// Times that a change without a revision of its own is tried anew on the object as it is then.
const ATTEMPTS: usize = 32;

/// Which part of an object a request may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All but the status, where that has a path of its own.
    Main,
    /// The status.
    Status,
    /// A namespace's own finalizers.
    Finalize,
}

impl Api {
    /// Replaces an object. With `metadata.resourceVersion` in the body only that revision is replaced.
    pub async fn update(
        &self,
        at: &Place<'_>,
        part: Part,
        body: Value,
        options: WriteOptions,
    ) -> Result<Saved, ApiError> {
        check_type(at.resource, &body)?;
        let conditional = body["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty());
        if !conditional && at.resource.custom.is_some() {
            let cause = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            return Err(ApiError::invalid(&at.resource.group, &at.resource.kind, at.name, &[cause]));
        }
        self.modify(at, part, options, conditional, |_| Ok(body.clone())).await
    }

    /// Patches an object.
    pub async fn patch(
        &self,
        at: &Place<'_>,
        part: Part,
        kind: PatchKind,
        patch: Value,
        options: WriteOptions,
    ) -> Result<Saved, ApiError> {
        let conditional = patch["metadata"]["resourceVersion"].is_string();
        let apply = |current: &Value| {
            let (group, resource_kind) = (&at.resource.group, &at.resource.kind);
            patch::apply(kind, group, resource_kind, current, &patch).map_err(|error| patch_error(at, &error))
        };
        self.modify(at, part, options, conditional, apply).await
    }

    /// Makes of an object what `change` makes of it (in the spelling that the resource serves). When `conditional`, only at
    /// the revision that the changed object names.
    pub(crate) async fn modify(
        &self,
        at: &Place<'_>,
        part: Part,
        options: WriteOptions,
        conditional: bool,
        change: impl Fn(&Value) -> Result<Value, ApiError>,
    ) -> Result<Saved, ApiError> {
        for _ in 0..ATTEMPTS {
            let current = self.existing(at)?;
            let served = to_view(at.resource, &current.value);
            let proposed = change(served.as_ref().unwrap_or(&current.value))?;
            match self.replace(at, part, &current, proposed, options, conditional).await {
                Err(Replace::Changed) if !conditional => {}
                Err(Replace::Changed) => return Err(ApiError::modified(at.resource, at.name)),
                Err(Replace::Refused(error)) => return Err(error),
                Ok(saved) => return Ok(saved),
            }
        }
        Err(ApiError::modified(at.resource, at.name))
    }

    async fn replace(
        &self,
        at: &Place<'_>,
        part: Part,
        current: &Arc<Object>,
        proposed: Value,
        options: WriteOptions,
        conditional: bool,
    ) -> Result<Saved, Replace> {
        let resource = at.resource;
        let mut object = stored_spelling(resource, proposed);
        keep_identity(at, &current.value, &mut object)?;
        if conditional && object["metadata"]["resourceVersion"] != current.value["metadata"]["resourceVersion"] {
            return Err(Replace::Refused(ApiError::modified(resource, at.name)));
        }
        let warnings = self.admit_update(at, part, &current.value, &mut object, options)?;
        if may_go(&object) {
            if options.dry_run {
                return Ok(Saved::draft(object, warnings));
            }
            let stored = self.remove(at, Some(current.revision)).await?;
            return Ok(Saved::stored(stored, warnings));
        }
        let taken = self.reallocate(resource, part, &current.value, &mut object)?;
        if options.dry_run || object == current.value {
            taken.iter().for_each(|taken| self.services().give_back(taken));
            return Ok(match options.dry_run {
                true => Saved::draft(object, warnings),
                false => Saved::stored(Arc::clone(current), warnings),
            });
        }
        let write = Write::Update { key: at.key(), value: object, expected: Some(current.revision) };
        let written = self.write(write, Claim::of_change(taken, current)).await;
        Ok(Saved::stored(written.map_err(|error| Replace::of(at, error))?, warnings))
    }

    /// Removes an object from the store for good.
    pub(super) async fn remove(&self, at: &Place<'_>, expected: Option<u64>) -> Result<Arc<Object>, Replace> {
        let write = Write::Delete { key: at.key(), expected };
        let claim = if is_service(at.resource) { Claim::Deleted } else { Claim::Nothing };
        self.write(write, claim).await.map_err(|error| Replace::of(at, error))
    }

    /// Gives a changed Service the addresses and ports that it needs now. Answers what is taken for it since; none where the change
    /// is about something else.
    fn reallocate(
        &self,
        resource: &Resource,
        part: Part,
        old: &Value,
        object: &mut Value,
    ) -> Result<Option<Taken>, ApiError> {
        if !is_service(resource) || part != Part::Main {
            return Ok(None);
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let assigned = self.services().assign(object, Some(old));
        assigned.map(Some).map_err(|errors| ApiError::invalid(&resource.group, &resource.kind, &name, &errors))
    }
}

/// Why an object was not replaced.
#[derive(Debug)]
pub(super) enum Replace {
    /// It is another one by now.
    Changed,
    /// It may not be.
    Refused(ApiError),
}

impl Replace {
    fn of(at: &Place<'_>, error: WriteError) -> Self {
        match error {
            WriteError::Changed => Self::Changed,
            other => Self::Refused(at.refused(other)),
        }
    }
}

impl From<ApiError> for Replace {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

fn patch_error(at: &Place<'_>, error: &PatchError) -> ApiError {
    match error.fault() {
        PatchFault::Unsupported => ApiError::unsupported_media_type(error.to_string()),
        PatchFault::Malformed => ApiError::bad_request(error.to_string()),
        PatchFault::Inapplicable => {
            let cause = FieldError::invalid("patch", Value::Null, error.to_string());
            ApiError::invalid(&at.resource.group, &at.resource.kind, at.name, &[cause])
        }
    }
}
