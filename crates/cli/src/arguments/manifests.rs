//! The options of `podnet manifests`.

use std::{net::Ipv6Addr, str::FromStr};

use clap::Args;
use ipnet::IpNet;

#[derive(Debug, Args)]
pub(crate) struct ManifestsOptions {
    /// An image with podnet and podnet-cni in /usr/local/bin, a shell and, for the modes iptables and ipvs, iptables
    #[arg(long)]
    pub(crate) image: String,
    /// How nodes reach the API server without Services, since these are what podnet serves
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) api_server: ApiServer,
    /// Where pods' addresses come from: an IPPool of it is printed, too (once for each family)
    #[arg(long, value_name = "CIDR")]
    pub(crate) pod_cidr: Vec<IpNet>,
    /// More options of `podnet agent`, after --
    #[arg(last = true, value_name = "OPTION")]
    pub(crate) arguments: Vec<String>,
}

/// Where the API server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiServer {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
}

impl FromStr for ApiServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ALLOWED: &str = "neither HOST:PORT nor [IPV6 ADDRESS]:PORT";
        let (host, port) = text.rsplit_once(':').ok_or(ALLOWED)?;
        let port = port.parse().map_err(|_| ALLOWED)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().map_err(|_| ALLOWED)?.to_string(),
            None => host.to_owned(),
        };
        let is_bracketed = text.starts_with('[');
        if host.is_empty() || host.contains('/') || (host.contains(':') && !is_bracketed) {
            return Err(ALLOWED);
        }
        Ok(Self { host, port })
    }
}
