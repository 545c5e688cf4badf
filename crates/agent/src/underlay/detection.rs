//! Which of a node's addresses its peers shall use.
//!
//! The methods and their spelling are Calico's (`IP_AUTODETECTION_METHOD`, `IP6_AUTODETECTION_METHOD`) and flannel's (`--iface`, `--iface-regex`,
//! `--iface-can-reach`).

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use podnet_model::{Family, LinkName};
use regex_lite::Regex;

/// How the node's place on the underlay is found.
#[derive(Clone, Debug, Default)]
pub enum Detection {
    /// On the device of the default route.
    #[default]
    DefaultRoute,
    /// On the device of this name.
    Device(LinkName),
    /// On the first device that is none of containers' or bridges'.
    FirstFound,
    /// The address that packets to this destination (an address or a name) would have.
    CanReach(String),
    /// On the first device whose name fits one of these; an earlier expression counts more.
    Interface(Vec<Regex>),
    /// As [`Detection::FirstFound`], without those that fit one of these.
    SkipInterface(Vec<Regex>),
    /// The first address in one of these ranges.
    Cidr(Vec<IpNet>),
    /// The node's `InternalIP`.
    KubernetesInternalIp,
    /// There shall be none (for one family; Calico's `IP6=none`).
    Disabled,
    /// flannel's: the first of these names or addresses that is there, or else the first device that fits one of the expressions.
    Flannel {
        /// `--iface`.
        names: Vec<String>,
        /// `--iface-regex`: names or addresses have to fit.
        expressions: Vec<Regex>,
    },
}

/// A method that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetectionError {
    /// There is no such method.
    #[error(
        "there is no autodetection method {0:?}; it must be first-found, can-reach=DESTINATION, interface=REGEX[,REGEX…], \
         skip-interface=REGEX[,REGEX…], cidr=CIDR[,CIDR…], kubernetes-internal-ip or (for IPv6) none"
    )]
    Unknown(String),
    /// An expression is none.
    #[error("{text:?} in the autodetection method is no regular expression: {reason}")]
    Expression {
        /// The expression.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// A range is none.
    #[error("{0:?} in the autodetection method is no range; it must be for example 192.0.2.0/24")]
    Range(String),
}

/// A regular expression, as the methods' lists hold them.
///
/// # Errors
///
/// What is wrong with it.
pub fn expression(text: &str) -> Result<Regex, DetectionError> {
    Regex::new(text).map_err(|error| DetectionError::Expression { text: text.to_owned(), reason: error.to_string() })
}

impl FromStr for Detection {
    type Err = DetectionError;

