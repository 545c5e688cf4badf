//! From an HTTP request to a verb on a resource, and back.
//!
//! A request is authenticated, understood ([`target`], [`query`]), authorized, and then answered by the module of its verb.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, Request, header};
use tracing::debug;

use crate::api::{Api, Place};
use crate::auth::{Identity, rules};
use crate::errors::ApiError;
use crate::registry::Resource;
use crate::{discovery, openapi};

pub mod body;
mod change;
mod node_restriction;
pub mod query;
mod read;
mod represent;
pub mod target;
mod watch;

use query::Query;
use target::{ResourceTarget, Target};

/// The router: every path is understood by [`Target`], since custom kinds come and go.
pub(crate) fn router(api: Api) -> Router {
    Router::new().fallback(handle).with_state(api)
}

async fn handle(State(api): State<Api>, request: Request<Body>) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match Box::pin(answer(&api, request)).await {
        Ok(response) => response,
        Err(error) => {
            debug!(%method, %path, code = error.code.as_u16(), message = %error.message, "refused");
            error.into_response()
        }
    }
}

/// A request that has been authenticated and authorized.
struct Call<'a> {
    api: &'a Api,
    identity: Identity,
    method: Method,
    headers: HeaderMap,
    query: Query,
    request: Request<Body>,
}

async fn answer(api: &Api, request: Request<Body>) -> Result<Response, ApiError> {
    let identity = authenticate(api, &request).ok_or_else(ApiError::unauthorized)?;
    let query = Query::parse(request.uri())?;
    let target = Target::parse(request.uri().path());
    let method = request.method().clone();
    authorize(api, &identity, &target, &method, &query)?;
    let headers = request.headers().clone();
    let call = Call { api, identity, method, headers, query, request };
    match target {
        Target::Path(path) => outside(&call, &path),
        Target::Resource(target) => inside(call, target).await,
    }
}

fn authenticate(api: &Api, request: &Request<Body>) -> Option<Identity> {
    if let Some(identity) = request.extensions().get::<Identity>() {
        return Some(identity.clone());
    }
    let authorization = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = authorization.strip_prefix("Bearer ").or_else(|| authorization.strip_prefix("bearer "))?;
    api.identity_of_token(token.trim())
}

fn authorize(api: &Api, identity: &Identity, target: &Target, method: &Method, query: &Query) -> Result<(), ApiError> {
    let mut attempt = target.attempt(method, query.flag("watch"));
    // Whoever lists or watches a single object by its name is judged by that name, as Kubernetes does.
    if matches!(attempt.verb, "list" | "watch") && attempt.name.is_empty() {
        attempt.name = query.only_name().unwrap_or_default();
    }
    if rules::allows(identity, &attempt, api) {
        return Ok(());
    }
    let why = attempt.refusal(identity);
    match target {
        Target::Path(_) => Err(ApiError::forbidden_plain(why)),
        Target::Resource(target) => match api.catalog().resource(&target.group, &target.version, &target.plural) {
            Some(resource) => Err(ApiError::forbidden(&resource, attempt.name, &why)),
            None => Err(ApiError::forbidden_plain(format!("{} is forbidden: {why}", target.plural))),
        },
    }
}

/// Paths outside the resources.
fn outside(call: &Call<'_>, path: &str) -> Result<Response, ApiError> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    let catalog = call.api.catalog();
    if let Some(document) = discovery::document(&catalog, path, &call.headers) {
        return Ok(document);
    }
    openapi::document(&catalog, path, &call.headers).ok_or_else(ApiError::no_such_path)
}

/// Resources, objects and subresources.
async fn inside(call: Call<'_>, target: ResourceTarget) -> Result<Response, ApiError> {
    let catalog = call.api.catalog();
    let resource =
        catalog.resource(&target.group, &target.version, &target.plural).ok_or_else(ApiError::no_such_path)?;
    let is_namespace = resource.is("", "namespaces");
    let namespace = target.namespace.as_deref().filter(|_| !is_namespace);
    if namespace.is_some() && !resource.namespaced {
        return Err(ApiError::no_such_path());
    }
    let Some(name) = target.name.as_deref() else {
        return collection(call, &resource, namespace).await;
    };
    if resource.namespaced && namespace.is_none() {
        return Err(ApiError::no_such_path());
    }
    let at = Place { resource: &resource, namespace: namespace.unwrap_or_default(), name };
    match target.subresource.as_deref() {
        None => object(call, &at).await,
        Some(subresource) => below(call, &at, subresource).await,
    }
}

async fn collection(call: Call<'_>, resource: &Resource, namespace: Option<&str>) -> Result<Response, ApiError> {
    match call.method.as_str() {
        "GET" | "HEAD" if !resource.is_stored() => Err(ApiError::method_not_allowed()),
        "GET" | "HEAD" if call.query.flag("watch") => watch::watch(&call, resource, namespace, None),
        "GET" | "HEAD" => read::list(&call, resource, namespace),
        "POST" => change::create(call, resource, namespace.unwrap_or_default()).await,
        "DELETE" if resource.is_stored() => change::delete_collection(call, resource, namespace).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn object(call: Call<'_>, at: &Place<'_>) -> Result<Response, ApiError> {
    if !at.resource.is_stored() {
        return Err(ApiError::method_not_allowed());
    }
    match call.method.as_str() {
        "GET" | "HEAD" if call.query.flag("watch") => {
            let namespace = at.resource.namespaced.then_some(at.namespace);
            watch::watch(&call, at.resource, namespace, Some(at.name))
        }
        "GET" | "HEAD" => read::object(&call, at),
        "PUT" | "PATCH" => change::modify(call, at, crate::api::Part::Main).await,
        "DELETE" => change::delete(call, at).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn below(call: Call<'_>, at: &Place<'_>, subresource: &str) -> Result<Response, ApiError> {
    let known = at.resource.subresource(subresource).ok_or_else(ApiError::no_such_path)?;
    if matches!(known.name, "log" | "exec" | "attach") {
        let Call { api, request, query, .. } = call;
        return crate::nodeproxy::forward(api, at, known.name, &query, request).await;
    }
    change::subresource(call, at, known.name).await
}
