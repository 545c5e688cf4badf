//! Services and their slices, of which no more is kept than names need: a large cluster has a hundred thousand endpoints.

use std::{collections::BTreeSet, net::IpAddr};

use podnet_model::{
    Endpoint as ModelEndpoint, EndpointSlice, Protocol, Service, endpoints::ImportedSlice, service::ServiceKind,
};

use crate::name::Name;

/// What a Service's object says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Front {
    pub(super) kind: Kind,
    pub(super) ports: Box<[Port]>,
    pub(super) publish_not_ready: bool,
    /// At which addresses and under which name it is reached from outside of the cluster.
    pub(super) outside: Option<Box<Outside>>,
    /// `metadata.labels`.
    labels: PackedLabels,
}

/// Labels of an object: keys and values, each with a zero behind it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PackedLabels(Box<str>);

/// How a Service is reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// At these addresses.
    Virtual(Box<[IpAddr]>),
    /// At its endpoints.
    Headless,
    /// By another name; none where it is no name that an alias could point to.
    External(Option<Name>),
}

/// What others lead to a Service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outside {
    /// Of load balancers, and `externalIPs`.
    pub(super) addrs: Box<[IpAddr]>,
    /// What the load balancer is called.
    pub(super) name: Option<Name>,
}

/// A port that SRV records tell.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    /// In lower case; empty where it has none.
    pub(super) name: Box<str>,
    /// The label of its protocol.
    pub(super) protocol: &'static str,
    pub(super) number: u16,
}

/// An EndpointSlice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) name: Box<str>,
    /// The cluster that it comes from, in lower case; empty for this one.
    pub(super) cluster: Box<str>,
    pub(super) ports: Box<[Port]>,
    /// By address.
    pub(super) endpoints: Box<[Endpoint]>,
    /// Which of them have a hostname, by hostname.
    named: Box<[u32]>,
    /// The zones of the topology that its endpoints are in, in lower case.
    pub(super) zones: Box<[Box<str>]>,
    /// What the endpoints are called, one behind the other.
    texts: Box<str>,
}

/// An endpoint of a slice: its address, and where in the slice's texts its hostname and its pod's name stand.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) addr: IpAddr,
    pub(super) ready: bool,
    hostname: u8,
    pod: u8,
    at: u32,
    /// Which of the slice's zones it is in, from 1 on; 0 where it is in none.
    zone: u16,
}

impl From<&Service> for Front {
    fn from(service: &Service) -> Self {
        let kind = match &service.kind {
            ServiceKind::Virtual { cluster_ips } => Kind::Virtual(cluster_ips.iter().map(|ip| ip.0).collect()),
            ServiceKind::Headless => Kind::Headless,
            // An address is no name that an alias could point to.
            ServiceKind::External { name } => {
                Kind::External(Name::parse(name).ok().filter(|_| name.parse::<IpAddr>().is_err()))
            }
        };
        let ingress = service.ingress.iter().map(|ingress| ingress.addr);
        let addrs: BTreeSet<IpAddr> = ingress.chain(service.external_ips.iter().copied()).collect();
        let name = service.ingress_names.iter().find_map(|name| Name::parse(name).ok());
        let outside = (!addrs.is_empty() || name.is_some())
            .then(|| Box::new(Outside { addrs: addrs.into_iter().collect(), name }));
        let ports = service.ports.iter().map(|port| Port::new(port.name.as_str(), port.protocol, port.port.0));
        Self {
            kind,
            ports: ports.collect(),
            publish_not_ready: service.publish_not_ready,
            outside,
            labels: service.labels.iter().collect(),
        }
    }
}

impl<'a> FromIterator<(&'a String, &'a String)> for PackedLabels {
    fn from_iter<T: IntoIterator<Item = (&'a String, &'a String)>>(labels: T) -> Self {
        let texts = labels.into_iter().flat_map(|(key, value)| [key.as_str(), "\0", value.as_str(), "\0"]);
        Self(texts.collect::<String>().into())
    }
}

