use std::{sync::Mutex, time::Duration};

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;

/// An API server without Services, that answers with this when IPAddressPools are listed.
#[derive(Clone)]
struct Server(Arc<Mutex<(u16, Value)>>);

impl Server {
    fn new(code: u16) -> Self {
        let server = Self(Arc::default());
        server.refuses(code);
        server
    }

    fn refuses(&self, code: u16) {
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no list", "code": code});
        *self.0.lock().unwrap() = (code, status);
    }

    fn lists(&self, pools: &[Value]) {
        let list = json!({"kind": "IPAddressPoolList", "apiVersion": "metallb.io/v1beta1", "metadata": {"resourceVersion": "5"}, "items": pools});
        *self.0.lock().unwrap() = (200, list);
    }

    fn answer(&self, request: &Request<Body>) -> Option<(u16, Value)> {
        if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
            return None;
        }
        let services =
            json!({"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": []});
        let is_of_pools = request.uri().path().ends_with("/ipaddresspools");
        Some(if is_of_pools { self.0.lock().unwrap().clone() } else { (200, services) })
    }

    fn watch(&self, last_good: Option<PathBuf>) -> mpsc::Receiver<Update> {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = server.answer(&request);
            async move {
                let Some((code, text)) = answer else { return std::future::pending().await };
                Response::builder().status(code).body(Body::from(text.to_string().into_bytes()))
            }
        });
        let interest = Interest { services: true, address_pools: true, last_good, ..Interest::default() };
        watch(Client::new(service, "default"), interest)
    }
}

fn pool(name: &str) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": name, "namespace": "podnet-system", "uid": name}, "spec": {"addresses": ["192.0.2.0/28"]},
    })
}

/// Which pools there are when the state is complete.
async fn complete(updates: &mut mpsc::Receiver<Update>, pools: &mut BTreeSet<String>) {
    hear(updates, pools, "the state is complete", |update, _| *update == Update::Synced).await;
}

