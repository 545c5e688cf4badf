//! Who may do what: a table, typed and short enough to be read as a whole.
//!
//! Service accounts may discover and nothing else, unless a row names them. What a node may do follows Kubernetes' node authorizer and
//! its NodeRestriction admission: read what the network is made of, write what is its own.

use podnet_model::balancer::LEASE;

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
    /// What the pods bound to the node that asks use.
    UsedByOwnPods,
    /// flannel's and kube-proxy's configuration, by their names.
    NetConf,
    /// The lease of the node that asks, and that of whoever gives load balancers' addresses; at creation the name is not in the path.
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
const PODNET: &str = "ipam.podnet.io";
const METALLB: &str = "metallb.io";

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule { who: Who::Group(MASTERS), verbs: ANY, resources: &[("*", "*")], on: On::Any },
    Rule { who: Who::Everybody, verbs: &["create"], on: On::Any, resources: &[
        ("authorization.k8s.io", "selfsubjectaccessreviews"), ("authentication.k8s.io", "selfsubjectreviews")] },

    Rule { who: Who::Group(NODES), verbs: READ, on: On::Any, resources: &[
        ("", "nodes"), ("", "pods"), ("", "services"), ("", "endpoints"), ("", "namespaces"),
        ("discovery.k8s.io", "endpointslices"), ("coordination.k8s.io", "leases"),
        ("apiextensions.k8s.io", "customresourcedefinitions"), (CALICO, "*"), (PODNET, "*"), (METALLB, "*")] },
    Rule { who: Who::Group(NODES), verbs: &["get"], on: On::UsedByOwnPods, resources: &[
        ("", "secrets"), ("", "configmaps"), ("", "serviceaccounts")] },
    Rule { who: Who::Group(NODES), verbs: READ, on: On::NetConf, resources: &[("", "configmaps")] },
    // Both are looked at again by `node_restriction` when the body is known.
    Rule { who: Who::Group(NODES), verbs: &["create"], resources: &[("", "serviceaccounts/token")], on: On::UsedByOwnPods },
    Rule { who: Who::Group(NODES), verbs: &["create"], resources: &[("", "nodes")], on: On::Any },
    Rule { who: Who::Group(NODES), verbs: CHANGE, resources: &[("", "nodes"), ("", "nodes/status")], on: On::OwnNode },
    Rule { who: Who::Group(NODES), verbs: CHANGE, resources: &[("", "pods/status")], on: On::OwnPods },
    Rule { who: Who::Group(NODES), verbs: &["delete"], resources: &[("", "pods")], on: On::OwnPods },
    Rule { who: Who::Group(NODES), verbs: WRITE, resources: &[("", "events"), ("events.k8s.io", "events")], on: On::Any },
    Rule { who: Who::Group(NODES), verbs: WRITE, resources: &[("coordination.k8s.io", "leases")], on: On::OwnLease },
    Rule { who: Who::Group(NODES), verbs: ANY, on: On::Any, resources: &[
        (CALICO, "ipamblocks"), (CALICO, "blockaffinities"), (CALICO, "ipamhandles")] },

    // One agent gives load balancers their addresses.
    Rule { who: Who::Group(NODES), verbs: &["patch"], on: On::Any, resources: &[
        ("", "services/status"), (METALLB, "ipaddresspools/status")] },
    // Agents are asked for flows, by people and by pods.
    Rule { who: Who::Group(NODES), verbs: &["create"], on: On::Any, resources: &[
        ("authentication.k8s.io", "tokenreviews"), ("authorization.k8s.io", "subjectaccessreviews")] },
    // And by each other.
    Rule { who: Who::Group(NODES), verbs: &["create"], resources: &[("", "nodes/flows")], on: On::Any },
    Rule { who: Who::Group(NODES), verbs: WRITE, resources: &[(PODNET, "stickyaddresses")], on: On::Any },

    Rule { who: Who::Account("kube-system", "coredns"), verbs: READ, on: On::Any, resources: &[
        ("", "services"), ("", "endpoints"), ("", "namespaces"), ("", "pods"), ("", "nodes"),
        ("discovery.k8s.io", "endpointslices"), ("multicluster.x-k8s.io", "serviceimports")] },
];

/// Paths outside the resources that everybody may read who has said who they are.
const PATHS: &[&str] = &["/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz"];

/// What rules ask of the cluster's state.
pub trait Facts {
    /// The node that a pod is bound to.
    fn node_of_pod(&self, namespace: &str, name: &str) -> Option<String>;

    /// Whether a pod of that namespace that is bound to the node names the object: `resource` is `secrets`, `configmaps` or
    /// `serviceaccounts`.
    fn node_uses(&self, node: &str, namespace: &str, resource: &str, name: &str) -> bool;
}

/// Whether a row allows the attempt.
pub fn allows(identity: &Identity, attempt: &Attempt<'_>, facts: &dyn Facts) -> bool {
    if attempt.resource.is_empty() {
        let below = |root: &str| attempt.path == root || attempt.path.starts_with(&format!("{root}/"));
        let readable = matches!(attempt.verb, "get" | "head") && PATHS.iter().any(|root| below(root));
        return readable || identity.is_in(MASTERS);
    }
    RULES.iter().any(|rule| rule.concerns(identity, attempt) && rule.on.holds(identity, attempt, facts))
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
    fn holds(&self, identity: &Identity, attempt: &Attempt<'_>, facts: &dyn Facts) -> bool {
        let own = identity.node();
        let Attempt { namespace, resource, name, .. } = *attempt;
        match self {
            Self::Any => true,
            Self::OwnNode => own == Some(name),
            Self::OwnPods => own.is_some() && facts.node_of_pod(namespace, name).as_deref() == own,
            Self::UsedByOwnPods => own.is_some_and(|node| facts.node_uses(node, namespace, resource, name)),
            Self::NetConf => {
                matches!(namespace, "kube-flannel" | "kube-system") && name == "kube-flannel-cfg"
                    || (namespace, name) == ("kube-system", "kube-proxy")
            }
            Self::OwnLease => {
                let unnamed = attempt.verb == "create" && name.is_empty();
                namespace == "kube-node-lease" && (unnamed || own == Some(name))
                    || namespace == LEASE.0 && (unnamed || name == LEASE.1)
            }
        }
    }
}

fn matches(pattern: &str, word: &str) -> bool {
    pattern == "*" || pattern == word
}

#[cfg(test)]
mod tests;
