//! Reading flows over HTTPS: `GET /flows` streams [`Item`]s as lines of JSON to whoever shows a certificate of the cluster's authority or a
//! bearer token, each with its id, behind what is to be known first ([`Ahead`]); lines without anything in them say that nothing happened.
//! `POST /capture` streams packets, `POST /probe` tells where a probe passes, or sends it, `GET /forwarding` tells what the kernel has, and what is
//! inside of pods. `POST /ends` is for other nodes' agents.

mod asker;
mod authority;
mod capture;
mod connections;
mod credentials;
mod ends;
mod forwarding;
mod matter;
mod missing;
mod places;
mod probe;
mod query;
mod refusal;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{Request, Response, StatusCode, header},
};
use hyper::body::Incoming;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use podnet_flow::{
    Ahead, Item, Numbered, RecordId,
    store::{Page, Retention},
};
use podnet_model::{NodeName, errors::chain};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::warn;

pub(crate) use self::connections::serve;
use self::{
    asker::{Asker, Rights, Tokens},
    capture::CAPTURES,
    ends::Peers,
    forwarding::LOOKS,
    matter::Matter,
    places::{Place, Places},
    probe::PROBES,
    query::Query,
    refusal::Refusal,
};
use super::{
    demand::{Demand, Following, Scope},
    inside::Here,
    own::Own,
    past::{Past, Reader},
};
use crate::dns::activity::Busy;

/// Readers at once: each has at most [`AHEAD`] pages that it has not read yet.
const READERS: usize = 32;
/// Of these by one user or pod.
const OF_ONE: usize = 4;
/// Pages that wait for their reader.
const AHEAD: usize = 2;
/// Bytes of most lines: one of a flow between two pods with some labels has about as many.
const LINE: usize = 1024;
/// How often a reader hears something, so that one who is gone is noticed.
const SILENCE: Duration = Duration::from_secs(20);

/// Before the API server is asked again what somebody who follows may see.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 2000 });
/// For recording to begin.
const BEGINNING: Duration = Duration::from_secs(30);
const NOT_KEPT: &str =
    "the past is not kept here: follow (--follow), or keep it (podnet up --flows, podnet agent --flow-retention 1h)";
const FORBIDDEN: &str = "flows are followed by pods of this node, and by who may list pods: of all namespaces, or of one that is asked for \
                         (--from or --to namespace/NAME)";
const REFUSED: &str = "flows cannot be recorded here; the agent's log says why";

/// How flows are read over the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowApi {
    /// The port, at the node's address.
    pub port: u16,
    /// The certificate of the node's address, PEM. It is read again when it changes, as the other files are.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Whose certificates of clients are believed.
    pub client_ca: ClientAuthority,
    /// How much of the past is kept; without it none is, and nothing recorded unless somebody follows.
    pub retention: Option<Retention>,
}

/// Whose certificates of clients are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuthority {
    /// Those of the authority in this file, PEM.
    File(PathBuf),
    /// Those of the authority that the API server believes itself, which it publishes: it is written into this file.
    Cluster(PathBuf),
}

impl ClientAuthority {
    /// Where it is read from.
    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Cluster(path) => path,
        }
    }
}

/// What requests are answered from.
pub(crate) struct Answers {
    pub(crate) node: NodeName,
    /// The node's address on the underlay.
    pub(crate) address: IpAddr,
    pub(crate) client: Client,
    pub(crate) demand: Arc<Demand>,
    pub(crate) here: Arc<dyn Here>,
    pub(crate) own: Arc<dyn Own>,
}

struct Server {
    answers: Answers,
    tokens: Tokens,
    readers: Places,
    captures: Places,
    probes: Places,
    looks: Places,
    peers: Peers,
}

impl Server {
    fn new(answers: Answers) -> Arc<Self> {
        Arc::new(Self {
            answers,
            tokens: Tokens::default(),
            readers: Places::new(READERS, OF_ONE),
            captures: Places::new(CAPTURES, capture::OF_ONE),
            probes: Places::new(PROBES, probe::OF_ONE),
            looks: Places::new(LOOKS, forwarding::OF_ONE),
            peers: Peers::default(),
        })
    }

