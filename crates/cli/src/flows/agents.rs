//! The agents: where they are, and what they tell of flows.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{AsyncBufReadExt, StreamExt};
use http::Request;
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, ObjectList},
};
use podnet_client::connect;
use podnet_flow::{Ahead, Item, Numbered, RecordId, jsonl::Reader};
use podnet_kernel::{netlink::RtSocket, pod_interface::AGENT_V6, route};
use tokio::sync::mpsc;

use crate::{
    api,
    arguments::flows::FlowsOptions,
    layout,
    report::{Doing, Failure},
};

/// A follower asks again after that time: an agent that ended, and the API server that does not answer.
const AGAIN: Duration = Duration::from_secs(2);
/// How long an agent may say nothing before it is taken for gone; it says something in 20 s.
const SILENCE: Duration = Duration::from_secs(60);

/// The agent of a node.
pub(super) struct Agent {
    /// The node's name, or what it was called on the command line.
    pub(super) name: String,
    client: Client,
    /// What it told last.
    last: Option<RecordId>,
    /// What reads its lines, and those of all others: they tell of the same pods.
    lines: Arc<Mutex<Reader>>,
}

/// What comes of asking.
pub(super) enum Heard {
    /// It tells something.
    Item(Item),
    /// It does not answer, or no more.
    Lost {
        /// Which one.
        agent: String,
        /// Why.
        why: String,
    },
    /// It answers again.
    Back {
        /// Which one.
        agent: String,
        /// It goes on behind what it told last.
        resumes: bool,
    },
    /// It tells something that this version does not know.
    Unread {
        /// Which one.
        agent: String,
        /// What of it cannot be read.
        why: String,
    },
    /// It tells on, of another recording: its agent began anew, and goes on with what was counted.
    Anew {
        /// Which one.
        agent: String,
        /// What the earlier agent had to tell was heard to its end. Else that took with it what it had read and did not tell here.
        heard_all: bool,
    },
    /// It records since later than what is asked for, or than what it told before, and goes on with nothing.
    Begun {
        /// Which one.
        agent: String,
        /// Since when; none where it says no time.
        at: Option<Timestamp>,
    },
}

/// What was heard of an agent, over all connections to it.
#[derive(Default)]
struct Course {
    /// The last item's id.
    last: Option<RecordId>,
    /// The recording of that item was heard to its end.
    is_whole: bool,
    /// It was told that the agent does not answer.
    is_lost: bool,
    /// Of which recording it was told that it goes on with nothing.
    begun: Option<u64>,
}

/// All agents that are to be asked.
pub(super) async fn find(options: &FlowsOptions) -> Result<Vec<Agent>, Failure> {
    let kubeconfig = kubeconfig(options.kubeconfig.as_deref());
    let addresses = addresses(options, kubeconfig.is_none()).await?;
    let agents = connect::Agents::known_to(kubeconfig.as_deref()).await.doing(|| "cannot ask agents".into())?;
    let (mut found, lines) = (Vec::new(), Arc::default());
    for Found { node, ip, is_gateway } in addresses {
        let address = SocketAddr::new(ip, options.agent_port);
        // All nodes' pods have the same gateway, which no certificate is of.
        let client = agents.at(address, is_gateway.then(|| node.clone()));
        let client = client.doing(|| format!("cannot ask the agent at {address}"))?;
        found.push(Agent { name: node, client, last: None, lines: Arc::clone(&lines) });
    }
    Ok(found)
}

/// Where an agent is.
struct Found {
    /// Its node, or what it was called on the command line.
    node: String,
    ip: IpAddr,
    /// It is asked at the gateway of this pod.
    is_gateway: bool,
}

/// Who asks, where it is said or this is the embedded cluster's machine. None: this is a pod, which has its service account.
pub(crate) fn kubeconfig(given: Option<&Path>) -> Option<PathBuf> {
    let own = layout::kubeconfig();
    let is_pod = !own.exists() && Path::new(connect::TOKEN).exists();
    match given {
        Some(path) => Some(path.to_path_buf()),
        None if is_pod => None,
        None => Some(own),
    }
}

