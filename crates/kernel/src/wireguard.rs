//! WireGuard devices and their peers (generic netlink, `linux/wireguard.h`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use podnet_model::{
    LinkName,
    wireguard::{PrivateKey, PublicKey},
};
use podnet_planner::{
    overlay::PeerEnd,
    step::{Peer, Wireguard},
};

use crate::{
    netlink::{
        NetlinkError, Operation,
        attribute::{Writer, attribute, attributes},
        generic::{GenericSocket, body},
    },
    netns::NetNs,
};

const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;

/// `enum wgdevice_attribute`.
mod device {
    pub(super) const NAME: u16 = 2;
    pub(super) const PRIVATE_KEY: u16 = 3;
    pub(super) const LISTEN_PORT: u16 = 6;
    pub(super) const MARK: u16 = 7;
    pub(super) const PEERS: u16 = 8;
}

/// `enum wgpeer_attribute`.
mod peer {
    pub(super) const PUBLIC_KEY: u16 = 1;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const ENDPOINT: u16 = 4;
    pub(super) const RANGES: u16 = 9;

    pub(super) const REMOVE: u32 = 1;
    pub(super) const REPLACE_RANGES: u32 = 2;
}

/// `enum wgallowedip_attribute`.
mod range {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const ADDRESS: u16 = 2;
    pub(super) const PREFIX_LENGTH: u16 = 3;
}

/// A socket for the WireGuard devices of one namespace.
#[derive(Debug)]
pub(crate) struct WireguardSocket {
    socket: GenericSocket,
}

/// A device as the kernel shows it, and its peers.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) key: Option<PrivateKey>,
    pub(crate) port: u16,
    pub(crate) mark: u32,
    pub(crate) peers: BTreeMap<PublicKey, PeerEnd>,
}

impl WireguardSocket {
    /// Opens a socket in a namespace.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, or the kernel has no WireGuard.
    pub(crate) fn open_in(netns: &NetNs) -> Result<Self, NetlinkError> {
        let socket = netns.run(|| GenericSocket::open("wireguard"))??;
        Ok(Self { socket })
    }

    /// Sets key, port and mark of a device that is there.
    ///
    /// # Errors
    /// Why the kernel refused.
    pub(crate) fn set_device(&mut self, wanted: &Wireguard) -> Result<(), NetlinkError> {
        let operation = Operation::new("configure WireGuard device", &wanted.name);
        self.socket.ask(&operation, NLM_F_ACK, SET_DEVICE, |writer| {
            writer.text(device::NAME, wanted.name.as_str());
            writer.bytes(device::PRIVATE_KEY, &wanted.key.0);
            writer.bytes(device::LISTEN_PORT, &wanted.port.to_ne_bytes());
            writer.bytes(device::MARK, &wanted.mark.to_ne_bytes());
        })?;
        Ok(())
    }

    /// Makes or changes a peer. Its ranges are replaced as a whole; for the moment that takes, its packets find no range.
    ///
    /// # Errors
    /// Why the kernel refused.
    pub(crate) fn set_peer(&mut self, wanted: &Peer) -> Result<(), NetlinkError> {
        let operation = Operation::new("set WireGuard peer", format_args!("{} of {}", wanted.key, wanted.device));
        self.change_peer(&operation, wanted, peer::REPLACE_RANGES, |writer| {
            writer.bytes(peer::ENDPOINT, &socket_address(wanted.endpoint));
            writer.nested(peer::RANGES, |writer| {
                for (index, net) in (0..).zip(&wanted.ranges) {
                    writer.nested(index, |writer| write_range(writer, *net));
                }
            });
        })
    }

    /// Removes a peer. Done also where there is none.
    ///
    /// # Errors
    /// Why the kernel refused.
    pub(crate) fn remove_peer(&mut self, unwanted: &Peer) -> Result<(), NetlinkError> {
        let operation =
            Operation::new("remove WireGuard peer", format_args!("{} of {}", unwanted.key, unwanted.device));
        self.change_peer(&operation, unwanted, peer::REMOVE, |_| {})
    }

