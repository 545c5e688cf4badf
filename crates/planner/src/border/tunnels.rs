//! The UDP ports of the nodes' tunnels, into which no pod may send.

use std::collections::{BTreeMap, BTreeSet};

use podnet_model::{Change, EncapMode, Felix, Namespace, NetConf, PoolName, flannel::Backend};

use super::{chains::Names, ranges::edit};
use crate::{
    overlay::VXLAN_PORT,
    ruleset::{Edit, Set},
};

/// What says which tunnels the cluster has. A tunnel is between nodes, whatever family it carries: its port counts for both.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    /// Pools with VXLAN.
    vxlan: BTreeSet<PoolName>,
    net_confs: BTreeMap<Namespace, NetConf>,
    felix: Felix,
}

/// Two sets of ports.
#[derive(Debug)]
pub(super) struct Ports {
    /// Of all tunnels.
    pub(super) all: Set,
    /// Of those that believe whoever sends.
    pub(super) open: Set,
}

impl Tunnels {
    /// Takes a change in and tells what becomes of the sets.
    pub(super) fn take(&mut self, names: &Names, change: &Change) -> Vec<Edit> {
        let before = self.ports();
        if !self.learn(change) {
            return Vec::new();
        }
        let (before, after) = (Ports::from(before), self.sets());
        let mut edits = Vec::new();
        edit(&names.tunnels, &before.all, &after.all, &mut edits);
        edit(&names.open_tunnels, &before.open, &after.open, &mut edits);
        edits
    }

    /// Takes a change in, and tells whether it may matter.
    pub(crate) fn learn(&mut self, change: &Change) -> bool {
        match change {
            Change::Pool(name, pool) => match pool {
                Some(pool) if pool.vxlan != EncapMode::Never => drop(self.vxlan.insert(name.clone())),
                _ => drop(self.vxlan.remove(name)),
            },
            Change::NetConf(namespace, Some(conf)) => drop(self.net_confs.insert(namespace.clone(), *conf)),
            Change::NetConf(namespace, None) => drop(self.net_confs.remove(namespace)),
            Change::Felix(felix) => self.felix = felix.unwrap_or_default(),
            _ => return false,
        }
        true
    }

    pub(super) fn sets(&self) -> Ports {
        self.ports().into()
    }

    /// Whether a tunnel that believes whoever sends has this port.
    pub(crate) fn is_open(&self, port: u16) -> bool {
        let is_open = |conf: &NetConf| match conf.backend {
            Backend::Vxlan { port: at, .. } | Backend::Udp { port: at } => at == port,
            Backend::WireGuard { .. } | Backend::HostGw | Backend::Ipip { .. } | Backend::Alloc => false,
        };
        port == VXLAN_PORT && !self.vxlan.is_empty() || self.net_confs.values().any(is_open)
    }

    /// Those that believe whoever sends, and the others.
    fn ports(&self) -> (BTreeSet<u16>, BTreeSet<u16>) {
        let mut open: BTreeSet<u16> = (!self.vxlan.is_empty()).then_some(VXLAN_PORT).into_iter().collect();
        let mut closed: BTreeSet<u16> = self.felix.wireguard.then_some(self.felix.wireguard_port).into_iter().collect();
        for conf in self.net_confs.values() {
            match conf.backend {
                Backend::Vxlan { port, .. } | Backend::Udp { port } => drop(open.insert(port)),
                Backend::WireGuard { port } => drop(closed.insert(port)),
                Backend::HostGw | Backend::Ipip { .. } | Backend::Alloc => {}
            }
        }
        (open, closed)
    }
}

impl From<(BTreeSet<u16>, BTreeSet<u16>)> for Ports {
    fn from((open, closed): (BTreeSet<u16>, BTreeSet<u16>)) -> Self {
        Self { all: Set::Ports(&open | &closed), open: Set::Ports(open) }
    }
}
