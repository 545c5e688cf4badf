//! From a Service and its endpoints to the names and records that the specification asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podnet_model::{Endpoint, EndpointSlice, Protocol, Service, service::ServiceKind};
use smallvec::SmallVec;

use super::Entry;
use crate::{
    answer::{Alias, Answer, AnswerBuilder, Owner, Section},
    chain::{ExternalOptions, KubernetesOptions},
    message::rtype,
    name::{BadName, Name},
};

/// What a Service has in a zone.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    /// Names and what stands there.
    pub(super) entries: Vec<(Name, Entry)>,
    /// Addresses, their names, and whether the name is the Service's own.
    pub(super) pointers: Vec<(IpAddr, Name, bool)>,
}

/// A port of a Service, as an SRV record tells it.
type PortKey = (String, &'static str, u16);

/// One endpoint's name and what is behind it.
#[derive(Debug, Default)]
struct Host {
    addrs: BTreeSet<IpAddr>,
    ports: BTreeSet<PortKey>,
}

/// Where an SRV record points to.
struct Target<'a> {
    name: &'a Name,
    addrs: Vec<IpAddr>,
    port: u16,
}

/// The Service's names in the zone `origin`; none when a part of its name cannot be in a name.
pub(super) fn render<'a>(
    origin: &Name,
    options: &KubernetesOptions,
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> Option<Rendered> {
    let base = super::service_name(origin, &service.key)?;
    let hosts = if options.no_endpoints && !options.ignore_empty {
        BTreeMap::new()
    } else {
        endpoints(&base, options, service, slices)
    };
    let mut rendered = Rendered::default();
    match &service.kind {
        ServiceKind::Virtual { .. } if options.ignore_empty && hosts.is_empty() => {}
        ServiceKind::Virtual { .. } => {
            frontend(&base, &frontend_addresses(service), service, options.ttl, &mut rendered);
            if !options.no_endpoints {
                backends(&hosts, options.ttl, &mut rendered);
            }
        }
        ServiceKind::Headless if options.no_endpoints || hosts.is_empty() => {}
        ServiceKind::Headless => {
            headless(&base, &hosts, options.ttl, &mut rendered);
            backends(&hosts, options.ttl, &mut rendered);
        }
        ServiceKind::External { name } => {
            // An address is no name that an alias could point to.
            if name.parse::<IpAddr>().is_err()
                && let Ok(target) = Name::parse(name)
            {
                let alias = Alias { owner: base.clone(), target, ttl: options.ttl };
                rendered.entries.push((base, Entry { sets: SmallVec::new(), alias: Some(alias) }));
            }
        }
    }
    Some(rendered)
}

/// The Service's names in the zone `zone` of `k8s_external`; none when a part of its name cannot be in a name.
pub(super) fn external<'a>(
    zone: &Name,
    options: &ExternalOptions,
    kubernetes: &KubernetesOptions,
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> Option<Rendered> {
    let base = zone.child(service.key.namespace.as_str()).and_then(|parent| parent.child(&service.key.name)).ok()?;
    let mut rendered = Rendered::default();
    let addrs = external_addresses(service);
    let balancer = service.ingress_names.iter().find_map(|name| Name::parse(name).ok());
    if !addrs.is_empty() {
        frontend(&base, &addrs, service, options.ttl, &mut rendered);
    } else if let Some(target) = balancer {
        for port in service.ports.iter().filter(|port| !port.name.as_str().is_empty()) {
            let to = Target { name: &target, addrs: Vec::new(), port: port.port.0 };
            named_port(&base, port.name.as_str(), label(port.protocol), &[to], options.ttl, &mut rendered);
        }
        let alias = Alias { owner: base.clone(), target, ttl: options.ttl };
        rendered.entries.push((base, Entry { sets: SmallVec::new(), alias: Some(alias) }));
    } else if service.kind == ServiceKind::Headless && options.headless && !kubernetes.no_endpoints {
        let hosts = endpoints(&base, kubernetes, service, slices);
        if !hosts.is_empty() {
            headless(&base, &hosts, options.ttl, &mut rendered);
            backends(&hosts, options.ttl, &mut rendered);
        }
    }
    Some(rendered)
}

