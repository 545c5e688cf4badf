//! Capturing packets of pods: `POST /capture` with a [`Request`] streams them as pcapng, for whoever may create `pods/capture` of each.
//!
//! A socket in the pod's namespace sees what its interface does, also what passes by the node's stack. Whoever reads slower than packets
//! come leaves them in the kernel, where those that find no room are counted: nothing is held here but a few pieces on their way.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{Response, StatusCode, header},
};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    capture::{Captured, Request, SUBRESOURCE},
    pcapng::{Block, Interface, Statistics, write_packet},
};
use podnet_kernel::capture::{self, Tap, TapError};
use podnet_model::errors::chain;
use podnet_planner::ipam::Handle;
use tokio::{
    runtime,
    sync::mpsc::{self, error::TrySendError},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::info;

use super::{
    AHEAD, Refusal, Server,
    asker::{Asker, Rights},
    places::Place,
};
use crate::{dns::activity::Busy, flows::inside::Here};

/// Captures at once.
pub(super) const CAPTURES: usize = 4;
/// Of these by one user or pod.
pub(super) const OF_ONE: usize = 2;
/// What a question can be long: a filter of 4,096 instructions as JSON, and the pods.
const QUESTION: usize = 256 << 10;
/// For it to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before the API server is asked again whether somebody who captures still may.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 30_000 });
/// For it to answer then, for each pod.
const ANSWER: Duration = Duration::from_secs(10);
/// How long somebody may read nothing while there is something for them: the place is another's then.
const IDLE: Duration = Duration::from_secs(if cfg!(test) { 6 } else { 30 });
const BROKEN_OFF: &str =
    "the capture is broken off: nothing was read of it for long, or its pods may no longer be captured";
/// Room in the kernel for packets that wait, of all interfaces of a capture together, and of each at least.
const ROOM: usize = 8 << 20;
const LEAST_ROOM: usize = 512 << 10;
/// Between two words on how many packets there were: whoever reads knows by them that all that came before was told.
const TICK: Duration = Duration::from_millis(250);
/// So often packets are taken in before such a word, where ever more come.
const TURNS: usize = 256;

/// Begins a capture, once it is known that it may be.
pub(super) async fn begin(
    server: &Server,
    question: Incoming,
    asker: Asker,
    busy: Busy,
) -> Result<Response<Body>, Refusal> {
    let request = read(question).await?;
    let place = server.captures.take(
        &asker,
        &format!("you capture here {OF_ONE} times already"),
        &format!("{CAPTURES} capture here already; try again later"),
    )?;
    let user = asker.name();
    let rights = Rights::new(server.answers.client.clone(), asker);
    permitted(&request.pods, &rights).await?;
    let (taps, interfaces) = tokio::task::block_in_place(|| open(&request, &*server.answers.here))?;
    info!(user, pods = ?request.pods.iter().map(Captured::key).collect::<Vec<_>>(), "packets are captured");
    let (sender, receiver) = mpsc::channel(AHEAD);
    let broken_off = CancellationToken::new();
    let watch = Watch {
        taps,
        here: Arc::clone(&server.answers.here),
        sender,
        broken_off: broken_off.clone(),
        runtime: runtime::Handle::current(),
        _asking: AbortOnDropHandle::new(tokio::spawn(ask_again(request.pods, rights, user, broken_off.clone()))),
        _place: place,
    };
    thread::Builder::new().name("capture".into()).spawn(move || watch.run()).map_err(|error| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("there is no thread that captures: {error}"))
    })?;
    let first = futures::stream::iter([Ok(Bytes::from(interfaces))]);
    let rest = futures::stream::unfold(Some((receiver, broken_off, busy)), |left| async {
        let (mut receiver, broken_off, busy) = left?;
        match receiver.recv().await {
            Some(piece) => Some((piece, Some((receiver, broken_off, busy)))),
            // By an error whoever reads knows that the pods have not gone.
            None if broken_off.is_cancelled() => Some((Err(io::Error::other(BROKEN_OFF)), None)),
            None => None,
        }
    });
    let mut response = Response::new(Body::from_stream(futures::StreamExt::chain(first, rest)));
    let kind = header::HeaderValue::from_static("application/x-pcapng");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

