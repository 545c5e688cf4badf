//! What was asked of `podnet up`, written down so that every later command agrees on it; and what follows from it.

mod asked;
mod balancer;
mod six;

pub(crate) use asked::overlap;
pub(crate) use balancer::LbPool;

use std::{
    fs,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{
    arguments::{IpFamily, PodLink, ProxyMode},
    layout,
    report::{Doing, Failure, require_root},
};

/// The API server's port.
pub(crate) const API_PORT: u16 = 6443;
/// Where the underlay's subnets come from: subnet K is the K-th /24. Docker's default pools are 172.17–172.31/16 from below, so
/// the upper end is the least likely to be taken; `fabric` checks it against the host's routes all the same.
const UNDERLAY: Ipv4Addr = Ipv4Addr::new(172, 29, 240, 0);

/// A cluster's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) nodes: u8,
    pub(crate) subnets: u8,
    pub(crate) pod_cidr: Ipv4Net,
    /// Where pods' IPv6 addresses come from; none where they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod_cidr_v6: Option<Ipv6Net>,
    pub(crate) service_cidr: Ipv4Net,
    /// Where Services' IPv6 addresses come from; none where pods have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service_cidr_v6: Option<Ipv6Net>,
    /// How pods are joined to their node.
    #[serde(default)]
    pub(crate) pod_link: PodLink,
    /// Where load balancers' addresses come from.
    #[serde(default)]
    pub(crate) lb_pool: LbPool,
    /// The mode of Services that the cluster began with, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proxy_mode: Option<ProxyMode>,
    /// Where each node's agent answers pods' questions for names; none where they ask cluster DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node_local_dns: Option<IpAddr>,
    /// Whether the nodes record flows.
    #[serde(default)]
    pub(crate) flows: bool,
    /// For how many seconds, and in how many bytes of each node, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) flow_retention: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) flow_retention_bytes: Option<u64>,
    /// How many flows the kernel of each node may count at once, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) flow_entries: Option<u32>,
    pub(crate) datastore: Option<PathBuf>,
    /// The binary that `up` was called with: the supervisor starts the processes from it.
    pub(crate) binary: PathBuf,
}

/// One node's place on the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodePlace {
    pub(crate) name: String,
    pub(crate) subnet: usize,
    pub(crate) address: Ipv4Addr,
}

impl Cluster {
    /// The settings of the cluster that is there, if one is.
    pub(crate) fn load() -> Result<Option<Self>, Failure> {
        let path = layout::cluster_file();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .doing(|| format!("{} is damaged", path.display()))
                .map_err(|failure| failure.remedy("begin anew: podnet down, then podnet up")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::because(format!("cannot read {}", path.display()), error)),
        }
    }

    /// As [`Cluster::load`], where there has to be one.
    pub(crate) fn require() -> Result<Self, Failure> {
        Self::load()?.ok_or_else(|| Failure::new("no cluster is up on this machine").remedy("start one: podnet up"))
    }

    pub(crate) fn save(&self) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self).doing(|| "cannot write the settings down".into())?;
        write_private(&layout::cluster_file(), &text)
    }

    /// Which addresses pods have.
    pub(crate) const fn ip_family(&self) -> IpFamily {
        match self.pod_cidr_v6 {
            Some(_) => IpFamily::Dual,
            None => IpFamily::Ipv4,
        }
    }

    /// The ranges of pods, for people.
    pub(crate) fn pod_ranges(&self) -> String {
        match self.pod_cidr_v6 {
            Some(v6) => format!("{} and {v6}", self.pod_cidr),
            None => self.pod_cidr.to_string(),
        }
    }

    /// The ranges of Services, for people.
    pub(crate) fn service_ranges(&self) -> String {
        match self.service_cidr_v6 {
            Some(v6) => format!("{} and {v6}", self.service_cidr),
            None => self.service_cidr.to_string(),
        }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.datastore.clone().unwrap_or_else(|| layout::data("store.redb"))
    }

    pub(crate) fn subnet(&self, index: usize) -> Ipv4Net {
        let base = u32::from(UNDERLAY) + (u32::try_from(index).unwrap_or(0) << 8);
        Ipv4Net::new_assert(Ipv4Addr::from(base), 24)
    }

    /// The router's address on a subnet; on the first one also where the host's route to the others leads.
    pub(crate) fn router(&self, index: usize) -> Ipv4Addr {
        nth(self.subnet(index), 1)
    }

    /// The host's own address on the first subnet.
    pub(crate) fn host_address(&self) -> Ipv4Addr {
        nth(self.subnet(0), 254)
    }

    pub(crate) fn api_addresses(&self) -> [SocketAddr; 2] {
        [Ipv4Addr::LOCALHOST, self.host_address()].map(|address| SocketAddr::new(IpAddr::V4(address), API_PORT))
    }

    /// Where cluster DNS answers: the tenth address of the Services' range, as kubeadm and kubespray choose it.
    pub(crate) fn dns_address(&self) -> Ipv4Addr {
        nth(self.service_cidr, 10)
    }

    /// Where pods ask for names.
    pub(crate) fn nameserver(&self) -> IpAddr {
        self.node_local_dns.unwrap_or(IpAddr::V4(self.dns_address()))
    }

    /// The nodes, dealt to the subnets in turn.
    pub(crate) fn places(&self) -> Vec<NodePlace> {
        (0..self.nodes)
            .map(|index| {
                let subnet = usize::from(index % self.subnets);
                let address = nth(self.subnet(subnet), 11 + u32::from(index / self.subnets));
                NodePlace { name: format!("node{}", index + 1), subnet, address }
            })
            .collect()
    }
}

