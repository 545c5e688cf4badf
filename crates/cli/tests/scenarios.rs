//! What people apply, with real kubectl, and what must then hold. The manifests are in `tests/manifests` and `examples`.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "shared/asking.rs"]
mod asking;

use std::{collections::BTreeSet, time::Duration};

use podnet_testnet::{Cluster, eventually};

use asking::names_are_answered;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);

fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

/// Which pods answered `count` requests from a pod.
fn answering(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    url: &str,
    count: usize,
) -> Result<BTreeSet<String>, String> {
    let url = format!("{url}/hostname?[1-{count}]");
    let output = cluster.exec(namespace, pod, &["curl", "-sS", "--max-time", "3", "-H", "Connection: close", &url])?;
    Ok(output.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
}

#[test]
fn two_containers_of_one_pod_share_one_network() {
    let cluster = Cluster::up(PODNET, &[]);
    cluster.apply_file("crates/cli/tests/manifests/01-two-containers-one-pod.yaml");
    cluster.await_ready(&["-n", "test", "demoapp"], SOON);
    let inside = |container: &str, command: &[&str]| {
        cluster.kubectl(&[&["-n", "test", "exec", "demoapp", "-c", container, "--"], command].concat())
    };
    let addresses = inside("demoapp", &["ip", "-o", "address", "show"]);
    assert_eq!(addresses, inside("curl", &["ip", "-o", "address", "show"]));
    assert!(addresses.lines().any(|line| line.contains("eth0") && line.contains("/32")), "{addresses}");
    let link = inside("demoapp", &["ip", "-o", "link", "show", "eth0"]);
    assert_eq!(link, inside("curl", &["ip", "-o", "link", "show", "eth0"]));
    let routes = inside("curl", &["ip", "route"]);
    assert_eq!(routes, inside("demoapp", &["ip", "route"]));
    assert!(routes.contains("default via 169.254.1.1 dev eth0"), "{routes}");

    // The capture runs in one container, the request comes from the other.
    let mut capture = cluster
        .kubectl_command(&["-n", "test", "exec", "demoapp", "-c", "demoapp", "--"])
        .args(["timeout", "20", "tcpdump", "-c", "4", "-nn", "-i", "lo", "-p", "tcp"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the capture sees the connection", Duration::from_secs(25), || {
        let page = inside("curl", &["curl", "-sS", "--max-time", "3", "http://127.0.0.1"]);
        assert!(page.contains("ServerName: demoapp"), "{page}");
        match capture.try_wait().unwrap() {
            Some(_) => Ok(()),
            None => Err("not yet"),
        }
    });
    let captured = String::from_utf8(capture.wait_with_output().unwrap().stdout).unwrap();
    assert!(captured.contains("127.0.0.1.80: Flags [S]"), "{captured}");

    // eth0@ifN inside, N's name on the node, and the node's interface points back at eth0's index.
    let index_inside: u32 = link.split(':').next().unwrap().trim().parse().unwrap();
    let peer: u32 = link.split("@if").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
    let node = cluster.json(&["-n", "test", "pod", "demoapp"])["spec"]["nodeName"].as_str().unwrap().to_owned();
    let namespace = format!("podnet-{node}");
    let on_node =
        std::process::Command::new("ip").args(["netns", "exec", &namespace, "ip", "-o", "link"]).output().unwrap();
    let on_node = String::from_utf8(on_node.stdout).unwrap();
    let host_side =
        on_node.lines().find(|line| line.starts_with(&format!("{peer}: "))).unwrap_or_else(|| panic!("{on_node}"));
    assert!(host_side.contains(&format!("@if{index_inside}:")), "{host_side}");
}

#[test]
fn services_answer_by_address_node_port_and_name() {
    let cluster = Cluster::up(PODNET, &[]);
    cluster.apply_file("crates/cli/tests/manifests/04-services.yaml");
    cluster.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: web}\nspec: {containers: [{name: t, image: podnet.local/tools, command: [sleep, infinity]}]}");
    cluster.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: stranger}\nspec: {containers: [{name: t, image: podnet.local/tools, command: [sleep, infinity]}]}");
    cluster.await_ready(&["-n", "web", "--all"], SOON);
    cluster.await_ready(&["stranger"], SOON);
    let pods = cluster.json(&["-n", "web", "pods", "-l", "app=web"]);
    let pods = pods["items"].as_array().unwrap();
    let names: BTreeSet<String> = pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 3);
    let service = cluster.json(&["-n", "web", "service", "web"]);
    let address = service["spec"]["clusterIP"].as_str().unwrap();

    // Spread over the three pods: 30 requests miss one of them with a chance of 3·(2/3)³⁰, one in 60,000.
    let all = |namespace: &str, pod: &str, url: &str| {
        eventually(&format!("{url} from {pod}"), SOON, || match answering(&cluster, namespace, pod, url, 30)? {
            answered if answered == names => Ok(()),
            answered => Err(format!("only {answered:?} of {names:?}")),
        });
    };
    all("web", "client", &format!("http://{address}"));
    for name in ["web", "web.web", "web.web.svc", "web.web.svc.cluster.local"] {
        all("web", "client", &format!("http://{name}"));
    }
    all("default", "stranger", "http://web.web");

    // A port that the Service does not have: the kernel says so at once, to pods of any namespace, instead of leaving them to wait.
    for (namespace, pod) in [("web", "client"), ("default", "stranger")] {
        let url = format!("http://{address}:81");
        let asked = cluster.exec(namespace, pod, &["curl", "-sSv", "--max-time", "1", &url]);
        assert!(asked.as_ref().is_err_and(|output| output.contains("Connection refused")), "{pod}: {asked:?}");
    }

    let nodes = cluster.json(&["nodes"]);
    for node in nodes["items"].as_array().unwrap() {
        let node_address = node["status"]["addresses"][0]["address"].as_str().unwrap();
        all("web", "client", &format!("http://{node_address}:30080"));
        let from_here = std::process::Command::new("curl")
            .args(["-sS", "--max-time", "3", &format!("http://{node_address}:30080/hostname")])
            .output()
            .unwrap();
        assert!(names.contains(String::from_utf8_lossy(&from_here.stdout).trim()), "{from_here:?}");
        // The node itself reaches the ClusterIP too.
        let name = node["metadata"]["name"].as_str().unwrap();
        let from_node = std::process::Command::new("ip")
            .args([
                "netns",
                "exec",
                &format!("podnet-{name}"),
                "curl",
                "-sS",
                "--max-time",
                "3",
                &format!("http://{address}/hostname"),
            ])
            .output()
            .unwrap();
        assert!(names.contains(String::from_utf8_lossy(&from_node.stdout).trim()), "{name}: {from_node:?}");
    }
    let addresses = pods.iter().map(|pod| pod["status"]["podIP"].as_str().unwrap().to_owned()).collect();
    let in_pod = |command: &str| cluster.exec("web", "client", &["sh", "-c", command]);
    names_are_answered(in_pod, address, &addresses).unwrap();
}

