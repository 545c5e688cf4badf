use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::*;

fn request(handle: &str) -> LendingRequest {
    let text = str::to_owned;
    LendingRequest {
        node: text("node2"),
        handle: text(handle),
        namespace: text("test"),
        pod: text("p"),
        uid: text("u"),
        ask: Ask::Borrow(None),
    }
}

#[test]
fn a_loan_is_found_by_its_handle_and_the_borrowers_node() {
    let attribute = |handle: &str, node: &str| AllocationAttribute {
        handle_id: Some(handle.to_owned()),
        secondary: [("node", node), ("namespace", "test"), ("pod", "p")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
    };
    let spec = IPAMBlockSpec {
        cidr: "10.0.0.4/30".to_owned(),
        allocations: vec![Some(1), None, Some(0), None],
        attributes: vec![attribute("far/eth0", "node2"), attribute("own/eth0", "node1")],
        ..IPAMBlockSpec::default()
    };
    assert_eq!(lent(&spec, &request("far/eth0")), Some([10, 0, 0, 6].into()));
    assert_eq!(lent(&spec, &request("own/eth0")), None, "the owner's pod has it");
    assert_eq!(holder(&spec, [10, 0, 0, 4].into()), Some(PodKey::new("test", "p")));
    assert_eq!(holder(&spec, [10, 0, 0, 5].into()), None);
    let six = IPAMBlockSpec { cidr: "fd00::4/126".to_owned(), ..spec };
    assert_eq!(lent(&six, &request("far/eth0")), Some("fd00::6".parse().unwrap()));
    assert_eq!(holder(&six, "fd00::4".parse().unwrap()), Some(PodKey::new("test", "p")));
}

#[test]
fn requests_stand_in_the_annotation_and_leave_it_when_they_are_answered() {
    let mut block = IPAMBlock::new("b", IPAMBlockSpec::default());
    let both = [request("a/eth0"), LendingRequest { ask: Ask::Return("10.0.0.6".to_owned()), ..request("b/eth0") }];
    set_requests(&mut block, &both);
    assert_eq!(requests(&block), both);
    set_requests(&mut block, &[]);
    assert!(requests(&block).is_empty() && block.annotations().is_empty());
}

/// An API server that has one block and the nodes of the list, and no pods; and what it was asked to delete.
#[derive(Clone)]
struct Server {
    block: Arc<IPAMBlock>,
    nodes: Arc<Mutex<Vec<&'static str>>>,
    deleted: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn answer(&self, method: &Method, path: &str) -> Option<Value> {
        let name = path.rsplit('/').next()?;
        if method == Method::DELETE {
            self.deleted.lock().unwrap().push(name.to_owned());
            return Some(json!({"kind": "Status", "status": "Success"}));
        }
        match path.strip_prefix("/api/v1/nodes/") {
            Some(node) => self
                .nodes
                .lock()
                .unwrap()
                .contains(&node)
                .then(|| json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": node}})),
            None if path == "/api/v1/pods" => {
                Some(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}))
            }
            None => serde_json::to_value(&*self.block).ok(),
        }
    }

    fn blocks(&self, node: &str) -> Blocks {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let found = server.answer(request.method(), request.uri().path());
            let missing =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404});
            let status = if found.is_some() { 200 } else { 404 };
            let text = found.unwrap_or(missing).to_string();
            async move { Response::builder().status(status).body(Body::from(text.into_bytes())) }
        });
        Blocks::new(Client::new(service, "default"), node.into())
    }
}

#[tokio::test]
async fn the_block_of_a_gone_node_stays_while_others_use_what_it_lent() {
    let attribute = |handle: &str, node: &str| AllocationAttribute {
        handle_id: Some(handle.to_owned()),
        secondary: [("node".to_owned(), node.to_owned())].into(),
    };
    let mut block = IPAMBlock::new(
        "10-0-0-4-30",
        IPAMBlockSpec {
            cidr: "10.0.0.4/30".to_owned(),
            affinity: Some("host:gone".to_owned()),
            allocations: vec![Some(0), Some(1), None, None],
            attributes: vec![attribute("own/eth0", "gone"), attribute("far/eth0", "node2")],
            ..IPAMBlockSpec::default()
        },
    );
    let server = |block: &IPAMBlock, nodes: &[&'static str]| Server {
        block: Arc::new(block.clone()),
        nodes: Arc::new(Mutex::new(nodes.to_vec())),
        deleted: Arc::default(),
    };
    let reclaim = async |server: Server| {
        let cidr = BlockCidr("10.0.0.4/30".parse().unwrap());
        let reclaimed = server.blocks("node1").reclaim(cidr).await.unwrap();
        let deleted = std::mem::take(&mut *server.deleted.lock().unwrap());
        assert_eq!(reclaimed, !deleted.is_empty());
        deleted
    };
    let both = ["10-0-0-4-30", "gone-10-0-0-4-30"];
    assert!(reclaim(server(&block, &["node1", "node2"])).await.is_empty(), "node2's pod has an address of it");
    assert!(reclaim(server(&block, &["gone"])).await.is_empty(), "its node is there");
    assert_eq!(reclaim(server(&block, &["node1"])).await, both, "the borrower is gone as well");
    // The owner is not there to take the loan back, but it is not used any more.
    set_requests(&mut block, &[LendingRequest { ask: Ask::Return("10.0.0.5".to_owned()), ..request("far/eth0") }]);
    assert_eq!(reclaim(server(&block, &["node1", "node2"])).await, both);
}
