//! Probes: `POST /probe` with a [`Request`] tells where on this node one passes, as lines of [`Said`], or sends it.
//!
//! Nothing is told of packets without its mark. Whoever watches a pod's link may create `pods/capture` of the pod, whoever watches the node's own
//! devices `nodes/capture`; who sends from a pod may create `pods/exec` of it, and from the node `nodes/proxy`.

use std::{
    io,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{Response, StatusCode, header},
};
use hyper::body::Incoming;
use podnet_flow::{
    capture::Captured,
    probe::{Dispatch, Point, Probe, Request, SNAP, Said, Sent, Sighting, Watch},
};
use podnet_kernel::{
    addr,
    capture::{Tap, TapError, wait},
    link,
    netlink::{NetlinkError, RtSocket},
    probe,
};
use podnet_model::errors::chain;
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::info;

use super::{
    Answers, Refusal, Server,
    asker::{Asker, Rights},
    capture::{permitted, status, text},
    places::Place,
};
use crate::dns::activity::Busy;

/// Probes that are watched or sent at once.
pub(super) const PROBES: usize = 8;
/// Of these by one user or pod.
pub(super) const OF_ONE: usize = 4;
/// How long one is watched: whoever asks has to reach all nodes on its way before it is sent, and waits for 3 s then.
pub(super) const LIMIT: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 10 });
/// How often it is looked whether somebody is there who watches.
const TICK: Duration = Duration::from_millis(100);
/// So much is told of one at most. A probe is seen once at each place and in each direction, and so are answers, of which there may be many.
const MOST: usize = 512;
/// Room in the kernel for packets that wait at a place.
const ROOM: usize = 64 << 10;

/// Answers, once it is known that it may be.
pub(super) async fn begin(
    server: &Server,
    question: Incoming,
    asker: Asker,
    busy: Busy,
) -> Result<Response<Body>, Refusal> {
    let bad = |why: String| Refusal::new(StatusCode::BAD_REQUEST, why);
    let request: Request = serde_json::from_slice(&text(question).await?)
        .map_err(|error| bad(format!("what is to be done with a probe cannot be read: {error}")))?;
    request.check().map_err(|error| bad(error.to_string()))?;
    let place = server.probes.take(
        &asker,
        &format!("{OF_ONE} probes of yours are under way here already"),
        &format!("{PROBES} probes are under way here already; try again in some seconds"),
    )?;
    let user = asker.name();
    let rights = Rights::new(server.answers.client.clone(), asker);
    match request {
        Request::Watch(request) => {
            may_watch(&request, &rights, &server.answers).await?;
            info!(user, points = request.points.len(), "a probe is watched");
            watch(&request, &server.answers, place, busy)
        }
        Request::Send(request) => {
            may_send(&request, &rights, &server.answers).await?;
            let from = request.from.as_ref().map(|pod| pod.key().to_string());
            info!(user, from, to = %request.to, "a probe is sent");
            let sent = tokio::task::block_in_place(|| send(&request, &server.answers))?;
            Ok(Response::new(Body::from(line(&sent))))
        }
    }
}

async fn may_watch(request: &Watch, rights: &Rights, answers: &Answers) -> Result<(), Refusal> {
    let mut pods: Vec<Captured> = Vec::new();
    for point in &request.points {
        match point {
            Point::Inside(pod, _) | Point::Outside(pod) if !pods.contains(pod) => pods.push(pod.clone()),
            _ => {}
        }
    }
    permitted(&pods, rights).await?;
    if request.points.iter().any(|point| matches!(point, Point::Underlay | Point::Device(_))) {
        let node = &answers.node;
        let why = || format!("you may not create nodes/capture of {node}, which watching its devices needs");
        allowed(rights.may_watch(node).await, why)?;
    }
    Ok(())
}

async fn may_send(request: &Dispatch, rights: &Rights, answers: &Answers) -> Result<(), Refusal> {
    match &request.from {
        Some(pod) => {
            let why = || format!("you may not create pods/exec of {}, which sending from it needs", pod.key());
            allowed(rights.may_send_from_pod(pod).await, why)
        }
        None => {
            let node = &answers.node;
            let why = || format!("you may not create nodes/proxy of {node}, which sending from it needs");
            allowed(rights.may_send_from_node(node).await, why)
        }
    }
}

/// Whether it is allowed; `why` not else.
pub(super) fn allowed(asked: Result<bool, kube::Error>, why: impl FnOnce() -> String) -> Result<(), Refusal> {
    match asked {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::new(StatusCode::FORBIDDEN, why())),
        Err(error) => {
            let why = format!("it cannot be asked what you may do: {}", chain(&error));
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why))
        }
    }
}

