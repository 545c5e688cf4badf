//! What can vanish.

use std::sync::Arc;

use podnet_model::{BlockCidr, Change, NodeName, PodKey, PoolName, ServiceKey, SliceKey};

/// An object that can be removed, by its kind and key. Much smaller than the change that removes it: there is one for each object of
/// the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Removal {
    Node(NodeName),
    Pod(PodKey),
    Service(ServiceKey),
    Slice(SliceKey),
    Pool(PoolName),
    AddressPool(ServiceKey),
    Block(BlockCidr),
    Namespace(podnet_model::Namespace),
    Reservation(Arc<str>),
    IpamSettings,
    NetConf(podnet_model::Namespace),
    Felix,
    Proxy,
    Sticky(PodKey),
}

impl Removal {
    /// The same by the very names that `change` has: one allocation for what its receiver keeps and for what is kept here.
    pub(super) fn sharing(self, change: &Change) -> Self {
        match change {
            Change::Pod(key, _) => Self::Pod(key.clone()),
            Change::Service(key, _) => Self::Service(key.clone()),
            Change::Slice(key, _) => Self::Slice(key.clone()),
            _ => self,
        }
    }
}

impl From<Change> for Removal {
    fn from(change: Change) -> Self {
        match change {
            Change::Node(name, _) => Self::Node(name),
            Change::Pod(key, _) => Self::Pod(key),
            Change::Service(key, _) => Self::Service(key),
            Change::Slice(key, _) => Self::Slice(key),
            Change::Pool(name, _) => Self::Pool(name),
            Change::AddressPool(key, _) => Self::AddressPool(key),
            Change::Block(cidr, _) => Self::Block(cidr),
            Change::Namespace(name, _) => Self::Namespace(name),
            Change::Reservation(name, _) => Self::Reservation(name),
            Change::IpamSettings(_) => Self::IpamSettings,
            Change::NetConf(namespace, _) => Self::NetConf(namespace),
            Change::Felix(_) => Self::Felix,
            Change::Proxy(_) => Self::Proxy,
            Change::Sticky(key, _) => Self::Sticky(key),
        }
    }
}

impl From<Removal> for Change {
    fn from(removal: Removal) -> Self {
        match removal {
            Removal::Node(name) => Self::Node(name, None),
            Removal::Pod(key) => Self::Pod(key, None),
            Removal::Service(key) => Self::Service(key, None),
            Removal::Slice(key) => Self::Slice(key, None),
            Removal::Pool(name) => Self::Pool(name, None),
            Removal::AddressPool(key) => Self::AddressPool(key, None),
            Removal::Block(cidr) => Self::Block(cidr, None),
            Removal::Namespace(name) => Self::Namespace(name, None),
            Removal::Reservation(name) => Self::Reservation(name, None),
            Removal::IpamSettings => Self::IpamSettings(None),
            Removal::NetConf(namespace) => Self::NetConf(namespace, None),
            Removal::Felix => Self::Felix(None),
            Removal::Proxy => Self::Proxy(None),
            Removal::Sticky(key) => Self::Sticky(key, Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_an_object_has_the_name_that_its_receiver_has() {
        let told = SliceKey::new("test", "web-x");
        let change = Change::Slice(told.clone(), None);
        let removal = Removal::from(Change::Slice(SliceKey::new("test", "web-x"), None));
        let shared = removal.clone().sharing(&change);
        assert_eq!(shared, removal);
        assert!(matches!(&shared, Removal::Slice(key) if Arc::ptr_eq(&key.name, &told.name)));
        assert_eq!(Removal::IpamSettings.sharing(&Change::IpamSettings(None)), Removal::IpamSettings);
    }
}
