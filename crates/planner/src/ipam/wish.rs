//! What a pod is to be given, after it is decided who says so.

use std::{fmt, net::IpAddr, sync::Arc};

use podnet_model::{
    Dual, Family, Namespace, NamespaceScope,
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
    pub pools: Dual<Option<PoolList>>,
    /// Whether it is to have an address of the family, where the CNI configuration says so (`assign_ipv4`, `assign_ipv6`) and nothing
    /// of the above.
    pub assign: Dual<Option<bool>>,
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
    /// The pod's annotation `ipv4pools` or `ipv6pools`.
    Pod(Family),
    /// The annotation of its namespace.
    Namespace(Namespace, Family),
    /// The key `ipam.ipv4_pools` or `ipam.ipv6_pools` of the CNI configuration.
    Conflist(Family),
    /// The runtime's `ipRanges`.
    Runtime,
}

impl fmt::Display for PoolSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(family) => write!(f, "annotation cni.projectcalico.org/{}pools", key(*family)),
            Self::Namespace(name, family) => {
                write!(f, "annotation cni.projectcalico.org/{}pools of namespace {name}", key(*family))
            }
            Self::Conflist(family) => write!(f, "ipam.{}_pools of the CNI configuration", key(*family)),
            Self::Runtime => f.write_str("runtimeConfig.ipRanges of the CNI configuration"),
        }
    }
}

/// As Calico's keys and annotations spell a family.
const fn key(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// What a CNI configuration says, as Calico's does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkWish {
    /// `ipam.ipv4_pools`, `ipam.ipv6_pools`; none where empty.
    pub pools: Dual<Vec<Arc<str>>>,
    /// `ipam.assign_ipv4`, `ipam.assign_ipv6`.
    pub assign: Dual<Option<bool>>,
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
        network: &NetworkWish,
    ) -> Result<Self, InvalidRequest> {
        let namespace_labels = namespace.map(|scope| Arc::clone(&scope.labels)).unwrap_or_default();
        let wish = Self { namespace_labels, assign: network.assign, sticky: pod.sticky.clone(), ..Self::default() };
        if !pod.addrs_no_ipam.is_empty() || !pod.addrs.is_empty() {
            let (addrs_no_ipam, addrs) = (pod.addrs_no_ipam.clone(), pod.addrs.clone());
            return Ok(Self { addrs_no_ipam, addrs, sticky: None, ..wish });
        }
        let pools = |family| pools(pod, namespace, network, family);
        Ok(Self { pools: Dual { v4: pools(Family::V4)?, v6: pools(Family::V6)? }, ..wish })
    }
}

fn pools(
    pod: &AddressRequest,
    namespace: Option<&NamespaceScope>,
    network: &NetworkWish,
    family: Family,
) -> Result<Option<PoolList>, InvalidRequest> {
    let list = |source, names: &[Arc<str>]| Ok(Some(PoolList { source, names: names.to_vec() }));
    if !pod.pools[family].is_empty() {
        return list(PoolSource::Pod(family), &pod.pools[family]);
    }
    if let Some(scope) = namespace {
        let names = scope.pools[family].as_ref().map_err(Clone::clone)?;
        if !names.is_empty() {
            return list(PoolSource::Namespace(scope.name.clone(), family), names);
        }
    }
    let names = &network.pools[family];
    // What is turned off needs no pools.
    if names.is_empty() || network.assign[family] == Some(false) {
        return Ok(None);
    }
    list(PoolSource::Conflist(family), names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<Arc<str>> {
        list.iter().map(|name| Arc::from(*name)).collect()
    }

    fn v4(list: &[&str]) -> Dual<Vec<Arc<str>>> {
        Dual { v4: names(list), v6: Vec::new() }
    }

    fn scope(pools: &[&str]) -> NamespaceScope {
        let pools = Dual { v4: Ok(names(pools)), v6: Ok(Vec::new()) };
        NamespaceScope { name: "shop".into(), labels: Labels::default(), pools }
    }

    fn pools(wish: &Wish) -> Option<(String, String)> {
        wish.pools.v4.as_ref().map(|list| (list.source.to_string(), list.names.join(",")))
    }

    #[test]
    fn addresses_count_before_pools_and_the_pod_before_its_namespace_before_the_configuration() {
        let mut pod = AddressRequest { pools: v4(&["mine"]), ..AddressRequest::default() };
        let (namespace, network) = (scope(&["ours"]), NetworkWish { pools: v4(&["all"]), ..NetworkWish::default() });
        let decide = |pod: &AddressRequest, scope: &NamespaceScope| Wish::decide(pod, Some(scope), &network).unwrap();
        let from = |source: &str, names: &str| Some((source.to_owned(), names.to_owned()));

        assert_eq!(pools(&decide(&pod, &namespace)), from("annotation cni.projectcalico.org/ipv4pools", "mine"));
        pod.pools.v4.clear();
        let of_namespace = "annotation cni.projectcalico.org/ipv4pools of namespace shop";
        assert_eq!(pools(&decide(&pod, &namespace)), from(of_namespace, "ours"));
        assert_eq!(pools(&decide(&pod, &scope(&[]))), from("ipam.ipv4_pools of the CNI configuration", "all"));
        let nothing = NetworkWish::default();
        assert_eq!(Wish::decide(&pod, Some(&scope(&[])), &nothing).unwrap().pools, Dual::default());

        pod.addrs = vec!["10.0.0.1".parse().unwrap()];
        let wish = decide(&pod, &namespace);
        assert_eq!((wish.addrs.len(), wish.pools), (1, Dual::default()));
    }

    #[test]
    fn each_family_is_decided_by_itself() {
        let mut namespace = scope(&[]);
        namespace.pools.v6 = Ok(names(&["ours"]));
        let pod = AddressRequest { pools: v4(&["mine"]), ..AddressRequest::default() };
        let all = Dual { v4: names(&["four"]), v6: names(&["six"]) };
        let network = NetworkWish { pools: all, assign: Dual { v4: None, v6: Some(false) } };
        let decide = |namespace: &NamespaceScope| Wish::decide(&pod, Some(namespace), &network).unwrap();
        let sources = |wish: &Wish| Dual::from_fn(|family| wish.pools[family].as_ref().map(|list| list.source.clone()));
        let of_namespace = PoolSource::Namespace("shop".into(), Family::V6);
        let wish = decide(&namespace);
        assert_eq!(sources(&wish), Dual { v4: Some(PoolSource::Pod(Family::V4)), v6: Some(of_namespace.clone()) });
        assert_eq!(of_namespace.to_string(), "annotation cni.projectcalico.org/ipv6pools of namespace shop");
        assert_eq!(sources(&decide(&scope(&[]))).v6, None, "pools of a family that is turned off are none");
    }

    #[test]
    fn a_wrong_annotation_of_the_namespace_hurts_only_pods_that_depend_on_it() {
        let wrong = InvalidRequest::Pool { annotation: "a", family: Family::V4, value: "b/c".into() };
        let namespace = NamespaceScope { pools: Dual { v4: Err(wrong.clone()), v6: Ok(Vec::new()) }, ..scope(&[]) };
        let own = AddressRequest { pools: v4(&["mine"]), ..AddressRequest::default() };
        assert!(Wish::decide(&own, Some(&namespace), &NetworkWish::default()).is_ok());
        assert_eq!(Wish::decide(&AddressRequest::default(), Some(&namespace), &NetworkWish::default()), Err(wrong));
    }
}
