//! Getting and listing.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::Call;
use super::query::{Page, Selection, continue_token, revision};
use super::represent::{Representation, json_response, partial, table};
use crate::api::Place;
use crate::errors::ApiError;
use crate::registry::{Resource, to_view};
use crate::store::{Listing, Object};

/// Answers a get.
pub(super) fn object(call: &Call<'_>, at: &Place<'_>) -> Result<Response, ApiError> {
    let representation = Representation::negotiate(&call.headers, &call.query)?;
    let object = call.api.existing(at)?;
    Ok(json_response(StatusCode::OK, representation.object(at.resource, &object)))
}

/// Answers a list.
pub(super) fn list(call: &Call<'_>, resource: &Resource, namespace: Option<&str>) -> Result<Response, ApiError> {
    let representation = Representation::negotiate(&call.headers, &call.query)?;
    let selection = Selection::parse(&call.query, resource, None)?;
    let page = Page::parse(&call.query)?;
    check_revision(call)?;
    let listing = select(call, resource, namespace, &selection, &page);
    // Pages belong to one list: all carry the revision of the first, and a watch from there replays what came between.
    let revision = page.after.map_or(listing.revision, |(_, revision)| revision);
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if let Some(last) = listing.objects.last().filter(|_| listing.remaining > 0) {
        metadata["continue"] = Value::from(continue_token(last, revision));
        if selection.is_everything() {
            metadata["remainingItemCount"] = Value::from(listing.remaining);
        }
    }
    let body = match representation {
        Representation::Whole => whole(resource, &listing.objects, &metadata),
        Representation::Metadata => metadata_list(resource, &listing.objects, &metadata).to_string().into_bytes(),
        Representation::Table(include) => {
            let viewed: Vec<Option<Value>> = listing.objects.iter().map(|o| to_view(resource, &o.value)).collect();
            let objects: Vec<&Value> =
                listing.objects.iter().zip(&viewed).map(|(o, v)| v.as_ref().unwrap_or(&o.value)).collect();
            table(resource, &objects, include, metadata).to_string().into_bytes()
        }
    };
    Ok(json_response(StatusCode::OK, body))
}

/// Everything is answered from the present, which is as new as any revision that a client can know, except the exact past.
fn check_revision(call: &Call<'_>) -> Result<(), ApiError> {
    let Some(asked) = revision(&call.query)? else { return Ok(()) };
    let current = call.api.store().revision();
    if asked > current {
        return Err(ApiError::expired(format!("Too large resource version: {asked}, current: {current}")));
    }
    if call.query.text("resourceVersionMatch") == Some("Exact") && asked != current {
        return Err(ApiError::expired(format!(
            "The provided resource version {asked} is too old: only {current} is kept"
        )));
    }
    Ok(())
}

fn select(
    call: &Call<'_>,
    resource: &Resource,
    namespace: Option<&str>,
    selection: &Selection,
    page: &Page,
) -> Listing {
    let store = call.api.store();
    let after = page.after.as_ref().map(|(position, _)| position);
    if selection.is_everything() {
        return store.page(&resource.storage, namespace, after, page.limit);
    }
    if let (Some(name), Some(namespace)) = (selection.name(), namespace.or((!resource.namespaced).then_some(""))) {
        let revision = store.revision();
        let found = store.object(&resource.storage, namespace, name).filter(|object| selection.matches(object));
        return Listing { revision, objects: found.into_iter().collect(), remaining: 0 };
    }
    let mut listing = store.page(&resource.storage, namespace, after, usize::MAX);
    listing.objects.retain(|object| selection.matches(object));
    listing.remaining = listing.objects.len().saturating_sub(page.limit);
    listing.objects.truncate(page.limit);
    listing
}

/// A list put together from the objects' own JSON.
fn whole(resource: &Resource, objects: &[Arc<Object>], metadata: &Value) -> Vec<u8> {
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        resource.list_kind,
        resource.api_version()
    );
    let size: usize = objects.iter().map(|object| object.json.len() + 1).sum();
    let mut body = Vec::with_capacity(head.len() + size + 2);
    body.extend_from_slice(head.as_bytes());
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        match to_view(resource, &object.value) {
            None => body.extend_from_slice(&object.json),
            Some(viewed) => body.extend_from_slice(viewed.to_string().as_bytes()),
        }
    }
    body.extend_from_slice(b"]}");
    body
}

fn metadata_list(resource: &Resource, objects: &[Arc<Object>], metadata: &Value) -> Value {
    let items: Vec<Value> = objects
        .iter()
        .map(|object| {
            to_view(resource, &object.value).map_or_else(|| partial(&object.value), |viewed| partial(&viewed))
        })
        .collect();
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "items": items,
    })
}
