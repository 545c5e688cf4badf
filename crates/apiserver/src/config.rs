//! What the API server is told at start.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};

/// Settings of the embedded API server. Nothing in here is read again after the start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of the keys and certificates; created with mode 0700.
    pub pki_dir: PathBuf,
    /// File of the durable store; created when missing.
    pub store_path: PathBuf,
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// The address that the `kubernetes` Service leads to: one that pods can reach.
    pub advertise: SocketAddr,
    /// More names and addresses for the serving certificate, beside those of `listen`, `advertise` and the Service.
    pub server_names: Vec<String>,
    /// ClusterIPs come from here; the first address is that of the `kubernetes` Service.
    pub service_cidr: Ipv4Net,
    /// IPv6 ClusterIPs of Services that ask for one; none where the cluster has no IPv6.
    pub service_cidr_v6: Option<Ipv6Net>,
    /// Node ports are allocated from here (Kubernetes' default: 30000–32767).
    pub node_port_range: RangeInclusive<u16>,
    /// The cluster's DNS domain, for the names of the `kubernetes` Service in the serving certificate.
    pub cluster_domain: String,
}

impl Config {
    /// Settings that nothing else is said about: files below `directory`, no addresses to listen on, no IPv6, Kubernetes' own range of
    /// node ports, the domain `cluster.local`.
    #[must_use]
    pub fn in_directory(directory: &Path, advertise: SocketAddr, service_cidr: Ipv4Net) -> Self {
        Self {
            pki_dir: directory.join("pki"),
            store_path: directory.join("store.redb"),
            listen: Vec::new(),
            advertise,
            server_names: Vec::new(),
            service_cidr,
            service_cidr_v6: None,
            node_port_range: 30_000..=32_767,
            cluster_domain: "cluster.local".to_owned(),
        }
    }
}