impl PackedLabels {
    /// The value of one.
    pub(super) fn value(&self, wanted: &str) -> Option<&str> {
        let mut texts = self.0.split('\0');
        loop {
            let (key, value) = (texts.next()?, texts.next()?);
            if key == wanted {
                return Some(value);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Front {
    /// The value of a label.
    pub(super) fn label(&self, wanted: &str) -> Option<&str> {
        self.labels.value(wanted)
    }

    /// Its own addresses.
    pub(super) fn own_addrs(&self) -> &[IpAddr] {
        if let Kind::Virtual(addrs) = &self.kind { addrs } else { &[] }
    }

    /// Those at which it is reached from outside of the cluster.
    pub(super) fn outside_addrs(&self) -> &[IpAddr] {
        self.outside.as_ref().map_or(&[], |outside| &outside.addrs)
    }

    /// Every address that it is reached at, its endpoints' aside.
    pub(super) fn addrs(&self) -> impl Iterator<Item = IpAddr> {
        self.own_addrs().iter().chain(self.outside_addrs()).copied()
    }
}

impl Port {
    fn new(name: &str, protocol: Protocol, number: u16) -> Self {
        let protocol = match protocol {
            Protocol::Tcp => "_tcp",
            Protocol::Udp => "_udp",
            Protocol::Sctp => "_sctp",
        };
        Self { name: name.to_ascii_lowercase().into(), protocol, number }
    }
}

impl From<&EndpointSlice> for Slice {
    fn from(slice: &EndpointSlice) -> Self {
        let ports = slice.ports.iter().map(|port| Port::new(port.name.as_str(), port.protocol, port.port.0)).collect();
        let (mut texts, mut zones) = (String::new(), Vec::new());
        let mut endpoints: Vec<Endpoint> =
            slice.endpoints.iter().map(|endpoint| Endpoint::new(endpoint, &mut texts, &mut zones)).collect();
        endpoints.sort_by_key(|endpoint| endpoint.addr);
        let mut packed = Self {
            name: (*slice.key.name).into(),
            cluster: Box::default(),
            ports,
            named: Box::default(),
            zones: zones.into(),
            endpoints: endpoints.into(),
            texts: texts.into(),
        };
        let all = packed.endpoints.iter().zip(0..);
        let mut named: Vec<u32> = all.filter(|(endpoint, _)| endpoint.hostname > 0).map(|(_, index)| index).collect();
        named.sort_by_key(|index| packed.hostname(&packed.endpoints[*index as usize]));
        packed.named = named.into();
        packed
    }
}

impl From<&ImportedSlice> for Slice {
    fn from(imported: &ImportedSlice) -> Self {
        Self { cluster: imported.cluster.to_ascii_lowercase().into(), ..Self::from(&imported.slice) }
    }
}

impl Endpoint {
    fn new(endpoint: &ModelEndpoint, texts: &mut String, zones: &mut Vec<Box<str>>) -> Self {
        let at = texts.len() as u32;
        // What is longer than a label is the name of nothing that can be asked for.
        let mut put = |text: Option<&str>| {
            let text = text.filter(|text| text.len() <= crate::name::MAX_LABEL).unwrap_or_default();
            texts.extend(text.chars().map(|c| c.to_ascii_lowercase()));
            text.len() as u8
        };
        let hostname = put(endpoint.hostname.as_deref());
        let pod = put(endpoint.pod.as_ref().map(|pod| &*pod.name));
        let zone = endpoint.zone.as_deref().map_or(0, |zone| {
            let there = zones.iter().position(|known| known.eq_ignore_ascii_case(zone));
            let index = there.unwrap_or_else(|| {
                zones.push(zone.to_ascii_lowercase().into());
                zones.len() - 1
            });
            u16::try_from(index + 1).unwrap_or(0)
        });
        Self { addr: endpoint.addr.0, ready: endpoint.ready, hostname, pod, at, zone }
    }
}

impl Slice {
    /// The endpoints that have an address.
    pub(super) fn at(&self, addr: IpAddr) -> &[Endpoint] {
        let from = self.endpoints.partition_point(|endpoint| endpoint.addr < addr);
        let some = &self.endpoints[from..];
        &some[..some.partition_point(|endpoint| endpoint.addr == addr)]
    }

    /// The endpoints that have a hostname.
    pub(super) fn called(&self, hostname: &str) -> impl Iterator<Item = &Endpoint> {
        let name = |index: &u32| self.hostname(&self.endpoints[*index as usize]);
        let from = self.named.partition_point(|index| name(index) < hostname);
        let some = self.named[from..].iter().take_while(move |index| name(index) == hostname);
        some.map(|index| &self.endpoints[*index as usize])
    }

    /// An endpoint's hostname; empty where it has none.
    pub(super) fn hostname(&self, endpoint: &Endpoint) -> &str {
        self.text(endpoint.at, 0, endpoint.hostname)
    }

    /// The name of an endpoint's pod; empty where it has none.
    pub(super) fn pod(&self, endpoint: &Endpoint) -> &str {
        self.text(endpoint.at, usize::from(endpoint.hostname), endpoint.pod)
    }

    /// The zone of the topology that an endpoint is in.
    pub(super) fn zone(&self, endpoint: &Endpoint) -> Option<&str> {
        Some(self.zones.get(usize::from(endpoint.zone).checked_sub(1)?)?)
    }

    fn text(&self, at: u32, before: usize, size: u8) -> &str {
        let start = at as usize + before;
        self.texts.get(start..start + usize::from(size)).unwrap_or_default()
    }
}
