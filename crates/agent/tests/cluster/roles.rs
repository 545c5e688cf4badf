//! What the account of `podnet manifests` may do: its roles, as an API server with RBAC judges by them.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use podnet_apiserver::auth::rules::Attempt;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

const MANIFEST: &str = include_str!("../../../cli/manifests/podnet.yaml");

/// The rules that count for the account, each with the namespace that it counts in, or everywhere.
pub(crate) struct Roles(Vec<(Option<String>, PolicyRule)>);

impl Roles {
    pub(crate) fn shipped() -> Self {
        let objects: Vec<Value> = serde_norway::Deserializer::from_str(MANIFEST)
            .map(|document| Value::deserialize(document).unwrap())
            .collect();
        let mut rules = Vec::new();
        for binding in all::<ClusterRoleBinding>(&objects, "ClusterRoleBinding") {
            if is_ours(binding.subjects) {
                rules.extend(rules_of(&objects, &binding.role_ref, None));
            }
        }
        for binding in all::<RoleBinding>(&objects, "RoleBinding") {
            if is_ours(binding.subjects) {
                rules.extend(rules_of(&objects, &binding.role_ref, binding.metadata.namespace.as_deref()));
            }
        }
        assert!(!rules.is_empty());
        Self(rules)
    }

    pub(crate) fn allow(&self, attempt: &Attempt<'_>) -> bool {
        let below = if attempt.subresource.is_empty() { String::new() } else { format!("/{}", attempt.subresource) };
        let resource = format!("{}{below}", attempt.resource);
        let has = |of: &Option<Vec<String>>, word: &str| of.iter().flatten().any(|one| one == word);
        self.0.iter().any(|(namespace, rule)| {
            namespace.as_deref().is_none_or(|namespace| namespace == attempt.namespace)
                && has(&rule.api_groups, attempt.group)
                && has(&rule.resources, &resource)
                && rule.verbs.iter().any(|verb| verb == attempt.verb)
                && (rule.resource_names.is_none() || has(&rule.resource_names, attempt.name))
        })
    }
}

fn all<K: DeserializeOwned>(objects: &[Value], kind: &str) -> Vec<K> {
    let of_kind = objects.iter().filter(|object| object["kind"] == kind);
    of_kind.map(|object| serde_json::from_value(object.clone()).unwrap()).collect()
}

fn is_ours(subjects: Option<Vec<Subject>>) -> bool {
    subjects.into_iter().flatten().any(|subject| {
        (subject.kind.as_str(), subject.name.as_str(), subject.namespace.as_deref())
            == ("ServiceAccount", "podnet", Some("podnet-system"))
    })
}

fn rules_of(objects: &[Value], named: &RoleRef, namespace: Option<&str>) -> Vec<(Option<String>, PolicyRule)> {
    let rules = match named.kind.as_str() {
        "ClusterRole" => {
            let mut roles = all::<ClusterRole>(objects, "ClusterRole").into_iter();
            roles.find(|role| role.metadata.name.as_ref() == Some(&named.name)).unwrap().rules
        }
        _ => {
            let mut roles = all::<Role>(objects, "Role").into_iter();
            let is_it = |role: &Role| {
                role.metadata.name.as_ref() == Some(&named.name) && role.metadata.namespace.as_deref() == namespace
            };
            roles.find(is_it).unwrap().rules
        }
    };
    rules.into_iter().flatten().map(|rule| (namespace.map(str::to_owned), rule)).collect()
}
