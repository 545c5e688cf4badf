//! Who may do what: a table, typed and short enough to be read as a whole.
//!
//! Service accounts may discover and nothing else, unless a row names them. What a node may do follows Kubernetes' node authorizer and
//! its NodeRestriction admission: read what the network is made of, write what is its own.

use super::identity::{Identity, MASTERS, NODES};

/// What somebody wants to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'a str,
    /// API group of the resource.
    pub group: &'a str,
    /// Resource; empty when a path outside the resources is asked for.
    pub resource: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// Object, or empty.
    pub name: &'a str,
    /// The path, when it is outside the resources.
    pub path: &'a str,
}

impl Attempt<'_> {
    /// `pods`, `pods/status`.
    fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// The sentence that Kubernetes refuses with, without the object's name.
    pub fn refusal(&self, identity: &Identity) -> String {
        let Identity { user, .. } = identity;
        if self.resource.is_empty() {
            return format!("forbidden: User \"{user}\" cannot {} path \"{}\"", self.verb, self.path);
        }
        let place = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{}\"", self.namespace)
        };
        let (verb, resource, group) = (self.verb, self.full_resource(), self.group);
        format!("User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}")
    }
}

/// To whom a rule applies.
enum Who {
    Everybody,
    Group(&'static str),
    Account(&'static str, &'static str),
}

/// On which objects.
enum On {
    Any,
    /// The Node that asks.
    OwnNode,
    /// Pods bound to the node that asks.
    OwnPods,
    /// The lease of the node that asks; at creation the name is not in the path.
    OwnLease,
}

/// One row: who may do which verbs to which (group, resource), with `*` for any.
struct Rule {
    who: Who,
    verbs: &'static [&'static str],
    resources: &'static [(&'static str, &'static str)],
    on: On,
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch"];
const CHANGE: &[&str] = &["update", "patch"];
const ANY: &[&str] = &["*"];
const CALICO: &str = "crd.projectcalico.org";

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule { who: Who::Group(MASTERS), verbs: ANY, resources: &[("*", "*")], on: On::Any },
    Rule { who: Who::Everybody, verbs: &["create"], on: On::Any, resources: &[
        ("authorization.k8s.io", "selfsubjectaccessreviews"), ("authentication.k8s.io", "selfsubjectreviews")] },

    Rule { who: Who::Group(NODES), verbs: READ, on: On::Any, resources: &[
        ("", "nodes"), ("", "pods"), ("", "services"), ("", "endpoints"), ("", "namespaces"), ("", "configmaps"),
        ("discovery.k8s.io", "endpointslices"), ("coordination.k8s.io", "leases"),
        ("apiextensions.k8s.io", "customresourcedefinitions"), (CALICO, "*")] },
    Rule { who: Who::Group(NODES), verbs: &["get"], resources: &[("", "secrets"), ("", "serviceaccounts")], on: On::Any },
    Rule { who: Who::Group(NODES), verbs: &["create"], resources: &[("", "nodes"), ("", "serviceaccounts/token")], on: On::Any },
    Rule { who: Who::Group(NODES), verbs: CHANGE, resources: &[("", "nodes"), ("", "nodes/status")], on: On::OwnNode },
    Rule { who: Who::Group(NODES), verbs: CHANGE, resources: &[("", "pods/status")], on: On::OwnPods },
    Rule { who: Who::Group(NODES), verbs: &["delete"], resources: &[("", "pods")], on: On::OwnPods },
    Rule { who: Who::Group(NODES), verbs: WRITE, resources: &[("", "events"), ("events.k8s.io", "events")], on: On::Any },
    Rule { who: Who::Group(NODES), verbs: WRITE, resources: &[("coordination.k8s.io", "leases")], on: On::OwnLease },
    Rule { who: Who::Group(NODES), verbs: ANY, on: On::Any, resources: &[
        (CALICO, "ipamblocks"), (CALICO, "blockaffinities"), (CALICO, "ipamhandles")] },

