use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use podnet_model::{
    Block, Change, Node, NodeAddr, Pool,
    crd::{AllocationAttribute, IPAMBlock, IPAMBlockSpec, requests, set_requests},
};
use podnet_planner::ipam::Wish;

use super::*;

const WANTED: &str = "10.77.0.3";

/// An API server that has one block, and the block's owner, who has answered by the time that a request is put.
struct Owner {
    block: IPAMBlock,
    /// How often it refuses before it lends; whoever had the address is gone when the answer is looked at.
    refuses: usize,
}

impl Owner {
    fn new(refuses: usize) -> Arc<Mutex<Self>> {
        let spec = IPAMBlockSpec {
            cidr: "10.77.0.0/30".to_owned(),
            affinity: Some("host:node2".to_owned()),
            allocations: vec![None; 4],
            ..IPAMBlockSpec::default()
        };
        Arc::new(Mutex::new(Self { block: IPAMBlock::new("10-77-0-0-30", spec), refuses }))
    }

    fn take(&mut self, mut block: IPAMBlock) {
        let asked = requests(&block);
        set_requests(&mut block, &[]);
        if let [request] = &*asked {
            if self.refuses == 0 {
                let secondary = [("node", &request.node), ("pod", &request.pod)];
                block.spec.attributes = vec![AllocationAttribute {
                    handle_id: Some(request.handle.clone()),
                    secondary: secondary.map(|(key, value)| (key.to_owned(), value.clone())).into(),
                }];
                block.spec.allocations[3] = Some(0);
            }
            self.refuses = self.refuses.saturating_sub(1);
        }
        self.block = block;
    }
}

/// What node1 is given that asks for [`WANTED`] of node2.
fn asks(owner: &Arc<Mutex<Owner>>) -> Result<Vec<IpAddr>, AssignError> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let owner = Arc::clone(owner);
    let service = tower::service_fn(move |request: Request<Body>| {
        let owner = Arc::clone(&owner);
        async move {
            let is_put = request.method() == Method::PUT;
            let sent = request.into_body().collect_bytes().await.unwrap();
            let mut owner = owner.lock().unwrap();
            if is_put {
                owner.take(serde_json::from_slice(&sent).unwrap());
            }
            let text = serde_json::to_vec(&owner.block).unwrap();
            Response::builder().body(Body::from(text))
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let _inside = runtime.enter();
    let client = Client::new(service, "default");
    let addresses = Addresses::open("node1".into(), &directory.path().join("journal"), client).unwrap();
    let pool = Pool { block_size: 30, ..Pool::new("small".into(), "10.77.0.0/28".parse().unwrap()) };
    addresses.learn(&Change::Pool(pool.name.clone(), Some(pool)));
    for (name, addr) in [("node1", "192.0.2.1"), ("node2", "192.0.2.2")] {
        let node = Node::new(name.into(), NodeAddr(addr.parse().unwrap()));
        addresses.learn(&Change::Node(name.into(), Some(node)));
    }
    let cidr = BlockCidr("10.77.0.0/30".parse().unwrap());
    addresses.learn(&Change::Block(cidr, Some(Block::new(cidr, Some("node2".into())))));
    let wish = Wish { addrs: vec![WANTED.parse().unwrap()], ..Wish::default() };
    let request = AllocationRequest {
        handle: Handle::from("sandbox/eth0"),
        pod: PodKey::new("test", "p"),
        uid: Arc::from("u"),
        wish: &wish,
    };
    addresses.assign(&request).map(|given| given.addrs)
}

#[test]
fn an_address_that_was_freed_while_the_owner_answered_is_asked_for_again() {
    let wanted: IpAddr = WANTED.parse().unwrap();
    assert_eq!(asks(&Owner::new(0)).unwrap(), [wanted]);
    assert_eq!(asks(&Owner::new(1)).unwrap(), [wanted], "refused, and nobody has it any more");
    let refused = asks(&Owner::new(9)).unwrap_err();
    assert!(matches!(refused, AssignError::Ipam(IpamError::OwnedElsewhere { .. })), "{refused:?}");
}
