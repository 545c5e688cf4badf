//! The agents of other nodes, asked about flows that both nodes count (`POST /ends`): some questions at a time, in their order, by a task for each node.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    http::{Request, header},
};
use http_body_util::{BodyExt, Collected, LengthLimitError, Limited};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, client::Body};
use podnet_client::connect::Agents;
use podnet_flow::joint::question::{Answer, Inquiry, Question, Reply, Unanswered};
use podnet_model::{NodeName, errors::chain};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinSet,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::known::Known;

/// Questions, and answers, that wait to be taken, some hundred each: what finds no room is asked again.
const WAITING: usize = 256;
/// Of these for one node: of two rounds.
const OF_ONE: usize = 16;
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// A node that there is nothing to ask for so long has no task.
const IDLE: Duration = Duration::from_mins(1);
/// One that did not answer for so long is not waited for. An agent that begins anew answers sooner.
const AWAY: Duration = Duration::from_secs(20);
/// What an agent says that has no such questions, cannot read them, records nothing, or refuses.
const UNABLE: [u16; 5] = [400, 401, 403, 404, 405];
/// The longest answer: more than what is asked at once has.
const LONGEST: usize = 1 << 20;
/// So long it is believed how agents are known: their certificate may be renewed.
const BELIEVED: Duration = Duration::from_mins(10);
/// Before it is looked again where the API server does not say it. What it said before is believed meanwhile.
const AGAIN: Duration = Duration::from_secs(30);

/// Who asks, and where.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    /// The agent's identity; none: the pod's service account.
    pub(super) kubeconfig: Option<PathBuf>,
    /// The port at which all agents answer.
    pub(super) port: u16,
}

/// Some questions to one node, by their numbers.
pub(super) struct Batch {
    to: NodeName,
    questions: Vec<(u64, Question)>,
}

/// What became of them.
pub(super) struct Answered {
    pub(super) from: NodeName,
    pub(super) numbers: Vec<u64>,
    pub(super) answers: Result<Vec<Answer>, Unanswered>,
}

/// Who is asked by a thread that does not wait.
pub(super) struct Neighbours {
    questions: mpsc::Sender<Batch>,
    answers: mpsc::Receiver<Answered>,
    _asking: Option<AbortOnDropHandle<()>>,
}

impl Neighbours {
    /// Asks as `node`, by tasks that end with the value.
    pub(super) fn start(node: NodeName, asks: Asks, known: Arc<Known>) -> Self {
        let (questions, asked) = mpsc::channel(WAITING);
        let (told, answers) = mpsc::channel(WAITING);
        let asker = Arc::new(Asker { node, asks, known, connected: Mutex::default() });
        let asking = AbortOnDropHandle::new(tokio::spawn(distribute(asker, asked, told)));
        Self { questions, answers, _asking: Some(asking) }
    }

    /// Where what is asked and answered goes by other ways.
    #[cfg(test)]
    pub(super) fn by(questions: mpsc::Sender<Batch>, answers: mpsc::Receiver<Answered>) -> Self {
        Self { questions, answers, _asking: None }
    }

    /// Asks a node. What finds no room is asked again later.
    pub(super) fn ask(&self, to: NodeName, questions: Vec<(u64, Question)>) {
        if !questions.is_empty() {
            let _ = self.questions.try_send(Batch { to, questions });
        }
    }

    /// What was answered since it was looked last.
    pub(super) fn answers(&mut self) -> Vec<Answered> {
        std::iter::from_fn(|| self.answers.try_recv().ok()).collect()
    }
}

#[cfg(test)]
impl Batch {
    /// Whom it is for, and what is asked.
    pub(super) fn into_parts(self) -> (NodeName, Vec<(u64, Question)>) {
        (self.to, self.questions)
    }
}

impl Batch {
    fn unanswered(self, why: Unanswered) -> Answered {
        let numbers = self.questions.into_iter().map(|(number, _)| number).collect();
        Answered { from: self.to, numbers, answers: Err(why) }
    }
}

/// Gives each node's questions to its task.
async fn distribute(asker: Arc<Asker>, mut asked: mpsc::Receiver<Batch>, told: mpsc::Sender<Answered>) {
    let mut nodes: HashMap<NodeName, mpsc::Sender<Batch>> = HashMap::new();
    let mut tasks = JoinSet::new();
    while let Some(batch) = asked.recv().await {
        while tasks.try_join_next().is_some() {}
        nodes.retain(|_, node| !node.is_closed());
        let node = nodes.entry(batch.to.clone()).or_insert_with(|| {
            let (sender, batches) = mpsc::channel(OF_ONE);
            tasks.spawn(follow(asker.clone(), batches, told.clone()));
            sender
        });
        if let Err(TrySendError::Full(batch) | TrySendError::Closed(batch)) = node.try_send(batch) {
            let _ = told.try_send(batch.unanswered(Unanswered::Away));
        }
    }
}

