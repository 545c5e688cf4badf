//! What the cluster imports of a cluster set (`multicluster`): its names come, change and go with the objects of the API, and with the zone
//! that shows them.

use podnet_testnet::{Cluster, eventually};

use super::{CLUSTER_DNS, PODNET, SOON, pod};

const SHARED: &str = "shared.web.svc.clusterset.local";
const PETS: &str = "pets.web.svc.clusterset.local";

/// A Corefile that tells its number, with or without a zone of the cluster set. Nothing is kept, so that each change is seen at once.
fn corefile(version: u32, shown: bool) -> String {
    let (zone, option) = if shown { ("clusterset.local", "multicluster clusterset.local") } else { ("", "") };
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: coredns, namespace: kube-system}}\ndata:\n  Corefile: |\n    .:53 {{\n        \
         errors\n        health\n        ready\n        prometheus :9153\n        reload 2s 1s\n        hosts /nowhere {{\n            \
         10.0.1.{version} version.example.com\n            fallthrough\n        }}\n        \
         kubernetes cluster.local {zone} in-addr.arpa {{\n            {option}\n        }}\n    }}\n"
    )
}

fn import(name: &str, kind: &str, ips: &str) -> String {
    format!(
        "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceImport\nmetadata: {{name: {name}, namespace: web}}\nspec: {{type: {kind}, \
         ips: [{ips}], ports: [{{name: http, protocol: TCP, port: 80}}]}}\n"
    )
}

/// Endpoints that another cluster has of `pets`.
const SLICE: &str = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: pets-north\n  namespace: web\n  labels: \
    {multicluster.kubernetes.io/service-name: pets, multicluster.kubernetes.io/source-cluster: north}\naddressType: IPv4\nports: [{name: \
    http, protocol: TCP, port: 80}]\nendpoints: [{addresses: [10.3.0.100], hostname: cat, conditions: {ready: true}}]\n";

/// How often a name is asked at once, each time from another port, so that all replicas are met.
const OFTEN: usize = 8;

/// The code and the addresses of an answer that dig shows.
fn code_and_addrs(answer: &str) -> Option<String> {
    let code = answer.split("status: ").nth(1)?.split(',').next()?;
    let records = answer.lines().filter(|line| !line.starts_with(';'));
    let addrs = records.filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, _, "IN", "A", addr] => Some(addr),
        _ => None,
    });
    Some([code].into_iter().chain(addrs).collect::<Vec<_>>().join(" "))
}

/// Waits until a name is answered so by all replicas, whichever is asked.
fn becomes(cluster: &Cluster, name: &str, wanted: &str) {
    let server = format!("@{CLUSTER_DNS}");
    let command = [&["dig", &server, "+time=2", "+tries=1"][..], &[name; OFTEN]].concat();
    eventually(&format!("{name} is {wanted}"), SOON, || {
        let text = cluster.exec("web", "client", &command)?;
        let found: Vec<_> = text.split("->>HEADER<<-").skip(1).filter_map(code_and_addrs).collect();
        if found.len() == OFTEN && found.iter().all(|found| found == wanted) { Ok(()) } else { Err(text) }
    });
}

#[test]
fn what_is_imported_has_names_as_long_as_it_is_there_and_a_zone_shows_it() {
    let cluster = Cluster::up(PODNET, &["--nodes", "1"]);
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n");
    cluster.apply(&pod("client", "web"));
    cluster.await_ready(&["-n", "web", "client"], SOON);
    cluster.apply_file("crates/cli/tests/manifests/08-service-imports.yaml");
    let definition = "customresourcedefinition/serviceimports.multicluster.x-k8s.io";
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", definition]);
    for manifest in [&import("shared", "ClusterSetIP", "10.42.42.42")[..], &import("pets", "Headless", "")[..], SLICE] {
        cluster.apply(manifest);
    }
    let delete = |what: &str| cluster.kubectl(&["-n", "web", "delete", what]);
    let shared = "serviceimports.multicluster.x-k8s.io/shared";

    cluster.apply(&corefile(1, true));
    becomes(&cluster, "version.example.com", "NOERROR 10.0.1.1");
    becomes(&cluster, SHARED, "NOERROR 10.42.42.42");
    becomes(&cluster, PETS, "NOERROR 10.3.0.100");
    becomes(&cluster, &format!("cat.north.{PETS}"), "NOERROR 10.3.0.100");
    cluster.apply(&import("shared", "ClusterSetIP", "10.42.42.43"));
    becomes(&cluster, SHARED, "NOERROR 10.42.42.43");
    delete(shared);
    delete("endpointslice/pets-north");
    becomes(&cluster, SHARED, "NXDOMAIN");
    becomes(&cluster, PETS, "NXDOMAIN");
    cluster.apply(&import("shared", "ClusterSetIP", "10.42.42.42"));
    cluster.apply(SLICE);
    becomes(&cluster, SHARED, "NOERROR 10.42.42.42");
    becomes(&cluster, PETS, "NOERROR 10.3.0.100");

    // Nothing shows it, and one part of it goes meanwhile.
    cluster.apply(&corefile(2, false));
    becomes(&cluster, "version.example.com", "NOERROR 10.0.1.2");
    becomes(&cluster, SHARED, "SERVFAIL");
    delete(shared);
    cluster.apply(&corefile(3, true));
    becomes(&cluster, "version.example.com", "NOERROR 10.0.1.3");
    becomes(&cluster, PETS, "NOERROR 10.3.0.100");
    becomes(&cluster, SHARED, "NXDOMAIN");
}
