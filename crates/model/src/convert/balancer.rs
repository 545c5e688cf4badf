//! IPAddressPool and L2Advertisement.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Invalid, Object};
use crate::{
    balancer::{AddressPool, Advertisement, Reserved, Span},
    crd,
    labels::NodeSelector,
};

impl TryFrom<&crd::IPAddressPool> for AddressPool {
    type Error = Invalid;

    fn try_from(pool: &crd::IPAddressPool) -> Result<Self, Invalid> {
        let object = Object::new("IPAddressPool", &pool.metadata);
        let span = |(index, text): (usize, &String)| {
            text.parse::<Span>().map_err(|_| {
                let allowed = "a range such as 192.0.2.0/28 or 192.0.2.10-192.0.2.20";
                object.value(format!("spec.addresses[{index}]"), text, allowed)
            })
        };
        let spans: Vec<Span> = pool.spec.addresses.iter().enumerate().map(span).collect::<Result<_, _>>()?;
        if spans.is_empty() {
            return Err(object.missing("spec.addresses", "at least one range of addresses"));
        }
        let reserved = pool.spec.service_allocation.as_ref().map(|allocation| reserved(&object, allocation));
        Ok(Self {
            name: object.name()?.into(),
            labels: Arc::new(pool.metadata.labels.clone().unwrap_or_default()),
            spans,
            auto_assign: pool.spec.auto_assign.unwrap_or(true),
            avoid_buggy: pool.spec.avoid_buggy_ips.unwrap_or(false),
            reserved: reserved.transpose()?,
        })
    }
}

fn reserved(object: &Object<'_>, allocation: &crd::ServiceAllocation) -> Result<Reserved, Invalid> {
    let priority = allocation.priority.unwrap_or(0);
    let field = "spec.serviceAllocation";
    Ok(Reserved {
        priority: u64::try_from(priority)
            .map_err(|_| object.value(format!("{field}.priority"), &priority, "0 or more"))?,
        namespaces: allocation.namespaces.iter().cloned().collect(),
        namespace_selectors: selectors(
            object,
            &format!("{field}.namespaceSelectors"),
            &allocation.namespace_selectors,
        )?,
        service_selectors: selectors(object, &format!("{field}.serviceSelectors"), &allocation.service_selectors)?,
    })
}

impl TryFrom<&crd::L2Advertisement> for Advertisement {
    type Error = Invalid;

    fn try_from(advertisement: &crd::L2Advertisement) -> Result<Self, Invalid> {
        let object = Object::new("L2Advertisement", &advertisement.metadata);
        let spec = &advertisement.spec;
        Ok(Self {
            pools: spec.ip_address_pools.iter().cloned().collect(),
            pool_selectors: selectors(&object, "spec.ipAddressPoolSelectors", &spec.ip_address_pool_selectors)?,
            node_selectors: selectors(&object, "spec.nodeSelectors", &spec.node_selectors)?,
            interfaces: spec.interfaces.iter().cloned().collect(),
        })
    }
}

fn selectors(object: &Object<'_>, field: &str, selectors: &[LabelSelector]) -> Result<Vec<NodeSelector>, Invalid> {
    let convert = |(index, selector): (usize, &LabelSelector)| {
        NodeSelector::of_label_selector(selector).map_err(|operator| {
            let field = format!("{field}[{index}].matchExpressions[].operator");
            object.value(field, &operator, "In, NotIn, Exists or DoesNotExist")
        })
    };
    selectors.iter().enumerate().map(convert).collect()
}