    /// The answer to a request, which is `busy` until that is read.
    async fn answer(
        &self,
        request: Request<Incoming>,
        by_certificate: Option<Option<Asker>>,
        busy: Busy,
    ) -> Response<Body> {
        self.asked(request, by_certificate, busy).await.unwrap_or_else(Refusal::response)
    }

    async fn asked(
        &self,
        request: Request<Incoming>,
        by_certificate: Option<Option<Asker>>,
        busy: Busy,
    ) -> Result<Response<Body>, Refusal> {
        let matter = Matter::of(request.uri().path(), request.method())?;
        match matter {
            Matter::Flows => {
                let asker = self.asker(&request, by_certificate).await?;
                self.flows(&request, asker, busy).await
            }
            Matter::Capture => {
                let asker = self.asker(&request, by_certificate).await?;
                capture::begin(self, request.into_body(), asker, busy).await
            }
            Matter::Probe => {
                let asker = self.asker(&request, by_certificate).await?;
                probe::begin(self, request.into_body(), asker, busy).await
            }
            Matter::Forwarding => {
                let asker = self.asker(&request, by_certificate).await?;
                forwarding::tell(self, request.uri(), asker).await
            }
            Matter::Ends => ends::tell(self, request, by_certificate).await,
        }
    }

    async fn flows(&self, request: &Request<Incoming>, asker: Asker, busy: Busy) -> Result<Response<Body>, Refusal> {
        let query = Query::parse(request.uri()).map_err(|why| Refusal::new(StatusCode::BAD_REQUEST, why))?;
        let theirs = format!("flows are read {OF_ONE} times by you already");
        let place = self.readers.take(&asker, &theirs, "too many read flows here; try again later")?;
        let mut rights = Rights::new(self.answers.client.clone(), asker);
        let (following, reader) = self.reader(&query, &mut rights).await?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (node, heard) = (self.answers.node.clone(), Timestamp::now());
        let pump = Pump { node, reader, rights, query, sender, heard };
        tokio::spawn(pump.run(place));
        // As long as somebody reads who follows, flows are recorded, and the agent does not end before it has told the last ones.
        let lines = futures::stream::unfold((receiver, busy, following), |(mut receiver, busy, following)| async {
            Some((receiver.recv().await?, (receiver, busy, following)))
        });
        let mut response = Response::new(Body::from_stream(lines));
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/jsonl"));
        Ok(response)
    }

    /// Where flows are read; of one who follows, and may, once they are recorded.
    async fn reader(&self, query: &Query, rights: &mut Rights) -> Result<(Option<Following>, Reader), Refusal> {
        let demand = &self.answers.demand;
        if !query.follow {
            let past = demand.past().ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, NOT_KEPT))?;
            return Ok((None, reader(&past, query, true)));
        }
        match rights.may_follow(&query.namespaces(), &*self.answers.here).await {
            Ok(true) => {}
            Ok(false) => return Err(Refusal::new(StatusCode::FORBIDDEN, FORBIDDEN)),
            Err(error) => {
                let why = format!("it cannot be asked what you may see: {}", chain(&error));
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why));
            }
        }
        let following = demand.follow(if query.pod_to_pod { Scope::PodToPod } else { Scope::All });
        let past = timeout(BEGINNING, following.past()).await;
        let past = past.map_err(|_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, REFUSED))?;
        let reader = reader(&past, query, query.since.is_some());
        Ok((Some(following), reader))
    }
}

fn reader(past: &Arc<Past>, query: &Query, kept: bool) -> Reader {
    match &query.after {
        Some(after) => past.read_after(after.epoch, after.sequence),
        None => past.read(kept),
    }
}

/// Brings a reader what it asked for.
struct Pump {
    node: NodeName,
    reader: Reader,
    rights: Rights,
    query: Query,
    sender: mpsc::Sender<io::Result<Bytes>>,
    /// When nothing was missing yet.
    heard: Timestamp,
}

