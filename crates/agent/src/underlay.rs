//! The network that carries the nodes' own packets: which device, which address, which MTU.

pub mod detection;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs, UdpSocket};

use ipnet::IpNet;
use podnet_kernel::{
    addr,
    forwarding::{self, ForwardingError, PROTOCOL_RA},
    link::{self, Link},
    netlink::{NetlinkError, RtSocket},
    route::{self, Target},
    sysctl::{self, SysctlError},
};
use podnet_model::{Dual, Family, LinkName};
use podnet_planner::services::userspace::DEVICE_PREFIX;

pub use detection::Detection;
use detection::{Candidate, Circumstances, on_device};

/// What the configuration says about the underlay.
#[derive(Clone, Debug, Default)]
pub struct UnderlaySettings {
    /// How the node's address is found. A node that has none of IPv4 has one of IPv6.
    pub detection: Detection,
    /// How its address by IPv6 is found; none takes the first on the device of the other one.
    pub detection6: Option<Detection>,
    /// The address that peers shall use instead (they may reach the node through NAT): flannel's `--public-ip`.
    pub public_ip: Option<Ipv4Addr>,
    /// The MTU of pods' interfaces; none lets it follow from the underlay and the encapsulation.
    pub pod_mtu: Option<u32>,
}

/// This node's place on the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// The device.
    pub device: LinkName,
    /// The node's address there, with its prefix length: who is inside shares the subnet. That of a node without IPv4 is of IPv6.
    pub address: IpNet,
    /// Its address by IPv6, where it has one.
    pub address6: Option<IpNet>,
    /// What peers are told: the addresses, or the public one, with which nobody shares a subnet.
    pub published: Dual<Option<IpNet>>,
    /// The device's MTU in bytes.
    pub mtu: u32,
}

/// Finds the node's place, again and again: the node's devices and addresses change.
#[derive(Clone, Debug)]
pub struct Finder {
    settings: UnderlaySettings,
    /// What `can-reach` names, resolved once: later the name may depend on the very network that is looked for.
    destination: Dual<Option<IpAddr>>,
}

