//! What people write for the two ends of a packet's way.

mod sender;
mod service;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podnet_model::{Family, NodeName, Pod, PodKey, Protocol, ServiceKey};
use podnet_planner::trace::{Object, Source, Target, Trace};

use self::sender::{From, enter, entry, families, source};
use super::{
    names::{self, Answer},
    outside,
    state::State,
};
use crate::{arguments::forwarding::Ends, report::Failure};

/// Where nothing says which port.
const PORT: u16 = 80;
/// What a ping has no need of.
const ECHO: (Protocol, u16) = (Protocol::Udp, 0);
/// Somebody outside of the cluster (addresses for documentation: RFC 5737, RFC 3849).
pub(super) const WORLD: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(203, 0, 113, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// What is asked, understood.
pub(super) struct Question {
    pub(super) from: Source,
    /// Where it goes, each with its share: a headless Service has several addresses.
    pub(super) targets: Vec<(Target, f64)>,
    /// In words.
    pub(super) title: String,
    /// How names became addresses.
    pub(super) names: Vec<String>,
    /// What the destination is.
    pub(super) object: Option<Object>,
    /// It is pinged: protocol and port of the targets mean nothing.
    pub(super) is_echo: bool,
    /// Nobody has the address of the target: for whom it stands.
    pub(super) stands_in: Option<StandsIn>,
}

/// For whom an address stands that nobody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StandsIn {
    /// Somebody of whom no address is known, for this reason.
    Somebody(String),
    /// Nobody: there is no such name, as is said.
    Nobody(String),
}

/// By what a destination is asked for, behind its last slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Transport(Protocol),
    /// A ping (ICMP, ICMPv6).
    Echo,
}

impl By {
    const fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Transport(protocol) => Some(protocol),
            Self::Echo => None,
        }
    }
}

/// A destination without its port.
enum To {
    Pod(PodKey),
    Service(ServiceKey),
    Node(NodeName),
    Addresses(Vec<IpAddr>),
    World(StandsIn),
}

/// Reads both ends.
pub(super) fn read(state: &State, options: &Ends) -> Result<Question, Failure> {
    let (words, port, by) = split(&options.to)?;
    let (is_echo, protocol) = (by == Some(By::Echo), by.and_then(By::protocol));
    if is_echo && port.is_some() {
        return Err(Failure::usage(format!("{:?} asks for an echo at a port: a ping has none", options.to)));
    }
    let mut names = Vec::new();
    let from = source(state, &options.from, &mut names)?;
    let pod = match &from {
        From::Pod(key) => state.cluster.pods().get(key),
        _ => None,
    };
    let to = destination(state, pod, words, &mut names)?;
    let families = families(state, &from);
    let stands_in = match &to {
        To::World(whom) => Some(whom.clone()),
        _ => None,
    };
    let mut object = None;
    let addrs = match &to {
        To::Pod(key) => {
            object = Some(Object::namespaced("pod", &key.namespace, &key.name));
            let pod = &state.cluster.pods()[key];
            let addrs: Vec<IpAddr> = pod.addrs.iter().map(|addr| addr.0).collect();
            one(&addrs, &families).ok_or_else(|| {
                let failure = Failure::new(format!("pod {key} has no address of a family that the sender has"));
                failure.remedy(format!("why it has none: kubectl describe pod {} -n {}", key.name, key.namespace))
            })?
        }
        To::Service(key) => {
            let port = service::Wanted { port, protocol, is_echo };
            return service::question(state, options, from, key, port, names);
        }
        To::Node(name) => {
            object = Some(Object::global("node", name));
            one(&node_addrs(state, name)?, &families).ok_or_else(|| no_family(&options.to))?
        }
        To::Addresses(addrs) => {
            let fitting = addrs.iter().copied().filter(|addr| families.contains(&Family::of(addr)));
            let fitting: Vec<IpAddr> = fitting.collect();
            // That there is none of a family that the sender has is said of the first one.
            if fitting.is_empty() { addrs.iter().copied().take(1).collect() } else { fitting }
        }
        To::World(_) => one(&[WORLD.0.into(), WORLD.1.into()], &families).ok_or_else(|| no_family(&options.to))?,
    };
    let (protocol, port) = match is_echo {
        true => ECHO,
        false => {
            let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| named_port(port)))?;
            (protocol.unwrap_or(Protocol::Tcp), port)
        }
    };
    let share = 1.0 / addrs.len().max(1) as f64;
    let targets: Vec<_> = addrs.into_iter().map(|addr| (Target { addr, protocol, port }, share)).collect();
    let from = enter(state, options, from, targets.first().map(|(target, _)| target.addr))?;
    let title = format!("{} → {}", options.from, options.to);
    Ok(Question { title, from, targets, names, object, is_echo, stands_in })
}