fn nth(net: Ipv4Net, index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()) + index)
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let what = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).doing(what)?;
    }
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).doing(what)?;
    file.write_all(content).and_then(|()| file.sync_all()).doing(what)?;
    fs::rename(&new, path).doing(what)
}

pub(crate) fn print_kubeconfig() -> Result<(), Failure> {
    require_root("kubeconfig")?;
    Cluster::require()?;
    println!("{}", layout::kubeconfig().display());
    Ok(())
}

pub(crate) fn print_environment() -> Result<(), Failure> {
    require_root("env")?;
    Cluster::require()?;
    println!("export KUBECONFIG={}", layout::kubeconfig().display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(nodes: u8, subnets: u8) -> Cluster {
        Cluster {
            nodes,
            subnets,
            pod_cidr: "10.233.64.0/18".parse().unwrap(),
            pod_cidr_v6: None,
            service_cidr: "10.233.0.0/18".parse().unwrap(),
            service_cidr_v6: None,
            pod_link: PodLink::Veth,
            lb_pool: LbPool::default(),
            proxy_mode: None,
            node_local_dns: None,
            flows: false,
            flow_retention: None,
            flow_retention_bytes: None,
            flow_entries: None,
            datastore: None,
            binary: PathBuf::new(),
        }
    }

    #[test]
    fn nodes_are_dealt_to_the_subnets_in_turn() {
        let places = cluster(3, 2).places();
        let lines: Vec<_> = places.iter().map(|p| format!("{} {} {}", p.name, p.subnet, p.address)).collect();
        assert_eq!(lines, ["node1 0 172.29.240.11", "node2 1 172.29.241.11", "node3 0 172.29.240.12"]);
    }

    #[test]
    fn a_hundred_nodes_stay_clear_of_router_and_host() {
        let one = cluster(100, 1);
        assert!(one.places().iter().all(|place| place.address != one.router(0) && place.address != one.host_address()));
    }

    #[test]
    fn load_balancers_have_addresses_that_no_node_has() {
        let mut many = cluster(100, 1);
        assert_eq!(many.lb_ranges(), ["172.29.240.200-172.29.240.250"]);
        assert!(many.places().iter().all(|place| place.address.octets()[3] < 200));
        many.pod_cidr_v6 = Some("fd00:10:233::/56".parse().unwrap());
        assert_eq!(many.lb_ranges()[1], "fd00:172:29:240::200-fd00:172:29:240::250");
    }

    #[test]
    fn dns_is_the_tenth_service_address() {
        assert_eq!(cluster(3, 1).dns_address(), Ipv4Addr::new(10, 233, 0, 10));
    }
}
