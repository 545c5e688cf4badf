//! Who is told what the node has, and how much of it.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
};

use futures::{StreamExt, stream::FuturesUnordered};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use podnet_kernel::{
    netns::NetNs,
    snapshot::{MOST_PODS, Snapshot, Told},
};
use podnet_model::{PodKey, proxy::Mode};
use podnet_planner::trace::Facts;
use tokio::{runtime::Handle, sync::Semaphore};

use super::{capture::Namespace, *};
use crate::flows::own::{Own, OwnError};

/// So many look at the node at once, where the test does not keep them from it.
const MANY: u32 = 100;

/// A node whose network is a namespace of the test's; its agent has only begun while there is none.
pub(super) struct Node {
    namespace: Mutex<Option<PathBuf>>,
    /// So many further addresses it has.
    addrs: AtomicUsize,
    gate: Semaphore,
}

impl Default for Node {
    fn default() -> Self {
        let gate = Semaphore::new(usize::try_from(MANY).unwrap());
        Self { namespace: Mutex::default(), addrs: AtomicUsize::default(), gate }
    }
}

impl Node {
    fn set(&self, namespace: &Namespace) {
        *self.namespace.lock().unwrap_or_else(PoisonError::into_inner) = Some(namespace.0.clone());
    }
}

impl Own for Node {
    fn told(&self) -> Result<Told, OwnError> {
        let _turn = Handle::current().block_on(self.gate.acquire()).unwrap();
        let path = self.namespace.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kernel = Snapshot::take(&NetNs::open(path.ok_or(OwnError::Beginning)?)?, &[], 1000)?;
        let mut facts = Facts::new("eth0".into(), 1500, Mode::Nftables);
        facts.addrs = vec![Ipv4Addr::BROADCAST.into(); self.addrs.load(Ordering::SeqCst)];
        Ok(Told { facts, is_configured_alone: false, kernel, pods: Vec::new() })
    }
}

impl Lab {
    async fn look(&self, token: &str, method: &str) -> Response<Incoming> {
        self.look_at("/forwarding", token, method).await
    }

