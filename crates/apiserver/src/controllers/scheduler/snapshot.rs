//! The nodes with what is on them, at one moment.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::ResourceExt;

use super::{
    affinity::Neighbours,
    resources::{Amounts, Capacity},
};
use crate::controllers::pods;

type Labels = BTreeMap<String, String>;

/// All nodes.
pub(super) struct Snapshot {
    /// Ordered by name.
    pub(super) nodes: Vec<Place>,
    /// The labels of the namespaces.
    pub(super) namespaces: BTreeMap<String, Labels>,
}

/// A node with what is on it.
pub(super) struct Place {
    /// The node's name.
    pub(super) name: String,
    /// The node's labels.
    pub(super) labels: Labels,
    /// What keeps pods away, including what the node's state amounts to.
    pub(super) taints: Vec<Taint>,
    /// What it has.
    pub(super) capacity: Capacity,
    /// What was promised.
    pub(super) used: Amounts,
    /// The pods on it.
    pub(super) pods: Vec<Tenant>,
    /// How many pods of each group are on it.
    groups: HashMap<Group, usize>,
}

/// A pod on a node.
pub(super) struct Tenant {
    /// The pod.
    pub(super) pod: Arc<Pod>,
    /// What it requires of its neighbours.
    pub(super) neighbours: Neighbours,
}

/// Pods that are copies of each other: their namespace and their labels, apart from those that tell versions apart.
type Group = (String, Vec<(String, String)>);

impl Snapshot {
    /// The snapshot of these nodes and pods. `assumed` says which node a pod was given that does not show it yet.
    pub(super) fn new(
        nodes: &[Arc<Node>],
        pods: &[Arc<Pod>],
        assumed: &HashMap<String, String>,
        namespaces: BTreeMap<String, Labels>,
    ) -> Self {
        let mut snapshot = Self { nodes: nodes.iter().map(|node| Place::of(node)).collect(), namespaces };
        let at: HashMap<String, usize> =
            snapshot.nodes.iter().enumerate().map(|(at, place)| (place.name.clone(), at)).collect();
        for pod in pods.iter().filter(|pod| !pods::is_finished(pod)) {
            let given = || assumed.get(pod.metadata.uid.as_ref()?).map(String::as_str);
            if let Some(at) = pods::node(pod).or_else(given).and_then(|node| at.get(node)) {
                snapshot.nodes[*at].put(pod);
            }
        }
        snapshot
    }
}

impl Place {
    fn of(node: &Node) -> Self {
        Self {
            name: node.name_any(),
            labels: node.labels().clone(),
            taints: taints(node),
            capacity: Capacity::of(node),
            used: Amounts::default(),
            pods: Vec::new(),
            groups: HashMap::new(),
        }
    }

    /// Puts a pod on the node.
    pub(super) fn put(&mut self, pod: &Arc<Pod>) {
        self.used = self.used.plus(Amounts::requested(pod));
        if let Some(group) = group(pod) {
            *self.groups.entry(group).or_default() += 1;
        }
        self.pods.push(Tenant { pod: Arc::clone(pod), neighbours: Neighbours::of(pod) });
    }

    /// How many copies of the pod are on the node.
    pub(super) fn copies(&self, pod: &Pod) -> usize {
        group(pod).and_then(|group| self.groups.get(&group).copied()).unwrap_or_default()
    }
}

/// Whether the node says that it is ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A node that is not ready, or closed to new pods, keeps them away even before its taints say so.
fn taints(node: &Node) -> Vec<Taint> {
    let spec = node.spec.as_ref();
    let mut taints = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut imply = |key: &str| {
        if !taints.iter().any(|taint| taint.key == key) {
            let effect = "NoSchedule".to_owned();
            taints.push(Taint { key: key.to_owned(), effect, ..Taint::default() });
        }
    };
    if spec.is_some_and(|spec| spec.unschedulable == Some(true)) {
        imply("node.kubernetes.io/unschedulable");
    }
    if !is_ready(node) {
        imply("node.kubernetes.io/not-ready");
    }
    taints
}

fn group(pod: &Pod) -> Option<Group> {
    let tells_versions_apart = |key: &str| key == "pod-template-hash" || key == "controller-revision-hash";
    let labels = pod.metadata.labels.as_ref()?.iter();
    let labels: Vec<_> =
        labels.filter(|(key, _)| !tells_versions_apart(key)).map(|(key, value)| (key.clone(), value.clone())).collect();
    (!labels.is_empty()).then(|| (pod.namespace().unwrap_or_default(), labels))
}
