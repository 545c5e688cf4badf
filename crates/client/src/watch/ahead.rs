//! The next page of a list, asked for while one is read.
//!
//! `watcher` of kube-runtime asks for a page once it has told all of the one before, so that server and client wait for each other by turns.
//! This client, which is put before the one that asks, fetches the page that a page names as the next one as soon as it has that, and keeps
//! it until it is asked for. What is asked and what is answered, refusals and all, stays the same: watches, and lists that are broken off and
//! made anew, know nothing of it. No more than one page is kept; what is asked for instead of it takes its place.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Method, Request, Response, Uri, request::Parts};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::{Client, Error, client::Body};
use serde::{
    Deserializer as _,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use tokio::task::JoinSet;

/// A client for one watch of a kind of which there are many: it asks as `client`, for each page of a list once the one before has come. It
/// belongs to that watch alone: another's pages would be taken for what it asks instead.
///
/// # Panics
///
/// Outside of a runtime.
#[must_use]
pub fn paging_ahead(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let kept = Kept::default();
    let service = tower::service_fn(move |request| answer(client.clone(), kept.clone(), request));
    Client::new(service, namespace)
}

async fn answer(client: Client, kept: Kept, request: Request<Body>) -> Result<Response<Body>, Error> {
    if !is_list(&request) {
        return client.send(request).await;
    }
    let (parts, body) = request.into_parts();
    let Page { response, next } = match kept.take(&parts.uri).await {
        Some(page) => page?,
        None => fetch(&client, Request::from_parts(parts.clone(), body)).await?,
    };
    if let Some(request) = next.and_then(|token| following(&parts, &token)) {
        let mut page = JoinSet::new();
        let uri = in_order(request.uri());
        page.spawn(async move { fetch(&client, request).await });
        *kept.lock() = Some(Ahead { uri, page });
    }
    Ok(response)
}

/// The page that was asked for ahead.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Option<Ahead>>>);

struct Ahead {
    /// Where it is, as [`in_order`] tells it.
    uri: String,
    /// One task, which ends with this value.
    page: JoinSet<Result<Page, Error>>,
}

/// An answer that was read to its end.
struct Page {
    response: Response<Body>,
    /// The token that the next page is asked for with.
    next: Option<String>,
}

impl Kept {
    /// The page at this place, if it was asked for. Any other is nobody's any more.
    async fn take(&self, uri: &Uri) -> Option<Result<Page, Error>> {
        let ahead = self.lock().take();
        let mut ahead = ahead.filter(|ahead| ahead.uri == in_order(uri))?;
        ahead.page.join_next().await?.ok()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ahead>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fetch(client: &Client, request: Request<Body>) -> Result<Page, Error> {
    let (parts, body) = client.send(request).await?.into_parts();
    let text = body.collect_bytes().await?;
    let next = if parts.status.is_success() { continued(&text) } else { None };
    Ok(Page { response: Response::from_parts(parts, Body::from(text)), next })
}

/// A list in pages.
fn is_list(request: &Request<Body>) -> bool {
    let is = |sought: &str| parameters(request.uri()).any(|parameter| parameter.starts_with(sought));
    request.method() == Method::GET && is("limit=") && !is("watch=")
}

fn parameters(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty())
}

/// A place, whatever the order of its parameters.
fn in_order(uri: &Uri) -> String {
    let mut parameters: Vec<&str> = parameters(uri).collect();
    parameters.sort_unstable();
    format!("{}?{}", uri.path(), parameters.join("&"))
}

/// The request of the next page.
fn following(asked: &Parts, token: &str) -> Option<Request<Body>> {
    let token = format!("continue={token}");
    let same = parameters(&asked.uri).filter(|parameter| !parameter.starts_with("continue="));
    let parameters: Vec<&str> = same.chain([token.as_str()]).collect();
    let mut parts = asked.clone();
    parts.uri = format!("{}?{}", asked.uri.path(), parameters.join("&")).parse().ok()?;
    Some(Request::from_parts(parts, Body::empty()))
}

/// The token of the next page that a page names; none, too, where it is written otherwise than as base64 for URLs, as API servers do: then
/// the next page is asked for when it is wanted.
fn continued(page: &[u8]) -> Option<String> {
    let mut token = None;
    // It ends with an error as soon as that is known: what follows is for others to read.
    let _ = serde_json::Deserializer::from_slice(page).deserialize_map(Continued(&mut token));
    let is_plain = |token: &String| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    token.filter(is_plain)
}

/// Reads a page as far as its metadata, which API servers write first.
struct Continued<'a>(&'a mut Option<String>);

impl<'de> Visitor<'de> for Continued<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "metadata" {
                *self.0 = map.next_value::<ListMeta>()?.continue_;
                return Err(M::Error::custom("enough was read"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