/// Why the underlay cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// No device was named, and none has a default route.
    #[error("no device leads to the other nodes: there is no default route; name the device with --underlay-device")]
    NoDevice,
    /// The device is missing.
    #[error("there is no device {0}; name the one that leads to the other nodes with --underlay-device")]
    Missing(LinkName),
    /// The device has no address.
    #[error("device {0} has no IPv4 or IPv6 address that other nodes could reach")]
    NoAddress(LinkName),
    /// No address fits the method.
    #[error("no device that is up has an address that {method} finds; there are {}", devices.join(", "))]
    NothingFits {
        /// The method.
        method: String,
        /// The devices and their addresses.
        devices: Vec<String>,
    },
    /// The kernel refused.
    #[error("cannot ask the kernel for its devices")]
    Netlink(#[from] NetlinkError),
    /// A kernel setting cannot be made.
    #[error("cannot prepare the node for routing")]
    Sysctl(#[from] SysctlError),
    /// The node cannot be made to forward IPv6.
    #[error("cannot prepare the node for routing IPv6")]
    Forwarding(#[from] ForwardingError),
}

impl Finder {
    /// For these settings. Resolves the name that `can-reach` may have, which takes as long as it takes.
    #[must_use]
    pub fn new(settings: UnderlaySettings) -> Self {
        let by_v6 = settings.detection6.as_ref().unwrap_or(&settings.detection);
        let methods = Dual { v4: &settings.detection, v6: by_v6 };
        let destination = Dual::from_fn(|family| match methods[family] {
            Detection::CanReach(name) => name.parse().ok().or_else(|| resolved(family, name)),
            _ => None,
        });
        Self { settings, destination }
    }

    /// Whether the node's `InternalIP`s matter.
    #[must_use]
    pub const fn needs_internal(&self) -> bool {
        let Self { settings: UnderlaySettings { detection, detection6, .. }, .. } = self;
        matches!(detection, Detection::KubernetesInternalIp)
            || matches!(detection6, Some(Detection::KubernetesInternalIp))
    }

    /// Looks at the node's devices; `internal` are its `InternalIP`s, where those are known.
    ///
    /// # Errors
    ///
    /// When there is no such device or it has no address.
    pub fn find(&self, internal: Dual<Option<IpAddr>>) -> Result<Underlay, UnderlayError> {
        let mut socket = RtSocket::open()?;
        let mut links = link::list(&mut socket)?;
        links.retain(|link| !is_ours(link.name.as_str()));
        links.sort_by_key(|link| link.index);
        let default_device = match self.settings.detection {
            Detection::DefaultRoute => Some(default_device(&mut socket)?.name),
            _ => None,
        };
        let addrs = addr::list_lasting(&mut socket)?;
        let of = |index: u32| {
            let on_it = addrs.iter().filter(|(device, _)| *device == index).map(|(_, addr)| *addr);
            // The kernel lists the newest of IPv6 first; a node shall not move because somebody gives it another address.
            let (mut of_device, v6): (Vec<IpNet>, Vec<IpNet>) = on_it.partition(|addr| addr.addr().is_ipv4());
            of_device.extend(v6.into_iter().rev());
            of_device
        };
        let candidate = |link: &Link| Candidate { name: link.name.clone(), is_up: link.is_up, addrs: of(link.index) };
        let candidates: Vec<Candidate> = links.iter().map(candidate).collect();
        let choose = |method: &Detection, family: Family| {
            let towards = self.destination[family].and_then(source_towards);
            let default_device = default_device.clone();
            method.choose(family, &candidates, &Circumstances { default_device, towards, internal: internal[family] })
        };
        let by_v4 = choose(&self.settings.detection, Family::V4);
        let by_v6 = match (&self.settings.detection6, &by_v4) {
            (Some(method), _) => choose(method, Family::V6),
            (None, Some((device, _))) => on_device(Family::V6, &candidates, device),
            (None, None) => choose(&self.settings.detection, Family::V6),
        };
        let public = self.settings.public_ip.map(|public| IpNet::from(IpAddr::from(public)));
        let address_of = |found: &Option<(LinkName, IpNet)>| found.as_ref().map(|(_, address)| *address);
        let (own4, address6) = (address_of(&by_v4), address_of(&by_v6));
        let published = Dual { v4: own4.map(|own| public.unwrap_or(own)), v6: address6 };
        let (device, address) = by_v4.or(by_v6).ok_or_else(|| self.nothing(&candidates))?;
        let mtu = links.iter().find(|link| link.name == device).map_or(0, |link| link.mtu);
        Ok(Underlay { device, address, address6, published, mtu })
    }

    fn nothing(&self, candidates: &[Candidate]) -> UnderlayError {
        match &self.settings.detection {
            Detection::Device(name) if !candidates.iter().any(|device| device.name == *name) => {
                UnderlayError::Missing(name.clone())
            }
            Detection::Device(name) => UnderlayError::NoAddress(name.clone()),
            method => {
                let devices = candidates.iter().map(|device| format!("{} {:?}", device.name, device.addrs)).collect();
                UnderlayError::NothingFits { method: method.to_string(), devices }
            }
        }
    }
}

/// The address of this node that packets there would have. Nothing is sent.
fn source_towards(destination: IpAddr) -> Option<IpAddr> {
    const DISCARD: u16 = 9;
    let any = match destination {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((destination, DISCARD)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn resolved(family: Family, name: &str) -> Option<IpAddr> {
    let found = (name, 0).to_socket_addrs().ok()?;
    found.map(|addr| addr.ip()).find(|addr| Family::of(addr) == family)
}

impl Underlay {
    /// Whether its device is there and up, and has the address.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub fn stands(&self, socket: &mut RtSocket) -> Result<bool, NetlinkError> {
        let Some(link) = link::find(socket, self.device.as_str())?.filter(|link| link.is_up) else { return Ok(false) };
        Ok(addr::list(socket, link.index)?.contains(&self.address))
    }

    /// Makes the node forward IPv6 too, and go on listening to its routers.
    ///
    /// # Errors
    ///
    /// When a setting cannot be read or made.
    pub fn forward_ipv6(&self) -> Result<(), UnderlayError> {
        Ok(forwarding::forward_ipv6(&mut RtSocket::open()?, Some(&self.device))?)
    }

    /// Makes the node forward, and accept what comes another way than the answer goes: a node's own connection to a pod comes in
    /// through VXLAN, and the answer leaves over the underlay.
    ///
    /// The reverse path filter of a device is the larger of its own and of `all` (`ip-sysctl`), and even the loose one drops
    /// everything on a device without an address, as pods' and VXLAN devices are. So `all` is cleared; what it said is written to the
    /// devices that are there and to `default`, so that no other device is filtered less than before.
    ///
    /// # Errors
    ///
    /// When a setting cannot be read or made.
    pub fn prepare(&self) -> Result<(), UnderlayError> {
        sysctl::set_here("net.ipv4.ip_forward", "1")?;
        let filter = |device: &str| format!("net/ipv4/conf/{device}/rp_filter");
        let level = |text: &str| text.trim().parse::<u8>().unwrap_or(0);
        let all = level(&sysctl::read_here(&filter("all"))?);
        if all == 0 {
            return Ok(());
        }
        let mut socket = RtSocket::open()?;
        let devices =
            link::list(&mut socket)?.into_iter().map(|link| link.name.to_string()).filter(|name| !is_ours(name));
        for device in devices.chain(["default".to_owned()]) {
            let own = level(&sysctl::read_here(&filter(&device))?);
            sysctl::set_here(&filter(&device), &own.max(all).to_string())?;
        }
        sysctl::set_here(&filter("all"), "0")?;
        Ok(())
    }
}

/// Devices that podnet makes: pods' ends and VXLAN.
pub(crate) fn is_ours(device: &str) -> bool {
    device.starts_with("pn") || device.starts_with("podnet") || device.starts_with(DEVICE_PREFIX)
}

fn default_device(socket: &mut RtSocket) -> Result<link::Link, UnderlayError> {
    for protocol in [route::PROTOCOL_STATIC, PROTOCOL_BOOT, PROTOCOL_DHCP, PROTOCOL_RA] {
        let routes = route::list(socket, protocol)?;
        let device = routes.iter().filter(|route| route.dst.prefix_len() == 0).find_map(|route| match route.target {
            Target::Gateway { device, .. } => device,
            Target::Device(device) => Some(device),
            Target::Blackhole => None,
        });
        if let Some(found) = device.map(|index| link::find(socket, index)).transpose()?.flatten() {
            return Ok(found);
        }
    }
    Err(UnderlayError::NoDevice)
}

/// `RTPROT_BOOT`: what `ip route add` makes (`rtnetlink(7)`).
const PROTOCOL_BOOT: u8 = 3;
/// `RTPROT_DHCP`.
const PROTOCOL_DHCP: u8 = 16;

#[cfg(test)]
mod tests;
