//! Which nodes' agents record flows whether somebody follows or not, and where to: each says so in its own Node object, by marks of these places.
//!
//! Of a flow between two nodes that record to the same places the source's node tells there; what the destination's has to add where the two agents do not
//! settle that ([`podnet_flow::joint`]) is a part ([`podnet_flow::parts`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    error::Error,
    sync::Arc,
    time::Duration,
};

use kube::Client;
use podnet_client::node::publish_annotations;
use podnet_model::{NodeName, convert::RECORDED_TO, node::Node};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::{collect::Collectors, demand::Demand};

/// The mark of the node's log.
const LOG: &str = "log";
/// For one request to the API server.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before it is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// What stands for the places where records go: two nodes that say the same one send to the same place, or each to its own of the same name.
pub(super) type Marks = BTreeSet<Box<str>>;

/// Those of this node.
pub(super) fn marks(has_log: bool, collectors: &Collectors) -> Marks {
    has_log.then(|| Box::from(LOG)).into_iter().chain(collectors.marks()).collect()
}

/// Where the agents of all nodes record to that are there.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorders(HashMap<NodeName, Marks>);

impl Recorders {
    /// Takes in what a node says now. One that is lost or gone tells nothing. Whoever has these goes on with them as they were.
    pub(super) fn learn(recorders: &mut Arc<Self>, name: &NodeName, node: Option<&Node>) {
        let said = node.filter(|node| !node.lost).and_then(|node| node.recorded_to.as_deref());
        let marks: Option<Marks> = said.map(|said| said.split(',').map(Box::from).collect());
        if recorders.0.get(name) == marks.as_ref() {
            return;
        }
        let recorders = Arc::make_mut(recorders);
        match marks {
            Some(marks) => drop(recorders.0.insert(name.clone(), marks)),
            None => drop(recorders.0.remove(name)),
        }
    }

    /// Whether a node's agent tells what it records in all of these places, of which there is one at least.
    pub(super) fn tell(&self, node: &NodeName, marks: &Marks) -> bool {
        !marks.is_empty() && self.0.get(node).is_some_and(|said| marks.is_subset(said))
    }
}

/// Says in this node's object where its records go, once flows are recorded; where they go nowhere, that an earlier agent's word counts no more.
/// Until then other nodes tell what this one would.
pub(super) async fn announce(client: Client, node: NodeName, marks: Marks, demand: Arc<Demand>) {
    let said = if marks.is_empty() {
        None
    } else {
        demand.recorded().await;
        Some(marks.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(","))
    };
    let annotations = BTreeMap::from([(RECORDED_TO, said)]);
    let mut is_told = false;
    loop {
        let error: Box<dyn Error + Send + Sync> =
            match timeout(PATIENCE, publish_annotations(&client, &node, &annotations)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.into(),
                Err(late) => late.into(),
            };
        if !std::mem::replace(&mut is_told, true) {
            warn!(
                error = &*error as &dyn Error,
                "the node's object does not say where flows are recorded to; it is tried again"
            );
        }
        sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use podnet_model::NodeAddr;

    use super::*;

    #[test]
    fn a_node_tells_where_it_says_so_until_it_is_lost_or_says_so_no_more() {
        let (name, mut recorders) = (NodeName::from("node2"), Arc::new(Recorders::default()));
        let known = Arc::clone(&recorders);
        let marks = |marks: &[&str]| marks.iter().map(|mark| Box::from(*mark)).collect::<Marks>();
        let mut node = Node::new(name.clone(), NodeAddr("192.0.2.2".parse().unwrap()));
        node.recorded_to = Some("1a2b3c4d,log".into());
        Recorders::learn(&mut recorders, &name, Some(&node));
        let tells = |recorders: &Recorders, own: &[&str]| recorders.tell(&name, &marks(own));
        assert!(tells(&recorders, &["log"]) && tells(&recorders, &["log", "1a2b3c4d"]));
        assert!(!tells(&recorders, &["log", "5e6f7a8b"]), "what goes there would be missing");
        assert!(!tells(&recorders, &[]) && !recorders.tell(&"node3".into(), &marks(&["log"])));
        assert!(!tells(&known, &["log"]), "who knew something before knows that still");
        let before = Arc::clone(&recorders);
        Recorders::learn(&mut recorders, &name, Some(&node));
        assert!(Arc::ptr_eq(&before, &recorders), "it is no news");
        Recorders::learn(&mut recorders, &name, Some(&Node { lost: true, ..node.clone() }));
        assert!(!tells(&recorders, &["log"]));
        Recorders::learn(&mut recorders, &name, Some(&node));
        assert!(tells(&recorders, &["log"]));
        Recorders::learn(&mut recorders, &name, None);
        assert!(!tells(&recorders, &["log"]));
    }
}
