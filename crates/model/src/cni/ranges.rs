//! Local ranges: the keys of the `host-local` plugin, with its meaning.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::InvalidConfig;

/// The key `ipam` of a network whose addresses come from local ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalIpam {
    /// From each of these sets an attachment gets one address, of the first range that has one.
    pub sets: Vec<Vec<Range>>,
    /// Destinations that are reached through the network; none means all.
    pub routes: Vec<AskedRoute>,
    /// Where it is kept who has which address.
    pub data_dir: Option<String>,
}

/// A destination that is reached through the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedRoute {
    /// The destination.
    pub dst: IpNet,
    /// The next hop; none stands for the range's gateway. Only on a shared segment can it be another.
    pub via: Option<IpAddr>,
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The subnet that it is of.
    pub subnet: IpNet,
    /// The first address.
    pub first: IpAddr,
    /// The last address.
    pub last: IpAddr,
    /// The node's own address in the subnet, which nobody else gets.
    pub gateway: IpAddr,
}

const KNOWN: [&str; 9] =
    ["type", "subnet", "rangeStart", "rangeEnd", "gateway", "ranges", "routes", "dataDir", "resolvConf"];
const AT: &str = "ipam";

impl LocalIpam {
    /// Reads the key `ipam` of a configuration, and the runtime's `ipRanges`, which come first.
    ///
    /// # Errors
    ///
    /// The first key that is unknown or has a value that cannot be.
    pub fn parse(config: &Value) -> Result<Self, InvalidConfig> {
        let ipam = &config["ipam"];
        if let Some((key, value)) = ipam.as_object().and_then(|keys| unknown(keys)) {
            let known = KNOWN.join(", ");
            return Err(InvalidConfig::UnknownKey { key: format!("ipam.{key}"), value: value.to_string(), known });
        }
        let mut sets = range_sets(&config["runtimeConfig"]["ipRanges"], "runtimeConfig.ipRanges")?;
        if !ipam["subnet"].is_null() {
            sets.push(vec![Range::parse(ipam, AT)?]);
        }
        sets.extend(range_sets(&ipam["ranges"], "ipam.ranges")?);
        if sets.is_empty() {
            return Err(wrong("ipam", ipam, "it needs a \"subnet\" or \"ranges\""));
        }
        let routes = ipam["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let routes = routes.iter().map(AskedRoute::parse).collect::<Result<_, _>>()?;
        let data_dir = match &ipam["dataDir"] {
            Value::Null => None,
            Value::String(path) if path.starts_with('/') => Some(path.clone()),
            other => return Err(wrong("ipam.dataDir", other, "an absolute path")),
        };
        Ok(Self { sets, routes, data_dir })
    }
}

fn unknown(keys: &Map<String, Value>) -> Option<(&String, &Value)> {
    keys.iter().find(|(key, _)| !KNOWN.contains(&key.as_str()))
}

fn range_sets(value: &Value, at: &str) -> Result<Vec<Vec<Range>>, InvalidConfig> {
    let list = |value: &Value| match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(entries) => Ok(entries.clone()),
        other => Err(wrong(at, other, "a list of lists of ranges")),
    };
    let mut sets = Vec::new();
    for set in list(value)? {
        let ranges = list(&set)?.iter().map(|range| Range::parse(range, at)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = ranges.first() else { return Err(wrong(at, &set, "a set has at least one range")) };
        if ranges.iter().any(|range| range.first.is_ipv4() != first.first.is_ipv4()) {
            return Err(wrong(at, &set, "all ranges of a set are of one address family"));
        }
        sets.push(ranges);
    }
    Ok(sets)
}

impl AskedRoute {
    fn parse(route: &Value) -> Result<Self, InvalidConfig> {
        let dst = route["dst"].as_str().and_then(|text| text.parse::<IpNet>().ok());
        let dst = dst.ok_or_else(|| wrong("ipam.routes[].dst", &route["dst"], "a destination in CIDR notation"))?;
        let via = match &route["gw"] {
            Value::Null => None,
            Value::String(text) if text.is_empty() => None,
            other => {
                let via = other.as_str().and_then(|text| text.parse::<IpAddr>().ok());
                let via = via.filter(|via| via.is_ipv4() == dst.addr().is_ipv4());
                Some(via.ok_or_else(|| wrong("ipam.routes[].gw", other, "an address of the destination's family"))?)
            }
        };
        Ok(Self { dst, via })
    }
}

impl Range {
    fn parse(value: &Value, at: &str) -> Result<Self, InvalidConfig> {
        let key = |name: &str| format!("{at}.{name}");
        let subnet: IpNet = value["subnet"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| wrong(&key("subnet"), &value["subnet"], "a subnet in CIDR notation"))?;
        if subnet.prefix_len() + 2 > subnet.max_prefix_len() {
            return Err(wrong(&key("subnet"), &value["subnet"], "a subnet of at least four addresses"));
        }
        let subnet = subnet.trunc();
        let (lowest, highest) = (number(subnet.network()) + 1, number(subnet.broadcast()));
        // IPv4 has a broadcast address, which nobody can have.
        let highest = if subnet.addr().is_ipv4() { highest - 1 } else { highest };
        let within = |name: &str, default: u128| match &value[name] {
            Value::Null => Ok(default),
            Value::String(text) if text.is_empty() => Ok(default),
            other => {
                let addr: Option<IpAddr> = other.as_str().and_then(|text| text.parse().ok());
                let addr = addr.filter(|addr| subnet.contains(addr));
                addr.map(number).ok_or_else(|| wrong(&key(name), other, "an address of the subnet"))
            }
        };
        let (first, last) = (within("rangeStart", lowest)?.max(lowest), within("rangeEnd", highest)?.min(highest));
        if first > last {
            return Err(wrong(&key("rangeEnd"), &value["rangeEnd"], "not before rangeStart"));
        }
        let address = |number| address(number, subnet.addr().is_ipv4());
        Ok(Self { subnet, first: address(first), last: address(last), gateway: address(within("gateway", lowest)?) })
    }

    fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&addr)
    }
}

/// What a set of ranges can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This address of this range.
    Given(IpAddr, Range),
    /// The address that was asked for is another's.
    Taken(IpAddr),
    /// Nothing: all are taken.
    Full,
}

/// The address that an attachment gets: one of those that it wishes, where one lies in the set; otherwise the first free one after
/// the one that was given last, so that a freed address rests as long as the set allows.
pub fn choose(set: &[Range], wished: &[IpAddr], last: Option<IpAddr>, taken: impl Fn(IpAddr) -> bool) -> Choice {
    let of = |addr: IpAddr| set.iter().find(|range| range.subnet.contains(&addr) && range.gateway != addr);
    if let Some((addr, range)) = wished.iter().find_map(|addr| Some((*addr, *of(*addr)?))) {
        return if taken(addr) { Choice::Taken(addr) } else { Choice::Given(addr, range) };
    }
    let start = last.and_then(|last| set.iter().position(|range| range.contains(last)));
    let first = start.unwrap_or(0);
    // Every range in turn, beginning behind the last address and ending with what lies before it.
    for round in 0..=set.len() {
        let range = set[(first + round) % set.len()];
        let begin = match last {
            Some(last) if round == 0 && range.contains(last) => number(last) + 1,
            _ => number(range.first),
        };
        let mut next = begin;
        while next <= number(range.last) {
            let addr = address(next, range.first.is_ipv4());
            if addr != range.gateway && !taken(addr) {
                return Choice::Given(addr, range);
            }
            next += 1;
        }
    }
    Choice::Full
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u32::from(addr).into(),
        IpAddr::V6(addr) => addr.into(),
    }
}

/// The number is one that [`number`] made of the same family, or lies between two such.
fn address(number: u128, is_v4: bool) -> IpAddr {
    if is_v4 { Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into() } else { Ipv6Addr::from(number).into() }
}

