//! Deleting objects: at once, after a grace period, or when their finalizers are gone.
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination>,
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/>.

use std::sync::Arc;

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::Value;

use super::metadata::{finalizers, is_deleting, may_go};
use super::modify::Replace;
use super::options::Propagation;
use super::{Api, DeleteOptions, Place};
use crate::errors::ApiError;
use crate::registry::Resource;
use crate::store::{Object, Write};

/// Seconds that a pod gets when nobody says otherwise.
const DEFAULT_GRACE: u64 = 30;

/// Times that a deletion is tried anew on the object as it is then.
const ATTEMPTS: usize = 32;

/// What became of an object that was to be deleted.
#[derive(Debug)]
pub enum Deletion {
    /// It is gone.
    Done(Arc<Object>),
    /// It is marked; its finalizers or its node still have to let go.
    Begun(Arc<Object>),
}

impl Deletion {
    /// The object as it is or was last.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Self::Done(object) | Self::Begun(object) => object,
        }
    }
}

impl Api {
    /// Deletes an object, or begins to.
    pub async fn delete(&self, at: &Place<'_>, options: &DeleteOptions) -> Result<Deletion, ApiError> {
        for _ in 0..ATTEMPTS {
            let current = self.existing(at)?;
            check_preconditions(at, &current, options)?;
            self.admit_delete(at, &current.value)?;
            match self.delete_once(at, &current, options).await {
                Err(Replace::Changed) => {}
                Err(Replace::Refused(error)) => return Err(error),
                Ok(deletion) => {
                    self.after_deletion(at, &deletion);
                    return Ok(deletion);
                }
            }
        }
        Err(ApiError::modified(at.resource, at.name))
    }

    async fn delete_once(
        &self,
        at: &Place<'_>,
        current: &Arc<Object>,
        options: &DeleteOptions,
    ) -> Result<Deletion, Replace> {
        let marked = marked(at.resource, &current.value, options);
        if options.dry_run {
            return Ok(Deletion::Done(Arc::clone(current)));
        }
        if may_go(&marked) {
            return self.remove(at, Some(current.revision)).await.map(Deletion::Done);
        }
        if marked == current.value {
            return Ok(Deletion::Begun(Arc::clone(current)));
        }
        let write = Write::Update { key: at.key(), value: marked, expected: Some(current.revision) };
        let stored = self.store().write(write).await.map_err(|error| match error {
            crate::store::WriteError::Changed => Replace::Changed,
            other => Replace::Refused(at.refused(other)),
        })?;
        Ok(Deletion::Begun(stored))
    }

    fn after_deletion(&self, at: &Place<'_>, deletion: &Deletion) {
        if matches!(deletion, Deletion::Begun(_)) && super::admit::is_definition(at.resource) {
            self.clean_up_definition(at.name);
        }
    }
}

fn check_preconditions(at: &Place<'_>, current: &Object, options: &DeleteOptions) -> Result<(), ApiError> {
    let metadata = &current.value["metadata"];
    let checks = [("UID", &options.uid, "uid"), ("ResourceVersion", &options.revision, "resourceVersion")];
    for (what, wanted, field) in checks {
        let found = metadata[field].as_str().unwrap_or_default();
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). \
                               The object might have been deleted and then recreated"
            );
            return Err(ApiError::conflict(at.resource, at.name, &why));
        }
    }
    Ok(())
}

/// The object with the deletion written into it.
fn marked(resource: &Resource, current: &Value, options: &DeleteOptions) -> Value {
    let mut object = current.clone();
    let finalizers = finalizers_of_policy(finalizers(current), options.propagation);
    let metadata = &mut object["metadata"];
    if !finalizers.is_empty() {
        metadata["finalizers"] = Value::from(finalizers);
    } else if let Some(fields) = metadata.as_object_mut() {
        fields.shift_remove("finalizers");
    }
    let grace = grace_seconds(resource, current, options);
    let shortened = metadata["deletionGracePeriodSeconds"].as_u64().is_some_and(|before| grace < before);
    if !is_deleting(current) || shortened {
        let seconds = i64::try_from(grace).unwrap_or(i64::MAX);
        let grace_period = TimeDelta::try_seconds(seconds).unwrap_or_default();
        let end = Utc::now().checked_add_signed(grace_period).unwrap_or_else(Utc::now);
        metadata["deletionTimestamp"] = Value::from(end.to_rfc3339_opts(SecondsFormat::Secs, true));
        metadata["deletionGracePeriodSeconds"] = Value::from(grace);
    }
    if resource.is("", "namespaces") {
        object["status"]["phase"] = Value::from("Terminating");
    }
    object
}

/// The policy is kept as a finalizer, which the garbage collector acts upon and removes.
fn finalizers_of_policy(mut finalizers: Vec<String>, policy: Option<Propagation>) -> Vec<String> {
    const FOREGROUND: &str = "foregroundDeletion";
    const ORPHAN: &str = "orphan";
    let wanted = match policy {
        None => return finalizers,
        Some(Propagation::Background) => None,
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Orphan) => Some(ORPHAN),
    };
    finalizers.retain(|name| name != FOREGROUND && name != ORPHAN);
    finalizers.extend(wanted.map(str::to_owned));
    finalizers
}

/// Only pods are given time, and only while a node has them running.
fn grace_seconds(resource: &Resource, object: &Value, options: &DeleteOptions) -> u64 {
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let unscheduled = object["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
    if !resource.is("", "pods") || ended || unscheduled {
        return 0;
    }
    options.grace_seconds.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(DEFAULT_GRACE)
}
