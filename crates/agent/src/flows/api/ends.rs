//! What other nodes' agents ask about flows that both nodes count: `POST /ends` with an [`Inquiry`] is answered with a [`Reply`], for whoever may `create`
//! `nodes/flows` of this node, which is agents alone. It shows who began what this node translated.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use hyper::body::Incoming;
use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    Key, Translations,
    joint::{
        question::{Inquiry, MOST_ASKED, Question, Reply},
        translated,
    },
};
use podnet_model::NodeName;
use tokio::sync::Semaphore;

use super::{
    Refusal, Server,
    asker::{Asker, Rights},
    capture::text_within,
    credentials::{NOBODY, token},
    probe::allowed,
};
use crate::flows::{demand::Scope, translated::Translated};

/// Questions that are read or answered at once.
const AT_ONCE: usize = 16;
/// The longest: [`MOST_ASKED`] records with many labels.
const LONGEST: usize = if cfg!(test) { 64 << 10 } else { 4 << 20 };
/// For it to come.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it is believed that somebody is an agent: they ask all the time, and there are many of them.
const BELIEVED: Duration = Duration::from_mins(2);
/// So many are remembered.
pub(super) const AGENTS: usize = 1024;

/// The agents that ask.
pub(super) struct Peers {
    /// When it was seen that they are, and of which node, as far as that is known.
    known: Mutex<HashMap<String, (Instant, Option<NodeName>)>>,
    turns: Semaphore,
}

impl Default for Peers {
    fn default() -> Self {
        Self { known: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl Peers {
    /// Whose agent it is that has this, where it is remembered.
    fn known(&self, credential: &str) -> Option<Option<NodeName>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(credential).filter(|(at, _)| at.elapsed() < BELIEVED).map(|(_, node)| node.clone())
    }

    fn remember(&self, credential: String, node: Option<NodeName>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < BELIEVED);
        if known.len() < AGENTS {
            known.insert(credential, (Instant::now(), node));
        }
    }
}

/// Answers, once it is known that it may be.
pub(super) async fn tell(
    server: &Server,
    request: Request<Incoming>,
    by_certificate: Option<Option<Asker>>,
) -> Result<Response<Body>, Refusal> {
    let whose = permitted(server, &request, by_certificate).await?;
    let busy = |_| Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many agents ask here; ask again later");
    let _turn = server.peers.turns.try_acquire().map_err(busy)?;
    let inquiry = read(request.into_body()).await?;
    if let Some(node) = whose.filter(|node| *node != inquiry.node) {
        let why = format!("you are the agent of {node} and ask in the name of {}", inquiry.node);
        return Err(Refusal::new(StatusCode::FORBIDDEN, why));
    }
    let demand = &server.answers.demand;
    let Some(past) = demand.past() else {
        return Err(match demand.scope() {
            Scope::Nothing => Refusal::new(StatusCode::NOT_FOUND, "no flows are recorded here"),
            Scope::PodToPod | Scope::All => {
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "flows are about to be recorded here; ask again later")
            }
        });
    };
    let answers = tokio::task::block_in_place(|| {
        let mut translations = None;
        let origin = |question: &Question| -> Option<Key> {
            let key = translated(question)?;
            translations.get_or_insert_with(Translated::open).origin(&key)
        };
        let origins: Vec<Option<Key>> = inquiry.questions.iter().map(origin).collect();
        let asks_of_pods = inquiry.questions.iter().any(|question| matches!(question, Question::Came(_)));
        let here = if asks_of_pods { server.answers.here.uids() } else { HashSet::new() };
        let is_here = |uid: &str| here.contains(uid);
        past.joint().as_mut().map(|joint| joint.answer(&inquiry, &origins, is_here, Timestamp::now()))
    });
    let answers =
        answers.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "flows are told by each node alone here"))?;
    let text = serde_json::to_vec(&Reply { answers })
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("there is no answer: {error}")))?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Whose agent asks, as far as that is known. Who may ask is remembered: neither their token nor what they may is reviewed each time.
async fn permitted(
    server: &Server,
    request: &Request<Incoming>,
    by_certificate: Option<Option<Asker>>,
) -> Result<Option<NodeName>, Refusal> {
    let credential = match &by_certificate {
        Some(asker) => asker.as_ref().map(|asker| format!("certificate {} {:?}", asker.name(), asker.groups())),
        None => token(request).map(|token| format!("token {token}")),
    };
    let credential = credential.ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, NOBODY))?;
    if let Some(whose) = server.peers.known(&credential) {
        return Ok(whose);
    }
    let asker = server.asker(request, by_certificate).await?;
    let whose = asker.node().cloned();
    let node = &server.answers.node;
    let rights = Rights::new(server.answers.client.clone(), asker);
    let why = || format!("you may not create nodes/flows of {node}, which is for the agents of other nodes");
    allowed(rights.may_join(node).await, why)?;
    server.peers.remember(credential, whose.clone());
    Ok(whose)
}

async fn read(question: Incoming) -> Result<Inquiry, Refusal> {
    let bad = |why: String| Refusal::new(StatusCode::BAD_REQUEST, why);
    let text = text_within(question, LONGEST, PATIENCE).await?;
    let inquiry = Inquiry::from_json(&text).map_err(|error| bad(format!("the question cannot be read: {error}")))?;
    if inquiry.questions.len() > MOST_ASKED {
        return Err(bad(format!("more is asked than can be at once, {MOST_ASKED}")));
    }
    Ok(inquiry)
}
