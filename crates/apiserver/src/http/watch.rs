//! Watching: an answer that goes on, one JSON line for each event.
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::Call;
use super::query::{Selection, WatchOptions};
use super::represent::{Representation, json_response};
use crate::api::Api;
use crate::errors::ApiError;
use crate::registry::Resource;
use crate::store::{Change, Event, Expired, Object, watch_line};

/// How often a watch that asked for bookmarks is told where it stands.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// Bytes that are handed over at once, about; more events follow in the next piece.
const PIECE: usize = 64 << 10;

/// Answers a watch of a resource, in a namespace or in all, or of one object.
pub(super) fn watch(
    call: &Call<'_>,
    resource: &Resource,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Result<Response, ApiError> {
    let representation = Representation::negotiate(&call.headers, &call.query)?;
    let selection = Selection::parse(&call.query, resource, name)?;
    let options = WatchOptions::parse(&call.query)?;
    let store = call.api.store();
    let tip = store.subscribe(&resource.storage);
    let (initial, position) = match options.from {
        Some(revision) => (Vec::new(), revision),
        None => {
            let listing = store.list(&resource.storage, namespace);
            (listing.objects, listing.revision)
        }
    };
    let session = Session {
        api: call.api.clone(),
        view: Viewed { resource: resource.clone(), namespace: namespace.map(str::to_owned), selection, representation },
        tip,
        position,
        initial: initial.into_iter(),
        initial_bookmark: options.initial_bookmark,
        bookmarks: options.bookmarks.then(|| Instant::now() + BOOKMARKS),
        deadline: Instant::now() + options.timeout,
        ended: false,
    };
    let mut response = json_response(StatusCode::OK, Bytes::new());
    *response.body_mut() = Body::from_stream(session.pieces());
    Ok(response)
}

/// One watch under way.
struct Session {
    api: Api,
    view: Viewed,
    tip: Receiver<u64>,
    /// Events up to this revision have been sent.
    position: u64,
    /// Objects that existed at the start and have not been sent yet.
    initial: std::vec::IntoIter<Arc<Object>>,
    initial_bookmark: bool,
    /// When the next bookmark is due.
    bookmarks: Option<Instant>,
    deadline: Instant,
    ended: bool,
}

impl Session {
    fn pieces(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        futures::stream::unfold(self, |mut session| async move {
            let piece = session.next_piece().await?;
            Some((Ok(piece), session))
        })
    }

    /// What is to be sent next; nothing when the watch is over.
    async fn next_piece(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.initial_piece() {
            return Some(piece);
        }
        while !self.ended {
            // Seen before the events are read, so that a commit in between wakes us again.
            self.tip.borrow_and_update();
            match self.api.store().events_after(&self.view.resource.storage, self.position) {
                Err(expired) => {
                    self.ended = true;
                    return Some(expired_line(expired));
                }
                Ok((events, revision)) => {
                    let (piece, reached) = self.view.lines(&events);
                    self.position = reached.unwrap_or(revision);
                    if !piece.is_empty() {
                        return Some(piece);
                    }
                    if reached.is_none()
                        && let Some(bookmark) = self.wait().await
                    {
                        return Some(bookmark);
                    }
                }
            }
        }
        None
    }

    fn initial_piece(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        while piece.len() < PIECE {
            let Some(object) = self.initial.next() else { break };
            if self.view.selection.matches(&object) {
                piece.extend_from_slice(&self.view.line(Change::Added, &object));
            }
        }
        if piece.is_empty() && std::mem::take(&mut self.initial_bookmark) {
            return Some(self.bookmark(true));
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }

    /// Waits for a commit, the end, or the time of a bookmark, which it answers.
    async fn wait(&mut self) -> Option<Bytes> {
        let due = self.bookmarks.map_or(self.deadline, |bookmark| bookmark.min(self.deadline));
        let stopping = self.api.stopping().clone();
        tokio::select! {
            changed = self.tip.changed() => {
                self.ended |= changed.is_err();
                None
            }
            () = stopping.cancelled() => {
                self.ended = true;
                None
            }
            () = tokio::time::sleep_until(due) => {
                self.ended = due >= self.deadline;
                let wanted = self.bookmarks.is_some();
                self.bookmarks = wanted.then(|| Instant::now() + BOOKMARKS);
                wanted.then(|| self.bookmark(false))
            }
        }
    }

    /// Tells the client from where it can go on.
    fn bookmark(&self, ends_initial: bool) -> Bytes {
        let resource = &self.view.resource;
        let mut object = json!({
            "kind": resource.kind,
            "apiVersion": resource.api_version(),
            "metadata": { "resourceVersion": self.position.to_string(), "creationTimestamp": null },
        });
        if ends_initial {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        if let Representation::Table(_) = self.view.representation {
            object = json!({
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
                "columnDefinitions": [],
                "rows": [],
            });
        }
        watch_line("BOOKMARK", object.to_string().as_bytes())
    }
}

/// What a watch shows of events.
struct Viewed {
    resource: Resource,
    namespace: Option<String>,
    selection: Selection,
    representation: Representation,
}

impl Viewed {
    /// The lines of events, and the revision that they reach when it is not the end of the events.
    fn lines(&self, events: &[Arc<Event>]) -> (Bytes, Option<u64>) {
        let as_stored = self.representation.is_stored_form(&self.resource);
        let mut piece = BytesMut::new();
        for (index, event) in events.iter().enumerate() {
            let Some(change) = self.visible(event) else { continue };
            let line =
                if as_stored && change == event.change { event.line() } else { self.line(change, &event.object) };
            if events.len() == 1 {
                return (line, None);
            }
            piece.extend_from_slice(&line);
            if piece.len() >= PIECE && index + 1 < events.len() {
                return (piece.freeze(), Some(event.revision()));
            }
        }
        (piece.freeze(), None)
    }

    /// What an event is to somebody who sees selected objects only: an object that starts to match comes into being, one that
    /// ceases to match is deleted.
    fn visible(&self, event: &Event) -> Option<Change> {
        if self.namespace.as_ref().is_some_and(|namespace| *namespace != event.object.key.namespace) {
            return None;
        }
        if self.selection.is_everything() {
            return Some(event.change);
        }
        let is = event.change != Change::Deleted && self.selection.matches(&event.object);
        let was = event.previous.as_ref().is_some_and(|previous| self.selection.matches(previous));
        match (was, is) {
            (false, false) => None,
            (false, true) => Some(Change::Added),
            (true, true) => Some(Change::Modified),
            (true, false) => Some(Change::Deleted),
        }
    }

    fn line(&self, change: Change, object: &Object) -> Bytes {
        watch_line(change.word(), &self.representation.object(&self.resource, object))
    }
}

/// The last line of a watch that cannot go on.
fn expired_line(expired: Expired) -> Bytes {
    let status: Value = ApiError::expired(expired.to_string()).status();
    watch_line("ERROR", status.to_string().as_bytes())
}