async fn read(question: Incoming) -> Result<Request, Refusal> {
    let bad = |why: String| Refusal::new(StatusCode::BAD_REQUEST, why);
    let request: Request = serde_json::from_slice(&text(question).await?)
        .map_err(|error| bad(format!("what is to be captured cannot be read: {error}")))?;
    request.check().map_err(|error| bad(error.to_string()))?;
    Ok(request)
}

/// A question, of a length that can be read.
pub(super) async fn text(question: Incoming) -> Result<Bytes, Refusal> {
    text_within(question, QUESTION, PATIENCE).await
}

/// One of so many bytes at most, and that comes in time.
pub(super) async fn text_within(question: Incoming, longest: usize, patience: Duration) -> Result<Bytes, Refusal> {
    let text = timeout(patience, Limited::new(question, longest).collect()).await;
    let text = text.map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the question does not come"))?;
    let text =
        text.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the question cannot be read: {error}")))?;
    Ok(text.to_bytes())
}

/// Before it is looked which pods are here: who may not capture a pod is not told whether there is one.
pub(super) async fn permitted(pods: &[Captured], rights: &Rights) -> Result<(), Refusal> {
    for pod in pods {
        match rights.may_capture(pod).await {
            Ok(true) => {}
            Ok(false) => {
                let why = format!(
                    "you may not create pods/{SUBRESOURCE} of {}, which capturing its packets needs",
                    pod.key()
                );
                return Err(Refusal::new(StatusCode::FORBIDDEN, why));
            }
            Err(error) => {
                let why = format!("it cannot be asked what you may capture: {}", chain(&error));
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why));
            }
        }
    }
    Ok(())
}

/// Asks every so often whether all of them may still be captured, and breaks the capture off where one may not. An API server that does not
/// answer has not said so.
async fn ask_again(pods: Vec<Captured>, rights: Rights, user: String, broken_off: CancellationToken) {
    loop {
        sleep(AGAIN).await;
        for pod in &pods {
            if let Ok(Ok(false)) = timeout(ANSWER, rights.may_capture(pod)).await {
                info!(user, pod = %pod.key(), "a capture is broken off: it is not allowed any more");
                broken_off.cancel();
                return;
            }
        }
    }
}

/// A socket in each pod, and the blocks that a capture begins with.
fn open(request: &Request, here: &dyn Here) -> Result<(Vec<Watched>, Vec<u8>), Refusal> {
    let room = (ROOM / request.pods.len()).max(LEAST_ROOM);
    let (mut taps, mut blocks) = (Vec::new(), Vec::new());
    let program = format!("podnet {}", env!("CARGO_PKG_VERSION"));
    Block::Section { program, comment: String::new() }.write(&mut blocks);
    for (number, pod) in (0..).zip(&request.pods) {
        let inside = here.enter(pod).map_err(|why| Refusal::new(StatusCode::NOT_FOUND, why))?;
        let opened = inside.netns.run(|| Tap::open(&request.interface, &request.program, request.snap, room));
        let tap = match opened {
            Ok(tap) => tap.map_err(|error| refused(pod, &error))?,
            Err(error) => return Err(Refusal::new(StatusCode::NOT_FOUND, chain(&error))),
        };
        let addrs = inside.addrs.into_iter().filter(|(ifname, _)| *ifname == request.interface);
        let interface = Interface {
            name: format!("{} {}", pod.key(), request.interface),
            description: format!("pod {} (uid {})", pod.key(), pod.uid),
            addrs: addrs.map(|(_, addr)| addr).collect(),
            mac: tap.mac(),
            snap: request.snap,
            filter: request.expression.clone(),
        };
        Block::Interface(interface).write(&mut blocks);
        taps.push(Watched { number, tap, handle: inside.handle });
    }
    Ok((taps, blocks))
}

