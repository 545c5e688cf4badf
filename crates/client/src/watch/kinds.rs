//! The kinds that can be watched: how an object becomes a change, and what removes it.

use std::{fmt::Debug, net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node};
use kube::Resource;
use podnet_model::{
    self as model, BlockCidr, Change, PodKey, ServiceKey, SliceKey,
    balancer::AddressPool,
    convert::{Invalid, Partly, is_only_imported},
    crd::{FelixConfiguration, IPAMBlock, IPAMConfig, IPAddressPool, IPPool, IPReservation, StickyAddress},
    excerpt::{EndpointSlice, Pod, Service},
};
use serde::de::DeserializeOwned;

use super::{PROXY_CONFIG_MAP, good::LastGood};

/// An API object that has a model type.
pub(super) trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// A wrong one of this kind leaves in force what it said before: without it the whole network would change. Such a kind has a
    /// [`Watched::keep`] of its own.
    const LAST_GOOD_COUNTS: bool = false;
    /// One of this kind is made in several steps by programs, and means no mistake of anybody's.
    const MAY_BE_UNFINISHED: bool = false;
    /// Clusters do without this kind: where the API server does not have it there is none of it, and nobody waits for it.
    const MAY_BE_UNDEFINED: bool = false;

    /// Whether it is of this kind, but says nothing to who watches it: it counts as not there, and as right.
    fn is_anothers(&self) -> bool {
        false
    }

    /// The object as a change.
    fn present(&self) -> Result<Change, Invalid>;

    /// The object as a change, and what is wrong with parts of it that were left out.
    fn partly_present(&self) -> Result<Partly<Change>, Invalid> {
        self.present().map(|right| Partly { right, faults: Vec::new() })
    }

    /// The change that removes it; none where it has not even a name.
    fn gone(&self) -> Option<Change>;

    /// Keeps the object as it is now, where [`Watched::LAST_GOOD_COUNTS`]. An excerpt of one could not be kept.
    fn keep(&self, _good: &LastGood) {}
}

fn name(object: &impl Resource) -> Option<&str> {
    object.meta().name.as_deref()
}

fn key<K>(object: &impl Resource, new: fn(&str, &str) -> K) -> Option<K> {
    Some(new(object.meta().namespace.as_deref()?, name(object)?))
}

impl Watched for Node {
    const MAY_BE_UNFINISHED: bool = true;

    fn present(&self) -> Result<Change, Invalid> {
        model::Node::try_from(self).map(|node| Change::Node(node.name.clone(), Some(node)))
    }

    fn gone(&self) -> Option<Change> {
        Some(Change::Node(name(self)?.into(), None))
    }
}

impl Watched for Pod {
    fn present(&self) -> Result<Change, Invalid> {
        model::Pod::try_from(self).map(|pod| Change::Pod(pod.key.clone(), Some(pod)))
    }

    fn gone(&self) -> Option<Change> {
        Some(Change::Pod(key(self, PodKey::new)?, None))
    }
}

impl Watched for Service {
    fn present(&self) -> Result<Change, Invalid> {
        self.partly_present().map(|partly| partly.right)
    }

    fn partly_present(&self) -> Result<Partly<Change>, Invalid> {
        let Partly { right: service, faults } = Partly::<model::Service>::try_from(&self.object)?;
        Ok(Partly { right: Change::Service(service.key.clone(), Some(service)), faults })
    }

    fn gone(&self) -> Option<Change> {
        Some(Change::Service(key(self, ServiceKey::new)?, None))
    }
}

/// Those of other clusters' Services belong to none here. Who serves those reads them apart.
impl Watched for EndpointSlice {
    fn is_anothers(&self) -> bool {
        is_only_imported(self)
    }

    fn present(&self) -> Result<Change, Invalid> {
        self.partly_present().map(|partly| partly.right)
    }

    fn partly_present(&self) -> Result<Partly<Change>, Invalid> {
        let Partly { right: slice, faults } = Partly::<model::EndpointSlice>::try_from(self)?;
        Ok(Partly { right: Change::Slice(slice.key.clone(), Some(slice)), faults })
    }

    fn gone(&self) -> Option<Change> {
        Some(Change::Slice(key(self, SliceKey::new)?, None))
    }
}

impl Watched for IPPool {
    fn present(&self) -> Result<Change, Invalid> {
        model::Pool::try_from(self).map(|pool| Change::Pool(pool.name.clone(), Some(pool)))
    }

    fn gone(&self) -> Option<Change> {
        Some(Change::Pool(name(self)?.into(), None))
    }
}