#[test]
fn a_service_without_endpoints_is_refused_at_once() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    cluster.apply_file("examples/web.yaml");
    cluster.await_ready(&["-n", "demo", "--all"], SOON);
    cluster.kubectl(&["-n", "demo", "scale", "deployment", "web", "--replicas=0"]);
    eventually("the Service refuses", SOON, || {
        let asked = cluster.exec("demo", "client", &["curl", "-sS", "--max-time", "2", "http://web"]);
        match asked {
            Err(output) if output.contains("refused") || output.contains("Couldn't connect") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn pods_on_two_subnets_reach_each_other_plainly_and_through_vxlan() {
    let cluster = Cluster::up(PODNET, &["--subnets", "2", "--nodes", "4"]);
    cluster.kubectl(&[
        "patch",
        "ippool",
        "default-ipv4-ippool",
        "--type=merge",
        "-p",
        r#"{"spec":{"vxlanMode":"CrossSubnet"}}"#,
    ]);
    for node in ["node1", "node2", "node3"] {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: on-{node}}}\nspec: {{nodeName: {node}, containers: [{{name: d, image: podnet.local/demoapp}}]}}"
        ));
    }
    cluster.await_ready(&["--all"], SOON);
    let address = |pod: &str| cluster.json(&["pod", pod])["status"]["podIP"].as_str().unwrap().to_owned();
    let from = |pod: &str, to: &str| {
        eventually(&format!("{pod} reaches {to}"), SOON, || {
            cluster.exec(
                "default",
                pod,
                &["curl", "-sS", "--max-time", "2", &format!("http://{}/hostname", address(to))],
            )
        })
    };
    // node1 and node3 share a subnet, node2 lies on the other one.
    assert_eq!(from("on-node1", "on-node3").trim(), "on-node3");
    assert_eq!(from("on-node1", "on-node2").trim(), "on-node2");
    let routes = std::process::Command::new("ip")
        .args(["netns", "exec", "podnet-node1", "ip", "route", "show", "proto", "88"])
        .output()
        .unwrap();
    let routes = String::from_utf8(routes.stdout).unwrap();
    assert!(routes.lines().any(|line| line.contains("via 172.29.240.12") && line.contains("dev eth0")), "{routes}");
    assert!(
        routes.lines().any(|line| line.contains("via 172.29.241.11") && line.contains("dev podnet.vxlan")),
        "{routes}"
    );
}

#[test]
fn kubectl_exec_and_logs_work_with_stdin_terminal_and_exit_codes() {
    let cluster = Cluster::up(PODNET, &["--nodes", "1"]);
    cluster.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: t}\nspec: {containers: [{name: t, image: podnet.local/tools, command: [sh, -c, 'echo out; echo err >&2; exec sleep infinity']}]}");
    cluster.await_ready(&["t"], SOON);
    let mut failing = cluster.kubectl_command(&["exec", "t", "--", "sh", "-c", "echo gone; exit 7"]);
    let failing = failing.output().unwrap();
    let said = String::from_utf8_lossy(&failing.stderr);
    assert_eq!((failing.status.code(), &*failing.stdout), (Some(7), &b"gone\n"[..]), "{said}");
    let mut sum = cluster.kubectl_command(&["exec", "-i", "t", "--", "sha256sum"]);
    let mut sum = sum.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut sum.stdin.take().unwrap(), &vec![b'x'; 3_000_000]).unwrap();
    let sum = sum.wait_with_output().unwrap();
    assert!(sum.status.success(), "{sum:?}");
    let sum = String::from_utf8(sum.stdout).unwrap();
    // `head -c 3000000 /dev/zero | tr '\0' x | sha256sum`
    assert_eq!(sum.trim(), "e55b8bdf621ddaa8f462c74745db9680d3bb7536a9cf854f8d6668b34a287890  -");
    let logs = cluster.kubectl(&["logs", "t"]);
    assert_eq!(lines(&logs).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["out", "err"]));
    let terminal = std::process::Command::new("script")
        .env("KUBECONFIG", "/var/lib/podnet/kubeconfig")
        .args(["-qec", "kubectl exec -it t -- tty", "/dev/null"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&terminal.stdout).contains("/dev/pts/"), "{terminal:?}");
}
