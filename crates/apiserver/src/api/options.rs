//! How a write is to be done.

use serde_json::Value;

use crate::errors::ApiError;

/// What happens to fields that a kind does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Nothing is said.
    Ignore,
    /// A warning comes back.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

impl FieldValidation {
    /// Reads the `fieldValidation` parameter.
    pub fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        match text {
            None | Some("Warn") => Ok(Self::Warn),
            Some("Ignore") => Ok(Self::Ignore),
            Some("Strict") => Ok(Self::Strict),
            Some(other) => Err(ApiError::bad_request(format!(
                "invalid fieldValidation {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// How a create, update or patch is to be done.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteOptions {
    /// Store nothing.
    pub dry_run: bool,
    /// What happens to unknown fields.
    pub validation: FieldValidation,
    /// A change of a pod's status leaves the pod's labels alone, as Kubernetes has it for nodes: with other labels a pod would
    /// belong to other Services.
    pub keep_pod_labels: bool,
}

/// What happens to the objects that an object owns when it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

/// How a deletion is to be done.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Store nothing.
    pub dry_run: bool,
    /// Seconds that a pod gets to end.
    pub grace_seconds: Option<u64>,
    /// What happens to owned objects.
    pub propagation: Option<Propagation>,
    /// Only delete the object with this uid.
    pub uid: Option<String>,
    /// Only delete the object at this revision.
    pub revision: Option<String>,
}

impl DeleteOptions {
    /// Reads a DeleteOptions body; `query` supplies what the body leaves out.
    pub fn parse<'q>(body: &Value, query: impl Fn(&str) -> Option<&'q str>) -> Result<Self, ApiError> {
        let grace = match (&body["gracePeriodSeconds"], query("gracePeriodSeconds")) {
            (Value::Null, None) => None,
            (Value::Null, Some(text)) => Some(text.parse().map_err(|_| bad_grace(text))?),
            (number, _) => Some(number.as_u64().ok_or_else(|| bad_grace(&number.to_string()))?),
        };
        let policy = body["propagationPolicy"].as_str().or_else(|| query("propagationPolicy"));
        let orphans =
            body["orphanDependents"].as_bool().or_else(|| query("orphanDependents").map(|text| text == "true"));
        let dry_run = body["dryRun"].as_array().is_some_and(|list| list.iter().any(|word| word == "All"));
        let text = |field: &str| body["preconditions"][field].as_str().map(str::to_owned);
        Ok(Self {
            dry_run: dry_run || query("dryRun") == Some("All"),
            grace_seconds: grace,
            propagation: propagation(policy, orphans)?,
            uid: text("uid"),
            revision: text("resourceVersion"),
        })
    }
}

fn bad_grace(text: &str) -> ApiError {
    ApiError::bad_request(format!("invalid gracePeriodSeconds {text:?}: must be a number that is not negative"))
}

fn propagation(policy: Option<&str>, orphans: Option<bool>) -> Result<Option<Propagation>, ApiError> {
    match (policy, orphans) {
        (Some("Background"), _) | (None, Some(false)) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), _) => Ok(Some(Propagation::Foreground)),
        (Some("Orphan"), _) | (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (None, None) => Ok(None),
        (Some(other), _) => Err(ApiError::bad_request(format!(
            "invalid propagationPolicy {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
        ))),
    }
}
