//! What this node's kernel has: `GET /forwarding` answers with a [`Told`](podnet_kernel::snapshot::Told), for whoever may `get`
//! `nodes/forwarding` of the node: it shows addresses, routes and Services of all namespaces, and nothing of what pods send.

use std::io;

use axum::{
    body::{Body, Bytes},
    http::{Response, StatusCode, header},
};
use podnet_kernel::snapshot;
use podnet_model::errors::chain;
use tracing::info;

use super::{
    Refusal, Server,
    asker::{Asker, Rights},
    probe::allowed,
};

/// Answers at once: each may be [`MOST`] bytes.
pub(super) const LOOKS: usize = 4;
/// Of these for one user or pod.
pub(super) const OF_ONE: usize = 2;
/// The longest answer.
const MOST: usize = if cfg!(test) { 16 << 10 } else { snapshot::MOST_BYTES };
/// Handed on at a time: whoever reads slowly keeps their place until the last one, or until the connection is given up.
const PIECE: usize = 64 << 10;

/// Answers, once it is known that it may be.
pub(super) async fn tell(server: &Server, asker: Asker) -> Result<Response<Body>, Refusal> {
    let place = server.looks.take(
        &asker,
        &format!("you look at this node {OF_ONE} times already"),
        &format!("{LOOKS} look at this node already; try again in some seconds"),
    )?;
    let (user, node) = (asker.name(), &server.answers.node);
    let rights = Rights::new(server.answers.client.clone(), asker);
    let why = || format!("you may not get nodes/forwarding of {node}, which looking at its kernel needs");
    allowed(rights.may_see_forwarding(node).await, why)?;
    let text = tokio::task::block_in_place(|| {
        let told = server.answers.own.told().map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, chain(&error)))?;
        told.write(MOST).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, chain(&error)))
    });
    let text = text.map_err(|(status, why)| Refusal::new(status, format!("{node}: {why}")))?;
    info!(user, bytes = text.len(), "what the kernel has is told");
    let pieces = futures::stream::unfold((Bytes::from(text), place), |(mut rest, place)| async {
        let piece = rest.split_to(rest.len().min(PIECE));
        (!piece.is_empty()).then_some((Ok::<_, io::Error>(piece), (rest, place)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}