impl Pump {
    async fn run(mut self, _place: Place) {
        let since = self.query.since.filter(|_| self.query.after.is_none());
        let earliest = since.and_then(|since| self.heard.checked_sub(SignedDuration::from_secs(since.into())).ok());
        if let Some(line) = self.ahead(earliest)
            && self.sender.send(Ok(line)).await.is_err()
        {
            return;
        }
        let mut forgotten = earliest.zip(self.reader.forgotten());
        loop {
            let Page { missed, first, items } = self.reader.page();
            let is_all = items.is_empty();
            let next = self.id(first);
            let whole = std::mem::replace(&mut self.heard, Timestamp::now());
            let gaps = missing::gaps(&missed, &next, (whole, self.heard), self.query.ends);
            let forgotten = forgotten.take().and_then(|times| missing::forgotten(times, &next, gaps.len()));
            let numbered = |(sequence, item)| Numbered { record: RecordId { sequence, ..next.clone() }, item };
            let mut text = Vec::with_capacity(LINE * items.len());
            let gaps = forgotten.into_iter().chain(gaps);
            for Numbered { record, item } in gaps.chain((first..).zip(items).map(numbered)) {
                if earliest.is_some_and(|earliest| item.at() < earliest) || !self.query.is_for(&item) {
                    continue;
                }
                match self.shown_in_time(item).await {
                    Some(Some(item)) => self.reader.write(&mut text, &record, &item),
                    Some(None) => {}
                    None => return,
                }
            }
            if !text.is_empty() && self.sender.send(Ok(text.into())).await.is_err() {
                return;
            }
            if is_all && !(self.query.follow && self.waited().await) {
                return;
            }
        }
    }

    /// What is said ahead of all: that the recording began later than what is asked for, be it that nobody asked for it before or that an earlier
    /// agent took with it what it kept. To who heard an earlier recording, where this one does not go on with what was counted for that, or another one was
    /// between the two, which nobody has any more.
    fn ahead(&self, earliest: Option<Timestamp>) -> Option<Bytes> {
        let record = self.id(0);
        let is_later = match &self.query.after {
            Some(after) => after.epoch != record.epoch && !self.reader.goes_on_with(after.epoch),
            None => record.began().zip(earliest).is_some_and(|(began, earliest)| began > earliest),
        };
        is_later.then(|| format!("{}\n", Ahead::Begun { record }.json()).into())
    }

    /// Until there may be more; not where the reader has gone, or recording ended.
    async fn waited(&mut self) -> bool {
        loop {
            tokio::select! {
                there_is = self.reader.more() => return there_is,
                () = self.sender.closed() => return false,
                () = sleep(SILENCE) => if self.sender.send(Ok(Bytes::from_static(b"\n"))).await.is_err() { return false },
            }
        }
    }

    fn id(&self, sequence: u64) -> RecordId {
        RecordId { node: self.node.clone(), epoch: self.reader.epoch(), sequence, missing: false }
    }

    /// What is shown of an item. Who follows waits for an API server that does not say what they may see; what is recorded meanwhile is kept
    /// for them. None where that is of no use.
    async fn shown_in_time(&mut self, item: Item) -> Option<Option<Item>> {
        let mut is_told = false;
        loop {
            match self.shown(item.clone()).await {
                Ok(shown) => return Some(shown),
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        warn!(%error, "cannot ask what a reader of flows may see");
                    }
                    if !self.query.follow {
                        // Broken off, and not ended: the reader has not got all.
                        let _ = self.sender.send(Err(io::Error::other(error))).await;
                        return None;
                    }
                    // Who has gone is noticed.
                    self.sender.send(Ok(Bytes::from_static(b"\n"))).await.ok()?;
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn shown(&mut self, item: Item) -> Result<Option<Item>, kube::Error> {
        if let Item::Flow(record) = &item
            && self.query.pod_to_pod
            && !record.is_pod_to_pod()
        {
            return Ok(None);
        }
        let shown = self.rights.shown(item).await?;
        Ok(shown.filter(|item| match item {
            Item::Flow(record) => self.query.wants(record),
            Item::Drops(drops) => self.query.wants_drops(drops),
            Item::Gap(_) => true,
        }))
    }
}

#[cfg(test)]
mod tests;
