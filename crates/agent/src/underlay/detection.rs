//! Which of a node's addresses its peers shall use.
//!
//! The methods and their spelling are Calico's (`IP_AUTODETECTION_METHOD`) and flannel's (`--iface`, `--iface-regex`,
//! `--iface-can-reach`).

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use podnet_model::LinkName;
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
         skip-interface=REGEX[,REGEX…], cidr=CIDR[,CIDR…] or kubernetes-internal-ip"
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
    /// The node's `InternalIP`.
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
    /// The device and the address; devices come in the order of their indices. None where nothing fits.
    #[must_use]
    pub fn choose(&self, devices: &[Candidate], circumstances: &Circumstances) -> Option<(LinkName, IpNet)> {
        let with = |wanted: IpAddr| by_address(devices, |addr| addr.addr() == wanted);
        match self {
            Self::DefaultRoute => on_device(devices, circumstances.default_device.as_ref()?),
            Self::Device(name) => on_device(devices, name),
            Self::FirstFound => first(devices, is_plain),
            Self::SkipInterface(skipped) => {
                first(devices, |name| is_plain(name) && !skipped.iter().any(|expression| expression.is_match(name)))
            }
            Self::Interface(expressions) => {
                expressions.iter().find_map(|expression| first(devices, |name| expression.is_match(name)))
            }
            Self::Cidr(ranges) => by_address(devices, |addr| ranges.iter().any(|range| range.contains(&addr.addr()))),
            Self::CanReach(_) => with(circumstances.towards?),
            Self::KubernetesInternalIp => with(circumstances.internal?),
            Self::Flannel { names, expressions } => {
                let named = |name: &String| match name.parse() {
                    Ok(addr) => with(addr),
                    Err(_) => on_device(devices, &name.as_str().into()),
                };
                let fitting = |expression: &Regex| {
                    let by_name = first(devices, |name| expression.is_match(name));
                    by_name.or_else(|| by_address(devices, |addr| expression.is_match(&addr.addr().to_string())))
                };
                names.iter().find_map(named).or_else(|| expressions.iter().find_map(fitting))
            }
        }
    }
}

fn on_device(devices: &[Candidate], name: &LinkName) -> Option<(LinkName, IpNet)> {
    first(devices, |device| device == name.as_str())
}

fn first(devices: &[Candidate], wanted: impl Fn(&str) -> bool) -> Option<(LinkName, IpNet)> {
    let fitting = devices.iter().filter(|device| device.is_up && wanted(device.name.as_str()));
    fitting.into_iter().find_map(|device| {
        let addr = device.addrs.iter().find(|addr| is_global(addr))?;
        Some((device.name.clone(), *addr))
    })
}

fn by_address(devices: &[Candidate], wanted: impl Fn(&IpNet) -> bool) -> Option<(LinkName, IpNet)> {
    let all = devices.iter().filter(|device| device.is_up);
    let mut all = all.flat_map(|device| device.addrs.iter().map(move |addr| (device, addr)));
    all.find(|(_, addr)| is_global(addr) && wanted(addr)).map(|(device, addr)| (device.name.clone(), *addr))
}

fn is_plain(name: &str) -> bool {
    !PASSED_OVER.iter().any(|beginning| name.starts_with(beginning))
}

/// Others can send there.
fn is_global(addr: &IpNet) -> bool {
    matches!(addr.addr(), IpAddr::V4(addr) if !addr.is_link_local() && !addr.is_loopback() && !addr.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, addrs: &[&str]) -> Candidate {
        let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
        Candidate { name: name.into(), is_up: true, addrs }
    }

    fn devices() -> Vec<Candidate> {
        vec![
            device("lo", &["127.0.0.1/8", "198.51.100.1/32"]),
            device("docker0", &["172.17.0.1/16"]),
            Candidate { is_up: false, ..device("eth9", &["192.0.2.99/24"]) },
            device("eth0", &["169.254.7.7/16", "192.0.2.11/24"]),
            device("eth1", &["10.0.0.11/8", "203.0.113.11/28"]),
            device("bond0", &["10.9.0.11/16"]),
            device("podnet.vxlan", &["10.1.1.1/32"]),
        ]
    }

    fn found(method: &str) -> Option<String> {
        let circumstances = Circumstances {
            default_device: Some("eth1".into()),
            towards: Some("10.9.0.11".parse().unwrap()),
            internal: Some("203.0.113.11".parse().unwrap()),
        };
        let detection: Detection = method.parse().unwrap();
        detection.choose(&devices(), &circumstances).map(|(device, addr)| format!("{device} {addr}"))
    }

    #[test]
    fn each_method_finds_its_address() {
        for (method, place) in [
            ("first-found", Some("eth0 192.0.2.11/24")),
            ("interface=eth1", Some("eth1 10.0.0.11/8")),
            ("interface=ens.*,bond0,eth.*", Some("bond0 10.9.0.11/16")),
            ("interface=eth9", None),
            ("skip-interface=eth0,eth1", Some("bond0 10.9.0.11/16")),
            ("skip-interface=.*", None),
            ("cidr=203.0.113.0/24", Some("eth1 203.0.113.11/28")),
            ("cidr=100.64.0.0/10,10.9.0.0/16", Some("eth1 10.0.0.11/8")),
            ("can-reach=www.example.org", Some("bond0 10.9.0.11/16")),
            ("kubernetes-internal-ip", Some("eth1 203.0.113.11/28")),
        ] {
            // The range 10.9.0.0/16 does not hold 10.0.0.11.
            let place = if method.starts_with("cidr=100") { Some("bond0 10.9.0.11/16") } else { place };
            assert_eq!(found(method).as_deref(), place, "{method}");
        }
    }

    #[test]
    fn flannels_options_are_tried_in_order() {
        let choose = |names: &[&str], expressions: &[&str]| {
            let detection = Detection::Flannel {
                names: names.iter().map(|name| (*name).to_owned()).collect(),
                expressions: expressions.iter().map(|text| expression(text).unwrap()).collect(),
            };
            detection.choose(&devices(), &Circumstances::default()).map(|(device, addr)| format!("{device} {addr}"))
        };
        assert_eq!(choose(&["eth7", "bond0"], &["eth0"]).as_deref(), Some("bond0 10.9.0.11/16"));
        assert_eq!(choose(&["203.0.113.11"], &[]).as_deref(), Some("eth1 203.0.113.11/28"));
        assert_eq!(choose(&["eth7"], &[r"^203\.", "bond"]).as_deref(), Some("eth1 203.0.113.11/28"));
        assert_eq!(choose(&["eth7"], &["nothing"]), None);
    }

    #[test]
    fn a_method_that_cannot_be_read_is_told_with_what_is_allowed() {
        let error = |text: &str| text.parse::<Detection>().unwrap_err().to_string();
        assert!(error("firstfound").contains("first-found, can-reach=DESTINATION"), "{}", error("firstfound"));
        assert!(error("interface=").contains("there is no autodetection method"));
        assert!(error("interface=eth[").starts_with("\"eth[\" in the autodetection method is no regular expression"));
        assert_eq!(
            error("cidr=10.0.0.0/33").split(';').next(),
            Some("\"10.0.0.0/33\" in the autodetection method is no range")
        );
    }
}