fn refused(pod: &Captured, error: &TapError) -> Refusal {
    Refusal::new(status(error), format!("pod {}: {}", pod.key(), chain(error)))
}

/// Whose fault it is.
pub(super) const fn status(error: &TapError) -> StatusCode {
    match error {
        TapError::NoInterface { .. } => StatusCode::NOT_FOUND,
        TapError::NotEthernet { .. } | TapError::Filter { .. } => StatusCode::BAD_REQUEST,
        TapError::Refused { .. } | TapError::Interfaces(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Brings a reader the packets of its pods, on a thread of its own.
struct Watch {
    taps: Vec<Watched>,
    here: Arc<dyn Here>,
    sender: mpsc::Sender<io::Result<Bytes>>,
    /// It ends before its pods have gone, though there is a reader.
    broken_off: CancellationToken,
    runtime: runtime::Handle,
    _asking: AbortOnDropHandle<()>,
    _place: Place,
}

/// One pod of them.
struct Watched {
    number: u32,
    tap: Tap,
    /// The capture ends with the sandbox that it began in: the namespace of another one is not looked at.
    handle: Handle,
}

impl Watch {
    /// Until the reader or all pods have gone, or it is broken off.
    fn run(mut self) {
        // The first word is said at once.
        let mut next = Instant::now();
        while !self.taps.is_empty() && !self.sender.is_closed() && !self.broken_off.is_cancelled() {
            let left = next.saturating_duration_since(Instant::now());
            if let Err(error) = capture::wait(self.taps.iter().map(|watched| &watched.tap), left) {
                self.bring(Err(error));
                return;
            }
            let is_time = next <= Instant::now();
            let (mut taps, turns) = (std::mem::take(&mut self.taps), if is_time { TURNS } else { 1 });
            // A pod that has gone sends nothing more.
            taps.retain_mut(|watched| {
                let goes_on = !is_time || self.here.is_held(&watched.handle);
                self.take_in(watched, turns) && (!is_time || self.say(watched.counted())) && goes_on
            });
            self.taps = taps;
            if is_time {
                next = Instant::now() + TICK;
            }
        }
    }

    /// Brings what waits at a socket, in so many turns at most; answers whether the reader is there.
    fn take_in(&self, watched: &mut Watched, turns: usize) -> bool {
        // Whether an interface that went down comes back is its pod's affair.
        for _ in 0..turns {
            if watched.tap.receive().is_err() {
                break;
            }
            if !self.say(watched.seen()) {
                return false;
            }
        }
        true
    }

    fn say(&self, piece: Vec<u8>) -> bool {
        piece.is_empty() || self.bring(Ok(piece.into()))
    }

    /// Answers whether the reader is there, and takes it in time.
    fn bring(&self, piece: io::Result<Bytes>) -> bool {
        let piece = match self.sender.try_send(piece) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(piece)) => piece,
        };
        self.runtime.block_on(async {
            tokio::select! {
                // A reader who has gone is noticed first, also where the runtime and its clock are going.
                biased;
                taken = self.sender.send(piece) => taken.is_ok(),
                () = self.broken_off.cancelled() => false,
                () = sleep(IDLE) => {
                    info!("a capture is broken off: nothing is read of it");
                    self.broken_off.cancel();
                    false
                }
            }
        })
    }
}

impl Watched {
    /// What was taken in.
    fn seen(&self) -> Vec<u8> {
        let mut piece = Vec::new();
        for seen in self.tap.seen() {
            write_packet(&mut piece, (self.number, seen.at), seen.length, seen.outbound, seen.bytes);
        }
        piece
    }

    /// How many packets there were.
    fn counted(&mut self) -> Vec<u8> {
        let mut piece = Vec::new();
        // They cannot but be told of a socket that is open.
        let counts = self.tap.counts().unwrap_or_default();
        let at = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
        let (received, dropped) = (counts.received, counts.dropped);
        Block::Statistics(Statistics { interface: self.number, at, received, dropped }).write(&mut piece);
        piece
    }
}
