//! What this node's kernel has: `GET /forwarding` answers with a [`Told`](podnet_kernel::snapshot::Told), for whoever may `get`
//! `nodes/forwarding` of the node: it shows addresses, routes and Services of all namespaces, and nothing of what pods send. With
//! `pod=NAMESPACE/NAME/UID`, as often as wanted, it tells of these pods of the node as well which devices, routes and neighbours are inside.

use std::io;

use axum::{
    body::{Body, Bytes},
    extract,
    http::{Response, StatusCode, Uri, header},
};
use podnet_flow::capture::Captured;
use podnet_kernel::snapshot::{self, MOST_PODS, Snapshot};
use podnet_model::errors::chain;
use tracing::info;

use super::{
    Refusal, Server,
    asker::{Asker, Rights},
    probe::allowed,
};
use crate::flows::inside::Here;

/// Answers at once: each may be [`MOST`] bytes.
pub(super) const LOOKS: usize = 4;
/// Of these for one user or pod.
pub(super) const OF_ONE: usize = 2;
/// The longest answer.
const MOST: usize = if cfg!(test) { 16 << 10 } else { snapshot::MOST_BYTES };
/// Handed on at a time: whoever reads slowly keeps their place until the last one, or until the connection is given up.
const PIECE: usize = 64 << 10;

/// Answers, once it is known that it may be.
pub(super) async fn tell(server: &Server, uri: &Uri, asker: Asker) -> Result<Response<Body>, Refusal> {
    let pods = asked(uri).map_err(|why| Refusal::new(StatusCode::BAD_REQUEST, why))?;
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
        let mut told = server.answers.own.told().map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, chain(&error)))?;
        told.pods = pods.iter().map(|pod| (pod.key(), inside(&*server.answers.here, pod))).collect();
        told.write(MOST).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, chain(&error)))
    });
    let text = text.map_err(|(status, why)| Refusal::new(status, format!("{node}: {why}")))?;
    info!(user, bytes = text.len(), pods = pods.len(), "what the kernel has is told");
    let pieces = futures::stream::unfold((Bytes::from(text), place), |(mut rest, place)| async {
        let piece = rest.split_to(rest.len().min(PIECE));
        (!piece.is_empty()).then_some((Ok::<_, io::Error>(piece), (rest, place)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The pods that somebody asks for, each once.
///
/// # Errors
/// A sentence for whoever asked.
fn asked(uri: &Uri) -> Result<Vec<Captured>, String> {
    let extract::Query(pairs) = extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| format!("the query cannot be read: {error}"))?;
    let mut pods: Vec<Captured> = Vec::new();
    for (name, value) in pairs {
        if name != "pod" {
            return Err(format!("{name} is nothing that is asked here: pod=NAMESPACE/NAME/UID is"));
        }
        let parts: Vec<&str> = value.split('/').collect();
        let [namespace, name, uid] = parts[..] else {
            return Err(format!("pod={value} is not pod=NAMESPACE/NAME/UID"));
        };
        let pod = Captured { namespace: namespace.to_owned(), name: name.to_owned(), uid: uid.to_owned() };
        if pods.contains(&pod) {
            continue;
        }
        if pods.len() == MOST_PODS {
            return Err(format!("more than {MOST_PODS} pods are asked for: ask for the others in another request"));
        }
        pods.push(pod);
    }
    Ok(pods)
}

/// What is inside of a pod of this node, or why that is not told.
fn inside(here: &dyn Here, pod: &Captured) -> Result<Snapshot, String> {
    let inside = here.enter(pod)?;
    Snapshot::inside(&inside.netns).map_err(|error| format!("cannot look into its namespace: {}", chain(&error)))
}
