//! Names as pods see them, with each node's own resolver (`podnet up --node-local-dns`): by the resolvers of glibc, musl and busybox, by
//! dig and nslookup; while the Corefile changes, and while the resolver is replaced or dies. And the names of what is imported of a cluster
//! set.
#![allow(clippy::unwrap_used, missing_docs)]

mod imports;
mod load;
mod resolvers;
mod watch;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use load::Load;
use podnet_testnet::{Cluster, eventually};
use resolvers::Asking;
use serde_json::Value;
use watch::{Known, Watch};

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

/// A pod that asks cluster DNS itself, along the search path that others have.
fn pod_past_the_resolver(name: &str, namespace: &str) -> String {
    let dns = format!(
        "spec: {{dnsPolicy: None, dnsConfig: {{nameservers: [{CLUSTER_DNS}], searches: [{namespace}.svc.cluster.local, svc.cluster.local, \
         cluster.local], options: [{{name: ndots, value: \"5\"}}]}}, "
    );
    pod(name, namespace).replacen("spec: {", &dns, 1)
}

#[test]
fn pods_find_names_by_their_own_node_s_resolver_whatever_happens_to_it() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2", &format!("--node-local-dns={RESOLVER}")]);
    cluster.apply_file("crates/cli/tests/manifests/04-services.yaml");
    let by_the_resolver = Asking { client: "client", stranger: "stranger", server: RESOLVER };
    let past_it = Asking { client: "client-past", stranger: "stranger-past", server: CLUSTER_DNS };
    let pods = [
        pod(by_the_resolver.client, "web"),
        pod(by_the_resolver.stranger, "default"),
        pod_past_the_resolver(past_it.client, "web"),
        pod_past_the_resolver(past_it.stranger, "default"),
    ];
    cluster.apply(&pods.join("\n---\n"));
    cluster.await_ready(&["-n", "web", "--all"], SOON);
    cluster.await_ready(&[by_the_resolver.stranger, past_it.stranger], SOON);
    resolvers::put_lookups(&cluster, &[&by_the_resolver, &past_it]);
    load::put_questions(&cluster);
    let conf = cluster.exec("web", "client", &["cat", "/etc/resolv.conf"]).unwrap();
    assert!(conf.contains(&format!("nameserver {RESOLVER}\n")) && conf.contains("ndots:5"), "{conf}");
    eventually("node1's resolver answers", SOON, || {
        let log = fs::read_to_string("/run/podnet/log/node1-agent.log").unwrap_or_default();
        if log.contains("the node's resolver answers") { Ok(()) } else { Err(log) }
    });

    a_changed_corefile_is_in_force_without_a_question_lost(&cluster);
    by_the_resolver.every_resolver_finds_the_same(&cluster);
    resolvers::nothing_to_the_resolver_was_tracked();
    past_it.every_resolver_finds_the_same(&cluster);
    by_the_resolver.a_name_costs_one_question_for_each_type(&cluster);
    cluster_dns_is_rolled_without_a_question_lost(&cluster);
    the_resolver_is_replaced_without_a_question_lost(&cluster);
}

/// Scenario 05, under load at the node's resolver and at cluster DNS itself.
fn a_changed_corefile_is_in_force_without_a_question_lost(cluster: &Cluster) {
    const WITHIN: Duration = Duration::from_secs(30);
    let known = Known::of(cluster);
    let through = Load::begin(cluster, RESOLVER);
    let straight = Load::begin(cluster, CLUSTER_DNS);
    let connected = [RESOLVER, CLUSTER_DNS].map(|server| Load::over(cluster, server, "tcp"));
    let watches = [RESOLVER, CLUSTER_DNS].map(|server| Watch::begin(cluster, &known, server, "udp"));
    edit_the_corefile(cluster);
    let servers = [CLUSTER_DNS, RESOLVER];
    // Of both at once: what it takes to ask the one many times is not taken from the other one's time.
    eventually("both have the new Corefile", WITHIN, || {
        servers.iter().try_for_each(|server| {
            let asked = format!("@{server}");
            // Before, the name is asked for outside, where nobody may answer.
            let command = ["dig", &asked, "+short", "+time=2", "+tries=1"];
            // Replicas read it one after the other, and either may be asked: eight times, each from another port.
            let told = cluster.exec("web", "client", &[&command[..], &["harbor.example.com"; 8]].concat())?;
            if told.lines().eq(["10.0.0.20"; 8]) { Ok(()) } else { Err(format!("{server}: {told}")) }
        })
    });
    for server in servers {
        let asked = format!("@{server}");
        let blocked = cluster.exec("web", "client", &["dig", &asked, "+time=5", "www.blocked.example."]).unwrap();
        assert!(blocked.contains("status: SERVFAIL"), "{blocked}");
        // Nobody outside was waited for.
        let took = blocked.split_once("Query time: ").and_then(|(_, rest)| rest.split_once(" msec"));
        let took = took.and_then(|(ms, _)| ms.parse::<u32>().ok());
        assert!(took.is_some_and(|ms| ms < 1000), "{blocked}");
    }
    straight.ends_without_loss();
    through.ends_without_loss();
    connected.into_iter().for_each(Load::ends_without_loss);
    watches.into_iter().for_each(Watch::ends_with_nothing_wrong);
}