    fn from_str(text: &str) -> Result<Self, DetectionError> {
        let (method, argument) = text.split_once('=').unwrap_or((text, ""));
        let list = || argument.split(',').map(str::trim).filter(|part| !part.is_empty());
        let expressions = || list().map(expression).collect::<Result<Vec<_>, _>>();
        match (method, argument.trim()) {
            ("first-found", "") => Ok(Self::FirstFound),
            ("kubernetes-internal-ip", "") => Ok(Self::KubernetesInternalIp),
            ("none", "") => Ok(Self::Disabled),
            ("can-reach", destination) if !destination.is_empty() => Ok(Self::CanReach(destination.to_owned())),
            ("interface", list) if !list.is_empty() => Ok(Self::Interface(expressions()?)),
            ("skip-interface", list) if !list.is_empty() => Ok(Self::SkipInterface(expressions()?)),
            ("cidr", ranges) if !ranges.is_empty() => {
                let range = |text: &str| text.parse().map_err(|_| DetectionError::Range(text.to_owned()));
                Ok(Self::Cidr(list().map(range).collect::<Result<_, _>>()?))
            }
            _ => Err(DetectionError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for Detection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |expressions: &[Regex]| expressions.iter().map(Regex::as_str).collect::<Vec<_>>().join(",");
        match self {
            Self::DefaultRoute => f.write_str("the device of the default route"),
            Self::Device(name) => write!(f, "device {name}"),
            Self::FirstFound => f.write_str("first-found"),
            Self::CanReach(destination) => write!(f, "can-reach={destination}"),
            Self::Interface(expressions) => write!(f, "interface={}", list(expressions)),
            Self::SkipInterface(expressions) => write!(f, "skip-interface={}", list(expressions)),
            Self::Cidr(ranges) => {
                write!(f, "cidr={}", ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
            }
            Self::KubernetesInternalIp => f.write_str("kubernetes-internal-ip"),
            Self::Disabled => f.write_str("none"),
            Self::Flannel { names, expressions } => {
                write!(f, "--iface {} --iface-regex {}", names.join(","), list(expressions))
            }
        }
    }
}

/// A device as detection sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: LinkName,
    /// It is up.
    pub is_up: bool,
    /// Its addresses with their prefix lengths.
    pub addrs: Vec<IpNet>,
}

/// What else detection has to know.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// The device of the default route.
    pub default_device: Option<LinkName>,
    /// The address that packets to the method's destination would have.
    pub towards: Option<IpAddr>,
    /// The node's `InternalIP` of the family.
    pub internal: Option<IpAddr>,
}

/// Beginnings of names that [`Detection::FirstFound`] passes over: of containers, virtual machines, tunnels, and podnet's own.
const PASSED_OVER: [&str; 21] = [
    "lo",
    "docker",
    "cbr",
    "dummy",
    "virbr",
    "lxcbr",
    "veth",
    "cali",
    "tunl",
    "flannel",
    "kube-ipvs",
    "kube-bridge",
    "cni",
    "vxlan",
    "nodelocaldns",
    "br-",
    "podman",
    "pn",
    "podnet",
    "wg",
    "tailscale",
];

impl Detection {
    /// The device and the address of that family; devices come in the order of their indices. None where nothing fits.
    #[must_use]
    pub fn choose(
        &self,
        family: Family,
        devices: &[Candidate],
        circumstances: &Circumstances,
    ) -> Option<(LinkName, IpNet)> {
        let by_address = |wanted: &dyn Fn(&IpNet) -> bool| by_address(family, devices, wanted);
        let with = |wanted: IpAddr| by_address(&|addr| addr.addr() == wanted);
        let on_device = |name: &LinkName| on_device(family, devices, name);
        let first = |wanted: &dyn Fn(&str) -> bool| first(family, devices, wanted);
        match self {
            Self::Disabled => None,
            Self::DefaultRoute => on_device(circumstances.default_device.as_ref()?),
            Self::Device(name) => on_device(name),
            Self::FirstFound => first(&is_plain),
            Self::SkipInterface(skipped) => {
                first(&|name| is_plain(name) && !skipped.iter().any(|expression| expression.is_match(name)))
            }
            Self::Interface(expressions) => {
                expressions.iter().find_map(|expression| first(&|name| expression.is_match(name)))
            }
            Self::Cidr(ranges) => by_address(&|addr| ranges.iter().any(|range| range.contains(&addr.addr()))),
            Self::CanReach(_) => with(circumstances.towards?),
            Self::KubernetesInternalIp => with(circumstances.internal?),
            Self::Flannel { names, expressions } => {
                let named = |name: &String| match name.parse() {
                    Ok(addr) => with(addr),
                    Err(_) => on_device(&name.as_str().into()),
                };
                let fitting = |expression: &Regex| {
                    let by_name = first(&|name| expression.is_match(name));
                    by_name.or_else(|| by_address(&|addr| expression.is_match(&addr.addr().to_string())))
                };
                names.iter().find_map(named).or_else(|| expressions.iter().find_map(fitting))
            }
        }
    }
}

/// The first address of that family on this device.
pub(super) fn on_device(family: Family, devices: &[Candidate], name: &LinkName) -> Option<(LinkName, IpNet)> {
    first(family, devices, |device| device == name.as_str())
}

fn first(family: Family, devices: &[Candidate], wanted: impl Fn(&str) -> bool) -> Option<(LinkName, IpNet)> {
    let fitting = devices.iter().filter(|device| device.is_up && wanted(device.name.as_str()));
    fitting.into_iter().find_map(|device| {
        let addr = device.addrs.iter().find(|addr| is_global(family, addr))?;
        Some((device.name.clone(), *addr))
    })
}

fn by_address(family: Family, devices: &[Candidate], wanted: impl Fn(&IpNet) -> bool) -> Option<(LinkName, IpNet)> {
    let all = devices.iter().filter(|device| device.is_up);
    let mut all = all.flat_map(|device| device.addrs.iter().map(move |addr| (device, addr)));
    all.find(|(_, addr)| is_global(family, addr) && wanted(addr)).map(|(device, addr)| (device.name.clone(), *addr))
}

fn is_plain(name: &str) -> bool {
    !PASSED_OVER.iter().any(|beginning| name.starts_with(beginning))
}

/// It is of that family, and others can send there.
fn is_global(family: Family, addr: &IpNet) -> bool {
    let lasting = match addr.addr() {
        IpAddr::V4(addr) => !addr.is_link_local() && !addr.is_loopback() && !addr.is_unspecified(),
        IpAddr::V6(addr) => !addr.is_unicast_link_local() && !addr.is_loopback() && !addr.is_unspecified(),
    };
    lasting && Family::of_net(addr) == family
}

#[cfg(test)]
mod tests;
