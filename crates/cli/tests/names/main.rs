//! Names as pods see them, with each node's own resolver (`podnet up --node-local-dns`): by the resolvers of glibc, musl and busybox, by
//! dig and nslookup; while the Corefile changes, and while the resolver is replaced or dies. And the names of what is imported of a cluster
//! set.
#![allow(clippy::unwrap_used, missing_docs)]

mod imports;
mod load;

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use load::Load;
use podnet_testnet::{Cluster, eventually};

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);
/// Where every node's resolver answers; not the default, so that this is seen to be a choice.
const RESOLVER: &str = "169.254.25.10";
const CLUSTER_DNS: &str = "10.233.0.10";

fn pod(name: &str, namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{nodeName: node1, terminationGracePeriodSeconds: 0, \
         containers: [{{name: t, image: podnet.local/tools, command: [sleep, infinity]}}]}}"
    )
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Compiles the program that asks a C library, and puts it into the pods.
fn put_lookup(cluster: &Cluster, compiler: &str, name: &str) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/names/lookup.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // musl's is not in the pods' images. glibc's is, and cannot be linked into a program without losing parts of its resolver.
    let linked: &[&str] = if compiler.starts_with("musl") { &["-static"] } else { &[] };
    let made = Command::new(compiler).args(linked).arg("-o").arg(&program).arg(source).output();
    let made = made.unwrap_or_else(|error| panic!("{compiler}: {error}; scripts/setup test installs it"));
    assert!(made.status.success(), "{compiler}: {}", String::from_utf8_lossy(&made.stderr));
    let program = std::fs::read(&program).unwrap();
    for (namespace, pod) in [("web", "client"), ("default", "stranger")] {
        let into = format!("cat > /tmp/{name} && chmod +x /tmp/{name}");
        let mut copy = cluster.kubectl_command(&["-n", namespace, "exec", "-i", pod, "--", "sh", "-c", &into]);
        let mut copy = copy.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        copy.stdin.take().unwrap().write_all(&program).unwrap();
        assert!(copy.wait().unwrap().success());
    }
}

/// A number of the metrics of node1's agent: the sum of what begins so.
fn count(cluster: &Cluster, metric: &str) -> u64 {
    let ask = ["netns", "exec", "podnet-node1", "curl", "-sS", "http://127.0.0.1:9099/metrics"];
    let output = Command::new("ip").args(ask).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let of = text.lines().filter(|line| line.starts_with(metric));
    assert!(text.contains(metric), "{metric}\n{text}\n{}", cluster.logs());
    of.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn pods_find_names_by_their_own_node_s_resolver_whatever_happens_to_it() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2", &format!("--node-local-dns={RESOLVER}")]);
    cluster.apply_file("crates/cli/tests/manifests/04-services.yaml");
    cluster.apply(&pod("client", "web"));
    cluster.apply(&pod("stranger", "default"));
    cluster.await_ready(&["-n", "web", "--all"], SOON);
    cluster.await_ready(&["stranger"], SOON);
    put_lookup(&cluster, "cc", "of-glibc");
    put_lookup(&cluster, "musl-gcc", "of-musl");
    let conf = cluster.exec("web", "client", &["cat", "/etc/resolv.conf"]).unwrap();
    assert!(conf.contains(&format!("nameserver {RESOLVER}\n")) && conf.contains("ndots:5"), "{conf}");
    eventually("node1's resolver answers", SOON, || {
        let log = std::fs::read_to_string("/run/podnet/log/node1-agent.log").unwrap_or_default();
        if log.contains("the node's resolver answers") { Ok(()) } else { Err(log) }
    });

    a_changed_corefile_is_in_force_without_a_question_lost(&cluster);
    every_resolver_finds_the_same(&cluster);
    a_name_costs_one_question_for_each_type(&cluster);
    the_resolver_is_replaced_without_a_question_lost(&cluster);
}

/// Scenario 05, under load at the node's resolver and at cluster DNS itself.
fn a_changed_corefile_is_in_force_without_a_question_lost(cluster: &Cluster) {
    let through = Load::begin(cluster, RESOLVER);
    let straight = Load::begin(cluster, CLUSTER_DNS);
    let connected = [RESOLVER, CLUSTER_DNS].map(|server| Load::over(cluster, server, "tcp"));
    cluster.apply_file("crates/cli/tests/manifests/05-corefile.yaml");
    for server in [CLUSTER_DNS, RESOLVER] {
        let asked = format!("@{server}");
        // Before, the name is asked for outside, where nobody may answer.
        let command = ["dig", &asked, "+short", "+time=2", "+tries=1", "harbor.example.com"];
        let harbor = || cluster.exec("web", "client", &command).map(|told| told.trim().to_owned());
        // Replicas read it one after the other, and either may be asked.
        eventually(&format!("{server} has the new Corefile"), Duration::from_secs(60), || {
            (0..8).try_for_each(|_| match harbor()?.as_str() {
                "10.0.0.20" => Ok(()),
                other => Err(other.to_owned()),
            })
        });
    }
    let blocked = cluster.exec("web", "client", &["dig", "+time=5", "www.blocked.example."]).unwrap();
    assert!(blocked.contains("status: SERVFAIL"), "{blocked}");
    straight.ends_without_loss();
    through.ends_without_loss();
    connected.into_iter().for_each(Load::ends_without_loss);
}

