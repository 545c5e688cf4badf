//! A probe passes where the trace says that it does, or the place where it dies is named.

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

use super::{SOON, faults, told};

pub(super) const ADMIN: &str = "/var/lib/podnet/kubeconfig";
pub(super) const NODE: &str = "/var/lib/podnet/nodes/node1/kubeconfig";

/// What is told of a probe: of its way, and of itself; and whether it is well.
fn probe(cluster: &Cluster, from: &str, to: &str, more: &[&str]) -> (bool, Value, Value) {
    let output = cluster.podnet(&[&["trace", from, to, "--live", "-o", "json"], more].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{from} {to}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let live = told["live"].clone();
    let way = usize::try_from(live["path"].as_u64().unwrap()).unwrap();
    (output.status.success(), told["paths"][way].clone(), live)
}

/// The hops at which it was watched and seen, each with place, device and where it went.
fn seen(path: &Value, live: &Value) -> Vec<(String, String, String)> {
    let hops = path["hops"].as_array().unwrap().iter().zip(live["hops"].as_array().unwrap());
    let seen = hops.filter(|(_, live)| live["seen"] == true);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    seen.map(|(hop, live)| {
        let after = live["afterNanoseconds"].as_i64().unwrap();
        assert!((0..3_000_000_000).contains(&after), "{live:#}");
        (text(&hop["place"]), text(&live["device"]), text(&live["destination"]))
    })
    .collect()
}

fn link(cluster: &Cluster, node: &str, pod: &str) -> (String, String) {
    let addr = cluster.json(&["pod", pod])["status"]["podIP"].as_str().unwrap().to_owned();
    let device = faults::device(node, &addr);
    (addr, device)
}

pub(super) fn a_probe_passes_where_the_trace_says_and_where_it_dies_is_named(cluster: &Cluster) {
    on_one_node(cluster);
    to_a_service_of_the_other_node(cluster);
    of_datagrams_and_to_a_node(cluster);
    of_echoes(cluster);
    from_this_machine_to_what_is_served_outside(cluster);
    where_it_dies(cluster);
    whoever_may_not_asks_in_vain(cluster);
}

fn on_one_node(cluster: &Cluster) {
    let (is_well, path, live) = probe(cluster, "default/client", "pod/near:80", &[]);
    assert!(is_well && live["arrived"] == true && live["diedAt"].is_null(), "{live:#}");
    let ((_, own), (near, to)) = (link(cluster, "node1", "client"), link(cluster, "node1", "near"));
    let at = |place: &str, device: &str| (place.to_owned(), device.to_owned(), format!("{near}:80"));
    let expected = [
        at("pod default/client", "eth0"),
        at("node node1", own.as_str()),
        at("node node1", &to),
        at("pod default/near", "eth0"),
    ];
    assert_eq!(seen(&path, &live), expected, "{live:#}");
    let answer = &live["answer"];
    assert_eq!((&answer["kind"], &answer["by"]), (&"accepted".into(), &near.into()), "{live:#}");
    assert!(answer["backAfterNanoseconds"].as_i64().unwrap() > 0, "{live:#}");
    // Port 81 is nobody's: it comes all the same, and is refused.
    let (is_well, _, live) = probe(cluster, "default/client", "pod/near:81", &[]);
    assert!(is_well && live["answer"]["kind"] == "refused", "{live:#}");
    let (is_well, text) = told(cluster, &["trace", "default/client", "pod/near", "--live"]);
    for words in [" µs ", "probe: sent from ", "answer: accepted (SYN and ACK) by ", "; back after "] {
        assert!(is_well && text.contains(words), "{words:?} in {text}");
    }
}

/// Also as somebody elsewhere asks, who knows of the nodes what the API tells.
fn to_a_service_of_the_other_node(cluster: &Cluster) {
    for more in [&[][..], &["--kubeconfig", ADMIN]] {
        let (is_well, path, live) = probe(cluster, "default/client", "svc/local-outside", more);
        assert!(is_well && live["arrived"] == true, "{live:#}");
        let ((far, to), tunnel) = (link(cluster, "node2", "far"), "podnet.vxlan");
        let all = seen(&path, &live);
        let places: Vec<_> = all.iter().map(|(place, device, _)| (place.as_str(), device.as_str())).collect();
        let (_, own) = link(cluster, "node1", "client");
        let expected = [
            ("pod default/client", "eth0"),
            ("node node1", own.as_str()),
            ("node node1", tunnel),
            ("node node1", "eth0"),
            ("node node2", "eth0"),
            ("node node2", tunnel),
            ("node node2", to.as_str()),
            ("pod default/far", "eth0"),
        ];
        assert_eq!(places, expected, "{live:#}");
        assert!(all[2..].iter().all(|(.., destination)| *destination == format!("{far}:80")), "{live:#}");
        let within: Vec<&str> =
            live["hops"].as_array().unwrap().iter().filter_map(|hop| hop["within"].as_str()).collect();
        assert_eq!(within, ["VXLAN", "VXLAN"], "{live:#}");
    }
}

fn of_datagrams_and_to_a_node(cluster: &Cluster) {
    let (is_well, path, live) = probe(cluster, "default/client", "pod/far:5353/udp", &[]);
    assert!(is_well && live["answer"]["kind"] == "error", "{live:#}");
    assert_eq!(seen(&path, &live).len(), 8, "{live:#}");
    // Nobody listens: whether the kernel says so in words of SCTP depends on whether it knows them.
    let (is_well, path, live) = probe(cluster, "default/client", "pod/far:80/sctp", &[]);
    assert!(is_well && ["refused", "error"].map(Value::from).contains(&live["answer"]["kind"]), "{live:#}");
    assert_eq!(seen(&path, &live).len(), 8, "{live:#}");
    let (is_well, _, live) = probe(cluster, "pod/client", "node/node2:9099", &[]);
    assert!(is_well && live["arrived"] == true, "{live:#}");
    let (is_well, _, live) = probe(cluster, "node/node1", "pod/far:80", &[]);
    assert!(is_well && live["answer"]["kind"] == "accepted", "{live:#}");
    assert!(live["answer"]["backAfterNanoseconds"].is_i64(), "{live:#}");
}

/// To a pod, a node, the node that answers for a ClusterIP, and this machine, which is outside.
fn of_echoes(cluster: &Cluster) {
    for (from, to) in [
        ("pod/client", "pod/far"),
        ("node/node1", "pod/far"),
        ("pod/client", "node/node2"),
        ("pod/client", "svc/web"),
        ("pod/client", "172.29.240.254"),
    ] {
        let (is_well, path, live) = probe(cluster, from, &format!("{to}/icmp"), &[]);
        assert!(is_well && live["answer"]["kind"] == "accepted", "{from} {to}: {live:#}");
        assert!(
            live["answer"]["backAfterNanoseconds"].as_i64().is_some_and(|after| after > 0),
            "{from} {to}: {live:#}"
        );
        assert!(seen(&path, &live).iter().all(|(.., destination)| !destination.contains(':')), "{live:#}");
    }
}

fn from_this_machine_to_what_is_served_outside(cluster: &Cluster) {
    let (is_well, path, live) = probe(cluster, "world", "svc/web-ports", &[]);
    assert!(is_well && live["answer"]["kind"] == "accepted", "{live:#}");
    assert!(live["source"].as_str().unwrap().starts_with("172.29.240.254:"), "{live:#}");
    let all = seen(&path, &live);
    let (place, device, destination) = &all[0];
    assert_eq!((place.as_str(), device.as_str()), ("node node1", "eth0"), "{live:#}");
    assert!(destination.ends_with(":30088"), "{live:#}");
    let (is_well, _, live) = probe(cluster, "world", "node/node2/icmp", &[]);
    assert!(is_well && live["answer"]["kind"] == "accepted", "{live:#}");
    // Which node answers for a load balancer's address is seen where it comes in.
    eventually("a probe comes in by a load balancer's address", SOON, || {
        let (is_well, path, live) = probe(cluster, "world", "svc/balanced", &[]);
        let is_asked = seen(&path, &live).first().is_some_and(|(.., destination)| destination.ends_with(":80"));
        if is_well && is_asked { Ok(()) } else { Err(live.to_string()) }
    });
}

fn where_it_dies(cluster: &Cluster) {
    let (_, to) = link(cluster, "node2", "far");
    let table = [
        // Somebody else's rules on the other node, which no plan knows.
        (
            "node2",
            "add chain inet wall across { type filter hook forward priority 0; }; add rule inet wall across tcp dport 80 drop",
            format!("it passed podnet.vxlan of node node2 (hop 6), and was not seen at {to} of node node2 (hop 7)"),
        ),
        // The tunnel's own packets do not leave.
        (
            "node1",
            "add chain inet wall out { type filter hook output priority 0; }; add rule inet wall out udp dport 4789 drop",
            "it passed podnet.vxlan of node node1 (hop 3), and was not seen at eth0 of node node1 (hop 4)".to_owned(),
        ),
    ];
    for (node, rules, words) in table {
        faults::on(node, &["nft", &format!("add table inet wall; {rules}")]);
        let named = std::panic::catch_unwind(|| {
            let (is_well, text) = told(cluster, &["trace", "default/client", "pod/far:80", "--live"]);
            assert!(!is_well && text.contains(&format!("podnet: the probe died: {words}")), "{words:?} in {text}");
            assert!(text.contains("not seen ") && text.contains(" µs "), "{text}");
        });
        faults::on(node, &["nft", "delete", "table", "inet", "wall"]);
        named.unwrap_or_else(|_| panic!("{node}: {rules}"));
    }
    // What the plan itself leads nowhere is sent, too.
    let (is_well, text) = told(cluster, &["trace", "default/client", "svc/nobody", "--live"]);
    assert!(!is_well && text.contains("no ready endpoint"), "{text}");
}

fn whoever_may_not_asks_in_vain(cluster: &Cluster) {
    for (arguments, words) in [
        (&["default/client", "pod/near", "--kubeconfig", NODE][..], "you may not create pods/capture of default/"),
        (&["203.0.113.9", "node/node1:9099"], "from 172.29.240.254, and not from 203.0.113.9"),
        (&["default/client", "pod/near", "-o", "dot"], "a graph has no room"),
    ] {
        let (is_well, text) = told(cluster, &[&["trace", "--live"], arguments].concat());
        assert!(!is_well && text.contains(words), "{words:?} in {text}");
    }
}
