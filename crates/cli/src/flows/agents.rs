//! The agents: where they are, and what they tell of flows.

use std::{net::SocketAddr, path::Path, time::Duration};

use futures::{AsyncBufReadExt, StreamExt};
use http::Request;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, ResourceExt, api::ListParams};
use podnet_client::connect;
use podnet_flow::Item;
use tokio::sync::mpsc;

use crate::{
    api,
    arguments::flows::FlowsOptions,
    layout,
    report::{Doing, Failure},
};

/// A follower asks an agent that ended again after that time.
const AGAIN: Duration = Duration::from_secs(2);
/// How long an agent may say nothing before it is taken for gone; it says something in 20 s.
const SILENCE: Duration = Duration::from_secs(60);

/// The agent of a node.
pub(super) struct Agent {
    /// The node's name, or what it was called on the command line.
    pub(super) name: String,
    client: Client,
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
    Back(String),
}

/// All agents that are to be asked.
pub(super) async fn find(options: &FlowsOptions) -> Result<Vec<Agent>, Failure> {
    let kubeconfig = kubeconfig(options);
    let mut found = Vec::new();
    for (name, ip) in addresses(options, kubeconfig.is_none()).await? {
        let address = SocketAddr::new(ip, options.agent_port);
        let client = connect::to_server(kubeconfig.as_deref(), address).await;
        found.push(Agent { name, client: client.doing(|| format!("cannot ask the agent at {address}"))? });
    }
    Ok(found)
}

/// None: this is a pod, which has its service account.
fn kubeconfig(options: &FlowsOptions) -> Option<std::path::PathBuf> {
    let own = layout::kubeconfig();
    let is_pod = !own.exists() && Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").exists();
    match &options.kubeconfig {
        Some(path) => Some(path.clone()),
        None if is_pod => None,
        None => Some(own),
    }
}

async fn addresses(options: &FlowsOptions, is_pod: bool) -> Result<Vec<(String, std::net::IpAddr)>, Failure> {
    if !options.agent.is_empty() {
        return Ok(options.agent.iter().map(|ip| (ip.to_string(), *ip)).collect());
    }
    let client = if is_pod {
        connect::in_cluster().doing(|| "cannot use the pod's service account".into())?
    } else {
        api::connect(options.kubeconfig.as_deref(), "flows").await?
    };
    let nodes = Api::<Node>::all(client).list(&ListParams::default()).await;
    let nodes = nodes.doing(|| "cannot list the nodes".into()).map_err(|failure| {
        if is_pod {
            failure.remedy("a pod that may not list nodes asks its own: --agent with the field status.hostIP")
        } else {
            failure
        }
    })?;
    Ok(nodes.into_iter().filter_map(|node| Some((node.name_any(), internal(&node)?))).collect())
}

fn internal(node: &Node) -> Option<std::net::IpAddr> {
    let addresses = node.status.as_ref()?.addresses.iter().flatten();
    addresses.filter(|address| address.type_ == "InternalIP").find_map(|address| address.address.parse().ok())
}

/// What an agent is asked.
pub(super) fn path(options: &FlowsOptions) -> String {
    let mut query = Vec::new();
    query.extend(options.since.map(|since| format!("since={since}")));
    query.extend(options.follow.then(|| "follow=true".to_owned()));
    query.extend(options.pod_to_pod.then(|| "pod-to-pod=true".to_owned()));
    query.extend(options.wanted().iter().map(|term| format!("is={}", escaped(&term.to_string()))));
    query.extend(options.not.iter().map(|term| format!("not={}", escaped(&term.to_string()))));
    format!("/flows?{}", query.join("&"))
}

/// As RFC 3986 (section 2.1) has it.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

impl Agent {
    /// Tells what the agent tells, until it ends; where somebody follows, again and again.
    pub(super) async fn listen(self, path: String, follow: bool, to: mpsc::Sender<Heard>) {
        let mut is_lost = false;
        loop {
            let why = match self.once(&path, &mut is_lost, &to).await {
                Ok(()) if !follow => return,
                Ok(()) => "it ended".to_owned(),
                Err(why) => why,
            };
            if !std::mem::replace(&mut is_lost, true)
                && to.send(Heard::Lost { agent: self.name.clone(), why }).await.is_err()
            {
                return;
            }
            if !follow {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn once(&self, path: &str, is_lost: &mut bool, to: &mpsc::Sender<Heard>) -> Result<(), String> {
        let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        let asked = tokio::time::timeout(SILENCE, self.client.request_stream(request)).await;
        let mut lines = asked.map_err(|_| "it says nothing".to_owned())?.map_err(|error| told(&error))?.lines();
        if std::mem::take(is_lost) {
            // Whoever does not listen any more is noticed below.
            let _ = to.send(Heard::Back(self.name.clone())).await;
        }
        loop {
            let line = tokio::time::timeout(SILENCE, lines.next()).await.map_err(|_| "it says nothing".to_owned())?;
            let Some(line) = line else { return Ok(()) };
            let line = line.map_err(|error| error.to_string())?;
            if line.is_empty() {
                continue;
            }
            let item = serde_json::from_str(&line).map_err(|error| format!("it says {line:?}: {error}"))?;
            if to.send(Heard::Item(item)).await.is_err() {
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
mod tests {
    use clap::Parser;

    use crate::arguments::{Arguments, Command};

    #[test]
    fn an_agent_is_asked_for_what_is_wanted() {
        let line = "podnet flows --follow --since 5m --pod-to-pod --from label/app=web --port 80 --not protocol=udp";
        let Command::Flows(options) = Arguments::parse_from(line.split(' ')).command else { panic!("not flows") };
        assert_eq!(
            super::path(&options),
            "/flows?since=300&follow=true&pod-to-pod=true&is=from%3Dlabel%2Fapp%3Dweb&is=port%3D80&not=protocol%3DUDP"
        );
    }
}
