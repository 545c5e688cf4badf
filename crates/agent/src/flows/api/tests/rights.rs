//! What who may list the pods of one namespace is shown of flows: `lister` may list those of `shop`.

use super::*;

fn pod(namespace: &str, name: &str) -> Value {
    json!({"namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"), "node": "node1",
        "labels": {"of": format!("{namespace}-{name}")}})
}

/// A flow from a pod of one namespace to one of another, by a Service of that.
fn flow(source: &str, destination: &str, port: u16) -> Item {
    let way = json!({"packets": 1, "bytes": 40});
    serde_json::from_value(json!({
        "type": "flow", "id": uuid::Uuid::from_u128(port.into()).to_string(), "report": "end", "protocol": "TCP",
        "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:01Z",
        "source": {"ip": "10.0.0.1", "port": port, "pod": pod(source, "client")},
        "destination": {"ip": "10.0.0.2", "port": 80, "pod": pod(destination, "server")},
        "service": {"namespace": destination, "name": "front", "ip": "10.96.0.1", "port": 80},
        "class": "pod-service", "verdict": "forwarded", "node": "node1", "reporter": "source", "sent": way, "received": way,
    }))
    .unwrap()
}

/// Of a flow: its port, and the namespaces of the source's pod, of the destination's, and of the Service.
fn told(text: &str) -> Vec<(u64, [Option<String>; 3])> {
    // Chunks' sizes are on lines of their own.
    let flows = text.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap());
    let namespace = |of: &Value| of["namespace"].as_str().map(str::to_owned);
    flows
        .map(|flow: Value| {
            let [source, destination] = ["source", "destination"].map(|end| namespace(&flow[end]["pod"]));
            (flow["source"]["port"].as_u64().unwrap(), [source, destination, namespace(&flow["service"])])
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_list_one_namespace_is_told_of_its_flows_and_of_nobody_elses_names() {
    let lab = Lab::new().await;
    let flows = [
        flow("shop", "shop", 4001),
        flow("shop", "bank", 4002),
        flow("bank", "shop", 4003),
        flow("bank", "bank", 4004),
        flow("shop", "shop", 4005),
    ];
    lab.past.add(&flows, Timestamp::now());
    let (status, mut stream) = lab.ask("lister", "").await;
    assert_eq!(status, 200);
    let text = until_read(&mut stream, "0\r\n\r\n").await;
    let shop = || Some("shop".to_owned());
    let expected = [
        (4001, [shop(), shop(), shop()]),
        (4002, [shop(), None, None]),
        (4003, [None, shop(), shop()]),
        (4005, [shop(), shop(), shop()]),
    ];
    assert_eq!(told(&text), expected, "{text}");
    assert!(!text.contains("bank"), "labels and uids are names as well: {text}");
    assert!(text.contains("\"ip\":\"10.0.0.2\"") && text.contains("\"port\":4003"), "addresses are told: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_name_that_is_not_theirs_to_see_cannot_guess_it_and_who_may_list_nothing_is_told_nothing() {
    let lab = Lab::new().await;
    lab.past.add(&[flow("shop", "bank", 4001), flow("shop", "shop", 4002)], Timestamp::now());
    for (query, forbids, ports) in [
        ("is=to%3Dservice%2Fshop%2Ffront", false, &[4002][..]),
        ("is=to%3Dservice%2Fbank%2Ffront", false, &[]),
        ("is=to%3Dpod%2Fbank%2Fserver", false, &[]),
        ("", true, &[]),
    ] {
        lab.api.forbids.store(forbids, Ordering::SeqCst);
        let (status, mut stream) = lab.ask("lister", query).await;
        assert_eq!(status, 200, "{query}");
        let text = until_read(&mut stream, "0\r\n\r\n").await;
        let found: Vec<u64> = told(&text).into_iter().map(|(port, _)| port).collect();
        assert_eq!(found, ports, "{query}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_limits_dropped_is_told_to_who_may_see_the_pod_alone() {
    let lab = Lab::new().await;
    let drops = |namespace: &str| -> Item {
        serde_json::from_value(json!({
            "type": "drops", "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:10Z", "node": "node1",
            "cause": "limit", "direction": "ingress", "device": 7, "interface": "pn0", "packets": 12,
            "pod": pod(namespace, "client"),
        }))
        .unwrap()
    };
    lab.past.add(&[drops("shop"), drops("bank")], Timestamp::now());
    let (status, mut stream) = lab.ask("lister", "").await;
    assert_eq!(status, 200);
    let text = until_read(&mut stream, "0\r\n\r\n").await;
    assert_eq!(text.matches("\"type\":\"drops\"").count(), 1, "{text}");
    assert!(text.contains("shop-client") && !text.contains("bank") && !text.contains("pn0"), "{text}");
}
