//! The same cluster to a node on which kube-proxy's configuration says more: NodePorts are not at the address by which the node is known but at
//! another one that it has (`nodePortAddresses`), and all that goes to a ClusterIP is masqueraded (`masqueradeAll`).

use std::net::{IpAddr, Ipv4Addr};

use podnet_model::{NodeAddr, ProxyConfig, proxy};

use super::{
    Row,
    cluster::range,
    read,
    six::{self, range_six, six},
};
use crate::{
    border::BorderConfig,
    services::{NodePortAddresses, ServicesConfig},
};

/// The other address of node1, `second1` in the rows.
pub const SECOND: Ipv4Addr = Ipv4Addr::new(172, 29, 8, 11);

/// What it is in, and no other address of a node.
const RANGE: &str = "172.29.8.0/24";

/// As the [table](super::table) has them; all are of the node that has two addresses.
const TABLE: &str = "
# NodePorts at the address that the configuration allows, as they would be at the first one.
node1 @visitor second1:30080       ⇒ shop1:8080! shop2:8080!
node1 @node2   second1:30443       ⇒ shop1:8443! shop2:8443!
node1 client1  second1:30080       ⇒ shop1:8080 shop2:8080
node1 shop1    second1:30080       ⇒ shop1:8080! shop2:8080
node1 host     second1:30080       ⇒ shop1:8080! shop2:8080!
node1 @visitor second1:30514/udp   ⇒ log2:514!
node1 client1  second1:30514/udp   ⇒ log2:514
node1 @visitor second1:30076/sctp  ⇒ web1:3868! web3:3868!
node1 @visitor second1:30054       ⇒ web1:8080 shop1:8080
node1 @visitor second1:30040       ⇒ rejected
node1 @visitor second1:22          ⇒ direct
# At the others the ports are the node's own.
node1 @visitor node1:30080         ⇒ direct
node1 client1  node1:30080         ⇒ direct

# To a ClusterIP all have the node's address, pods too; to other addresses they keep theirs.
node1 client1  web:80              ⇒ web1:8080! web2:8080! web3:8080!
node1 web1     web:80              ⇒ web1:8080! web2:8080! web3:8080!
node1 client1  dns:53/udp          ⇒ dns1:5353! dns2:5353!
node1 client1  signal:3868/sctp    ⇒ web2:3868!
node1 @client2 web:80              ⇒ web1:8080! web2:8080! web3:8080!
node1 client1  lb-ip:80            ⇒ web1:8080 web2:8080 web3:8080
";

/// The rows, of both families.
///
/// # Panics
/// Where a row cannot be read: the table is part of this module.
#[must_use]
pub fn rows() -> Vec<Row> {
    let rows = read(TABLE);
    rows.iter().cloned().chain(rows.iter().cloned().map(six::row_six)).collect()
}

/// What the node is told when it starts.
#[must_use]
pub fn config(node: &str) -> (ServicesConfig, BorderConfig) {
    with(super::config(node), SECOND.into())
}

/// The same by IPv6.
#[must_use]
pub fn config_six(node: &str) -> (ServicesConfig, BorderConfig) {
    with(six::config(node), six(SECOND.into()))
}

/// kube-proxy's configuration that says so.
pub(super) fn proxy() -> ProxyConfig {
    let mut config = ProxyConfig::default();
    config.node_port_addresses = proxy::NodePortAddresses::Within(vec![range(RANGE), range_six(range(RANGE))]);
    config.iptables.masquerade_all = true;
    config.nftables.masquerade_all = true;
    config
}

fn with((services, border): (ServicesConfig, BorderConfig), second: IpAddr) -> (ServicesConfig, BorderConfig) {
    let mut node_addrs = services.node_addrs.clone();
    node_addrs.push(NodeAddr(second));
    let services = ServicesConfig {
        node_addrs: node_addrs.clone(),
        node_port_addresses: NodePortAddresses::Ranges(vec![range(RANGE), range_six(range(RANGE))]),
        loopback: Vec::new(),
        masquerade_all: true,
        ..services
    };
    (services, BorderConfig { node_addrs, ..border })
}
