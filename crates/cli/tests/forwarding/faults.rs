//! Faults, and the sentence that names each.

use std::{process::Command, thread};

use podnet_testnet::{Cluster, eventually};

use super::{SOON, inside, told};

/// Services and pods, many of them with a mistake.
pub(super) const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-ports}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80, nodePort: 30088}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless-nobody}
spec: {clusterIP: None, selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {internalTrafficPolicy: Local, selector: {app: far}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: local-outside}
spec: {type: NodePort, externalTrafficPolicy: Local, selector: {app: far}, ports: [{port: 80, nodePort: 30089}]}
---
apiVersion: v1
kind: Service
metadata: {name: guarded}
spec: {type: LoadBalancer, loadBalancerSourceRanges: [192.0.2.0/24], selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: wrong-target}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 9999}]}
---
apiVersion: v1
kind: Pod
metadata: {name: poolless, annotations: {cni.projectcalico.org/ipv4pools: '["no-such-pool"]'}}
spec: {nodeName: node1, containers: [{name: t, image: podnet.local/tools, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: homeless}
spec: {nodeSelector: {disk: none}, containers: [{name: t, image: podnet.local/tools, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ended}
spec: {nodeName: node1, restartPolicy: Never, containers: [{name: t, image: podnet.local/tools, command: ["true"]}]}
"#;

/// What a command prints on a node.
pub(super) fn on(node: &str, command: &[&str]) -> String {
    let output = Command::new("ip").args(["netns", "exec", &format!("podnet-{node}")]).args(command).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{node} {command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The device that a node's kernel sends packets to an address by.
pub(super) fn device(node: &str, addr: &str) -> String {
    let told = on(node, &["ip", "route", "get", addr]);
    told.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap().to_owned()
}

/// The sentence for two ends, which has to hold these words.
pub(super) fn assert_named(cluster: &Cluster, from: &str, to: &str, words: &str) {
    let (is_well, text) = told(cluster, &["why", from, to]);
    assert!(!is_well && text.contains(words), "{from} → {to} should say {words:?} and says: {text}");
    assert!(text.contains("→ "), "{from} → {to} has no remedy: {text}");
}

pub(super) fn assert_well(cluster: &Cluster, from: &str, to: &str) {
    let (is_well, text) = told(cluster, &["why", from, to]);
    assert!(is_well && text.contains("nothing is broken"), "{from} → {to}: {text}");
}

pub(super) fn each_fault_is_named(cluster: &Cluster) {
    eventually("pods are where their mistakes lead them", SOON, || {
        let (_, poolless) = told(cluster, &["why", "pod/poolless", "svc/web"]);
        let ended = cluster.json(&["pod", "ended"])["status"]["phase"].to_string();
        if poolless.contains("no-such-pool") && ended.contains("Succeeded") { Ok(()) } else { Err(poolless + &ended) }
    });
    assert_well(cluster, "pod/client", "svc/web");
    assert_well(cluster, "pod/client", "pod/far");
    of_objects(cluster);
    of_kernels(cluster);
    inside::each_fault_in_a_pod_is_named(cluster);
    of_others(cluster);
    of_names(cluster);
}

fn of_objects(cluster: &Cluster) {
    let far = address(cluster, "far");
    let (range, last) = far.rsplit_once('.').unwrap();
    // A block has 64 addresses, and gives the lowest first.
    let first = last.parse::<u8>().unwrap() & !63;
    let unused = (0..64).rev().map(|ordinal| format!("{range}.{}", first + ordinal)).find(|addr| {
        let (_, text) = told(cluster, &["trace", "pod/client", addr]);
        text.contains("no pod has")
    });
    let unused = unused.expect("node2's block has an address that no pod has");
    let table = [
        ("pod/client", "svc/nobody", "service default/nobody has no ready endpoint"),
        ("pod/client", "svc/headless-nobody", "service default/headless-nobody has no ready endpoint"),
        ("pod/client", "svc/web:81", "is a ClusterIP without port 81/TCP"),
        ("pod/client", "svc/local", "a traffic policy Local of service default/local leaves no endpoint on node node1"),
        ("pod/client", "svc/wrong-target", "listens on port 9999/TCP"),
        ("pod/client", "pod/far:4444", "nothing in pod default/far listens on port 4444/TCP"),
        ("pod/client", &unused, "no pod has"),
        ("pod/client", "svc/absent", "is nothing that is there"),
        ("pod/client", "absent.default.svc.cluster.local.", "no name that is asked for exists"),
        ("pod/poolless", "svc/web", "no-such-pool"),
        ("pod/client", "pod/homeless", "pod default/homeless is on no node"),
        ("pod/ended", "svc/web", "pod default/ended does not run, it is Succeeded"),
        ("world", "svc/web", "service default/web cannot be reached from outside"),
        ("world", "svc/guarded", "is in none of the loadBalancerSourceRanges of service default/guarded"),
        (
            "world",
            "svc/local-outside",
            "a traffic policy Local of service default/local-outside leaves no endpoint on node node1",
        ),
    ];
    // Nothing is changed for any of them: some are asked for at once.
    for some in table.chunks(4) {
        thread::scope(|scope| {
            for &(from, to, words) in some {
                scope.spawn(move || assert_named(cluster, from, to, words));
            }
        });
    }
}

pub(super) fn address(cluster: &Cluster, pod: &str) -> String {
    cluster.json(&["pod", pod])["status"]["podIP"].as_str().unwrap().to_owned()
}

/// The agents mend such faults at once: they stand still meanwhile, and mend it then.
fn of_kernels(cluster: &Cluster) {
    let far = address(cluster, "far");
    let client = address(cluster, "client");
    let route = on("node1", &["ip", "route", "get", &far]);
    assert!(route.contains("podnet.vxlan"), "{route}");
    let to = |node: &str| {
        let routes = on(node, &["ip", "-o", "route", "show", "dev", "podnet.vxlan"]);
        routes.split_whitespace().next().expect("a route through VXLAN").to_owned()
    };
    let via = on("node1", &["ip", "-o", "neigh", "show", "dev", "podnet.vxlan"]);
    let peer = via.split_whitespace().next().unwrap().to_owned();
    let mac = via.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).unwrap().to_owned();
    let (there, back) = (to("node1"), to("node2"));
    let (link, own) = (device("node2", &far), device("node1", &client));
    let table: Vec<(&str, Vec<&str>, String)> = vec![
        (
            "node1",
            vec!["ip", "route", "del", &there],
            format!("on node node1: the route to {there} should go to podnet.vxlan"),
        ),
        (
            "node2",
            vec!["ip", "route", "del", &back],
            format!("on node node2: the route to {back} should go to podnet.vxlan"),
        ),
        (
            "node2",
            vec!["ip", "route", "del", &far],
            format!("on node node2: the route to {far}/32 should go to {link}"),
        ),
        // The address would be another pod's, or nobody's.
        (
            "node2",
            vec!["ip", "neigh", "replace", &far, "lladdr", "02:00:00:00:00:01", "dev", &link, "nud", "permanent"],
            format!("on node node2: the neighbour {far} on {link} should be "),
        ),
        (
            "node1",
            vec!["bridge", "fdb", "replace", &mac, "dev", "podnet.vxlan", "dst", "172.29.240.99", "self", "permanent"],
            format!("on node node1: the FDB entry of {mac} on podnet.vxlan should lead to {peer}"),
        ),
        (
            "node1",
            vec![
                "ip",
                "neigh",
                "replace",
                &peer,
                "lladdr",
                "02:00:00:00:00:01",
                "dev",
                "podnet.vxlan",
                "nud",
                "permanent",
            ],
            format!("on node node1: the neighbour {peer} on podnet.vxlan should be {mac}: it is 02:00:00:00:00:01"),
        ),
        (
            "node1",
            vec!["ip", "link", "set", "podnet.vxlan", "mtu", "900"],
            "device podnet.vxlan has MTU 900 and not 1450".into(),
        ),
        (
            "node2",
            vec!["ip", "link", "set", "podnet.vxlan", "down"],
            "on node node2: there is no VXLAN device podnet.vxlan".into(),
        ),
        ("node1", vec!["ip", "link", "set", &own, "down"], format!("on node node1: device {own} is down")),
        (
            "node2",
            vec!["sysctl", "-qw", "net.ipv4.ip_forward=0"],
            "on node node2: net.ipv4.ip_forward is 0 and not 1".into(),
        ),
        ("node1", vec!["nft", "delete", "table", "ip", "podnet"], "on node node1: there is no table podnet".into()),
        (
            "node1",
            vec!["nft", "flush", "map", "ip", "podnet-services", "frontends"],
            "frontends of table podnet-services has".into(),
        ),
        // Nothing that its pods send passes any more.
        (
            "node1",
            vec!["nft", "flush", "set", "ip", "podnet-pods", "senders"],
            format!("on node node1: senders of table podnet-pods lacks {own} . "),
        ),
        (
            "node1",
            vec!["nft", "insert", "rule", "ip", "podnet-services", "services", "ip", "daddr", "192.0.2.99", "drop"],
            "on node node1: chain services of table podnet-services has a rule that is none of podnet's: handle".into(),
        ),
        (
            "node2",
            vec![
                "nft",
                "add table inet wall; add chain inet wall across { type filter hook forward priority 0; policy drop; }",
            ],
            "on node node2: the host's firewall drops what is forwarded: chain inet wall across".into(),
        ),
    ];
    let agents = ["node1-agent", "node2-agent"].map(|agent| cluster.pid(agent).to_string());
    for (node, fault, words) in table {
        signal("-STOP", &agents);
        let named = std::panic::catch_unwind(|| {
            on(node, &fault);
            assert_named(cluster, "pod/client", "pod/far", &words);
        });
        signal("-CONT", &agents);
        named.unwrap_or_else(|_| panic!("{node}: {fault:?}"));
        if fault[1].contains("wall") {
            on("node2", &["nft", "delete", "table", "inet", "wall"]);
        }
        eventually("the agents mend it", SOON, || {
            let (is_well, text) = told(cluster, &["why", "pod/client", "pod/far"]);
            if is_well { Ok(()) } else { Err(text) }
        });
    }
}

pub(super) fn signal(which: &str, pids: &[String]) {
    assert!(Command::new("kill").arg(which).args(pids).status().unwrap().success());
}

/// What podnet has not made and cannot know is seen by a connection that does not come about.
fn of_others(cluster: &Cluster) {
    on(
        "node2",
        &[
            "nft",
            "add table inet wall; add chain inet wall across { type filter hook forward priority 0; }; add rule inet wall across tcp dport 80 drop",
        ],
    );
    let to = device("node2", &address(cluster, "far"));
    // Each waits for what does not come: both at once.
    thread::scope(|scope| {
        let of_pod = scope.spawn(|| told(cluster, &["why", "pod/client", "pod/far"]));
        // A node on this machine opens no connection here: its agent sends a probe.
        assert_named(cluster, "node/node1", "pod/far", &format!("was not seen at {to} of node node2"));
        let (is_well, text) = of_pod.join().unwrap();
        let planned = "all is as podnet planned it, and a connection from pod default/client to";
        let link =
            format!("it passed podnet.vxlan of node node2 (hop 6), and was not seen at {to} of node node2 (hop 7)");
        assert!(!is_well && text.contains("→ "), "{text}");
        assert!(text.contains(planned) && text.contains(&link), "{planned:?} and {link:?} in {text}");
    });
    on("node2", &["nft", "delete", "table", "inet", "wall"]);
    // A network between the nodes that loses what is large, and tells nobody: connections come about.
    on(
        "node1",
        &[
            "nft",
            "add table inet wall; add chain inet wall out { type filter hook output priority 0; }; add rule inet wall out udp dport 4789 meta length > 1400 drop",
        ],
    );
    let words = "packets of 1450 bytes do not come through, and small ones do: the probe died: it passed podnet.vxlan of node node1";
    assert_named(cluster, "pod/client", "pod/far", words);
    on("node1", &["nft", "delete", "table", "inet", "wall"]);
    assert_well(cluster, "pod/client", "pod/far");
    let (is_well, text) = told(cluster, &["why", "world", "svc/web-ports"]);
    assert!(is_well && text.contains("no probe was sent: a probe is sent by a pod or a node"), "{text}");
}

fn of_names(cluster: &Cluster) {
    assert_well(cluster, "pod/client", "web");
    // It runs, and nothing of what it is asked comes to it.
    on(
        "node1",
        &[
            "nft",
            "add table inet wall; add chain inet wall across { type filter hook forward priority 0; }; add rule inet wall across udp dport 53 drop",
        ],
    );
    let dns = "svc/kube-system/kube-dns:53/udp";
    thread::scope(|scope| {
        scope.spawn(|| assert_named(cluster, "pod/client", "web", "names are not answered: cluster DNS at"));
        // Asked for as a datagram, no name is asked for, and a probe tells where it is lost.
        assert_named(cluster, "pod/client", dns, "the probe died: it passed ");
    });
    on("node1", &["nft", "delete", "table", "inet", "wall"]);
    assert_well(cluster, "pod/client", "web");
    assert_well(cluster, "pod/client", dns);
    let _ = cluster.try_kubectl(&["-n", "kube-system", "scale", "deployment", "coredns", "--replicas=0"]).unwrap();
    eventually("names are not answered", SOON, || {
        let (_, text) = told(cluster, &["why", "pod/client", "web"]);
        let words = "names are not answered: service kube-system/kube-dns has no ready endpoint";
        if text.contains(words) { Ok(()) } else { Err(text) }
    });
}