/// A pod that has to be there; `namespace` is that of one that is named without.
pub(super) fn pod(state: &State, text: &str, namespace: Option<&str>) -> Result<PodKey, Failure> {
    match reference(state, &in_namespace(text, namespace)?) {
        Some(To::Pod(key)) => Ok(key),
        _ => {
            let failure = Failure::new(format!("{text:?} is no pod that is there"));
            Err(failure.remedy("pod/[NAMESPACE/]NAME, NAMESPACE/NAME, or -n NAMESPACE NAME"))
        }
    }
}

/// A pod as [`reference`] reads it.
fn in_namespace(text: &str, namespace: Option<&str>) -> Result<String, Failure> {
    let parts: Vec<&str> = text.split('/').collect();
    let (name, own) = match parts[..] {
        [name] | ["pod" | "pods" | "po", name] => (name, None),
        [.., own, name] => (name, Some(own)),
        [] => (text, None),
    };
    match (own, namespace) {
        (Some(own), Some(other)) if own != other => {
            Err(Failure::usage(format!("{text:?} names its namespace, and -n {other} another one")))
        }
        (Some(_), _) => Ok(text.to_owned()),
        (None, _) => Ok(format!("pod/{}/{name}", namespace.unwrap_or("default"))),
    }
}

/// The pods that are named as an end.
pub(super) fn pods_of(state: &State, ends: &Ends) -> Vec<PodKey> {
    let to = split(&ends.to).map(|(words, ..)| words).unwrap_or_default();
    let pod = |text: &str| match reference(state, text) {
        Some(To::Pod(key)) => Some(key),
        _ => None,
    };
    [ends.from.as_str(), to].into_iter().filter_map(pod).collect()
}

fn destination(state: &State, pod: Option<&Pod>, text: &str, told: &mut Vec<String>) -> Result<To, Failure> {
    if text == "world" {
        return Ok(To::World(StandsIn::Somebody("the world is nobody by name".to_owned())));
    }
    if let Ok(addr) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(To::Addresses(vec![addr]));
    }
    if let Some(to) = reference(state, text) {
        return Ok(to);
    }
    if text.contains('/') {
        return Err(nobody(text));
    }
    let resolved = names::resolve(&state.cluster, &state.domain, pod, text);
    let last = resolved.asked.len().saturating_sub(1);
    told.extend(resolved.asked.iter().take(last).map(|name| format!("{name} does not exist")));
    let name = resolved.asked.last().cloned().unwrap_or_default();
    match resolved.answer {
        Answer::Service(key) => {
            told.push(format!("{name} is service {key}"));
            Ok(To::Service(key))
        }
        Answer::Addresses(key, addrs) => {
            told.push(format!("{name} is {} endpoints of the headless service {key}", addrs.len()));
            Ok(To::Service(key))
        }
        Answer::Host(addrs) => {
            told.push(format!("{name} is {}", listed(&addrs)));
            Ok(To::Addresses(addrs))
        }
        Answer::Outside(outside) => match outside::addresses(state, pod, &outside) {
            Ok((server, addrs)) => {
                told.push(format!("{outside} is {}, as cluster DNS at {server} tells the sender", listed(&addrs)));
                Ok(To::Addresses(addrs))
            }
            Err(unknown) => {
                let (why, whom) = match unknown {
                    outside::Unknown::NoSuchName(server) => {
                        let says = format!("cluster DNS at {server}: there is no such name");
                        (says, StandsIn::Nobody(format!("{outside} is no name, says cluster DNS at {server}")))
                    }
                    outside::Unknown::Unanswered(why) => {
                        let whom = StandsIn::Somebody(format!("no address of {outside} is known here ({why})"));
                        (why, whom)
                    }
                };
                told.push(format!(
                    "{outside} is a name outside of the cluster, of which no address is known here ({why}): {} stands for it, which nobody has",
                    WORLD.0
                ));
                Ok(To::World(whom))
            }
        },
        Answer::Nothing => {
            let failure = Failure::new(format!("no name that is asked for exists: {}", resolved.asked.join(", ")));
            Err(failure.remedy("a Service of another namespace is NAME.NAMESPACE; a pod is pod/NAMESPACE/NAME"))
        }
    }
}

