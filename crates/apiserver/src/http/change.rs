//! Requests that change something.

use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::query::Selection;
use super::represent::{Representation, json_response, with_warnings};
use super::{Call, body, node_restriction};
use crate::api::{DeleteOptions, Deletion, FieldValidation, Part, Place, Saved, SavedObject, WriteOptions};
use crate::auth::{access_review, self_review, subject_access_review};
use crate::errors::ApiError;
use crate::registry::{Resource, to_view};

impl Call<'_> {
    fn write_options(&self) -> Result<WriteOptions, ApiError> {
        let validation = FieldValidation::parse(self.query.text("fieldValidation"))?;
        let keep_pod_labels = self.identity.node().is_some();
        Ok(WriteOptions { dry_run: self.query.dry_run()?, validation, keep_pod_labels })
    }

    async fn required_body(self) -> Result<Value, ApiError> {
        let body = body::object(&self.headers, self.request.into_body()).await?;
        body.ok_or_else(|| ApiError::bad_request("the request has no body"))
    }
}

/// Answers a create.
pub(super) async fn create(call: Call<'_>, resource: &Resource, namespace: &str) -> Result<Response, ApiError> {
    let (api, identity) = (call.api, call.identity.clone());
    let options = call.write_options()?;
    let representation = Representation::negotiate(&call.headers, &call.query)?;
    let body = call.required_body().await?;
    if !resource.is_stored() {
        let review = match resource.plural.as_str() {
            "selfsubjectaccessreviews" => access_review(&identity, body, api),
            "subjectaccessreviews" => subject_access_review(body, api),
            "tokenreviews" => api.review_token(body),
            _ => self_review(&identity, body),
        };
        return Ok(json_response(StatusCode::CREATED, review.to_string()));
    }
    node_restriction::check_create(&identity, resource, namespace, &body)?;
    let saved = api.create(resource, namespace, body, options).await?;
    Ok(saved_response(StatusCode::CREATED, resource, representation, &saved))
}

/// Answers an update or a patch of an object or of its status.
pub(super) async fn modify(call: Call<'_>, at: &Place<'_>, part: Part) -> Result<Response, ApiError> {
    let api = call.api;
    let options = call.write_options()?;
    let representation = Representation::negotiate(&call.headers, &call.query)?;
    let saved = if call.method == Method::PATCH {
        let (kind, patch) = body::patch(&call.headers, call.request.into_body()).await?;
        api.patch(at, part, kind, patch, options).await?
    } else {
        let body = call.required_body().await?;
        api.update(at, part, body, options).await?
    };
    Ok(saved_response(StatusCode::OK, at.resource, representation, &saved))
}

/// Answers a deletion: with a Status when the object is gone, with the object when it still has to let go.
pub(super) async fn delete(call: Call<'_>, at: &Place<'_>) -> Result<Response, ApiError> {
    let (api, options) = delete_options(call).await?;
    let deletion = api.delete(at, &options).await?;
    Ok(match &deletion {
        Deletion::Begun(object) => json_response(StatusCode::OK, Representation::Whole.object(at.resource, object)),
        Deletion::Done(object) => {
            let status = json!({
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": {
                    "name": at.name,
                    "group": at.resource.group,
                    "kind": at.resource.plural,
                    "uid": object.value["metadata"]["uid"],
                },
            });
            json_response(StatusCode::OK, status.to_string())
        }
    })
}

/// Answers a deletion of all selected objects with the list of them.
pub(super) async fn delete_collection(
    call: Call<'_>,
    resource: &Resource,
    namespace: Option<&str>,
) -> Result<Response, ApiError> {
    let selection = Selection::parse(&call.query, resource, None)?;
    let (api, options) = delete_options(call).await?;
    let listing = api.store().list(&resource.storage, namespace);
    let mut items = Vec::new();
    for object in listing.objects.iter().filter(|object| selection.matches(object)) {
        let at = Place { resource, namespace: &object.key.namespace, name: &object.key.name };
        match api.delete(&at, &options).await {
            Ok(deletion) => {
                let value = &deletion.object().value;
                items.push(to_view(resource, value).unwrap_or_else(|| value.clone()));
            }
            // Somebody else was faster.
            Err(error) if error.reason == "NotFound" => {}
            Err(error) => return Err(error),
        }
    }
    let list = json!({
        "kind": resource.list_kind,
        "apiVersion": resource.api_version(),
        "metadata": { "resourceVersion": api.store().revision().to_string() },
        "items": items,
    });
    Ok(json_response(StatusCode::OK, list.to_string()))
}

async fn delete_options(call: Call<'_>) -> Result<(&crate::Api, DeleteOptions), ApiError> {
    let Call { api, headers, query, request, .. } = call;
    query.dry_run()?;
    let body = body::object(&headers, request.into_body()).await?.unwrap_or_default();
    Ok((api, DeleteOptions::parse(&body, |name| query.text(name))?))
}

/// Answers requests below an object, other than those that its node answers.
pub(super) async fn subresource(call: Call<'_>, at: &Place<'_>, name: &str) -> Result<Response, ApiError> {
    match (name, call.method.as_str()) {
        ("status", "GET") => super::read::object(&call, at),
        ("status", "PUT" | "PATCH") => modify(call, at, Part::Status).await,
        ("finalize", "PUT") => modify(call, at, Part::Finalize).await,
        ("scale", "GET") => Ok(json_response(StatusCode::OK, call.api.scale(at)?.to_string())),
        ("scale", "PUT" | "PATCH") => scale(call, at).await,
        ("binding", "POST") => {
            let (api, options) = (call.api, call.write_options()?);
            let binding = call.required_body().await?;
            api.bind(at, &binding, options).await?;
            Ok(success(StatusCode::CREATED))
        }
        ("eviction", "POST") => {
            let (api, options) = (call.api, call.write_options()?);
            let eviction = call.required_body().await?;
            api.evict(at, &eviction, options.dry_run).await?;
            Ok(success(StatusCode::CREATED))
        }
        ("token", "POST") => {
            let (api, identity) = (call.api, call.identity.clone());
            let request = call.required_body().await?;
            node_restriction::check_token(api, &identity, at, &request)?;
            Ok(json_response(StatusCode::CREATED, api.request_token(at, request)?.to_string()))
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn scale(call: Call<'_>, at: &Place<'_>) -> Result<Response, ApiError> {
    let api = call.api;
    let options = call.write_options()?;
    let scale = if call.method == Method::PATCH {
        let (kind, patch) = body::patch(&call.headers, call.request.into_body()).await?;
        api.patch_scale(at, kind, &patch, options).await?
    } else {
        let body = call.required_body().await?;
        api.update_scale(at, &body, options).await?
    };
    Ok(json_response(StatusCode::OK, scale.to_string()))
}

fn success(code: StatusCode) -> Response {
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code.as_u16() });
    json_response(code, status.to_string())
}

fn saved_response(code: StatusCode, resource: &Resource, representation: Representation, saved: &Saved) -> Response {
    let json = match &saved.object {
        SavedObject::Stored(object) => representation.object(resource, object),
        SavedObject::Draft(value) => {
            let viewed = to_view(resource, value);
            representation.value(resource, viewed.as_ref().unwrap_or(value)).to_string().into()
        }
    };
    with_warnings(json_response(code, json), &saved.warnings)
}