    async fn look_at(&self, uri: &str, token: &str, method: &str) -> Response<Incoming> {
        let stream = self.connect(b"http/1.1").await.unwrap();
        let (mut sender, connection) = http1::handshake::<_, String>(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(uri).header("Host", "x");
        let request = request.header("Authorization", format!("Bearer {token}")).body(String::new()).unwrap();
        timeout(DEADLINE, sender.send_request(request)).await.unwrap().unwrap()
    }
}

async fn text(response: Response<Incoming>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_get_forwarding_of_the_node_is_told_what_it_has_and_nobody_else() {
    let (lab, namespace) = (Lab::new().await, Namespace::new("forwarding"));
    let why = "node1: the agent has only begun";
    for (token, method, status, said) in [
        ("nobody", "GET", 401, "certificate"),
        ("here", "GET", 403, "you may not get nodes/forwarding of node1"),
        ("lister", "GET", 403, "you may not get nodes/forwarding of node1"),
        ("watcher", "POST", 405, "with GET"),
        ("watcher", "GET", 503, why),
    ] {
        let response = lab.look(token, method).await;
        assert_eq!(response.status(), status, "{token} {method}");
        let text = text(response).await;
        assert!(String::from_utf8_lossy(&text).contains(said), "{token} {method}: {text:?}");
    }
    lab.own.set(&namespace);
    let response = lab.look("watcher", "GET").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    let Told { facts, kernel, .. } = Told::read(&text(response).await).unwrap();
    let devices: Vec<_> = kernel.devices.iter().map(|device| (device.name.as_str(), device.is_up)).collect();
    assert_eq!(facts.device.as_str(), "eth0");
    assert!(devices.contains(&("lo", true)), "{devices:?}");
    lab.api.is_away.store(true, Ordering::SeqCst);
    assert_eq!(lab.look("watcher", "GET").await.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_pods_that_are_asked_for_it_is_told_what_is_inside_and_of_those_of_elsewhere_that_they_are() {
    let (lab, node, pod) = (Lab::new().await, Namespace::new("forwarding-node"), Namespace::new("forwarding-pod"));
    lab.own.set(&node);
    lab.here.set(Some(pod.0.clone()));
    let name = pod.0.file_name().unwrap();
    let added = Command::new("ip").arg("-n").arg(name).args(["link", "add", "eth0", "type", "bridge"]).status();
    assert!(added.unwrap().success());
    let told = async |uri: &str| {
        let response = lab.look_at(uri, "watcher", "GET").await;
        assert_eq!(response.status(), 200, "{uri}");
        Told::read(&text(response).await).unwrap()
    };
    let Told { kernel, pods, .. } = told("/forwarding?pod=shop%2Fweb%2Fweb&pod=shop/db/db&pod=shop/web/web").await;
    let has_end = |told: &Snapshot| told.devices.iter().any(|device| device.name.as_str() == "eth0");
    let [(web, Ok(inside)), (db, Err(why))] = &pods[..] else { panic!("{pods:?}") };
    assert_eq!([web, db], [&PodKey::new("shop", "web"), &PodKey::new("shop", "db")]);
    assert_eq!((has_end(inside), has_end(&kernel), why.as_str()), (true, false, "no such pod"));
    assert!(told("/forwarding").await.pods.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_inside_of_pods_is_told_to_nobody_who_may_not_see_the_node_and_not_of_any_number() {
    let (lab, node, pod) = (Lab::new().await, Namespace::new("forwarding-closed"), Namespace::new("forwarding-inside"));
    lab.own.set(&node);
    lab.here.set(Some(pod.0.clone()));
    let pods = |count: usize| {
        let all: Vec<String> = (0..count).map(|number| format!("pod=shop/{number}/u")).collect();
        format!("?{}", all.join("&"))
    };
    for (token, query, status, said) in [
        ("nobody", "?pod=shop/web/web".to_owned(), 401, "certificate"),
        // Who may capture packets of the pod, and run programs in it.
        ("lister", "?pod=shop/web/web".to_owned(), 403, "you may not get nodes/forwarding of node1"),
        ("watcher", "?pod=shop/web".to_owned(), 400, "pod=shop/web is not pod=NAMESPACE/NAME/UID"),
        ("watcher", "?pods=shop/web/web".to_owned(), 400, "pods is nothing that is asked here"),
        ("watcher", pods(MOST_PODS + 1), 400, "more than 32 pods are asked for"),
        ("watcher", pods(MOST_PODS), 200, "no such pod"),
    ] {
        let response = lab.look_at(&format!("/forwarding{query}"), token, "GET").await;
        assert_eq!(response.status(), status, "{token} {query}");
        let text = text(response).await;
        assert!(String::from_utf8_lossy(&text).contains(said), "{token} {query}: {text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_more_than_is_told_says_so() {
    let (lab, namespace) = (Lab::new().await, Namespace::new("forwarding-large"));
    lab.own.set(&namespace);
    lab.own.addrs.store(500, Ordering::SeqCst);
    assert_eq!(lab.look("watcher", "GET").await.status(), 200);
    lab.own.addrs.store(2000, Ordering::SeqCst);
    let response = lab.look("watcher", "GET").await;
    assert_eq!(response.status(), 500);
    let text = String::from_utf8(text(response).await).unwrap();
    assert!(text.contains("more than can be told of it: 16384 bytes"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_looks_twice_at_once_and_again_once_these_are_over() {
    let (lab, namespace) = (Lab::new().await, Namespace::new("forwarding-many"));
    lab.own.set(&namespace);
    let closed = lab.own.gate.acquire_many(MANY).await.unwrap();
    let mut asked: FuturesUnordered<_> = (0..3).map(|_| lab.look("watcher", "GET")).collect();
    assert_eq!(asked.next().await.unwrap().status(), 429);
    drop(closed);
    for _ in 0..2 {
        assert_eq!(asked.next().await.unwrap().status(), 200);
    }
    until("those who were told keep their places", async || lab.look("watcher", "GET").await.status() == 200).await;
}
