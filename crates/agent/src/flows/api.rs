//! Reading flows over HTTPS: `GET /flows` streams [`Item`]s as lines of JSON to whoever shows a certificate of the cluster's authority or a
//! bearer token; lines without anything in them say that nothing happened.

mod asker;
mod query;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, Response, StatusCode, header},
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use podnet_dns::{
    Scheme,
    chain::{ClientAuth, TlsFiles, TlsOptions},
};
use podnet_flow::{
    Gap, Item,
    output::{Form, line},
    record::GapAt,
    store::Retention,
};
use podnet_kernel::{netlink::RtSocket, pod_interface::GATEWAY_V4, resolver};
use podnet_model::NodeName;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use self::{
    asker::{Asker, Rights, Tokens},
    query::Query,
};
use super::{
    demand::{Demand, Following, Scope},
    past::Reader,
};
use crate::dns::identity::Identity;

/// Connections at once, those that have not said who they are among them.
const CONNECTIONS: usize = 128;
/// Readers at once: each has at most [`AHEAD`] pages that it has not read yet.
const READERS: usize = 32;
/// Pages that wait for their reader.
const AHEAD: usize = 2;
/// For a handshake, and for a request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a reader hears something, so that one who is gone is noticed.
const SILENCE: Duration = Duration::from_secs(20);

/// For recording to begin.
const BEGINNING: Duration = Duration::from_secs(30);
/// Between two looks at the addresses.
const LOOK: Duration = Duration::from_secs(10);
const NOT_KEPT: &str =
    "the past is not kept here: follow (--follow), or keep it (podnet up --flows, podnet agent --flow-retention 1h)";
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
    /// Whose certificates of clients are believed, PEM.
    pub client_ca: PathBuf,
    /// How much of the past is kept; without it none is, and nothing recorded unless somebody follows.
    pub retention: Option<Retention>,
}

/// What requests are answered from.
pub(crate) struct Answers {
    pub(crate) node: NodeName,
    pub(crate) client: Client,
    pub(crate) demand: Arc<Demand>,
}

struct Server {
    answers: Answers,
    tokens: Tokens,
    readers: Arc<Semaphore>,
}

/// Answers at `address`, and at pods' gateway at the same port, on tasks of their own.
///
/// # Errors
/// When the certificate cannot be used, or the port not be opened.
pub(crate) async fn serve(config: &FlowApi, address: SocketAddr, answers: Answers) -> io::Result<()> {
    let text = |path: &PathBuf| Some(path.display().to_string());
    let files = TlsFiles {
        certificate: text(&config.certificate),
        key: text(&config.key),
        authorities: text(&config.client_ca),
    };
    let options = TlsOptions { files, client_auth: ClientAuth::VerifyIfGiven, keylog: None };
    let identity = Identity::read(&options, Scheme::Https)?;
    let listener = TcpListener::bind(address).await?;
    info!(%address, "flows are read here");
    let readers = Arc::new(Semaphore::new(READERS));
    let server = Arc::new(Server { answers, tokens: Tokens::default(), readers });
    tokio::spawn(accept(listener, identity.clone(), server.clone()));
    tokio::spawn(accept_at_gateway(config.port, identity, server));
    Ok(())
}

/// A pod knows its gateway, and not its node's address: there its node's agent answers it.
async fn accept_at_gateway(port: u16, identity: Arc<Identity>, server: Arc<Server>) {
    let gateway = IpAddr::V4(GATEWAY_V4);
    let mut tasks = JoinSet::new();
    let mut told = false;
    loop {
        let held = tokio::task::block_in_place(|| {
            RtSocket::open().and_then(|mut socket| resolver::hold(&mut socket, &[gateway])).map_err(io::Error::other)
        });
        let listening = async {
            held?;
            if tasks.is_empty() {
                let listener = TcpListener::bind((gateway, port)).await?;
                tasks.spawn(accept(listener, identity.clone(), server.clone()));
            }
            Ok::<_, io::Error>(())
        };
        match listening.await {
            Ok(()) => told = false,
            Err(error) if !std::mem::replace(&mut told, true) => {
                warn!(%error, %gateway, port, "pods do not reach the flows at their gateway, only at the node's address; it is tried again");
            }
            Err(_) => {}
        }
        sleep(LOOK).await;
    }
}

