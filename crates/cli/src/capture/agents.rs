//! What the agents of the pods' nodes tell.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use futures::{AsyncBufRead, AsyncBufReadExt, future::try_join_all};
use http::{Request, header::CONTENT_TYPE};
use podnet_client::connect::Agents;
use podnet_flow::{
    capture::{self, Instruction},
    pcapng::{Block, Interface, Packet, Reader, Statistics},
};
use podnet_model::errors::chain;
use tokio::{sync::mpsc, time::timeout};

use super::pods::Place;
use crate::{
    arguments::capture::CaptureOptions,
    report::{Doing, Failure},
};

/// How long an agent may say nothing before it is taken for gone: it says something each quarter of a second.
const SILENCE: Duration = Duration::from_secs(15);

/// What all agents are asked, each for its own pods.
pub(super) struct Question<'a> {
    pub(super) options: &'a CaptureOptions,
    pub(super) program: Vec<Instruction>,
    pub(super) expression: Option<String>,
    pub(super) kubeconfig: Option<PathBuf>,
}

/// What came, of whose interfaces.
pub(super) struct Heard {
    pub(super) interfaces: Vec<u32>,
    pub(super) told: Told,
}

/// What an agent says.
pub(super) enum Told {
    /// Packets, and how many there were until then.
    Packets(Vec<Packet>, Vec<Statistics>),
    /// The pods are gone.
    Ended(String),
    /// It says nothing more, though they are not.
    Lost(String),
}

/// An agent that tells packets.
pub(super) struct Stream {
    node: String,
    from: Box<dyn AsyncBufRead + Send + Unpin>,
    reader: Reader,
    /// The numbers that its interfaces have in the capture.
    interfaces: Vec<u32>,
}

/// Asks the agent of each node, and answers once all capture: with the interfaces of all, in the order of the pods.
pub(super) async fn ask(question: Question<'_>, pods: &[Place]) -> Result<(Vec<Stream>, Vec<Interface>), Failure> {
    let mut nodes: BTreeMap<&str, Vec<(u32, &Place)>> = BTreeMap::new();
    for (number, place) in (0..).zip(pods) {
        nodes.entry(&place.node).or_default().push((number, place));
    }
    let agents = Agents::known_to(question.kubeconfig.as_deref()).await.doing(|| "cannot ask agents".into())?;
    let begun = nodes.into_iter().map(|(node, places)| begin(&question, &agents, node, places));
    let asked = try_join_all(begun).await?;
    let (mut streams, mut all) = (Vec::new(), Vec::new());
    for (stream, interfaces) in asked {
        all.extend(stream.interfaces.iter().copied().zip(interfaces));
        streams.push(stream);
    }
    all.sort_by_key(|(number, _)| *number);
    Ok((streams, all.into_iter().map(|(_, interface)| interface).collect()))
}

async fn begin(
    question: &Question<'_>,
    agents: &Agents,
    node: &str,
    places: Vec<(u32, &Place)>,
) -> Result<(Stream, Vec<Interface>), Failure> {
    let request = capture::Request {
        pods: places.iter().map(|(_, place)| place.pod.clone()).collect(),
        interface: question.options.interface.clone(),
        snap: question.options.snaplen,
        program: question.program.clone(),
        expression: question.expression.clone(),
    };
    request.check().map_err(|error| Failure::usage(format!("{node}: {error}")))?;
    let host = places.first().map(|(_, place)| place.host);
    let address = host.map(|host| SocketAddr::new(host, question.options.agent_port));
    let address = address.ok_or_else(|| Failure::new(format!("no pod of {node} is captured")))?;
    let cannot = || format!("cannot capture on {node} ({address})");
    let client = agents.at(address, None).doing(cannot)?;
    let text = serde_json::to_vec(&request).doing(cannot)?;
    let asked = Request::post("/capture").header(CONTENT_TYPE, "application/json").body(text).doing(cannot)?;
    let answer = timeout(SILENCE, client.request_stream(asked)).await;
    let from = match answer {
        Ok(Ok(from)) => Box::new(from),
        Ok(Err(kube::Error::Api(status))) => return Err(Failure::new(format!("{}: {}", cannot(), status.message))),
        Ok(Err(error)) => return Err(Failure::new(format!("{}: {}", cannot(), chain(&error)))),
        Err(_) => return Err(Failure::new(format!("{}: it says nothing", cannot()))),
    };
    let interfaces = places.into_iter().map(|(number, _)| number).collect();
    let mut stream = Stream { node: node.to_owned(), from, reader: Reader::default(), interfaces };
    let interfaces = stream.interfaces().await.map_err(|why| Failure::new(format!("{}: {why}", cannot())))?;
    Ok((stream, interfaces))
}

impl Stream {
    /// What it begins with: an interface for each pod that it was asked for.
    async fn interfaces(&mut self) -> Result<Vec<Interface>, String> {
        let mut found = Vec::new();
        while found.len() < self.interfaces.len() {
            match self.reader.block().map_err(|error| error.to_string())? {
                Some(Block::Interface(interface)) => {
                    let description = format!("{}, on {}", interface.description, self.node);
                    found.push(Interface { description, ..interface });
                }
                Some(_) => {}
                None if self.more().await? => {}
                None => return Err("it ended at once".to_owned()),
            }
        }
        Ok(found)
    }

    /// Whether something came.
    async fn more(&mut self) -> Result<bool, String> {
        let came = timeout(SILENCE, self.from.fill_buf()).await.map_err(|_| "it says nothing".to_owned())?;
        let bytes = came.map_err(|error| error.to_string())?;
        let count = bytes.len();
        self.reader.push(bytes);
        self.from.consume_unpin(count);
        Ok(count > 0)
    }

    /// Tells what the agent tells, until it ends.
    pub(super) async fn listen(mut self, to: mpsc::Sender<Heard>) {
        loop {
            let told = match self.told().await {
                Ok(Some(told)) => told,
                Ok(None) => Told::Ended(self.node.clone()),
                Err(why) => Told::Lost(format!("{}: {why}", self.node)),
            };
            let is_last = !matches!(told, Told::Packets(..));
            if to.send(Heard { interfaces: self.interfaces.clone(), told }).await.is_err() || is_last {
                return;
            }
        }
    }

    /// What came; none at the end.
    async fn told(&mut self) -> Result<Option<Told>, String> {
        let (mut packets, mut counted) = (Vec::new(), Vec::new());
        loop {
            match self.reader.block().map_err(|error| error.to_string())? {
                Some(Block::Packet(packet)) => {
                    packets.push(Packet { interface: self.number(packet.interface)?, ..packet });
                }
                Some(Block::Statistics(statistics)) => {
                    counted.push(Statistics { interface: self.number(statistics.interface)?, ..statistics });
                }
                Some(_) => {}
                None if !packets.is_empty() || !counted.is_empty() => return Ok(Some(Told::Packets(packets, counted))),
                None if self.more().await? => {}
                None => return Ok(None),
            }
        }
    }

    /// The number that an interface of the agent's has in the capture.
    fn number(&self, own: u32) -> Result<u32, String> {
        let number = usize::try_from(own).ok().and_then(|own| self.interfaces.get(own));
        number
            .copied()
            .ok_or_else(|| format!("it tells of interface {own}, and was asked for {}", self.interfaces.len()))
    }
}