/// The addresses at which a Service is reached from outside of the cluster: of load balancers, and those that somebody leads there.
pub(super) fn external_addresses(service: &Service) -> Vec<IpAddr> {
    let ingress = service.ingress.iter().map(|ingress| ingress.addr);
    let all: BTreeSet<IpAddr> = ingress.chain(service.external_ips.iter().copied()).collect();
    all.into_iter().collect()
}

/// The Service's own addresses.
pub(super) fn frontend_addresses(service: &Service) -> Vec<IpAddr> {
    match &service.kind {
        ServiceKind::Virtual { cluster_ips } => cluster_ips.iter().map(|ip| ip.0).collect(),
        ServiceKind::Headless | ServiceKind::External { .. } => Vec::new(),
    }
}

/// The address records of a name.
pub(super) fn address_sets(name: &Name, addrs: &[IpAddr], ttl: u32) -> SmallVec<[(u16, Answer); 1]> {
    let families = [(rtype::A, true), (rtype::AAAA, false)];
    let sets = families.into_iter().filter_map(|(rtype, v4)| {
        let mut builder = AnswerBuilder::new(name);
        for addr in addrs.iter().filter(|addr| addr.is_ipv4() == v4) {
            builder.push_addr(Section::Answer, Owner::Question, ttl, *addr);
        }
        let answer = builder.build();
        (answer.counts[0] > 0).then_some((rtype, answer))
    });
    sets.collect()
}

fn frontend(base: &Name, addrs: &[IpAddr], service: &Service, ttl: u32, rendered: &mut Rendered) {
    let target = |port: u16| Target { name: base, addrs: addrs.to_vec(), port };
    let mut sets = address_sets(base, addrs, ttl);
    let all: Vec<_> = service.ports.iter().map(|port| target(port.port.0)).collect();
    sets.extend((!all.is_empty()).then(|| (rtype::SRV, locations(base, &all, ttl))));
    rendered.entries.push((base.clone(), Entry { sets, alias: None }));
    for port in service.ports.iter().filter(|port| !port.name.as_str().is_empty()) {
        named_port(base, port.name.as_str(), label(port.protocol), &[target(port.port.0)], ttl, rendered);
    }
    rendered.pointers.extend(addrs.iter().map(|addr| (*addr, base.clone(), true)));
}

fn headless(base: &Name, hosts: &BTreeMap<Name, Host>, ttl: u32, rendered: &mut Rendered) {
    let addrs: BTreeSet<IpAddr> = hosts.values().flat_map(|host| host.addrs.iter().copied()).collect();
    let addrs: Vec<IpAddr> = addrs.into_iter().collect();
    let mut sets = address_sets(base, &addrs, ttl);
    let mut ports: BTreeMap<(&str, &str), Vec<Target<'_>>> = BTreeMap::new();
    for (name, host) in hosts {
        for (port, protocol, number) in &host.ports {
            let addrs = host.addrs.iter().copied().collect();
            ports.entry((port, protocol)).or_default().push(Target { name, addrs, port: *number });
        }
    }
    for ((port, protocol), targets) in ports.iter().filter(|((port, _), _)| !port.is_empty()) {
        named_port(base, port, protocol, targets, ttl, rendered);
    }
    let all: Vec<Target<'_>> = ports.into_values().flatten().collect();
    sets.extend((!all.is_empty()).then(|| (rtype::SRV, locations(base, &all, ttl))));
    rendered.entries.push((base.clone(), Entry { sets, alias: None }));
}

