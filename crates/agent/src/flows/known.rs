//! Who is who: pods by address, nodes, Services; as the watches tell it.

mod kept;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use podnet_client::watch::{Interest, Update, steadily, watch};
use podnet_flow::{
    Names, PodIdentity, Transport,
    names::{Owner, Tenancy},
};
use podnet_kernel::pod_interface::GATEWAY_V4;
use podnet_model::{Change, NodeName, Service, ServiceKey, service::ServiceKind};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tracing::info;

use self::kept::Kept;

/// Labels that tell more of a controller's doing than of the pod.
const UNINTERESTING: [&str; 5] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct Known {
    facts: Mutex<Facts>,
    kept: Mutex<Option<Kept>>,
    /// The ranges of those who may be asked changed.
    ranges_changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) names: Names,
    nodes: HashMap<NodeName, Vec<IpAddr>>,
    /// The node whose agent this is: its pods ask it at their gateway.
    own: Option<NodeName>,
    /// What the names say of nodes and Services is older than what was told of them.
    is_stale: bool,
    services: HashMap<ServiceKey, Vec<(SocketAddr, Transport)>>,
    /// Addresses of the pods that are there, by their uids.
    pods: HashMap<Arc<str>, Vec<IpAddr>>,
    /// Ranges of pods' and Services' addresses, by their pools.
    pools: BTreeMap<String, Vec<IpNet>>,
    /// Addresses have or had others than is written down.
    is_unwritten: bool,
}

impl Known {
    /// Of an agent of that node, in a cluster whose Services have addresses of that range; nothing else is known yet.
    pub(super) fn of_node(node: NodeName, service_cidr: Option<IpNet>) -> Arc<Self> {
        // No pool is without a name.
        let pools = [(String::new(), service_cidr.into_iter().collect())].into();
        let facts = Facts { own: Some(node), is_stale: true, pools, ..Facts::default() };
        Arc::new(Self { facts: Mutex::new(facts), ..Self::default() })
    }

    /// Takes in what an earlier agent wrote down, before anything else is known; from now on it is written there
    /// ([`Known::write_down`]).
    pub(super) fn keep_at(&self, path: &Path) {
        let (kept, tenancies) = Kept::open(path);
        let mut facts = self.lock();
        for Tenancy { addr, pod, .. } in tenancies.iter().filter(|tenancy| tenancy.until.is_none()) {
            facts.pods.entry(pod.uid.clone()).or_default().push(*addr);
        }
        facts.names.restore(tenancies);
        drop(facts);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }

    /// Writes down who has and had which address, where that changed some time ago, or `is_last`.
    pub(super) fn write_down(&self, is_last: bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = kept.as_mut().filter(|kept| is_last || kept.is_due()) else { return };
        let mut facts = self.lock();
        if std::mem::take(&mut facts.is_unwritten) {
            let tenancies: Vec<Tenancy> = facts.names.tenancies().collect();
            drop(facts);
            if !kept.write(&tenancies) {
                self.lock().is_unwritten = true;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until [`Known::ranges`] may be others.
    pub(super) async fn ranges_changed(&self) {
        self.ranges_changed.notified().await;
    }

    /// Where pods may be, or Services behind which they are.
    pub(super) fn ranges(&self) -> BTreeSet<IpNet> {
        self.lock().ranges()
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        let mut facts = self.lock();
        if std::mem::take(&mut facts.is_stale) {
            facts.name();
        }
        facts
    }

    /// Takes a change in.
    pub(super) fn learn(&self, change: &Change) {
        let mut facts = self.lock();
        match change {
            Change::Node(name, Some(node)) => {
                let addrs = [Some(node.addr), node.addr6, node.internal, node.internal6];
                facts.nodes.insert(name.clone(), addrs.into_iter().flatten().map(|addr| addr.0).collect());
            }
            Change::Node(name, None) => drop(facts.nodes.remove(name)),
            Change::Service(key, Some(service)) => drop(facts.services.insert(key.clone(), places(service))),
            Change::Service(key, None) => drop(facts.services.remove(key)),
            Change::Pool(name, Some(pool)) => drop(facts.pools.insert(name.to_string(), vec![pool.cidr])),
            Change::Pool(name, None) => drop(facts.pools.remove(&name.to_string())),
            // No pool can have such a name.
            Change::NetConf(namespace, Some(conf)) => {
                drop(facts.pools.insert(format!("{namespace}/"), conf.ranges().collect()));
            }
            Change::NetConf(namespace, None) => drop(facts.pools.remove(&format!("{namespace}/"))),
            _ => return,
        }
        facts.is_stale = true;
        drop(facts);
        if !matches!(change, Change::Node(..)) {
            self.ranges_changed.notify_one();
        }
    }

    pub(super) fn event(&self, event: Event<Pod>, listed: &mut Vec<Arc<str>>) {
        let mut facts = self.lock();
        let now = Timestamp::now();
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => {
                listed.extend(pod.metadata.uid.as_deref().map(Arc::from));
                facts.see(&pod, now);
            }
            Event::InitDone => {
                let gone: Vec<Arc<str>> = facts.pods.keys().filter(|uid| !listed.contains(uid)).cloned().collect();
                gone.iter().for_each(|uid| facts.lose(uid, now));
            }
            Event::Apply(pod) => facts.see(&pod, now),
            Event::Delete(pod) => facts.lose(pod.metadata.uid.as_deref().unwrap_or_default(), now),
        }
        drop(facts);
        self.ranges_changed.notify_one();
    }
}

impl Facts {
    fn ranges(&self) -> BTreeSet<IpNet> {
        let pools: Vec<IpNet> = self.pools.values().flatten().copied().collect();
        let is_apart = |addr: &&IpAddr| !pools.iter().any(|pool| pool.contains(*addr));
        let pods = self.pods.values().flatten().filter(is_apart).map(|addr| IpNet::from(*addr));
        let services = self.services.values().flatten().map(|(at, _)| IpNet::from(at.ip()));
        pools.iter().copied().chain(pods).chain(services).collect()
    }

    fn name(&mut self) {
        let gateway = self.own.iter().map(|own| (IpAddr::V4(GATEWAY_V4), own.clone()));
        let nodes = self.nodes.iter().flat_map(|(name, addrs)| addrs.iter().map(|addr| (*addr, name.clone())));
        self.names.set_nodes(nodes.chain(gateway).collect());
        let services = self.services.iter().flat_map(|(key, places)| places.iter().map(|place| (*place, key.clone())));
        self.names.set_services(services.collect());
    }

    fn see(&mut self, pod: &Pod, now: Timestamp) {
        let Some((identity, addrs)) = identity(pod) else {
            return self.lose(pod.metadata.uid.as_deref().unwrap_or_default(), now);
        };
        let identity = Arc::new(identity);
        self.is_unwritten = true;
        let since = began(pod).unwrap_or(Timestamp::MIN);
        addrs.iter().for_each(|addr| self.names.hold(*addr, &identity, since, now));
        self.pods.insert(identity.uid.clone(), addrs);
    }

    fn lose(&mut self, uid: &str, now: Timestamp) {
        self.is_unwritten |= self.pods.contains_key(uid);
        for addr in self.pods.remove(uid).into_iter().flatten() {
            self.names.release(addr, uid, now);
        }
    }
}

/// What tells [`Known`], as long as the value is there.
pub(super) struct Watches {
    tasks: JoinSet<()>,
    listed: mpsc::Receiver<()>,
}

impl Watches {
    /// Begins to watch all pods, nodes and Services.
    pub(super) fn start(client: &Client, known: &Arc<Known>) -> Self {
        let mut tasks = JoinSet::new();
        let (all_listed, listed) = mpsc::channel(1);
        tasks.spawn(watch_pods(client.clone(), Arc::clone(known), all_listed.clone()));
        tasks.spawn(watch_others(client.clone(), Arc::clone(known), all_listed));
        Self { tasks, listed }
    }

    /// Whether all were listed once.
    pub(super) fn are_listed(&self) -> bool {
        self.listed.is_closed()
    }

    /// Waits until all were listed once.
    pub(super) async fn listed(&mut self) {
        debug_assert!(!self.tasks.is_empty());
        // Nobody sends anything: who has listed lets go.
        while self.listed.recv().await.is_some() {}
    }
}

async fn watch_pods(client: Client, known: Arc<Known>, unlisted: mpsc::Sender<()>) {
    let mut unlisted = Some(unlisted);
    let mut events = steadily(watcher(Api::<Pod>::all(client), watcher::Config::default())).boxed();
    let mut listed = Vec::new();
    loop {
        match events.try_next().await {
            Ok(Some(event)) => {
                let is_listed = matches!(event, Event::InitDone);
                known.event(event, &mut listed);
                if is_listed {
                    unlisted = None;
                }
            }
            Ok(None) => return drop(unlisted),
            // What is known goes on to be used.
            Err(error) => info!(%error, "watch of pods for the names of flows interrupted"),
        }
    }
}

async fn watch_others(client: Client, known: Arc<Known>, unlisted: mpsc::Sender<()>) {
    let mut unlisted = Some(unlisted);
    let mut updates =
        watch(client, Interest { nodes: true, services: true, pools: true, ways: true, ..Interest::default() });
    while let Some(update) = updates.recv().await {
        match update {
            Update::Change(change) => known.learn(&change),
            Update::Synced => unlisted = None,
        }
    }
    drop(unlisted);
}

/// When its node took it in, or else when it was made.
fn began(pod: &Pod) -> Option<Timestamp> {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    started.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

/// Who a pod is, and its addresses; none of those that have none of their own, or no more.
fn identity(pod: &Pod) -> Option<(PodIdentity, Vec<IpAddr>)> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if spec.host_network == Some(true) || is_over {
        return None;
    }
    let addrs = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
    let labels: BTreeMap<Arc<str>, Arc<str>> = pod
        .labels()
        .iter()
        .filter(|(key, _)| !UNINTERESTING.contains(&key.as_str()))
        .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
        .collect();
    let identity = PodIdentity {
        namespace: pod.metadata.namespace.as_deref()?.into(),
        name: pod.metadata.name.as_deref()?.into(),
        uid: pod.metadata.uid.as_deref()?.into(),
        node: spec.node_name.as_deref()?.into(),
        labels,
        owner: owner(pod),
        service_account: spec.service_account_name.as_deref().map(Arc::from),
    };
    Some((identity, addrs))
}

/// A ReplicaSet is named after its Deployment, with the pods' hash behind it.
fn owner(pod: &Pod) -> Option<Owner> {
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let hash = pod.labels().get("pod-template-hash").map(|hash| format!("-{hash}"));
    let deployment =
        hash.and_then(|hash| controller.name.strip_suffix(&hash)).filter(|_| controller.kind == "ReplicaSet");
    Some(match deployment {
        Some(name) => Owner { kind: "Deployment".into(), name: name.into() },
        None => Owner { kind: controller.kind.as_str().into(), name: controller.name.as_str().into() },
    })
}

/// Where a Service is asked.
fn places(service: &Service) -> Vec<(SocketAddr, Transport)> {
    let ServiceKind::Virtual { cluster_ips } = &service.kind else { return Vec::new() };
    let ingress = service.ingress.iter().map(|ingress| ingress.addr);
    let addrs = cluster_ips.iter().map(|ip| ip.0).chain(service.external_ips.iter().copied()).chain(ingress);
    let at = |addr| {
        service.ports.iter().map(move |port| (SocketAddr::new(addr, port.port.0), Transport(port.protocol.number())))
    };
    addrs.flat_map(at).collect()
}

#[cfg(test)]
mod tests {
    use podnet_flow::names::Holder;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ip: &str, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "shop", "uid": name,
                "labels": {"app": "web", "pod-template-hash": "77f9"},
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-77f9", "uid": "r", "controller": true},
                ],
            },
            "spec": {"nodeName": "node1", "serviceAccountName": "till", "containers": []},
            "status": {"phase": phase, "podIPs": [{"ip": ip}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_is_known_by_its_address_with_its_deployment_until_it_is_over_or_gone() {
        let known = Known::of_node("node1".into(), Some("10.96.0.0/16".parse().unwrap()));
        let addr: IpAddr = "10.0.0.7".parse().unwrap();
        let holder = || known.facts().names.holder(addr, Timestamp::now());
        let mut listed = Vec::new();
        known.event(Event::Apply(pod("web-1", "10.0.0.7", "Running")), &mut listed);
        let Holder::Pod(found) = holder() else { panic!("{:?}", holder()) };
        assert_eq!(
            (&*found.name, &*found.owner.as_ref().unwrap().kind, &*found.owner.as_ref().unwrap().name),
            ("web-1", "Deployment", "web")
        );
        assert_eq!((found.service_account.as_deref(), found.labels.len()), (Some("till"), 1));
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(known.ranges(), [net("10.0.0.7/32"), net("10.96.0.0/16")].into(), "no pool has it");
        known.facts().pools.insert("p".to_owned(), vec![net("10.0.0.0/24")]);
        assert_eq!(known.ranges(), [net("10.0.0.0/24"), net("10.96.0.0/16")].into());
        let gateway = known.facts().names.holder(GATEWAY_V4.into(), Timestamp::now());
        assert_eq!(gateway, Holder::Node("node1".into()), "its pods ask it there");
        known.event(Event::Apply(pod("web-1", "10.0.0.7", "Succeeded")), &mut listed);
        assert_eq!(holder(), Holder::World);
        known.event(Event::Apply(pod("web-2", "10.0.0.7", "Running")), &mut listed);
        for event in [Event::Init, Event::InitApply(pod("web-3", "10.0.0.8", "Running")), Event::InitDone] {
            assert!(matches!(holder(), Holder::Pod(_)));
            known.event(event, &mut listed);
        }
        assert_eq!(holder(), Holder::World, "it was not listed any more");
    }

    #[test]
    fn who_had_an_address_is_known_to_an_agent_that_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holders.json");
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
        let pod = |name: &str, second: i64| {
            let mut pod = pod(name, "10.0.0.7", "Running");
            pod.status.as_mut().unwrap().start_time =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(second)));
            pod
        };
        let holder =
            |known: &Known, second: i64| match known.facts().names.holder("10.0.0.7".parse().unwrap(), at(second)) {
                Holder::Pod(pod) => pod.name.to_string(),
                other => format!("{other:?}"),
            };
        let known = Known::of_node("node1".into(), None);
        known.keep_at(&path);
        known.event(Event::Apply(pod("first", 10)), &mut Vec::new());
        known.write_down(false);
        assert!(!path.exists(), "not each change is written at once");
        known.write_down(true);
        // It went while nobody looked, and another one has its address.
        let anew = Known::of_node("node1".into(), None);
        anew.keep_at(&path);
        assert_eq!(holder(&anew, 20), "first");
        let mut listed = Vec::new();
        for event in [Event::Init, Event::InitApply(pod("second", 100)), Event::InitDone] {
            anew.event(event, &mut listed);
        }
        assert_eq!([20, 99, 100].map(|second| holder(&anew, second)), ["first", "first", "second"]);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "[{").unwrap();
        let anew = Known::of_node("node1".into(), None);
        anew.keep_at(&path);
        assert_eq!(holder(&anew, 20), "World");
    }
}
