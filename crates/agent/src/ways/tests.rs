use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use podnet_model::{Change, Dual, Felix, NetConf, Node, NodeAddr, flannel::Backend};
use podnet_planner::overlay::OverlayConfig;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;

/// An API server that answers every change of a Node with a Node, and what it was asked.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<(String, Value)>>>);

impl Asked {
    fn client(&self) -> Client {
        let asked = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let asked = asked.clone();
            async move {
                let path = format!("{} {}", request.method(), request.uri().path());
                let bytes = request.into_body().collect().await?.to_bytes();
                asked.0.lock().unwrap().push((path, serde_json::from_slice(&bytes).unwrap_or_default()));
                let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}});
                Ok::<_, kube::Error>(Response::new(Body::from(node.to_string().into_bytes())))
            }
        });
        Client::new(service, "default")
    }

    /// The next thing that is asked: annotations of the node.
    async fn next(&self) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let first = {
                let mut asked = self.0.lock().unwrap();
                (!asked.is_empty()).then(|| asked.remove(0))
            };
            if let Some((path, body)) = first {
                assert_eq!(path, "PATCH /api/v1/nodes/node1");
                return body["metadata"]["annotations"].clone();
            }
            assert!(Instant::now() < deadline, "nothing is asked");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn own_node(edit: impl FnOnce(&mut Node)) -> Change {
    let mut node = Node::new("node1".into(), NodeAddr([172, 29, 0, 11].into()));
    node.pod_cidrs.push("10.244.1.0/24".parse().unwrap());
    edit(&mut node);
    Change::Node("node1".into(), Some(node))
}

/// A node's overlay and ways, and its ways' task.
fn start() -> (tempfile::TempDir, Arc<Ways>, Overlay, Asked) {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["wireguard.keys", "flannel/subnet.env"].map(|name| directory.path().join(name));
    let ways = Arc::new(Ways::open(&paths[0], &paths[1]).unwrap());
    let mut overlay = Overlay::new(OverlayConfig::new("node1".into(), "eth0".into(), 1500));
    overlay.set_keys(ways.keys());
    overlay.apply(&own_node(|_| {}));
    let asked = Asked::default();
    let (task, client) = (ways.clone(), asked.client());
    tokio::spawn(async move { task.publish(&client, &"node1".into()).await });
    (directory, ways, overlay, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_is_published_when_encryption_is_on_and_withdrawn_when_it_is_off() {
    let (_directory, ways, mut overlay, asked) = start();
    let mut tell = |change: &Change| {
        overlay.apply(change);
        ways.learn(&overlay);
    };
    tell(&Change::Felix(Some(Felix { wireguard: true, ..Felix::default() })));
    let key = ways.keys()[0].public;
    assert_eq!(asked.next().await, json!({WIREGUARD_PUBLIC_KEY: key.to_string()}));
    tell(&own_node(|node| node.wireguard_key = Some(key)));
    // Somebody took it away: it is published again.
    tell(&own_node(|_| {}));
    assert_eq!(asked.next().await, json!({WIREGUARD_PUBLIC_KEY: key.to_string()}));
    tell(&own_node(|node| node.wireguard_key = Some(key)));
    tell(&Change::Felix(None));
    assert_eq!(asked.next().await, json!({WIREGUARD_PUBLIC_KEY: null}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_key_is_in_use_once_the_node_shows_it() {
    let (_directory, ways, mut overlay, asked) = start();
    let next = ways.keys()[1].public;
    overlay.apply(&Change::Felix(Some(Felix { wireguard: true, ..Felix::default() })));
    overlay.apply(&own_node(|node| node.wireguard_key = Some(next)));
    ways.learn(&overlay);
    let deadline = Instant::now() + Duration::from_secs(20);
    while ways.keys()[0].public != next {
        assert!(Instant::now() < deadline, "the next key is not taken into use");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(asked.0.lock().unwrap().is_empty(), "nothing is to be published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flannels_nodes_and_plugins_are_told_while_its_configuration_is_there() {
    let (directory, ways, mut overlay, asked) = start();
    let file = directory.path().join("flannel/subnet.env");
    let conf = NetConf {
        networks: Dual { v4: "10.244.0.0/16".parse().ok(), v6: None },
        subnet_len: 24,
        backend: Backend::HostGw,
    };
    overlay.apply(&Change::NetConf("kube-flannel".into(), Some(conf)));
    ways.learn(&overlay);
    assert_eq!(asked.next().await["flannel.alpha.coreos.com/backend-type"], "host-gw");
    assert!(fs::read_to_string(&file).unwrap().contains("FLANNEL_SUBNET=10.244.1.1/24\n"));
    overlay.apply(&Change::NetConf("kube-flannel".into(), None));
    ways.learn(&overlay);
    let deadline = Instant::now() + Duration::from_secs(20);
    while file.exists() {
        assert!(Instant::now() < deadline, "the file stays");
        sleep(Duration::from_millis(5)).await;
    }
}
