//! What a pod is to be given, after it is decided who says so.

use std::{fmt, net::IpAddr, sync::Arc};

use podnet_model::{
    Namespace, NamespaceScope,
    labels::Labels,
    pod::{AddressRequest, InvalidRequest, StickyOwner},
};

/// What is asked of IPAM for one pod. Of the fields that are set the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Exactly these addresses, of no pool.
    pub addrs_no_ipam: Vec<IpAddr>,
    /// Exactly these addresses.
    pub addrs: Vec<IpAddr>,
    /// An address of the first of these pools that has one.
    pub pools: Option<PoolList>,
    /// The address that a pod of this name had before, where there is one; for pods of this StatefulSet.
    pub sticky: Option<StickyOwner>,
    /// The labels of the pod's namespace: without any of the above, an address of a pool that selects them.
    pub namespace_labels: Labels,
}

/// Pools by name or range, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolList {
    /// Who named them.
    pub source: PoolSource,
    /// At least one.
    pub names: Vec<Arc<str>>,
}

/// Who names a pod's pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolSource {
    /// The pod's annotation `ipv4pools`.
    Pod,
    /// The annotation of its namespace.
    Namespace(Namespace),
    /// The key `ipam.ipv4_pools` of the CNI configuration.
    Conflist,
    /// The runtime's `ipRanges`.
    Runtime,
}

impl fmt::Display for PoolSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod => f.write_str("annotation cni.projectcalico.org/ipv4pools"),
            Self::Namespace(name) => write!(f, "annotation cni.projectcalico.org/ipv4pools of namespace {name}"),
            Self::Conflist => f.write_str("ipam.ipv4_pools of the CNI configuration"),
            Self::Runtime => f.write_str("runtimeConfig.ipRanges of the CNI configuration"),
        }
    }
}

impl Wish {
    /// Who decides, in this order: the pod's addresses, the pod's pools, the namespace's pools, the CNI configuration's pools.
    ///
    /// # Errors
    ///
    /// When the namespace's annotation would count and is wrong.
    pub fn decide(
        pod: &AddressRequest,
        namespace: Option<&NamespaceScope>,
        conflist: &[Arc<str>],
    ) -> Result<Self, InvalidRequest> {
        let namespace_labels = namespace.map(|scope| Arc::clone(&scope.labels)).unwrap_or_default();
        let wish = Self { namespace_labels, sticky: pod.sticky.clone(), ..Self::default() };
        if !pod.addrs_no_ipam.is_empty() || !pod.addrs.is_empty() {
            let (addrs_no_ipam, addrs) = (pod.addrs_no_ipam.clone(), pod.addrs.clone());
            return Ok(Self { addrs_no_ipam, addrs, sticky: None, ..wish });
        }
        let list = |source, names: &[Arc<str>]| Some(PoolList { source, names: names.to_vec() });
        let pools = match namespace {
            _ if !pod.ipv4_pools.is_empty() => list(PoolSource::Pod, &pod.ipv4_pools),
            Some(scope) if !scope.ipv4_pools.as_ref().map_err(Clone::clone)?.is_empty() => {
                let names = scope.ipv4_pools.as_deref().unwrap_or_default();
                list(PoolSource::Namespace(scope.name.clone()), names)
            }
            _ if !conflist.is_empty() => list(PoolSource::Conflist, conflist),
            _ => None,
        };
        Ok(Self { pools, ..wish })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<Arc<str>> {
        list.iter().map(|name| Arc::from(*name)).collect()
    }

    fn scope(pools: &[&str]) -> NamespaceScope {
        NamespaceScope { name: "shop".into(), labels: Labels::default(), ipv4_pools: Ok(names(pools)) }
    }

    fn pools(wish: &Wish) -> Option<(String, String)> {
        wish.pools.as_ref().map(|list| (list.source.to_string(), list.names.join(",")))
    }

    #[test]
    fn addresses_count_before_pools_and_the_pod_before_its_namespace_before_the_configuration() {
        let mut pod = AddressRequest { ipv4_pools: names(&["mine"]), ..AddressRequest::default() };
        let (namespace, conflist) = (scope(&["ours"]), names(&["all"]));
        let decide = |pod: &AddressRequest, scope: &NamespaceScope| Wish::decide(pod, Some(scope), &conflist).unwrap();
        let from = |source: &str, names: &str| Some((source.to_owned(), names.to_owned()));

        assert_eq!(pools(&decide(&pod, &namespace)), from("annotation cni.projectcalico.org/ipv4pools", "mine"));
        pod.ipv4_pools.clear();
        let of_namespace = "annotation cni.projectcalico.org/ipv4pools of namespace shop";
        assert_eq!(pools(&decide(&pod, &namespace)), from(of_namespace, "ours"));
        assert_eq!(pools(&decide(&pod, &scope(&[]))), from("ipam.ipv4_pools of the CNI configuration", "all"));
        assert_eq!(Wish::decide(&pod, Some(&scope(&[])), &[]).unwrap().pools, None);

        pod.addrs = vec!["10.0.0.1".parse().unwrap()];
        let wish = decide(&pod, &namespace);
        assert_eq!((wish.addrs.len(), wish.pools), (1, None));
    }

    #[test]
    fn a_wrong_annotation_of_the_namespace_hurts_only_pods_that_depend_on_it() {
        let wrong = InvalidRequest::Pool { annotation: "a", value: "b/c".into() };
        let namespace = NamespaceScope { ipv4_pools: Err(wrong.clone()), ..scope(&[]) };
        let own = AddressRequest { ipv4_pools: names(&["mine"]), ..AddressRequest::default() };
        assert!(Wish::decide(&own, Some(&namespace), &[]).is_ok());
        assert_eq!(Wish::decide(&AddressRequest::default(), Some(&namespace), &[]), Err(wrong));
    }
}
