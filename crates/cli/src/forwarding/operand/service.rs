//! A Service as a destination.

use std::net::IpAddr;

use podnet_model::{
    Family, Protocol, Service, ServiceKey,
    service::{Port, ServiceKind},
};
use podnet_planner::trace::{Object, Target};

use super::{ECHO, From, PORT, Question, enter, entry, families, no_family, node_addrs};
use crate::{arguments::forwarding::Ends, forwarding::state::State, report::Failure};

/// Where it is asked at: addresses, all of which are meant with a headless Service, and a port.
struct At {
    addrs: Vec<IpAddr>,
    port: u16,
    protocol: Protocol,
    note: String,
}

/// Which of its ports is asked for.
pub(super) struct Wanted<'a> {
    pub(super) port: Option<&'a str>,
    pub(super) protocol: Option<Protocol>,
    /// None of them: it is pinged.
    pub(super) is_echo: bool,
}

/// The question for a Service, by one of its addresses.
pub(super) fn question(
    state: &State,
    options: &Ends,
    from: From,
    key: &ServiceKey,
    Wanted { port, protocol, is_echo }: Wanted<'_>,
    names: Vec<String>,
) -> Result<Question, Failure> {
    let service = &state.cluster.services()[key];
    let port = match is_echo {
        true => (ECHO.1, ECHO.0, None),
        false => meant(service, port, protocol)?,
    };
    let At { addrs, port, protocol, note } = match from {
        From::World(_) => from_outside(state, options, service, port)?,
        From::Pod(_) | From::Node(_) => from_inside(state, options, service, port)?,
    };
    let families = families(state, &from);
    let mut fitting: Vec<IpAddr> = addrs.iter().copied().filter(|addr| families.contains(&Family::of(addr))).collect();
    if !matches!(service.kind, ServiceKind::Headless) {
        fitting.truncate(1);
    }
    if fitting.is_empty() {
        let what = match addrs.is_empty() {
            true => format!("service {key} has no ready endpoint, and no address of its own"),
            false => format!("service {key} has no address of a family that the sender has"),
        };
        let see = format!("kubectl get endpointslices -n {} -l kubernetes.io/service-name={}", key.namespace, key.name);
        return Err(Failure::new(what).remedy(see));
    }
    let share = 1.0 / fitting.len() as f64;
    let from = enter(state, options, from, fitting.first().copied())?;
    let targets = fitting.into_iter().map(|addr| (Target { addr, protocol, port }, share)).collect();
    let title = format!("{} → {}{note}", options.from, options.to);
    let object = Some(Object::namespaced("service", &key.namespace, &key.name));
    Ok(Question { from, targets, title, names, object, is_echo, stands_in: None })
}

fn from_inside(state: &State, options: &Ends, service: &Service, port: Meant) -> Result<At, Failure> {
    let (port, protocol, _) = port;
    let addrs = match &service.kind {
        ServiceKind::Virtual { cluster_ips } => cluster_ips.iter().map(|addr| addr.0).collect(),
        ServiceKind::Headless => {
            let all = state.cluster.slices_of(&service.key).flat_map(|slice| &slice.endpoints);
            all.filter(|endpoint| endpoint.ready).map(|endpoint| endpoint.addr.0).collect()
        }
        ServiceKind::External { name } => {
            let failure =
                Failure::new(format!("service {} is another name for {name} and has no address", service.key));
            return Err(failure.remedy(format!("podnet trace {} {name}", options.from)));
        }
    };
    Ok(At { addrs, port, protocol, note: String::new() })
}

/// By an address that it was given for others, or else by its port at a node.
fn from_outside(state: &State, options: &Ends, service: &Service, port: Meant) -> Result<At, Failure> {
    let (port, protocol, node_port) = port;
    let given = service.ingress.iter().map(|ingress| ingress.addr).chain(service.external_ips.iter().copied());
    let given: Vec<IpAddr> = given.collect();
    if !given.is_empty() {
        return Ok(At { addrs: given, port, protocol, note: String::new() });
    }
    let Some(node_port) = node_port else {
        let what = format!("service {} cannot be reached from outside: it has no port at nodes", service.key);
        return Err(Failure::new(what).remedy("set its type to NodePort or LoadBalancer"));
    };
    let node = entry(state, options)?;
    let addrs = node_addrs(state, &node)?;
    if addrs.is_empty() {
        return Err(no_family(&options.to));
    }
    Ok(At { addrs, port: node_port, protocol, note: format!(" (port {node_port} of node {node})") })
}

/// A port's number, its protocol, and its port at nodes.
type Meant = (u16, Protocol, Option<u16>);

/// The port that is meant; a number that the Service does not have is asked for as it is.
fn meant(service: &Service, asked: Option<&str>, protocol: Option<Protocol>) -> Result<Meant, Failure> {
    let fits = |port: &&Port| {
        let is_it = asked.is_none_or(|asked| port.port.0.to_string() == asked || port.name.as_str() == asked);
        is_it && protocol.is_none_or(|protocol| port.protocol == protocol)
    };
    let fitting: Vec<_> = service.ports.iter().filter(fits).collect();
    match (fitting.as_slice(), asked) {
        ([first], _) | ([first, ..], Some(_)) => Ok((first.port.0, first.protocol, first.node_port.map(|port| port.0))),
        ([], Some(asked)) if asked.parse::<u16>().is_ok() => {
            Ok((asked.parse().unwrap_or(PORT), protocol.unwrap_or(Protocol::Tcp), None))
        }
        _ => {
            let ports = service.ports.iter().map(|port| format!("{}{}/{}", name_of(port), port.port, port.protocol));
            let ports = ports.collect::<Vec<_>>().join(", ");
            let failure = Failure::new(format!("which port of service {}? It has: {ports}", service.key));
            Err(failure.remedy(format!("svc/{}:PORT", service.key)))
        }
    }
}

fn name_of(port: &Port) -> String {
    match port.name.as_str() {
        "" => String::new(),
        name => format!("{name} "),
    }
}