    Rule { who: Who::Account("kube-system", "coredns"), verbs: READ, on: On::Any, resources: &[
        ("", "services"), ("", "endpoints"), ("", "namespaces"), ("", "pods"), ("", "nodes"),
        ("discovery.k8s.io", "endpointslices")] },
];

/// Paths outside the resources that everybody may read who has said who they are.
const PATHS: &[&str] = &["/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz"];

/// Whether a row allows the attempt. `node_of_pod` tells where a pod runs (namespace, name).
pub fn allows(identity: &Identity, attempt: &Attempt<'_>, node_of_pod: &dyn Fn(&str, &str) -> Option<String>) -> bool {
    if attempt.resource.is_empty() {
        let below = |root: &str| attempt.path == root || attempt.path.starts_with(&format!("{root}/"));
        let readable = matches!(attempt.verb, "get" | "head") && PATHS.iter().any(|root| below(root));
        return readable || identity.is_in(MASTERS);
    }
    RULES.iter().any(|rule| rule.concerns(identity, attempt) && rule.on.holds(identity, attempt, node_of_pod))
}

impl Rule {
    fn concerns(&self, identity: &Identity, attempt: &Attempt<'_>) -> bool {
        let who = match self.who {
            Who::Everybody => true,
            Who::Group(group) => identity.is_in(group),
            Who::Account(namespace, name) => identity.account() == Some((namespace, name)),
        };
        who && self.verbs.iter().any(|verb| matches(verb, attempt.verb)) && self.names(attempt)
    }

    fn names(&self, attempt: &Attempt<'_>) -> bool {
        let resource = attempt.full_resource();
        self.resources.iter().any(|(group, name)| matches(group, attempt.group) && matches(name, &resource))
    }
}

impl On {
    fn holds(
        &self,
        identity: &Identity,
        attempt: &Attempt<'_>,
        node_of_pod: &dyn Fn(&str, &str) -> Option<String>,
    ) -> bool {
        let own = identity.node();
        match self {
            Self::Any => true,
            Self::OwnNode => own == Some(attempt.name),
            Self::OwnPods => own.is_some() && node_of_pod(attempt.namespace, attempt.name).as_deref() == own,
            Self::OwnLease => {
                let unnamed = attempt.verb == "create" && attempt.name.is_empty();
                attempt.namespace == "kube-node-lease" && (unnamed || own == Some(attempt.name))
            }
        }
    }
}

fn matches(pattern: &str, word: &str) -> bool {
    pattern == "*" || pattern == word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Identity {
        Identity::authenticated("system:node:node1", vec![NODES.to_owned()])
    }

    fn may(identity: &Identity, verb: &str, resource: &str, subresource: &str, name: &str) -> bool {
        let attempt = Attempt { verb, resource, subresource, name, namespace: "default", ..Attempt::default() };
        allows(identity, &attempt, &|_, pod| Some(if pod == "mine" { "node1" } else { "node2" }.to_owned()))
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
        assert!(!may(&node(), "create", "deployments", "", ""));
        assert!(!may(&node(), "list", "secrets", "", ""));
    }

    #[test]
    fn a_service_account_discovers_and_nothing_else() {
        let robot = Identity::service_account("default", "robot");
        let attempt = Attempt { verb: "get", path: "/apis", ..Attempt::default() };
        assert!(allows(&robot, &attempt, &|_, _| None));
        assert!(!may(&robot, "list", "pods", "", ""));
        assert!(may(&Identity::service_account("kube-system", "coredns"), "list", "services", "", ""));
    }

    #[test]
    fn a_refusal_is_worded_as_kubernetes_words_it() {
        let attempt = Attempt { verb: "list", resource: "pods", namespace: "default", ..Attempt::default() };
        assert_eq!(
            attempt.refusal(&node()),
            r#"User "system:node:node1" cannot list resource "pods" in API group "" in the namespace "default""#
        );
    }
}