fn send(request: &Dispatch, answers: &Answers) -> Result<Sent, Refusal> {
    let (probe, to) = (request.probe, request.to);
    let sent = match &request.from {
        None => probe::send(probe, to, request.size),
        Some(pod) => {
            let inside = answers.here.enter(pod).map_err(|why| Refusal::new(StatusCode::NOT_FOUND, why))?;
            let entered = inside.netns.run(|| probe::send(probe, to, request.size));
            entered.map_err(|error| Refusal::new(StatusCode::NOT_FOUND, chain(&error)))?
        }
    };
    sent.map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the kernel does not send a probe to {to}: {error}"))
    })
}

/// Lines of what passes, the first one once it is watched everywhere.
fn watch(request: &Watch, answers: &Answers, place: Place, busy: Busy) -> Result<Response<Body>, Refusal> {
    let opened = tokio::task::block_in_place(|| -> Result<Vec<_>, Refusal> {
        request.points.iter().map(|point| open(point, request.probe, answers)).collect()
    });
    let (devices, taps): (Vec<String>, Vec<Tap>) = opened?.into_iter().unzip();
    let (sender, receiver) = mpsc::channel(MOST);
    let watching = Watching { probe: request.probe, taps, sender, _place: place };
    thread::Builder::new().name("probe".into()).spawn(move || watching.run()).map_err(|error| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("there is no thread that watches: {error}"))
    })?;
    let first = futures::stream::iter([Ok::<_, io::Error>(line(&Said::Watching(devices)))]);
    let rest = futures::stream::unfold((receiver, busy), |(mut receiver, busy)| async {
        Some((Ok(receiver.recv().await?), (receiver, busy)))
    });
    let mut response = Response::new(Body::from_stream(futures::StreamExt::chain(first, rest)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/jsonl"));
    Ok(response)
}

/// A socket at a place, and what the device is called there.
fn open(point: &Point, probe: Probe, answers: &Answers) -> Result<(String, Tap), Refusal> {
    let tap = |device: &str| Tap::choosing(device, SNAP, ROOM, |framing| Some(probe.filter(framing)));
    let enter = |pod| answers.here.enter(pod).map_err(|why| Refusal::new(StatusCode::NOT_FOUND, why));
    let (device, opened) = match point {
        Point::Inside(pod, interface) => {
            let inside = enter(pod)?.netns.run(|| tap(interface));
            let opened = inside.map_err(|error| Refusal::new(StatusCode::NOT_FOUND, chain(&error)))?;
            (interface.clone(), opened)
        }
        Point::Outside(pod) => {
            let device = enter(pod)?.host_device().map(|device| device.to_string()).unwrap_or_default();
            let opened = tap(&device);
            (device, opened)
        }
        Point::Underlay => {
            let device = underlay(answers.address)?;
            let opened = tap(&device);
            (device, opened)
        }
        Point::Device(device) => (device.clone(), tap(device)),
    };
    let refused = |error: TapError| Refusal::new(status(&error), format!("{}: {}", answers.node, chain(&error)));
    Ok((device, opened.map_err(refused)?))
}

/// The device that has the node's address.
fn underlay(address: IpAddr) -> Result<String, Refusal> {
    let found = || -> Result<Option<String>, NetlinkError> {
        let mut socket = RtSocket::open()?;
        let all = addr::list_all(&mut socket)?;
        let Some((index, _)) = all.into_iter().find(|(_, net)| net.addr() == address) else { return Ok(None) };
        Ok(link::find(&mut socket, index)?.map(|link| link.name.to_string()))
    };
    let lost = |why: String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, why);
    let found = found().map_err(|error| lost(format!("cannot look for the node's device: {}", chain(&error))))?;
    found.ok_or_else(|| lost(format!("no device of the node has its address {address} any more")))
}

fn line(told: &impl Serialize) -> Bytes {
    // There is nothing in it that JSON does not have.
    let mut text = serde_json::to_vec(told).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// Tells what passes, on a thread of its own.
struct Watching {
    probe: Probe,
    taps: Vec<Tap>,
    sender: mpsc::Sender<Bytes>,
    _place: Place,
}

impl Watching {
    /// Until the time is over, whoever asked has gone, or all is told that is told of one.
    fn run(mut self) {
        let (end, mut left) = (Instant::now() + LIMIT, MOST);
        while !self.sender.is_closed() {
            let time = end.saturating_duration_since(Instant::now());
            if time.is_zero() || wait(&self.taps, time.min(TICK)).is_err() {
                return;
            }
            for (point, tap) in (0..).zip(&mut self.taps) {
                let framing = tap.framing();
                // Once in each turn: where ever more comes that only looks like the probe, the time is over all the same.
                if tap.receive().is_err() {
                    continue;
                }
                for seen in tap.seen() {
                    let Some(found) = self.probe.recognise(framing, seen.bytes) else { continue };
                    let sighting = Sighting { point, at: seen.at, outbound: seen.outbound, found };
                    if left == 0 || self.sender.try_send(line(&Said::Seen(sighting))).is_err() {
                        return;
                    }
                    left -= 1;
                }
            }
        }
    }
}
