//! What a fresh cluster holds: CRDs, the default pool, cluster DNS.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use podnet_client::apply;
use podnet_model::crd::{
    self, IPAddressPool, IPAddressPoolSpec, IPPool, IPPoolSpec, L2Advertisement, L2AdvertisementSpec,
};
use serde::Deserialize;

use crate::{
    cluster::Cluster,
    report::{Doing, Failure},
};

/// Every object of cluster DNS; `DNS_ADDRESS` stands for the Service's address.
const COREDNS: &str = include_str!("../manifests/coredns.yaml");
/// The ConfigMap by which Services are configured, with the defaults; `CLUSTER_CIDR` stands for pods' ranges.
const KUBE_PROXY: &str = include_str!("../manifests/kube-proxy.yaml");
/// The name that Calico's installers give the first pool.
pub(crate) const DEFAULT_POOL: &str = "default-ipv4-ippool";

/// And the first of IPv6.
pub(crate) const DEFAULT_POOL_V6: &str = "default-ipv6-ippool";

/// The pool of load balancers' addresses, and what announces it.
const LB_POOL: &str = "default";
/// The namespace that it lies in.
const SYSTEM: &str = "kube-system";

/// What the agents need before a node can be ready.
pub(crate) async fn install_network(client: &Client, cluster: &Cluster) -> Result<(), Failure> {
    for definition in crd::definitions().into_iter().chain(crd::balancer_definitions()) {
        install_definition(client, definition).await?;
    }
    for object in objects(&proxy_config(cluster))? {
        apply::create_dynamic(client, object).await.doing(|| "cannot create ConfigMap kube-proxy".into())?;
    }
    create_pool(client, DEFAULT_POOL, cluster.pod_cidr.to_string(), 26).await?;
    match cluster.pod_cidr_v6 {
        Some(cidr) => create_pool(client, DEFAULT_POOL_V6, cidr.to_string(), 122).await,
        None => Ok(()),
    }
}

/// Where load balancers' addresses come from, and that nodes announce them. Until the API server serves these kinds, a moment after they
/// are defined, this fails.
pub(crate) async fn install_balancer_pool(client: &Client, cluster: &Cluster) -> Result<(), Failure> {
    let addresses = cluster.lb_ranges();
    if addresses.is_empty() {
        return Ok(());
    }
    let pool = IPAddressPool::new(LB_POOL, IPAddressPoolSpec { addresses, ..IPAddressPoolSpec::default() });
    let spec = L2AdvertisementSpec { ip_address_pools: vec![LB_POOL.to_owned()], ..L2AdvertisementSpec::default() };
    let advertisement = L2Advertisement::new(LB_POOL, spec);
    apply::create_if_missing(client, SYSTEM, &pool).await.doing(|| format!("cannot create IPAddressPool {LB_POOL}"))?;
    let announced = apply::create_if_missing(client, SYSTEM, &advertisement).await;
    announced.doing(|| format!("cannot create L2Advertisement {LB_POOL}"))
}

async fn create_pool(client: &Client, name: &str, cidr: String, block_size: i64) -> Result<(), Failure> {
    let pool = pool(name, cidr, block_size);
    apply::create_if_missing_cluster(client, &pool).await.doing(|| format!("cannot create IPPool {name}"))
}

/// A pool for every node, with VXLAN between nodes and masquerading of what leaves it.
pub(crate) fn pool(name: &str, cidr: String, block_size: i64) -> IPPool {
    let spec = IPPoolSpec {
        cidr,
        block_size: Some(block_size),
        vxlan_mode: Some("Always".to_owned()),
        nat_outgoing: Some(true),
        node_selector: Some("all()".to_owned()),
        ..IPPoolSpec::default()
    };
    IPPool::new(name, spec)
}

/// Cluster DNS, installed when every node is there, so that its replicas are spread over them.
pub(crate) async fn install_dns(client: &Client, cluster: &Cluster) -> Result<(), Failure> {
    for object in manifest(cluster)? {
        let name = object.metadata.name.clone().unwrap_or_default();
        apply::create_dynamic(client, object).await.doing(|| format!("cannot create {name} of cluster DNS"))?;
    }
    Ok(())
}

async fn install_definition(client: &Client, definition: CustomResourceDefinition) -> Result<(), Failure> {
    let name = definition.metadata.name.clone().unwrap_or_default();
    apply::create_or_replace_definition(client, definition).await.doing(|| format!("cannot install CRD {name}"))
}

fn manifest(cluster: &Cluster) -> Result<Vec<kube::core::DynamicObject>, Failure> {
    objects(&COREDNS.replace("DNS_ADDRESS", &cluster.dns_address().to_string()))
}

fn proxy_config(cluster: &Cluster) -> String {
    let six = cluster.pod_cidr_v6.map(|cidr| format!(",{cidr}")).unwrap_or_default();
    let config = KUBE_PROXY.replace("CLUSTER_CIDR", &format!("{}{six}", cluster.pod_cidr));
    match cluster.proxy_mode {
        Some(mode) => config.replace("mode: \"\"", &format!("mode: \"{mode}\"")),
        None => config,
    }
}

fn objects(manifest: &str) -> Result<Vec<kube::core::DynamicObject>, Failure> {
    serde_norway::Deserializer::from_str(manifest)
        .map(|document| {
            kube::core::DynamicObject::deserialize(document).doing(|| "a built-in manifest is damaged".into())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use podnet_model::ProxyConfig;

    use super::*;

    #[test]
    fn cluster_dns_is_found_not_ready_before_it_ends_and_another_one_is_ready_before_that() {
        let all = objects(COREDNS).unwrap();
        let of = |kind: &str| {
            let found = all.iter().find(|one| one.types.as_ref().is_some_and(|types| types.kind == kind));
            &found.unwrap_or_else(|| panic!("no {kind}")).data
        };
        let spec = &of("Deployment")["spec"];
        assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
        let pod = &spec["template"]["spec"];
        let probe = &pod["containers"][0]["readinessProbe"];
        let number = |value: &serde_json::Value| value.as_u64().unwrap();
        let noticed = number(&probe["periodSeconds"]) * number(&probe["failureThreshold"]);
        let corefile = of("ConfigMap")["data"]["Corefile"].as_str().unwrap();
        let lameduck = corefile.split_once("lameduck ").unwrap().1.split_once("s\n").unwrap().0;
        let lameduck: u64 = lameduck.parse().unwrap();
        // A second for everybody to hear of it.
        assert!(noticed + 1 < lameduck && lameduck < number(&pod["terminationGracePeriodSeconds"]));
    }

    #[test]
    fn the_configuration_of_services_is_valid_and_says_the_defaults() {
        let [map] = &objects(&KUBE_PROXY.replace("CLUSTER_CIDR", "10.244.0.0/16,fd00::/56")).unwrap()[..] else {
            panic!("one object")
        };
        let mut config = ProxyConfig::parse(map.data["data"]["config.conf"].as_str().unwrap()).unwrap();
        assert_eq!(config.unused(), []);
        let cluster_cidrs = std::mem::take(&mut config.cluster_cidrs);
        assert!(cluster_cidrs.v4.is_some() && cluster_cidrs.v6.is_some());
        assert_eq!(config, ProxyConfig::default());
    }
}