async fn accept(listener: TcpListener, identity: Arc<Identity>, server: Arc<Server>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (identity, server) = (Arc::clone(&identity), Arc::clone(&server));
                tokio::spawn(async move {
                    connection(stream, &identity, server).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "a reader of flows cannot be let in");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, identity: &Arc<Identity>, server: Arc<Server>) {
    let acceptor = TlsAcceptor::from(identity.config().await);
    let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let by_certificate = certificate.map(|certificate| Asker::of_certificate(certificate));
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, asker) = (Arc::clone(&server), by_certificate.clone());
        async move { Ok::<_, Infallible>(server.answer(&request, asker).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(4).max_header_list_size(16 << 10);
    // Whoever went away needs no answer.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

fn refused(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{why}\n")));
    *response.status_mut() = status;
    response
}

impl Server {
    async fn answer(&self, request: &Request<Incoming>, by_certificate: Option<Option<Asker>>) -> Response<Body> {
        if request.uri().path() != "/flows" {
            return refused(StatusCode::NOT_FOUND, "there is nothing here but /flows");
        }
        if request.method() != Method::GET {
            return refused(StatusCode::METHOD_NOT_ALLOWED, "flows are read with GET");
        }
        let asker = match by_certificate {
            Some(asker) => asker,
            None => match self.by_token(request).await {
                Ok(asker) => asker,
                Err(error) => {
                    return refused(StatusCode::SERVICE_UNAVAILABLE, &format!("the token cannot be reviewed: {error}"));
                }
            },
        };
        let Some(asker) = asker else {
            return refused(
                StatusCode::UNAUTHORIZED,
                "show a certificate of the cluster's authority or a bearer token",
            );
        };
        let query = match Query::parse(request.uri()) {
            Ok(query) => query,
            Err(why) => return refused(StatusCode::BAD_REQUEST, &why),
        };
        let Ok(place) = Arc::clone(&self.readers).try_acquire_owned() else {
            return refused(StatusCode::SERVICE_UNAVAILABLE, "too many read flows here; try again later");
        };
        let Some((following, reader)) = self.reader(&query).await else {
            return refused(StatusCode::SERVICE_UNAVAILABLE, if query.follow { REFUSED } else { NOT_KEPT });
        };
        let (sender, receiver) = mpsc::channel(AHEAD);
        let rights = Rights::new(self.answers.client.clone(), asker);
        let (node, heard) = (self.answers.node.clone(), Timestamp::now());
        let pump = Pump { node, _following: following, reader, rights, query, sender, heard };
        tokio::spawn(pump.run(place));
        let lines =
            futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
        let mut response = Response::new(Body::from_stream(lines));
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/jsonl"));
        response
    }

    /// Where flows are read; of one who follows, once they are recorded.
    async fn reader(&self, query: &Query) -> Option<(Option<Following>, Reader)> {
        let demand = &self.answers.demand;
        if !query.follow {
            return Some((None, demand.past()?.read(true)));
        }
        let following = demand.follow(if query.pod_to_pod { Scope::PodToPod } else { Scope::All });
        let past = timeout(BEGINNING, following.past()).await.ok()?;
        let reader = past.read(query.since.is_some());
        Some((Some(following), reader))
    }

    async fn by_token(&self, request: &Request<Incoming>) -> Result<Option<Asker>, kube::Error> {
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match header.and_then(|header| header.strip_prefix("Bearer ")) {
            Some(token) => self.tokens.owner(&self.answers.client, token).await,
            None => Ok(None),
        }
    }
}

/// Brings a reader what it asked for.
struct Pump {
    node: NodeName,
    /// As long as it is there flows are recorded.
    _following: Option<Following>,
    reader: Reader,
    rights: Rights,
    query: Query,
    sender: mpsc::Sender<io::Result<Bytes>>,
    /// When nothing was missing yet.
    heard: Timestamp,
}

impl Pump {
    async fn run(mut self, _place: OwnedSemaphorePermit) {
        let earliest =
            self.query.since.and_then(|since| self.heard.checked_sub(SignedDuration::from_secs(since.into())).ok());
        loop {
            let (missing, items) = self.reader.page();
            let is_all = items.is_empty();
            let mut text = if missing > 0 { self.gap(missing) } else { String::new() };
            self.heard = Timestamp::now();
            for item in items.into_iter().filter(|item| earliest.is_none_or(|earliest| item.at() >= earliest)) {
                match self.shown(item).await {
                    Ok(Some(item)) => add(&mut text, &item),
                    Ok(None) => {}
                    Err(error) => {
                        // Broken off, and not ended: the reader has not got all.
                        warn!(%error, "cannot ask what a reader of flows may see");
                        let _ = self.sender.send(Err(io::Error::other(error))).await;
                        return;
                    }
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

    async fn shown(&mut self, item: Item) -> Result<Option<Item>, kube::Error> {
        if let Item::Flow(record) = &item
            && self.query.pod_to_pod
            && !record.is_pod_to_pod()
        {
            return Ok(None);
        }
        let shown = self.rights.shown(item).await?;
        Ok(shown.filter(|item| if let Item::Flow(record) = item { self.query.wants(record) } else { true }))
    }

    fn gap(&self, missing: u64) -> String {
        let mut text = String::new();
        let gap = Gap {
            start: self.heard,
            end: Timestamp::now(),
            node: self.node.clone(),
            at: GapAt::Reader,
            device: None,
            pod: None,
            packets: 0,
            bytes: 0,
            flows: missing,
        };
        add(&mut text, &Item::Gap(gap));
        text
    }
}

fn add(text: &mut String, item: &Item) {
    text.push_str(&line(Form::JsonLines, item));
    text.push('\n');
}
