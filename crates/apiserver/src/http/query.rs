//! What the query of a request says.

use std::time::Duration;

use axum::extract::Query as Form;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use serde_json::{Value, json};

use crate::errors::ApiError;
use crate::registry::Resource;
use crate::selector::{FieldSelector, LabelSelector};
use crate::store::{Object, Position};

/// The pairs of a query, decoded.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of a URI.
    pub fn parse(uri: &Uri) -> Result<Self, ApiError> {
        let Form(pairs) = Form::try_from_uri(uri).map_err(|error| ApiError::bad_request(error.to_string()))?;
        Ok(Self(pairs))
    }

    /// The value of a parameter that is there and not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Whether a boolean parameter is set, in any of the spellings that Go knows.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }

    /// The name of the only object that a list or watch asks for.
    pub fn only_name(&self) -> Option<&str> {
        let name = self.text("fieldSelector")?.strip_prefix("metadata.name=")?;
        (!name.contains(['=', ',', '!'])).then_some(name)
    }

    /// A number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let parse = |text: &str| {
            text.parse().map_err(|_| ApiError::bad_request(format!("invalid value {text:?} of parameter {name:?}")))
        };
        self.text(name).map(parse).transpose()
    }

    /// Whether nothing is to be stored (`dryRun=All`).
    pub fn dry_run(&self) -> Result<bool, ApiError> {
        match self.text("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(ApiError::bad_request(format!("invalid dryRun {other:?}: supported values: \"All\""))),
        }
    }
}

/// Which objects a list or watch is about.
#[derive(Debug)]
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`; a `name` in the path narrows to that object.
    pub fn parse(query: &Query, resource: &Resource, name: Option<&str>) -> Result<Self, ApiError> {
        let bad = |error: crate::selector::SelectorError| ApiError::bad_request(error.to_string());
        let labels = LabelSelector::parse(query.text("labelSelector").unwrap_or_default()).map_err(bad)?;
        let mut fields = query.text("fieldSelector").unwrap_or_default().to_owned();
        if let Some(name) = name {
            let separator = if fields.is_empty() { "" } else { "," };
            fields = format!("{fields}{separator}metadata.name={name}");
        }
        let fields = FieldSelector::parse(&fields).map_err(bad)?;
        fields.validate(&resource.group, &resource.kind).map_err(bad)?;
        Ok(Self { labels, fields })
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one object that can be selected, when there is only one.
    pub fn name(&self) -> Option<&str> {
        self.fields.required_name()
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Object) -> bool {
        self.labels.matches(object.value["metadata"]["labels"].as_object()) && self.fields.matches(&object.value)
    }
}

/// The page of a list that is asked for.
#[derive(Debug)]
pub struct Page {
    /// Objects at most.
    pub limit: usize,
    /// Where the page before ended, and the revision of the first page.
    pub after: Option<(Position, u64)>,
}

impl Page {
    /// Reads `limit` and `continue`.
    pub fn parse(query: &Query) -> Result<Self, ApiError> {
        let limit = match query.number("limit")? {
            None | Some(0) => usize::MAX,
            Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let after = query.text("continue").map(read_token).transpose()?;
        Ok(Self { limit, after })
    }
}

/// What a client sends back as `continue` to get the objects after `last`.
pub fn continue_token(last: &Object, revision: u64) -> String {
    let token = json!({ "rv": revision, "ns": last.key.namespace, "name": last.key.name });
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn read_token(token: &str) -> Result<(Position, u64), ApiError> {
    let invalid = || ApiError::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    let text = |field: &str| token[field].as_str().map(str::to_owned).ok_or_else(invalid);
    let position = Position { namespace: text("ns")?, name: text("name")? };
    Ok((position, token["rv"].as_u64().ok_or_else(invalid)?))
}

/// Seconds that a watch runs at most, whatever the client wishes: a day.
const LONGEST_WATCH: u64 = 24 * 3600;

/// How a watch is to run.
#[derive(Debug)]
pub struct WatchOptions {
    /// Start after this revision; without it, with what exists.
    pub from: Option<u64>,
    /// Whether the client wants bookmarks.
    pub bookmarks: bool,
    /// Whether a bookmark is to tell where the objects that exist end (`sendInitialEvents`).
    pub initial_bookmark: bool,
    /// When to end.
    pub timeout: Duration,
}

impl WatchOptions {
    /// Reads the parameters of a watch.
    pub fn parse(query: &Query) -> Result<Self, ApiError> {
        let revision = revision(query)?;
        let initial = query.flag("sendInitialEvents");
        if initial && query.text("resourceVersionMatch") != Some("NotOlderThan") {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return Err(ApiError::bad_request(why));
        }
        // Half an hour, as Kubernetes' --min-request-timeout is by default, for those who do not say.
        let timeout = query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0).unwrap_or(1800).min(LONGEST_WATCH);
        Ok(Self {
            from: revision.filter(|revision| *revision > 0 && !initial),
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_bookmark: initial,
            timeout: Duration::from_secs(timeout),
        })
    }
}

/// `resourceVersion`, when it is there.
pub fn revision(query: &Query) -> Result<Option<u64>, ApiError> {
    let parse =
        |text: &str| text.parse().map_err(|_| ApiError::bad_request(format!("invalid resource version {text:?}")));
    query.text("resourceVersion").map(parse).transpose()
}
