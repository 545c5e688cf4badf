//! Which name servers the sender's resolver asks.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;
use podnet_model::PodKey;
use podnet_planner::trace::Source;

use crate::{arguments::forwarding::WhyOptions, forwarding::state, report::Failure};

/// Whom it asks first: others are asked only where these say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::forwarding) enum Resolver {
    /// Cluster DNS.
    Cluster,
    /// Those that a pod names itself (`dnsPolicy: None`), in their order.
    Own(PodKey, Vec<IpAddr>),
    /// Those of the pod's node, of which nothing is known here.
    Node,
}

impl Resolver {
    /// Who is no pod is taken to ask cluster DNS.
    pub(super) fn of(options: &WhyOptions, from: &Source) -> Result<Self, Failure> {
        let Source::Pod(key) = from else { return Ok(Self::Cluster) };
        Ok(Self::of_pod(key, &state::spec(&options.cluster, "why", key)?))
    }

    /// As `spec.dnsPolicy` says ("DNS for Services and Pods", "Pod's DNS Policy").
    pub(in crate::forwarding) fn of_pod(key: &PodKey, spec: &api::PodSpec) -> Self {
        match spec.dns_policy.as_deref() {
            None | Some("" | "ClusterFirst") if spec.host_network != Some(true) => Self::Cluster,
            Some("ClusterFirstWithHostNet") => Self::Cluster,
            Some("None") => {
                let named = spec.dns_config.as_ref().and_then(|config| config.nameservers.as_deref());
                // What is no address is nothing to a resolver.
                let servers = named.unwrap_or_default().iter().filter_map(|server| server.parse().ok());
                Self::Own(key.clone(), servers.collect())
            }
            _ => Self::Node,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn whom_a_pod_asks_is_said_by_its_policy_and_under_none_by_its_own_configuration() {
        let key = PodKey::new("default", "p1");
        let of = |policy: Option<&str>, host: bool, servers: Value| {
            let spec = json!({
                "containers": [], "dnsPolicy": policy, "hostNetwork": host, "dnsConfig": {"nameservers": servers},
            });
            Resolver::of_pod(&key, &serde_json::from_value(spec).unwrap())
        };
        let own = |servers: &[&str]| {
            Resolver::Own(key.clone(), servers.iter().map(|server| server.parse().unwrap()).collect())
        };
        for (policy, host, servers, expected) in [
            (None, false, json!([]), Resolver::Cluster),
            (Some("ClusterFirst"), false, json!(["192.0.2.1"]), Resolver::Cluster),
            (Some("ClusterFirst"), true, json!([]), Resolver::Node),
            (Some("ClusterFirstWithHostNet"), true, json!([]), Resolver::Cluster),
            (Some("Default"), false, json!([]), Resolver::Node),
            (Some("None"), false, json!(["192.0.2.1", "2001:db8::1", "x"]), own(&["192.0.2.1", "2001:db8::1"])),
            (Some("None"), true, json!(null), own(&[])),
        ] {
            assert_eq!(of(policy, host, servers.clone()), expected, "{policy:?} {host} {servers}");
        }
    }
}