async fn addresses(options: &FlowsOptions, is_pod: bool) -> Result<Vec<Found>, Failure> {
    if !options.agent.is_empty() {
        let given = |ip: &IpAddr| Found { node: ip.to_string(), ip: *ip, is_gateway: false };
        return Ok(options.agent.iter().map(given).collect());
    }
    let client = api_server(options, is_pod).await?;
    let Some(nodes) = nodes(client, options.follow && is_pod).await? else {
        if !is_pod {
            return Err(
                Failure::new("you may not list the cluster's nodes").remedy("give the addresses of nodes by --agent")
            );
        }
        // Few pods may list nodes.
        let own = own()?;
        eprintln!("podnet: this pod may not list the nodes; the agent of its own, {}, is asked alone", own.node);
        return Ok(vec![own]);
    };
    let at = |node: Node| Some(Found { ip: internal(&node)?, node: node.name_any(), is_gateway: false });
    Ok(nodes.into_iter().filter_map(at).collect())
}

/// A client of the API server, as who asks.
pub(super) async fn api_server(options: &FlowsOptions, is_pod: bool) -> Result<Client, Failure> {
    if is_pod {
        connect::in_cluster().doing(|| "cannot use the pod's service account".into())
    } else {
        api::connect(options.kubeconfig.as_deref(), "flows").await
    }
}

