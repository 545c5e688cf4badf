//! Other nodes' agents say what they counted, and nobody else does.

use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use podnet_flow::{
    Joint, Record,
    joint::question::{Answer, Inquiry, Question, Reply},
};

use super::*;

/// The end of a flow from a pod of node1 to one of node2, as that node tells it.
fn ended(node: &str, reporter: &str, at: Timestamp) -> Record {
    let end = |name: &str, ip: &str, port: u16, node: &str| json!({"ip": ip, "port": port, "pod": {"namespace": "web", "name": name, "uid": name, "node": node, "labels": {}}});
    let way = json!({"packets": 3, "bytes": 120});
    serde_json::from_value(json!({
        "id": format!("00000000-0000-0000-0000-00000000000{}", &node[4..]), "report": "end", "start": at, "end": at,
        "protocol": "TCP", "source": end("a", "10.0.0.1", 4000, "node1"), "destination": end("b", "10.0.1.1", 80, "node2"),
        "class": "pod-pod-other-node", "verdict": "forwarded", "node": node, "reporter": reporter, "sent": way,
        "received": way,
    }))
    .unwrap()
}

impl Lab {
    async fn inquire(&self, token: &str, text: String) -> (u16, String) {
        let stream = self.connect(b"http/1.1").await.unwrap();
        let (mut sender, connection) = http1::handshake::<_, String>(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method("POST").uri("/ends").header("Host", "x");
        let request = request.header("Authorization", format!("Bearer {token}")).body(text).unwrap();
        let response = timeout(DEADLINE, sender.send_request(request)).await.unwrap().unwrap();
        let status = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        (status, String::from_utf8(text).unwrap())
    }
}

fn inquiry(at: Timestamp, count: usize) -> String {
    let question = Question::Joins(Arc::new(ended("node2", "destination", at)));
    let questions = vec![question; count];
    serde_json::to_string(&Inquiry::new("node2".into(), Timestamp::now(), questions)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_nodes_agent_counted_is_in_the_record_of_this_one_and_only_agents_may_say_so() {
    let lab = Lab::new().await;
    let at = Timestamp::now();
    for (token, status, said) in [
        ("nobody", 401, "certificate"),
        ("here", 403, "you may not create nodes/flows of node1"),
        ("watcher", 403, "you may not create nodes/flows of node1"),
        ("agent", 404, "by each node alone"),
    ] {
        let (found, text) = lab.inquire(token, inquiry(at, 1)).await;
        assert!(found == status && text.contains(said), "{token}: {found} {text}");
    }
    *lab.past.joint() = Some(Joint::new("node1".into(), at));
    let item = Item::Flow(Arc::new(ended("node1", "source", at)));
    let own = Numbered { record: "node1/1/7".parse().unwrap(), item };
    let tell = |items| {
        let mut joint = lab.past.joint();
        joint.as_mut().unwrap().told(items, (Timestamp::now(), false), |_| true).items
    };
    assert!(tell(vec![own]).is_empty(), "it waits for what the other node counted");
    // That it is an agent is known by now.
    lab.api.is_away.store(true, Ordering::SeqCst);
    let (status, text) = lab.inquire("agent", inquiry(at, 1)).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(serde_json::from_str::<Reply>(&text).unwrap().answers, [Answer::Taken]);
    let told = tell(Vec::new());
    let [Numbered { record, item: Item::Flow(flow) }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(record.to_string(), "node1/1/7");
    let counts = flow.destination_counts.as_ref().unwrap();
    assert_eq!((counts.node.as_str(), counts.sent.packets), ("node2", 3));
    let other = Inquiry::new("node3".into(), Timestamp::now(), Vec::new());
    let (status, text) = lab.inquire("agent", serde_json::to_string(&other).unwrap()).await;
    assert!(status == 403 && text.contains("the agent of node2"), "{status} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_is_bounded_and_what_cannot_be_read_is_named() {
    let lab = Lab::new().await;
    let at = Timestamp::now();
    for (text, said) in [
        ("{}".to_owned(), "cannot be read: missing field"),
        (inquiry(at, 150), "cannot be read: length limit exceeded"),
    ] {
        let (status, told) = lab.inquire("agent", text).await;
        assert!(status == 400 && told.contains(said), "{status} {told}");
    }
    lab.demand.close();
    let (status, told) = lab.inquire("agent", inquiry(at, 1)).await;
    assert!(status == 404 && told.contains("no flows are recorded"), "{status} {told}");
}
