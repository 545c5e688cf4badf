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

/// Waits until these names are answered so by all replicas, whichever is asked.
fn become_so(cluster: &Cluster, names: &[(&str, &str)]) {
    let server = format!("@{CLUSTER_DNS}");
    let asked = names.iter().flat_map(|(name, _)| [*name; OFTEN]);
    let command: Vec<&str> = ["dig", &server, "+time=2", "+tries=1"].into_iter().chain(asked).collect();
    eventually(&format!("{names:?}"), SOON, || {
        let text = cluster.exec("web", "client", &command)?;
        let found: Vec<_> = text.split("->>HEADER<<-").skip(1).filter_map(code_and_addrs).collect();
        if found.iter().eq(names.iter().flat_map(|(_, wanted)| [*wanted; OFTEN])) { Ok(()) } else { Err(text) }
    });
}

#[test]
fn what_is_imported_has_names_as_long_as_it_is_there_and_a_zone_shows_it() {
    let cluster = Cluster::up(PODNET, &["--nodes", "1"]);
    cluster.apply_file("crates/cli/tests/manifests/08-service-imports.yaml");
    cluster.apply(&["apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n", &pod("client", "web")].join("---\n"));
    let definition = "customresourcedefinition/serviceimports.multicluster.x-k8s.io";
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", definition]);
    let shared_at = |ip: &str| import("shared", "ClusterSetIP", ip);
    let pets = import("pets", "Headless", "");
    cluster.apply(&[SLICE, &shared_at("10.42.42.42"), &pets, &corefile(1, true)].join("---\n"));
    cluster.await_ready(&["-n", "web", "client"], SOON);
    let delete = |what: &[&str]| cluster.kubectl(&[&["-n", "web", "delete"], what].concat());
    let shared = "serviceimports.multicluster.x-k8s.io/shared";
    let both = [(SHARED, "NOERROR 10.42.42.42"), (PETS, "NOERROR 10.3.0.100")];

    become_so(&cluster, &[("version.example.com", "NOERROR 10.0.1.1")]);
    let cat = format!("cat.north.{PETS}");
    become_so(&cluster, &[both[0], both[1], (cat.as_str(), "NOERROR 10.3.0.100")]);
    cluster.apply(&shared_at("10.42.42.43"));
    become_so(&cluster, &[(SHARED, "NOERROR 10.42.42.43")]);
    delete(&[shared, "endpointslice/pets-north"]);
    become_so(&cluster, &[(SHARED, "NXDOMAIN"), (PETS, "NXDOMAIN")]);
    cluster.apply(&[SLICE, &shared_at("10.42.42.42")].join("---\n"));
    become_so(&cluster, &both);

    // Nothing shows it, and one part of it goes meanwhile.
    cluster.apply(&corefile(2, false));
    become_so(&cluster, &[("version.example.com", "NOERROR 10.0.1.2")]);
    become_so(&cluster, &[(SHARED, "SERVFAIL")]);
    delete(&[shared]);
    cluster.apply(&corefile(3, true));
    become_so(&cluster, &[("version.example.com", "NOERROR 10.0.1.3")]);
    become_so(&cluster, &[(PETS, "NOERROR 10.3.0.100"), (SHARED, "NXDOMAIN")]);
}