/// All nodes; none where these may not be listed. A pod that follows waits for an API server that does not answer.
async fn nodes(client: Client, waits: bool) -> Result<Option<ObjectList<Node>>, Failure> {
    let nodes = Api::<Node>::all(client);
    let mut is_told = false;
    loop {
        match nodes.list(&ListParams::default()).await {
            Ok(nodes) => return Ok(Some(nodes)),
            Err(kube::Error::Api(status)) if status.code == 403 => return Ok(None),
            Err(error) if waits => {
                if !std::mem::replace(&mut is_told, true) {
                    eprintln!("podnet: cannot list the nodes; it is tried again: {}", told(&error));
                }
            }
            failed => return failed.map(Some).doing(|| "cannot list the nodes".into()),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The agent of this pod's node, which answers at the pod's gateway, or, where that is one of IPv6, behind it.
fn own() -> Result<Found, Failure> {
    let remedy = "give --agent, or PODNET_AGENT, from the field status.hostIP";
    let node = connect::own_node().ok_or_else(|| {
        Failure::new("the token of this pod's service account does not name the pod's node (Kubernetes before 1.30)")
            .remedy(remedy)
    })?;
    let gateway = RtSocket::open().and_then(|mut socket| route::default_gateway(&mut socket));
    let gateway = gateway.doing(|| "cannot look for this pod's gateway".into())?;
    let gateway = gateway.ok_or_else(|| Failure::new("this pod has no gateway").remedy(remedy))?;
    let ip = if gateway.is_ipv6() { AGENT_V6.into() } else { gateway };
    Ok(Found { node, ip, is_gateway: true })
}

fn internal(node: &Node) -> Option<IpAddr> {
    let addresses = node.status.as_ref()?.addresses.iter().flatten();
    addresses.filter(|address| address.type_ == "InternalIP").find_map(|address| address.address.parse().ok())
}

/// What an agent is asked, for what it keeps or what comes as well: not what became of flows, since of that it knows its own end's part alone.
pub(super) fn path(options: &FlowsOptions, follow: bool) -> String {
    let mut query = Vec::new();
    query.extend(options.since.map(|since| format!("since={since}")));
    query.extend(follow.then(|| "follow=true".to_owned()));
    // Agents need not say what is not told here.
    query.extend((options.follow && !options.reports).then(|| "ends=true".to_owned()));
    query.extend(options.pod_to_pod.then(|| "pod-to-pod=true".to_owned()));
    query.extend(options.wanted().iter().map(|term| format!("is={}", escaped(&term.to_string()))));
    let unwanted = options.not.iter().filter(|term| !term.is_of_outcome());
    query.extend(unwanted.map(|term| format!("not={}", escaped(&term.to_string()))));
    format!("/flows?{}", query.join("&"))
}

/// As RFC 3986 (section 2.1) has it.
pub(crate) fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

impl Agent {
    /// Tells what the agent tells behind what it told last, until it ends; where somebody follows, again and again. The agent, to be listened to again.
    pub(super) async fn listen(mut self, path: String, follow: bool, to: mpsc::Sender<Heard>) -> Self {
        let mut course = Course { last: self.last.take(), ..Course::default() };
        loop {
            let why = match self.once(&path, &mut course, &to).await {
                Ok(()) if !follow => break,
                Ok(()) => "it ended".to_owned(),
                Err(why) => why,
            };
            if !std::mem::replace(&mut course.is_lost, true)
                && to.send(Heard::Lost { agent: self.name.clone(), why }).await.is_err()
            {
                break;
            }
            if !follow {
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        Self { last: course.last, ..self }
    }

    /// Asks once, for what comes behind the last item that was heard.
    async fn once(&self, path: &str, course: &mut Course, to: &mpsc::Sender<Heard>) -> Result<(), String> {
        let Course { last, is_whole, is_lost, begun } = course;
        let after = last.as_ref().map(|last| format!("&after={}", escaped(&last.to_string()))).unwrap_or_default();
        let request = Request::get(format!("{path}{after}")).body(Vec::new()).map_err(|error| error.to_string())?;
        let asked = tokio::time::timeout(SILENCE, self.client.request_stream(request)).await;
        let mut lines = asked.map_err(|_| "it says nothing".to_owned())?.map_err(|error| told(&error))?.lines();
        if std::mem::take(is_lost) {
            // Whoever does not listen any more is noticed below.
            let _ = to.send(Heard::Back { agent: self.name.clone(), resumes: last.is_some() }).await;
        }
        let mut has_told = false;
        loop {
            let line = tokio::time::timeout(SILENCE, lines.next()).await.map_err(|_| "it says nothing".to_owned())?;
            let Some(line) = line else {
                // An agent ends the stream of who follows only once all of its recording is told. A stream without items may be of another recording.
                *is_whole |= has_told;
                return Ok(());
            };
            let line = line.map_err(|error| error.to_string())?;
            if line.is_empty() {
                continue;
            }
            let read = self.lines.lock().unwrap_or_else(PoisonError::into_inner).read(&line);
            let (record, heard) = match read {
                Ok(Numbered { record, item }) => (record, Heard::Item(item)),
                Err(error) => {
                    if let Some(Ahead::Begun { record }) = Ahead::from_json(&line) {
                        // No item, behind which the next ones could be asked for: asked again before there is one, it says so again. Whoever does not
                        // listen any more is noticed below.
                        if begun.replace(record.epoch) != Some(record.epoch) {
                            let _ = to.send(Heard::Begun { agent: self.name.clone(), at: record.began() }).await;
                        }
                        continue;
                    }
                    // Asked again it would say it again.
                    let record = RecordId::from_json(&line).map_err(|_| format!("it says {line:?}: {error}"))?;
                    (record, Heard::Unread { agent: self.name.clone(), why: error.to_string() })
                }
            };
            if last.as_ref().is_some_and(|last| last.epoch != record.epoch) && *begun != Some(record.epoch) {
                let _ = to.send(Heard::Anew { agent: self.name.clone(), heard_all: *is_whole }).await;
            }
            (*last, *is_whole, has_told) = (Some(record), false, true);
            if to.send(heard).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// With its causes, in one line.
fn told(error: &kube::Error) -> String {
    podnet_model::errors::chain(error)
}

#[cfg(test)]
mod tests;
