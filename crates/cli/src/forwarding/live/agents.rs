//! The agents that watch a probe, and the one that sends it.

use std::time::Duration;

use futures::{AsyncBufRead, AsyncBufReadExt, StreamExt, io::Lines};
use http::{Request, header::CONTENT_TYPE};
use podnet_flow::probe::{self, Dispatch, Point, Probe, Said, Sent, Watch};
use podnet_model::NodeName;
use podnet_planner::trace::Cluster;
use tokio::{sync::mpsc, time::timeout};

use super::course::Seen;
use crate::{
    forwarding::access::{Access, said},
    report::{Doing, Failure},
};

/// How long an agent may take to answer.
const SILENCE: Duration = Duration::from_secs(5);

/// What comes of listening.
pub(super) enum Heard {
    /// Something passed.
    Seen(Box<Seen>),
    /// An agent says nothing more, before its time is over.
    Lost(String),
}

/// How they are asked.
pub(super) struct Agents<'a> {
    cluster: &'a Cluster,
    access: &'a Access,
}

/// One that watches.
pub(super) struct Stream {
    node: NodeName,
    points: Vec<Point>,
    devices: Vec<String>,
    lines: Lines<Box<dyn AsyncBufRead + Send + Unpin>>,
}

impl<'a> Agents<'a> {
    pub(super) const fn new(cluster: &'a Cluster, access: &'a Access) -> Self {
        Self { cluster, access }
    }

    /// Has a node's agent watch, and answers once it does.
    pub(super) async fn watch(&self, node: &NodeName, probe: Probe, points: Vec<Point>) -> Result<Stream, Failure> {
        let (client, address) = self.access.agent(self.cluster, node).await?;
        let cannot = || format!("cannot watch a probe on node {node} ({address})");
        let asked = question(&probe::Request::Watch(Watch { probe, points: points.clone() }), cannot)?;
        let answer = timeout(SILENCE, client.request_stream(asked)).await;
        let from: Box<dyn AsyncBufRead + Send + Unpin> = match answer {
            Ok(Ok(from)) => Box::new(from),
            Ok(Err(error)) => return Err(refused(&error, cannot)),
            Err(_) => return Err(Failure::new(format!("{}: it says nothing", cannot()))),
        };
        let mut stream = Stream { node: node.clone(), points, devices: Vec::new(), lines: from.lines() };
        let first = timeout(SILENCE, stream.said()).await.unwrap_or_else(|_| Err("it says nothing".to_owned()));
        match first {
            Ok(Some(Said::Watching(devices))) => stream.devices = devices,
            Ok(_) => return Err(Failure::new(format!("{}: it does not say that it does", cannot()))),
            Err(why) => return Err(Failure::new(format!("{}: {why}", cannot()))),
        }
        Ok(stream)
    }

    /// Has a node's agent send.
    pub(super) async fn send(&self, node: &NodeName, dispatch: Dispatch) -> Result<Sent, Failure> {
        let (client, address) = self.access.agent(self.cluster, node).await?;
        let cannot = || format!("cannot send a probe from node {node} ({address})");
        let asked = question(&probe::Request::Send(dispatch), cannot)?;
        match timeout(SILENCE, client.request_text(asked)).await {
            Ok(Ok(text)) => serde_json::from_str(&text).doing(cannot),
            Ok(Err(error)) => Err(refused(&error, cannot)),
            Err(_) => Err(Failure::new(format!("{}: it says nothing", cannot()))),
        }
    }
}

fn question(request: &probe::Request, cannot: impl Fn() -> String) -> Result<Request<Vec<u8>>, Failure> {
    request.check().map_err(|error| Failure::new(format!("{}: {error}", cannot())))?;
    let text = serde_json::to_vec(request).doing(&cannot)?;
    Request::post("/probe").header(CONTENT_TYPE, "application/json").body(text).doing(&cannot)
}

fn refused(error: &kube::Error, cannot: impl Fn() -> String) -> Failure {
    Failure::new(format!("{}: {}", cannot(), said(error)))
}

impl Stream {
    /// The next thing that is said; none at the end.
    async fn said(&mut self) -> Result<Option<Said>, String> {
        let Some(line) = self.lines.next().await else { return Ok(None) };
        let line = line.map_err(|error| error.to_string())?;
        serde_json::from_str(&line).map(Some).map_err(|error| format!("it says {line:?}: {error}"))
    }

    /// Tells what it says, until it ends.
    pub(super) async fn listen(mut self, to: mpsc::Sender<Heard>) {
        loop {
            let heard = match self.said().await {
                Ok(Some(Said::Seen(sighting))) => match self.seen(sighting) {
                    Some(seen) => Heard::Seen(Box::new(seen)),
                    None => Heard::Lost(format!("node {}: it tells of a place that it was not asked for", self.node)),
                },
                Ok(Some(Said::Watching(_))) => continue,
                // It watches for longer than anybody waits.
                Ok(None) => Heard::Lost(format!("node {}: its agent ended", self.node)),
                Err(why) => Heard::Lost(format!("node {}: {why}", self.node)),
            };
            let is_last = matches!(heard, Heard::Lost(_));
            if to.send(heard).await.is_err() || is_last {
                return;
            }
        }
    }

    fn seen(&self, sighting: probe::Sighting) -> Option<Seen> {
        let number = usize::try_from(sighting.point).ok()?;
        let (point, device) = (self.points.get(number)?.clone(), self.devices.get(number)?.clone());
        Some(Seen { node: self.node.clone(), point, device, sighting })
    }
}
