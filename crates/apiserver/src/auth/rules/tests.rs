use super::*;

/// A cluster where the pod `mine` is node1's and uses what is called `used`.
struct Small;

impl Facts for Small {
    fn node_of_pod(&self, _: &str, name: &str) -> Option<String> {
        Some(if name == "mine" { "node1" } else { "node2" }.to_owned())
    }

    fn node_uses(&self, node: &str, _: &str, _: &str, name: &str) -> bool {
        node == "node1" && name == "used"
    }
}

fn node() -> Identity {
    Identity::authenticated("system:node:node1", vec![NODES.to_owned()])
}

fn may(identity: &Identity, verb: &str, resource: &str, subresource: &str, name: &str) -> bool {
    let attempt = Attempt { verb, resource, subresource, name, namespace: "default", ..Attempt::default() };
    allows(identity, &attempt, &Small)
}

#[test]
fn masters_may_do_everything() {
    let admin = Identity::authenticated("admin", vec![MASTERS.to_owned()]);
    assert!(may(&admin, "delete", "namespaces", "", "default"));
}

#[test]
fn a_node_reads_the_cluster_and_writes_what_is_its_own() {
    assert!(may(&node(), "list", "pods", "", ""));
    assert!(may(&node(), "patch", "nodes", "status", "node1"));
    assert!(!may(&node(), "patch", "nodes", "status", "node2"));
    assert!(may(&node(), "patch", "pods", "status", "mine"));
    assert!(!may(&node(), "patch", "pods", "status", "another"));
    // Its agent asks those of all nodes.
    assert!(may(&node(), "create", "nodes", "flows", "node2") && !may(&node(), "create", "nodes", "proxy", "node2"));
    assert!(!may(&node(), "create", "deployments", "", ""));
    assert!(!may(&node(), "create", "pods", "exec", "mine"));
    assert!(!may(&node(), "deletecollection", "pods", "", ""));
}

#[test]
fn a_node_reads_only_the_secrets_configmaps_and_accounts_that_its_pods_use() {
    for resource in ["secrets", "configmaps", "serviceaccounts"] {
        assert!(may(&node(), "get", resource, "", "used"), "{resource}");
        assert!(!may(&node(), "get", resource, "", "another"), "{resource}");
        assert!(!may(&node(), "list", resource, "", ""), "{resource}");
        assert!(!may(&node(), "watch", resource, "", ""), "{resource}");
    }
    assert!(may(&node(), "create", "serviceaccounts", "token", "used"));
    assert!(!may(&node(), "create", "serviceaccounts", "token", "another"));
}

#[test]
fn a_node_may_watch_the_networks_configurations_by_their_names_alone() {
    let may = |namespace, name| {
        let attempt = Attempt { verb: "watch", resource: "configmaps", namespace, name, ..Attempt::default() };
        allows(&node(), &attempt, &Small)
    };
    assert!(may("kube-flannel", "kube-flannel-cfg") && may("kube-system", "kube-flannel-cfg"));
    assert!(!may("default", "kube-flannel-cfg") && !may("", "kube-flannel-cfg"));
    assert!(may("kube-system", "kube-proxy") && !may("default", "kube-proxy") && !may("kube-flannel", "kube-proxy"));
    assert!(!may("kube-flannel", "another") && !may("kube-flannel", ""));
}

#[test]
fn a_member_of_the_nodes_without_a_node_s_name_owns_nothing() {
    for user in ["somebody", "system:node:"] {
        let nameless = Identity::authenticated(user, vec![NODES.to_owned()]);
        assert!(!may(&nameless, "patch", "nodes", "status", ""), "{user}");
        assert!(!may(&nameless, "get", "secrets", "", "used"), "{user}");
    }
}

#[test]
fn a_service_account_discovers_and_nothing_else() {
    let robot = Identity::service_account("default", "robot");
    let attempt = Attempt { verb: "get", path: "/apis", ..Attempt::default() };
    assert!(allows(&robot, &attempt, &Small));
    assert!(!may(&robot, "list", "pods", "", ""));
}

#[test]
fn cluster_dns_reads_what_has_names_and_writes_nothing() {
    let dns = Identity::service_account("kube-system", "coredns");
    let imports = Attempt { group: "multicluster.x-k8s.io", resource: "serviceimports", ..Attempt::default() };
    for verb in ["get", "list", "watch"] {
        assert!(may(&dns, verb, "services", "", ""), "{verb}");
        assert!(allows(&dns, &Attempt { verb, ..imports.clone() }, &Small), "{verb}");
    }
    assert!(!may(&dns, "update", "services", "", ""));
    assert!(!allows(&dns, &Attempt { verb: "update", ..imports }, &Small));
}

#[test]
fn a_refusal_is_worded_as_kubernetes_words_it() {
    let attempt = Attempt { verb: "list", resource: "pods", namespace: "default", ..Attempt::default() };
    assert_eq!(
        attempt.refusal(&node()),
        r#"User "system:node:node1" cannot list resource "pods" in API group "" in the namespace "default""#
    );
}