/// Asks one node what comes, in its order.
async fn follow(asker: Arc<Asker>, mut batches: mpsc::Receiver<Batch>, told: mpsc::Sender<Answered>) {
    let mut away: Option<Instant> = None;
    while let Ok(Some(Batch { to, questions })) = timeout(IDLE, batches.recv()).await {
        let (numbers, questions): (Vec<u64>, Vec<Question>) = questions.into_iter().unzip();
        let mut answers = asker.ask(&to, questions).await;
        if answers != Err(Unanswered::Away) {
            away = None;
        } else if away.get_or_insert_with(Instant::now).elapsed() >= AWAY {
            answers = Err(Unanswered::Unable);
        }
        if told.send(Answered { from: to, numbers, answers }).await.is_err() {
            return;
        }
    }
}

/// By whom other agents are asked.
struct Asker {
    node: NodeName,
    asks: Asks,
    known: Arc<Known>,
    connected: Mutex<Connected>,
}

/// How agents are known, and those that were asked.
#[derive(Default)]
struct Connected {
    /// When it is looked again how they are known.
    next: Option<Instant>,
    agents: Option<Agents>,
    clients: HashMap<NodeName, (SocketAddr, Client)>,
}

impl Asker {
    async fn ask(&self, to: &NodeName, questions: Vec<Question>) -> Result<Vec<Answer>, Unanswered> {
        let count = questions.len();
        let client = self.client(to).await?;
        let inquiry = Inquiry::new(self.node.clone(), Timestamp::now(), questions);
        let body = serde_json::to_vec(&inquiry).map_err(|_| Unanswered::Unable)?;
        let request = Request::post("/ends").header(header::CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|_| Unanswered::Unable)?;
        let text = timeout(PATIENCE, answer(&client, request)).await.unwrap_or(Err(Unanswered::Away));
        let text = text.inspect_err(|why| {
            debug!(node = %to, ?why, "another node's agent does not say which flows it tells");
        })?;
        // Whoever answers something else is of another version.
        let Reply { answers } = serde_json::from_slice(&text).map_err(|_| Unanswered::Unable)?;
        if answers.len() == count { Ok(answers) } else { Err(Unanswered::Unable) }
    }

    async fn client(&self, to: &NodeName) -> Result<Client, Unanswered> {
        let address = SocketAddr::new(self.known.address(to).ok_or(Unanswered::Unable)?, self.asks.port);
        if self.is_due() {
            self.renew().await;
        }
        let mut connected = self.connected();
        let Connected { agents, clients, .. } = &mut *connected;
        if let Some((_, client)) = clients.get(to).filter(|(at, _)| *at == address) {
            return Ok(client.clone());
        }
        let agents = agents.as_ref().ok_or(Unanswered::Away)?;
        let client = agents.at(address, None).map_err(|_| Unanswered::Unable)?;
        clients.insert(to.clone(), (address, client.clone()));
        Ok(client)
    }

    fn connected(&self) -> MutexGuard<'_, Connected> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is to be looked how agents are known, which others then do not do as well.
    fn is_due(&self) -> bool {
        let (mut connected, now) = (self.connected(), Instant::now());
        let is_due = connected.next.is_none_or(|next| now >= next);
        if is_due {
            connected.next = Some(now + AGAIN);
        }
        is_due
    }

    /// Looks how agents are known. Where the API server does not say it, what was known before goes on to hold.
    async fn renew(&self) {
        let found = timeout(PATIENCE, Agents::known_to(self.asks.kubeconfig.as_deref())).await;
        let agents = match found {
            Ok(Ok(agents)) => agents,
            Ok(Err(error)) => {
                debug!(why = %chain(&error), "it is not known by what other nodes' agents are known");
                return;
            }
            Err(_) => return,
        };
        let mut connected = self.connected();
        if agents.is_told() {
            connected.next = Some(Instant::now() + BELIEVED);
        } else if connected.agents.is_some() {
            return;
        }
        connected.agents = Some(agents);
        connected.clients.clear();
    }
}

/// What an agent answers, as far as it may be one.
async fn answer(client: &Client, request: Request<Vec<u8>>) -> Result<Bytes, Unanswered> {
    let response = client.send(request.map(Body::from)).await.map_err(|_| Unanswered::Away)?;
    let status = response.status();
    if !status.is_success() {
        return Err(if UNABLE.contains(&status.as_u16()) { Unanswered::Unable } else { Unanswered::Away });
    }
    let text = Limited::new(response.into_body(), LONGEST).collect().await;
    text.map(Collected::to_bytes).map_err(|error| match error.is::<LengthLimitError>() {
        true => Unanswered::Unable,
        false => Unanswered::Away,
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::http::Response;

    use super::*;

    async fn answered(status: u16, length: usize) -> Result<usize, Unanswered> {
        let service = tower::service_fn(move |_: Request<Body>| async move {
            Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(vec![b' '; length])).unwrap())
        });
        let request = Request::post("/ends").body(Vec::new()).unwrap();
        answer(&Client::new(service, "default"), request).await.map(|text| text.len())
    }

    #[tokio::test]
    async fn an_answer_is_bounded_and_who_cannot_answer_is_not_taken_for_one_who_is_away() {
        assert_eq!(answered(200, LONGEST).await, Ok(LONGEST));
        assert_eq!(answered(200, LONGEST + 1).await, Err(Unanswered::Unable));
        for status in UNABLE {
            assert_eq!(answered(status, 10).await, Err(Unanswered::Unable), "{status}");
        }
        for status in [408, 429, 500, 503] {
            assert_eq!(answered(status, 10).await, Err(Unanswered::Away), "{status}");
        }
    }
}