async fn hear(
    updates: &mut mpsc::Receiver<Update>,
    pools: &mut BTreeSet<String>,
    what: &str,
    is_heard: impl Fn(&Update, &BTreeSet<String>) -> bool,
) {
    let heard = async {
        while let Some(update) = updates.recv().await {
            match &update {
                Update::Change(Change::AddressPool(key, Some(_))) => drop(pools.insert(key.name.to_string())),
                Update::Change(Change::AddressPool(key, None)) => drop(pools.remove(&*key.name)),
                _ => {}
            }
            if is_heard(&update, pools) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(60), heard).await.expect(what);
}

#[tokio::test]
async fn a_kind_that_clusters_do_without_keeps_nobody_waiting_whatever_its_list_fails_with() {
    for code in [403, 404, 500, 503] {
        let (server, mut pools) = (Server::new(code), BTreeSet::new());
        let mut updates = server.watch(None);
        complete(&mut updates, &mut pools).await;
        assert!(pools.is_empty(), "{code}");
        server.lists(&[pool("late")]);
        hear(&mut updates, &mut pools, "the pool", |_, pools| pools.contains("late")).await;
    }
    let (server, mut pools) = (Server::new(500), BTreeSet::new());
    server.lists(&[json!("no object")]);
    complete(&mut server.watch(None), &mut pools).await;
}

/// What a watch of EndpointSlices tells of these.
async fn told_of_slices(items: Vec<Value>, quarantine: Quarantine) -> Vec<Change> {
    let list = json!({"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": {"resourceVersion": "5"}, "items": items});
    let service = tower::service_fn(move |request: Request<Body>| {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let list = list.to_string();
        async move {
            if is_watch {
                return std::future::pending().await;
            }
            Response::builder().status(200).body(Body::from(list.into_bytes()))
        }
    });
    let interest = Interest { slices: true, quarantine, ..Interest::default() };
    let mut updates = watch(Client::new(service, "default"), interest);
    let told = async {
        let mut changes = Vec::new();
        while let Some(Update::Change(change)) = updates.recv().await {
            changes.push(change);
        }
        changes
    };
    timeout(Duration::from_secs(60), told).await.expect("the state is complete")
}

#[tokio::test]
async fn slices_of_other_clusters_are_nobody_s_here_and_not_wrong() {
    let slice = |name: &str, labels: Value| {
        json!({
            "metadata": {"name": name, "namespace": "test", "uid": name, "labels": labels}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.3.0.1"]}], "ports": [{"port": 80}],
        })
    };
    let imported = json!({"multicluster.kubernetes.io/service-name": "web"});
    let both = json!({"multicluster.kubernetes.io/service-name": "web", "kubernetes.io/service-name": "derived"});
    let quarantine = Quarantine::default();
    let items = vec![slice("imported", imported), slice("both", both), slice("lost", json!({}))];
    let told = told_of_slices(items, quarantine.clone()).await;
    assert!(matches!(&told[..], [Change::Slice(key, Some(_))] if &*key.name == "both"), "{told:?}");
    assert!(quarantine.metrics().contains("{kind=\"EndpointSlice\"} 1\n"), "{}", quarantine.metrics());
}

#[tokio::test]
async fn what_was_listed_before_counts_while_it_cannot_be_listed_and_not_where_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let starts = async |server: &Server| {
        let mut pools = BTreeSet::new();
        let mut updates = server.watch(Some(directory.path().to_owned()));
        complete(&mut updates, &mut pools).await;
        (updates, pools)
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let server = Server::new(500);
    server.lists(&[pool("a"), pool("b")]);
    assert_eq!(starts(&server).await.1, names(&["a", "b"]));
    server.refuses(500);
    assert_eq!(starts(&server).await.1, names(&["a", "b"]));
    server.refuses(403);
    assert_eq!(starts(&server).await.1, names(&[]));
    server.refuses(500);
    let (mut updates, mut pools) = starts(&server).await;
    server.lists(&[pool("b"), pool("c")]);
    hear(&mut updates, &mut pools, "what there is", |_, pools| *pools == names(&["b", "c"])).await;
    server.refuses(500);
    assert_eq!(starts(&server).await.1, names(&["b", "c"]));
}

#[tokio::test]
async fn a_list_that_is_too_old_for_its_next_page_is_made_anew() {
    let slice = |name: &str| {
        let metadata = json!({"name": name, "namespace": "test", "labels": {"kubernetes.io/service-name": "web"}});
        json!({"metadata": metadata, "addressType": "IPv4", "endpoints": [{"addresses": ["10.3.0.1"]}]})
    };
    let [first, second] = ["first", "second"].map(slice);
    let asked = Arc::new(AtomicUsize::new(0));
    let pages = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default();
        let page = |next: &str, item: &Value| {
            (200_u16, json!({"metadata": {"resourceVersion": "5", "continue": next}, "items": [item]}))
        };
        let answer = if query.contains("watch=true") {
            None
        } else if !query.contains("continue=") {
            Some(page("next", &first))
        } else if pages.fetch_add(1, Ordering::Relaxed) == 0 {
            let status = json!({"kind": "Status", "status": "Failure", "message": "old", "code": 410});
            Some((410, status))
        } else {
            Some(page("", &second))
        };
        async move {
            let Some((code, text)) = answer else { return std::future::pending().await };
            Response::builder().status(code).body(Body::from(text.to_string().into_bytes()))
        }
    });
    let mut updates = watch(Client::new(service, "default"), Interest { slices: true, ..Interest::default() });
    let told = async {
        let mut there = BTreeSet::new();
        while let Some(Update::Change(Change::Slice(key, Some(_)))) = updates.recv().await {
            there.insert(key.name.to_string());
        }
        there
    };
    let there = timeout(Duration::from_secs(60), told).await.expect("the state is complete");
    assert_eq!((there.len(), asked.load(Ordering::Relaxed)), (2, 2), "{there:?}");
}