/// While one is written wrongly the Services that have addresses of it keep them.
impl Watched for IPAddressPool {
    const LAST_GOOD_COUNTS: bool = true;
    const MAY_BE_UNDEFINED: bool = true;

    fn present(&self) -> Result<Change, Invalid> {
        let key = key(self, ServiceKey::new).unwrap_or_else(|| ServiceKey::new("", ""));
        AddressPool::try_from(self).map(|pool| Change::AddressPool(key, Some(Arc::new(pool))))
    }

    fn gone(&self) -> Option<Change> {
        Some(Change::AddressPool(key(self, ServiceKey::new)?, None))
    }

    fn keep(&self, good: &LastGood) {
        good.keep(self);
    }
}

impl Watched for IPAMBlock {
    fn present(&self) -> Result<Change, Invalid> {
        model::Block::try_from(self).map(|block| Change::Block(block.cidr, Some(block)))
    }

    fn gone(&self) -> Option<Change> {
        Some(Change::Block(BlockCidr(self.spec.cidr.parse().ok()?), None))
    }
}

impl Watched for Namespace {
    fn present(&self) -> Result<Change, Invalid> {
        model::NamespaceScope::try_from(self).map(|scope| Change::Namespace(scope.name.clone(), Some(scope)))
    }

    fn gone(&self) -> Option<Change> {
        Some(Change::Namespace(name(self)?.into(), None))
    }
}

impl Watched for IPReservation {
    fn present(&self) -> Result<Change, Invalid> {
        let key = name(self).unwrap_or_default().into();
        model::Reservation::try_from(self).map(|reservation| Change::Reservation(key, Some(reservation)))
    }

    fn gone(&self) -> Option<Change> {
        Some(Change::Reservation(name(self)?.into(), None))
    }
}

impl Watched for IPAMConfig {
    fn present(&self) -> Result<Change, Invalid> {
        model::IpamSettings::try_from(self).map(|settings| Change::IpamSettings(Some(settings)))
    }

    fn gone(&self) -> Option<Change> {
        (name(self)? == "default").then_some(Change::IpamSettings(None))
    }
}

impl Watched for FelixConfiguration {
    const LAST_GOOD_COUNTS: bool = true;

    fn present(&self) -> Result<Change, Invalid> {
        model::Felix::try_from(self).map(|felix| Change::Felix(Some(felix)))
    }

    fn gone(&self) -> Option<Change> {
        (name(self)? == "default").then_some(Change::Felix(None))
    }

    fn keep(&self, good: &LastGood) {
        good.keep(self);
    }
}

/// Two of them say something: flannel's and kube-proxy's configuration.
impl Watched for ConfigMap {
    const LAST_GOOD_COUNTS: bool = true;

    fn present(&self) -> Result<Change, Invalid> {
        if is_proxy_config(self) {
            return model::ProxyConfig::try_from(self).map(|config| Change::Proxy(Some(Arc::new(config))));
        }
        let namespace = self.meta().namespace.as_deref().unwrap_or_default().into();
        model::NetConf::try_from(self).map(|conf| Change::NetConf(namespace, Some(conf)))
    }

    fn gone(&self) -> Option<Change> {
        if is_proxy_config(self) {
            return Some(Change::Proxy(None));
        }
        Some(Change::NetConf(self.meta().namespace.as_deref()?.into(), None))
    }

    fn keep(&self, good: &LastGood) {
        good.keep(self);
    }
}

fn is_proxy_config(map: &ConfigMap) -> bool {
    (map.meta().namespace.as_deref(), name(map)) == (Some(PROXY_CONFIG_MAP.0), Some(PROXY_CONFIG_MAP.1))
}

impl Watched for StickyAddress {
    fn present(&self) -> Result<Change, Invalid> {
        let key = self.key().unwrap_or_else(|| PodKey::new("", ""));
        let parse = |field: &str, text: &str, allowed: &str| {
            text.parse::<IpAddr>().map_err(|_| Invalid::Value {
                object: format!("StickyAddress {key}"),
                field: field.to_owned(),
                value: text.to_owned(),
                allowed: allowed.to_owned(),
            })
        };
        let mut addrs = vec![parse("spec.address", &self.spec.address, "an IP address")?];
        if let Some(text) = self.spec.address6.as_deref().filter(|text| !text.is_empty()) {
            addrs.push(parse("spec.address6", text, "an IPv6 address")?);
        }
        Ok(Change::Sticky(key, addrs))
    }

    fn gone(&self) -> Option<Change> {
        Some(Change::Sticky(self.key()?, Vec::new()))
    }
}
