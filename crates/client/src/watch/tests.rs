use std::{collections::BTreeSet, sync::Mutex, time::Duration};

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

/// The next Service that is told of, and how many ports it has; none where it is gone.
async fn next_service(updates: &mut mpsc::Receiver<Update>) -> (String, Option<usize>) {
    match timeout(Duration::from_secs(60), updates.recv()).await.expect("an update") {
        Some(Update::Change(Change::Service(key, service))) => {
            (key.name.to_string(), service.map(|service| service.ports.len()))
        }
        other => panic!("{other:?}"),
    }
}

/// The next event: the object that it is about with its version, and what it says.
async fn next_event(events: &mut mpsc::Receiver<Value>) -> (String, String) {
    let event = timeout(Duration::from_secs(60), events.recv()).await.expect("an event").unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let about = &event["involvedObject"];
    (format!("{} {}", text(&about["name"]), text(&about["resourceVersion"])), text(&event["message"]))
}

#[tokio::test]
async fn a_wrong_service_is_left_out_alone_and_of_a_partly_wrong_one_a_part_until_they_are_mended() {
    let service = |name: &str, version: u8, ports: &[u16]| {
        let ports: Vec<Value> = ports.iter().map(|port| json!({"port": port})).collect();
        let metadata = json!({"name": name, "namespace": "shop", "uid": name, "resourceVersion": version.to_string()});
        json!({"metadata": metadata, "spec": {"clusterIPs": ["10.96.0.1"], "ports": ports}})
    };
    let items = [service("good", 1, &[80]), service("partly", 2, &[80, 0]), service("wrong", 3, &[0])];
    let list = json!({"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": items});
    let (news, heard) = mpsc::channel::<String>(1);
    let heard = Arc::new(tokio::sync::Mutex::new(heard));
    let (sent, mut events) = mpsc::channel::<Value>(8);
    let server = tower::service_fn(move |request: Request<Body>| {
        let (list, heard, sent) = (list.to_string(), heard.clone(), sent.clone());
        async move {
            let text = if request.method() == http::Method::POST {
                let event = request.into_body().collect_bytes().await.unwrap();
                sent.send(serde_json::from_slice(&event).unwrap()).await.unwrap();
                event.to_vec()
            } else if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                // Each watch tells one thing, and ends.
                let news = heard.lock().await.recv().await;
                let Some(news) = news else { return std::future::pending().await };
                news.into_bytes()
            } else {
                list.into_bytes()
            };
            Response::builder().status(200).body(Body::from(text))
        }
    });
    let (client, quarantine) = (Client::new(server, "default"), Quarantine::default());
    let complaints = Some(Complaints::new(client.clone(), "node1".into()));
    let interest = Interest { services: true, quarantine: quarantine.clone(), complaints, ..Interest::default() };
    let mut updates = watch(client, interest);
    let assert_counted = |count: usize| {
        let line = format!("{{kind=\"Service\"}} {count}\n");
        assert!(quarantine.metrics().contains(&line), "{}", quarantine.metrics());
    };

    for name in ["good", "partly"] {
        assert_eq!(next_service(&mut updates).await, (name.to_owned(), Some(1)));
    }
    assert_eq!(updates.recv().await, Some(Update::Synced), "of the wrong one nothing is told");
    assert_counted(2);
    let mut told = [next_event(&mut events).await, next_event(&mut events).await];
    told.sort();
    let [(partly, of_part), (wrong, of_whole)] = &told;
    assert_eq!([partly, wrong], ["partly 2", "wrong 3"]);
    assert!(of_part.contains("spec.ports[1].port is \"0\"") && of_part.ends_with("the rest counts"), "{of_part}");
    assert!(of_whole.contains("spec.ports[0].port is \"0\"") && of_whole.contains("object ignored"), "{of_whole}");

    // The same fault of a later version is not told again, and one that comes back is.
    for (name, version, ports, told, count) in [
        ("partly", 6, &[80, 0][..], Some(1), 2),
        ("wrong", 7, &[80], Some(1), 1),
        ("partly", 8, &[80, 81], Some(2), 0),
        ("partly", 9, &[80, 0], Some(1), 1),
        ("good", 10, &[0], None, 2),
        ("good", 11, &[80], Some(1), 1),
    ] {
        let object = service(name, version, ports);
        news.send(format!("{{\"type\":\"MODIFIED\",\"object\":{object}}}\n")).await.unwrap();
        assert_eq!(next_service(&mut updates).await, (name.to_owned(), told), "{version}");
        assert_counted(count);
    }
    let told = [next_event(&mut events).await.0, next_event(&mut events).await.0];
    assert_eq!(told, ["partly 9", "good 10"]);
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