/// `kubectl edit` with an editor that puts scenario 05's Corefile in the place of the one that is there.
fn edit_the_corefile(cluster: &Cluster) {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifests/05-corefile.yaml");
    let wanted: Value = serde_norway::from_str(&fs::read_to_string(manifest).unwrap()).unwrap();
    let mut map = cluster.json(&["-n", "kube-system", "configmap", "coredns"]);
    map["data"] = wanted["data"].clone();
    let edited = Path::new(env!("CARGO_TARGET_TMPDIR")).join("edited-corefile.json");
    fs::write(&edited, map.to_string()).unwrap();
    let mut edit = cluster.kubectl_command(&["-n", "kube-system", "edit", "configmap", "coredns"]);
    let edit = edit.env("KUBE_EDITOR", format!("cp {}", edited.display())).stdin(Stdio::null());
    let output = edit.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("edited"), "{told}{}", String::from_utf8_lossy(&output.stderr));
}

/// New pods take the place of those of cluster DNS, one after the other.
fn cluster_dns_is_rolled_without_a_question_lost(cluster: &Cluster) {
    let kubectl = |arguments: &[&str]| cluster.kubectl(&[&["-n", "kube-system"], arguments].concat());
    let pods = || -> BTreeSet<String> {
        kubectl(&["get", "pods", "-l", "k8s-app=kube-dns", "-o", "name"]).lines().map(str::to_owned).collect()
    };
    let before = pods();
    assert_eq!(before.len(), 2);
    let anew = Load::anew(cluster, CLUSTER_DNS);
    let lasting = Load::begin(cluster, CLUSTER_DNS);
    let through = Load::begin(cluster, RESOLVER);
    kubectl(&["rollout", "restart", "deployment/coredns"]);
    kubectl(&["rollout", "status", "deployment/coredns", "--timeout=60s"]);
    // They answer on when they are replaced.
    eventually("the pods of before are gone", SOON, || {
        let now = pods();
        if now.is_disjoint(&before) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    anew.ends_without_loss();
    through.ends_without_loss();
    // One socket that asks without a pause until its server is none any more: what it has in hand when connection tracking forgets the flow
    // is answered from an address that it did not ask. The next server may be the other one of before, which is replaced as well.
    lasting.ends_with_at_most_lost(2 * Load::IN_HAND);
}

fn the_resolver_is_replaced_without_a_question_lost(cluster: &Cluster) {
    let agent = cluster.pid("node1-agent");
    let answered = |times: usize| {
        eventually("the next resolver answers", SOON, || {
            let log = fs::read_to_string("/run/podnet/log/node1-agent.log").unwrap_or_default();
            if log.matches("the node's resolver answers").count() >= times { Ok(()) } else { Err(log) }
        });
    };
    let load = Load::begin(cluster, RESOLVER);
    let connected = Watch::begin(cluster, &Known::of(cluster), RESOLVER, "tcp");
    let end = |pid: i32, signal: &str| {
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    };
    end(agent, "-TERM");
    answered(2);
    load.ends_without_loss();
    // The address goes from the old one to cluster DNS, and from there to the new one: a connection that is open then breaks.
    connected.ends_with_at_most_wrong(2);
    // Killed, it answers nothing of what it had in hand; what comes after that goes to cluster DNS.
    let load = Load::begin(cluster, RESOLVER);
    end(cluster.pid("node1-agent"), "-KILL");
    answered(3);
    load.ends_with_at_most_lost(Load::IN_HAND);
}
