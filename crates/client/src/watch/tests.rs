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