fn wrong(key: &str, value: &Value, allowed: &'static str) -> InvalidConfig {
    InvalidConfig::Value { key: key.to_owned(), value: value.to_string(), allowed }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn sets(ipam: &Value) -> Result<Vec<Vec<Range>>, InvalidConfig> {
        LocalIpam::parse(&json!({"ipam": ipam})).map(|ipam| ipam.sets)
    }

    #[test]
    fn both_ways_to_write_ranges_are_read_and_the_runtimes_come_first() {
        let config = json!({
            "ipam": {
                "type": "host-local", "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.20",
                "gateway": "10.1.0.254", "ranges": [[{"subnet": "fd00::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/var/lib/x",
            },
            "runtimeConfig": {"ipRanges": [[{"subnet": "10.2.0.0/30"}]]},
        });
        let ipam = LocalIpam::parse(&config).unwrap();
        let bounds: Vec<_> = ipam.sets.iter().map(|set| (set[0].first, set[0].last, set[0].gateway)).collect();
        assert_eq!(
            bounds,
            [
                (ip("10.2.0.1"), ip("10.2.0.2"), ip("10.2.0.1")),
                (ip("10.1.0.10"), ip("10.1.0.20"), ip("10.1.0.254")),
                (ip("fd00::1"), ip("fd00::ffff:ffff:ffff:ffff"), ip("fd00::1")),
            ]
        );
        assert_eq!((ipam.routes.len(), ipam.data_dir.as_deref()), (1, Some("/var/lib/x")));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (ipam, named) in [
            (json!({"type": "host-local"}), "needs a \"subnet\""),
            (json!({"subnet": "10.0.0.0/31"}), "at least four addresses"),
            (json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}), "ipam.rangeStart"),
            (json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}), "rangeEnd"),
            (json!({"subnet": "10.0.0.0/24", "gateway": "x"}), "ipam.gateway"),
            (json!({"ranges": [[]]}), "at least one range"),
            (json!({"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]]}), "one address family"),
            (json!({"ranges": {}}), "ipam.ranges"),
            (json!({"subnet": "10.0.0.0/24", "dataDir": "x"}), "absolute"),
            (json!({"subnet": "10.0.0.0/24", "rangestart": "x"}), "ipam.rangestart"),
        ] {
            let error = sets(&ipam).unwrap_err().to_string();
            assert!(error.contains(named), "{ipam}: {error}");
        }
    }

    #[test]
    fn addresses_go_round_and_skip_what_is_taken() {
        let set = &sets(&json!({"ranges": [[{"subnet": "10.0.0.0/29"}, {"subnet": "10.0.1.0/30"}]]})).unwrap()[0];
        let mut taken = BTreeSet::new();
        let mut last = None;
        // The gateways .0.1 and .1.1 are nobody's.
        for expected in ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.1.2"] {
            let Choice::Given(addr, _) = choose(set, &[], last, |addr| taken.contains(&addr)) else { panic!() };
            assert_eq!(addr, ip(expected));
            taken.insert(addr);
            last = Some(addr);
        }
        assert_eq!(choose(set, &[], last, |addr| taken.contains(&addr)), Choice::Full);
        taken.remove(&ip("10.0.0.4"));
        taken.remove(&ip("10.0.0.2"));
        let given = |last: &str| match choose(set, &[], Some(ip(last)), |addr| taken.contains(&addr)) {
            Choice::Given(addr, _) => addr,
            other => panic!("{other:?}"),
        };
        assert_eq!(given("10.0.0.2"), ip("10.0.0.4"));
        assert_eq!(given("10.0.0.4"), ip("10.0.0.2"));
        assert_eq!(given("10.0.1.2"), ip("10.0.0.2"));
        // A range that the configuration no longer has.
        assert_eq!(given("192.0.2.1"), ip("10.0.0.2"));
    }

    #[test]
    fn a_wished_address_is_given_or_refused_and_never_another() {
        let set = &sets(&json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.100"})).unwrap()[0];
        let free = |_| false;
        assert!(matches!(choose(set, &[ip("10.0.0.7")], None, free), Choice::Given(addr, _) if addr == ip("10.0.0.7")));
        assert_eq!(choose(set, &[ip("10.0.0.7")], None, |_| true), Choice::Taken(ip("10.0.0.7")));
        // One of another subnet is another set's.
        assert!(
            matches!(choose(set, &[ip("10.9.0.7")], None, free), Choice::Given(addr, _) if addr == ip("10.0.0.100"))
        );
    }
}