fn every_resolver_finds_the_same(cluster: &Cluster) {
    let pods = cluster.json(&["-n", "web", "pods", "-l", "app=web"]);
    let pods: BTreeSet<String> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["status"]["podIP"].as_str().unwrap().to_owned())
        .collect();
    let web = cluster.json(&["-n", "web", "service", "web"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let one = |addr: &str| BTreeSet::from([addr.to_owned()]);
    let table = [
        ("web", one(&web)),
        ("web.web", one(&web)),
        ("web.web.svc", one(&web)),
        ("web.web.svc.cluster.local", one(&web)),
        ("web.web.svc.cluster.local.", one(&web)),
        ("kubernetes.default", one("10.233.0.1")),
        ("web-headless", pods),
        // An alias to a name outside the cluster.
        ("web-external", one("10.0.0.20")),
        ("harbor.example.com", one("10.0.0.20")),
        ("HARBOR.example.com", one("10.0.0.20")),
        ("10-244-3-64.web.pod", one("10.244.3.64")),
        // Of its own namespace alone.
        ("kubernetes.web.svc.cluster.local.", one("nothing")),
        ("kubernetes.svc.cluster.local", one("nothing")),
    ];
    for (name, expected) in &table {
        for library in ["/tmp/of-glibc", "/tmp/of-musl"] {
            let found = cluster.exec("web", "client", &[library, name]).unwrap();
            assert_eq!(words(&found), *expected, "{library} {name}\n{}", cluster.logs());
        }
    }
    let inside = |pod: (&str, &str), command: &[&str]| cluster.exec(pod.0, pod.1, command);
    let (client, stranger) = (("web", "client"), ("default", "stranger"));
    for tool in [&["nslookup", "web"][..], &["busybox", "nslookup", "web.web.svc.cluster.local"]] {
        let told = inside(client, tool).unwrap();
        assert!(words(&told).contains(&web) && told.contains(RESOLVER), "{tool:?}: {told}");
    }
    // The short name of another namespace's Service: what it becomes by the search path does not exist. (`web.svc.cluster.local` is
    // the namespace, and has no address.)
    for place in ["default.svc.cluster.local", "cluster.local"] {
        let told = inside(stranger, &["dig", "+time=2", &format!("web.{place}")]).unwrap();
        assert!(told.contains("status: NXDOMAIN") && told.contains("SOA"), "{told}");
    }
    // So no resolver finds it, by whatever path; with the namespace in it each does.
    for library in ["/tmp/of-glibc", "/tmp/of-musl"] {
        assert_eq!(words(&inside(stranger, &[library, "web"]).unwrap()), one("nothing"), "{library}");
        assert_eq!(words(&inside(stranger, &[library, "web.web"]).unwrap()), one(&web), "{library}");
    }
    for tool in [&["nslookup", "web"][..], &["busybox", "nslookup", "web"]] {
        // It ends with an error then.
        let told = inside(stranger, tool).unwrap_or_else(|failed| failed);
        assert!(!words(&told).contains(&web), "{tool:?}: {told}");
        assert!(told.contains(RESOLVER) || told.contains("find"), "{tool:?} did not ask: {told}");
    }
    let reverse = inside(client, &["dig", "+short", "-x", &web]).unwrap();
    assert_eq!(reverse.trim(), "web.web.svc.cluster.local.");
    let alias = inside(client, &["dig", "+short", "web-external.web.svc.cluster.local", "CNAME"]).unwrap();
    assert_eq!(alias.trim(), "harbor.example.com.");
    // The node's connection tracking has seen none of it.
    let tracked =
        Command::new("ip").args(["netns", "exec", "podnet-node1", "conntrack", "-L", "-d", RESOLVER]).output();
    assert_eq!(String::from_utf8_lossy(&tracked.unwrap().stdout), "");
}

/// The ndots tax: these have fewer than five dots, so that a resolver walks along a search path of three names; `kubernetes.default` is
/// found at the second one.
fn a_name_costs_one_question_for_each_type(cluster: &Cluster) {
    for library in ["/tmp/of-glibc", "/tmp/of-musl"] {
        for name in ["harbor.example.com", "kubernetes.default"] {
            let before = count(cluster, "coredns_dns_requests_total");
            cluster.exec("web", "client", &[library, name]).unwrap();
            let asked = count(cluster, "coredns_dns_requests_total") - before;
            assert_eq!(asked, 2, "{library} asks for {name} once for each type");
        }
    }
    assert!(count(cluster, "coredns_autopath_success_total") >= 8);
}

fn the_resolver_is_replaced_without_a_question_lost(cluster: &Cluster) {
    let agent = cluster.pid("node1-agent");
    let answered = |times: usize| {
        eventually("the next resolver answers", SOON, || {
            let log = std::fs::read_to_string("/run/podnet/log/node1-agent.log").unwrap_or_default();
            if log.matches("the node's resolver answers").count() >= times { Ok(()) } else { Err(log) }
        });
    };
    let load = Load::begin(cluster, RESOLVER);
    let end = |pid: i32, signal: &str| {
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    };
    end(agent, "-TERM");
    answered(2);
    load.ends_without_loss();
    // Killed, it answers nothing of what it had in hand; what comes after that goes to cluster DNS.
    let load = Load::begin(cluster, RESOLVER);
    end(cluster.pid("node1-agent"), "-KILL");
    answered(3);
    load.ends_with_at_most_lost(Load::IN_HAND);
}