fn listed(addrs: &[IpAddr]) -> String {
    addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a text names that is no name of DNS: `pod/…`, `svc/…`, `node/…`, or `NAMESPACE/NAME` of a pod or else of a Service.
fn reference(state: &State, text: &str) -> Option<To> {
    let (kind, rest) = text.split_once('/')?;
    let (namespace, name) = rest.split_once('/').unwrap_or(("default", rest));
    let pod = |namespace: &str, name: &str| {
        let key = PodKey::new(namespace, name);
        state.cluster.pods().contains_key(&key).then_some(To::Pod(key))
    };
    let service = |namespace: &str, name: &str| {
        let key = ServiceKey::new(namespace, name);
        state.cluster.services().contains_key(&key).then_some(To::Service(key))
    };
    match kind {
        "pod" | "pods" | "po" => pod(namespace, name),
        "svc" | "service" | "services" => service(namespace, name),
        "node" | "nodes" | "no" => {
            let name = NodeName::from(rest);
            state.cluster.nodes().contains_key(&name).then_some(To::Node(name))
        }
        namespace => pod(namespace, rest).or_else(|| service(namespace, rest)),
    }
}

fn nobody(text: &str) -> Failure {
    let failure = Failure::new(format!("{text:?} is nothing that is there"));
    failure.remedy("NAMESPACE/NAME of a pod or a Service, pod/[NAMESPACE/]NAME, svc/[NAMESPACE/]NAME, node/NAME, an address, or world")
}

fn no_family(text: &str) -> Failure {
    Failure::new(format!("{text} has no address of a family that the sender has"))
}

fn named_port(port: &str) -> Failure {
    let failure = Failure::new(format!("{port:?} is no port number"));
    failure.remedy("ports have names in Services alone: svc/NAMESPACE/NAME:PORT-NAME")
}

/// `TO[:PORT][/protocol]`.
fn split(text: &str) -> Result<(&str, Option<&str>, Option<By>), Failure> {
    let (text, protocol) = match text.rsplit_once('/') {
        Some((rest, "tcp")) => (rest, Some(By::Transport(Protocol::Tcp))),
        Some((rest, "udp")) => (rest, Some(By::Transport(Protocol::Udp))),
        Some((rest, "sctp")) => (rest, Some(By::Transport(Protocol::Sctp))),
        Some((rest, "icmp")) => (rest, Some(By::Echo)),
        _ => (text, None),
    };
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None, protocol));
    }
    match text.rsplit_once(':') {
        Some((_, "")) => Err(Failure::usage(format!("{text:?} names no port behind its colon"))),
        Some((rest, port)) => Ok((rest, Some(port), protocol)),
        None => Ok((text, None, protocol)),
    }
}

/// The first address of the first family that fits.
fn one(addrs: &[IpAddr], families: &[Family]) -> Option<Vec<IpAddr>> {
    families.iter().find_map(|family| addrs.iter().find(|addr| Family::of(addr) == *family)).map(|addr| vec![*addr])
}

fn node_addrs(state: &State, name: &NodeName) -> Result<Vec<IpAddr>, Failure> {
    let node = state.cluster.nodes().get(name).ok_or_else(|| nobody(&format!("node/{name}")))?;
    Ok([Some(node.addr), node.addr6].into_iter().flatten().map(|addr| addr.0).collect())
}

/// Follows it to each of its destinations.
pub(super) fn follow(state: &State, question: &Question) -> Result<Trace, Failure> {
    follow_from(state, question, std::slice::from_ref(&question.from))
}

/// The same from each of these, one of which is the sender.
pub(super) fn follow_from(state: &State, question: &Question, senders: &[Source]) -> Result<Trace, Failure> {
    let mut paths = Vec::new();
    for sender in senders {
        for (target, share) in &question.targets {
            let trace = match question.is_echo {
                true => state.cluster.ping(sender, target.addr),
                false => state.cluster.trace(sender, *target),
            };
            let trace = trace.map_err(|unknown| Failure::new(unknown.to_string()))?;
            paths.extend(trace.paths.into_iter().map(|mut path| {
                path.share *= share / senders.len() as f64;
                path
            }));
        }
    }
    Ok(Trace { paths })
}

#[cfg(test)]
mod tests;