fn backends(hosts: &BTreeMap<Name, Host>, ttl: u32, rendered: &mut Rendered) {
    for (name, host) in hosts {
        let addrs: Vec<IpAddr> = host.addrs.iter().copied().collect();
        let mut sets = address_sets(name, &addrs, ttl);
        let targets: Vec<_> =
            host.ports.iter().map(|(_, _, port)| Target { name, addrs: addrs.clone(), port: *port }).collect();
        sets.extend((!targets.is_empty()).then(|| (rtype::SRV, locations(name, &targets, ttl))));
        rendered.entries.push((name.clone(), Entry { sets, alias: None }));
        rendered.pointers.extend(addrs.iter().map(|addr| (*addr, name.clone(), false)));
    }
}

/// `_port._protocol.<base>`, and `_protocol.<base>`, which exists because a name below it does (RFC 8020).
fn named_port(base: &Name, port: &str, protocol: &str, targets: &[Target<'_>], ttl: u32, rendered: &mut Rendered) {
    let names = || -> Result<(Name, Name), BadName> {
        let parent = base.child(protocol)?;
        Ok((parent.child(&format!("_{port}"))?, parent))
    };
    let Ok((name, parent)) = names() else { return };
    let sets = std::iter::once((rtype::SRV, locations(&name, targets, ttl))).collect();
    rendered.entries.push((name, Entry { sets, alias: None }));
    if !rendered.entries.iter().any(|(name, _)| name == &parent) {
        rendered.entries.push((parent, Entry::default()));
    }
}

/// SRV records (RFC 2782) of one priority, the weight shared evenly, with the targets' addresses.
fn locations(owner: &Name, targets: &[Target<'_>], ttl: u32) -> Answer {
    let weight = (100 / targets.len().max(1)).max(1) as u16;
    let mut builder = AnswerBuilder::new(owner);
    for target in targets {
        let mut data = Vec::with_capacity(6 + target.name.wire().len());
        for number in [0, weight, target.port] {
            data.extend_from_slice(&number.to_be_bytes());
        }
        data.extend_from_slice(target.name.wire());
        builder.push(Section::Answer, Owner::Question, rtype::SRV, ttl, &data);
    }
    let mut told = BTreeSet::new();
    for target in targets.iter().filter(|target| told.insert(target.name)) {
        let at = if owner.within(target.name) {
            Owner::Ancestor(owner.wire().len() - target.name.wire().len())
        } else {
            Owner::Other(target.name)
        };
        for addr in &target.addrs {
            builder.push_addr(Section::Additional, at, ttl, *addr);
        }
    }
    builder.build()
}

fn endpoints<'a>(
    base: &Name,
    options: &KubernetesOptions,
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> BTreeMap<Name, Host> {
    let mut hosts: BTreeMap<Name, Host> = BTreeMap::new();
    for slice in slices {
        let ports: Vec<PortKey> = slice
            .ports
            .iter()
            .map(|port| (port.name.as_str().to_ascii_lowercase(), label(port.protocol), port.port.0))
            .collect();
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready || service.publish_not_ready) {
            let Ok(name) = base.child(&host_label(endpoint, options)) else { continue };
            let host = hosts.entry(name).or_default();
            host.addrs.insert(endpoint.addr.0);
            host.ports.extend(ports.iter().cloned());
        }
    }
    hosts
}

/// What an endpoint is called: its hostname, its pod's name where the Corefile says so, or its address with dashes.
fn host_label(endpoint: &Endpoint, options: &KubernetesOptions) -> String {
    if let Some(hostname) = endpoint.hostname.as_deref().filter(|hostname| !hostname.is_empty()) {
        return hostname.to_owned();
    }
    if let Some(pod) = endpoint.pod.as_ref().filter(|_| options.endpoint_pod_names) {
        return pod.name.as_ref().to_owned();
    }
    let mut dashed = endpoint.addr.0.to_string().replace(['.', ':'], "-");
    if dashed.ends_with('-') {
        dashed.push('0');
    }
    dashed
}

fn label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "_tcp",
        Protocol::Udp => "_udp",
        Protocol::Sctp => "_sctp",
    }
}