    fn change_peer(
        &mut self,
        operation: &Operation,
        wanted: &Peer,
        flags: u32,
        rest: impl FnOnce(&mut Writer),
    ) -> Result<(), NetlinkError> {
        self.socket.ask(operation, NLM_F_ACK, SET_DEVICE, |writer| {
            writer.text(device::NAME, wanted.device.as_str());
            writer.nested(device::PEERS, |writer| {
                writer.nested(0, |writer| {
                    writer.bytes(peer::PUBLIC_KEY, &wanted.key.0);
                    writer.bytes(peer::FLAGS, &flags.to_ne_bytes());
                    rest(writer);
                });
            });
        })?;
        Ok(())
    }

    /// A device and its peers. Ranges that are none are not shown.
    ///
    /// # Errors
    /// Where there is no such device.
    pub(crate) fn show(&mut self, name: &LinkName) -> Result<Shown, NetlinkError> {
        let operation = Operation::new("look at WireGuard device", name);
        let frames =
            self.socket.ask(&operation, NLM_F_DUMP, GET_DEVICE, |writer| writer.text(device::NAME, name.as_str()))?;
        let mut shown = Shown::default();
        for (kind, value) in frames.iter().flat_map(|frame| attributes(body(frame))) {
            match kind {
                device::PRIVATE_KEY => shown.key = value.try_into().ok().map(PrivateKey),
                device::LISTEN_PORT => shown.port = u16_of(value).unwrap_or_default(),
                device::MARK => shown.mark = u32_of(value).unwrap_or_default(),
                device::PEERS => attributes(value).for_each(|(_, value)| read_peer(value, &mut shown.peers)),
                _ => {}
            }
        }
        Ok(shown)
    }
}

/// `struct sockaddr_in`, or `struct sockaddr_in6` without flow and scope.
fn socket_address(endpoint: SocketAddr) -> Vec<u8> {
    let mut bytes = family(endpoint.ip()).to_ne_bytes().to_vec();
    bytes.extend(endpoint.port().to_be_bytes());
    match endpoint.ip() {
        IpAddr::V4(addr) => {
            bytes.extend(addr.octets());
            bytes.extend([0; 8]);
        }
        IpAddr::V6(addr) => {
            bytes.extend([0; 4]);
            bytes.extend(addr.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes
}

fn family(addr: IpAddr) -> u16 {
    let number = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u16::try_from(number).unwrap_or_default()
}

fn write_range(writer: &mut Writer, net: IpNet) {
    writer.bytes(range::FAMILY, &family(net.addr()).to_ne_bytes());
    match net.network() {
        IpAddr::V4(addr) => writer.bytes(range::ADDRESS, &addr.octets()),
        IpAddr::V6(addr) => writer.bytes(range::ADDRESS, &addr.octets()),
    }
    writer.bytes(range::PREFIX_LENGTH, &[net.prefix_len()]);
}

/// A peer that does not fit into one message goes on in the next, with its key and more ranges.
fn read_peer(value: &[u8], peers: &mut BTreeMap<PublicKey, PeerEnd>) {
    let Some(key) = attribute(value, peer::PUBLIC_KEY).and_then(|key| key.try_into().ok()).map(PublicKey) else {
        return;
    };
    let ranges = attribute(value, peer::RANGES).into_iter().flat_map(attributes).filter_map(|(_, one)| read_range(one));
    if let Some(known) = peers.get_mut(&key) {
        known.ranges.extend(ranges);
        return;
    }
    let endpoint = attribute(value, peer::ENDPOINT).and_then(read_endpoint);
    // One that was told no address by us is another one.
    let endpoint = endpoint.unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
    peers.insert(key, PeerEnd { endpoint, ranges: ranges.collect::<BTreeSet<_>>() });
}

fn read_endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let is_ipv4 = u16_of(bytes.get(..2)?)? == family(Ipv4Addr::UNSPECIFIED.into());
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let addr = if is_ipv4 {
        IpAddr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?)
    };
    Some(SocketAddr::new(addr, port))
}

fn read_range(value: &[u8]) -> Option<IpNet> {
    let length = *attribute(value, range::PREFIX_LENGTH)?.first()?;
    let bytes = attribute(value, range::ADDRESS)?;
    let addr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| IpAddr::V4(octets.into())),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
        _ => None,
    };
    IpNet::new(addr?, length).ok()
}

fn u16_of(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}
