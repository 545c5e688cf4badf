//! Through the rules of a node.

use podnet_model::{Family, Protocol, ServiceKey, proxy::Mode};

use super::{super::Kind, Cluster, Entry, Hop, LOOPBACK_MTU, Path, Place, Planned, Traveller, Verdict, at, objects};
use crate::{
    attachments,
    iptables::{endpoint_chain, port_chain},
    ruleset::{
        BackendAddress, FrontendKey, HookPoint, RuleSet,
        walk::{self, Direction, Element, Outcome, Packet, walk_tables},
    },
    services::{Serving, nftables, userspace},
    step::RouteTarget,
    trace::{Object, node::Lookup},
};

impl Cluster {
    /// Sends a packet through the rules of a node, and on by its routes.
    pub(super) fn through(&self, planned: &Planned, direction: Direction, traveller: &Traveller) -> Vec<Path> {
        let target = traveller.target;
        let family = Family::of(&target.addr);
        let asked = FrontendKey { addr: target.addr, protocol: target.protocol, port: target.port };
        let is_unserved = unserved(planned, &asked).is_some();
        let ports = planned.ports.as_ref().map(|ports| &ports[family]);
        // What is not served meets none of the rules of Services, which come first.
        let tables: Vec<&RuleSet> = planned.rules[family].iter().skip(usize::from(is_unserved)).chain(ports).collect();
        let packet = match traveller.is_echo {
            true => Packet::ping(traveller.source, target.addr),
            false => Packet::opening(traveller.source, target.addr, target.protocol, target.port),
        };
        let journey = walk_tables(&tables, &packet, direction, planned);
        let mut paths = Vec::new();
        for (outcome, share) in together(journey.outcomes) {
            let mut way = traveller.clone();
            way.share *= share;
            paths.extend(self.after(planned, &outcome, way));
        }
        paths
    }

    /// What becomes of a packet that met these rules.
    fn after(&self, planned: &Planned, outcome: &Outcome, mut way: Traveller) -> Vec<Path> {
        let asked = FrontendKey { addr: way.target.addr, protocol: way.target.protocol, port: way.target.port };
        let serving = planned.services[Family::of(&asked.addr)].serving(&asked);
        let by_port = outcome.steps.iter().find(|step| attachments::leads(step));
        let is_served = outcome.translated && !way.is_echo && by_port.is_none();
        if is_served || matches!(outcome.verdict, walk::Verdict::Rejected | walk::Verdict::Dropped) {
            way.hops.extend(to_socket(planned, &asked, serving, way.is_own));
        }
        if outcome.translated && way.is_echo && planned.leads(&asked) {
            return vec![answered_apart(planned, &asked, way)];
        }
        if outcome.translated && way.is_echo {
            let taken = taken(planned, &way, outcome).of(self.object_of_cluster_ip(asked.addr));
            way.hops.push(taken);
            way.target.addr = outcome.destination.addr;
        }
        if is_served {
            way.hops.push(translated(planned, &asked, serving, outcome));
            // Who passes connections on sends packets of its own.
            way.is_own |= planned.facts.mode == Mode::Userspace;
            (way.target.addr, way.target.port) = (outcome.destination.addr, outcome.destination.port);
        }
        if let Some(met) = by_port {
            way.hops.push(to_pod(planned, &asked, met, outcome));
            (way.target.addr, way.target.port) = (outcome.destination.addr, outcome.destination.port);
        }
        let whose = || serving.map_or_else(|| format!("{asked}"), |serving| format!("service {}", serving.service));
        let object = || {
            let service = serving.map(|serving| objects::service(&serving.service));
            service.or_else(|| self.object_of_cluster_ip(asked.addr))
        };
        match outcome.verdict {
            walk::Verdict::Accepted => {
                if by_port.is_none()
                    && let Some(serving) = unserved(planned, &asked)
                    && (planned.leads(&asked) || planned.lookup(asked.addr) == Lookup::Own)
                {
                    return vec![refused_unserved(planned, &asked, serving, way)];
                }
                if outcome.masqueraded {
                    way = self.masquerade(planned, outcome, serving, way);
                }
                self.route_on(planned, way)
            }
            walk::Verdict::Rejected => {
                let why = match serving {
                    Some(serving) => {
                        format!("service {} has no ready endpoint for its port {}", serving.service, asked.port)
                    }
                    None if way.is_echo => format!("{} is a ClusterIP that nobody answers for", asked.addr),
                    None => format!("{} is a ClusterIP without port {}/{}", asked.addr, asked.port, asked.protocol),
                };
                vec![way.hop(judged(planned, outcome, object(), "refused at once")).ends(Verdict::Refused, why)]
            }
            walk::Verdict::Dropped => {
                let why = dropped(planned, outcome, &way, &whose());
                vec![way.hop(judged(planned, outcome, object(), "dropped")).ends(Verdict::Lost, why)]
            }
            walk::Verdict::Unreachable => match planned.lookup(way.target.addr) {
                Lookup::Route(_, RouteTarget::Blackhole) => self.route_on(planned, way),
                _ => vec![way.ends(Verdict::NoRoute, format!("node {} has no route", planned.node.name))],
            },
        }
    }

    fn masquerade(
        &self,
        planned: &Planned,
        outcome: &Outcome,
        serving: Option<&Serving>,
        mut way: Traveller,
    ) -> Traveller {
        let Some(addr) = planned.addr(Family::of(&way.target.addr)) else { return way };
        let met = outcome.steps.iter().rev().find(|step| step.hook == HookPoint::Postrouting);
        let marked = outcome.steps.iter().find(|step| step.comment.ends_with(": masquerade"));
        let comment = met.map_or("", |met| met.comment);
        let why = marked.filter(|_| comment == "marked connections").map_or(comment, |mark| mark.comment);
        let hop = Hop::new(place(planned), Kind::Masqueraded, format!("source {} becomes {addr}: {why}", way.source));
        let is_served = outcome.translated && !outcome.steps.iter().any(attachments::leads);
        let object = match outcome.translated {
            true if comment == OUT_OF_THE_CLUSTER => self.object_of_pool(way.source),
            true if is_served => serving.map(|serving| objects::service(&serving.service)),
            // A port of the node leads to it.
            true => self.pod_of(way.target.addr).map(objects::pod),
            false => self.object_of_pool(way.source),
        };
        let of_services = is_served && comment != OUT_OF_THE_CLUSTER;
        let hop = hop.by(met.map(|met| nft(planned, met, of_services)).unwrap_or_default()).of(object);
        let cost = match (planned.facts.mode, outcome.translated) {
            // Who opens a connection anew does that from the node's address.
            (Mode::Userspace, true) if is_served => "nothing more: the connection is the agent's own",
            (_, true) => "nothing more: the entry of connection tracking has both translations",
            (_, false) => TRACKED,
        };
        way.source = addr;
        way.hop(hop.costing(cost))
    }
}

/// The border's rule for pools with `natOutgoing`.
const OUT_OF_THE_CLUSTER: &str = "pods' connections out of the cluster";
/// What a translation costs.
const TRACKED: &str = "an entry of connection tracking; every packet and every answer is translated";

/// Outcomes that differ in nothing but the random choice that led there, with their share.
fn together(outcomes: Vec<Outcome>) -> Vec<(Outcome, f64)> {
    let mut all: Vec<(Outcome, f64)> = Vec::new();
    for outcome in outcomes {
        let share = 1.0 / f64::from(outcome.one_in.max(1));
        let same = |other: &Outcome| {
            (other.verdict, other.destination, other.translated, other.masqueraded)
                == (outcome.verdict, outcome.destination, outcome.translated, outcome.masqueraded)
        };
        match all.iter_mut().find(|(other, _)| same(other)) {
            Some((_, sum)) => *sum += share,
            None => all.push((outcome, share)),
        }
    }
    all
}

fn place(planned: &Planned) -> Place {
    Place::Node(planned.node.name.clone())
}

/// In mode `userspace`: to where the agent's socket is or would be, in the node's network or apart from it.
fn to_socket(planned: &Planned, asked: &FrontendKey, serving: Option<&Serving>, is_own: bool) -> Option<Hop> {
    if planned.facts.mode != Mode::Userspace {
        return None;
    }
    let object = serving.map(|serving| objects::service(&serving.service));
    if planned.leads(asked) {
        let device = userspace::device(Family::of(&asked.addr));
        let hop = Hop::new(place(planned), Kind::Routed, "to where the agent's sockets are").of(object);
        return Some(Hop { device: Some(device.into()), ..hop.by(format!("{} dev {device}", asked.addr)) });
    }
    let hop = Hop::new(place(planned), Kind::Delivered, "to the agent's own socket").of(object);
    (is_own && serving.is_some()).then(|| hop.at("lo".into(), LOOPBACK_MTU))
}

/// The Service whose frontend mode `userspace` leaves closed, as it passes on no SCTP. What goes to such a frontend's address without being led
/// apart passes by, for whoever has the address.
fn unserved<'a>(planned: &'a Planned, asked: &FrontendKey) -> Option<&'a Serving> {
    if planned.facts.mode != Mode::Userspace || asked.protocol != Protocol::Sctp {
        return None;
    }
    planned.services[Family::of(&asked.addr)].serving(asked)
}

/// Where nobody listens, the kernel refuses.
fn refused_unserved(planned: &Planned, asked: &FrontendKey, serving: &Serving, mut way: Traveller) -> Path {
    // Nobody listens at the node's own addresses; what is led apart is led all the same.
    if planned.leads(asked) {
        way.hops.extend(to_socket(planned, asked, Some(serving), way.is_own));
    }
    let refused = Hop::new(place(planned), Kind::Judged, "refused at once: nobody listens");
    let why = format!("mode userspace has no SCTP: service {} is not served; another mode has", serving.service);
    way.hop(refused.of(objects::service(&serving.service))).ends(Verdict::Refused, why)
}

fn translated(planned: &Planned, asked: &FrontendKey, serving: Option<&Serving>, outcome: &Outcome) -> Hop {
    let to = outcome.destination;
    let met = outcome.steps.iter().find(|step| step.matched.iter().any(|found| matches!(found, Element::Backend(..))));
    let rule = met.map(|met| nft(planned, met, true)).unwrap_or_default();
    let rule = match (planned.facts.mode, serving) {
        (Mode::Iptables, Some(serving)) => in_iptables(serving, asked, to),
        (Mode::Ipvs, _) => format!("virtual server {asked}, real server {to}"),
        (Mode::Userspace, _) => format!("the agent's own socket at {asked}"),
        _ => rule,
    };
    let cost = match planned.facts.mode {
        Mode::Userspace => "each connection is opened anew and passed on by the agent",
        _ => TRACKED,
    };
    let what = format!("destination {} becomes {to}", at(asked.addr, asked.port));
    let service = serving.map(|serving| objects::service(&serving.service));
    Hop::new(place(planned), Kind::Translated, what).by(rule).of(service).costing(cost)
}

/// A port of the node leads to a pod, in every mode by the same rules.
fn to_pod(planned: &Planned, asked: &FrontendKey, met: &walk::Hop, outcome: &Outcome) -> Hop {
    let to = outcome.destination;
    let object = match planned.lookup(to.addr) {
        Lookup::Pod(pod) => Some(objects::pod(&pod)),
        _ => None,
    };
    let what = format!("destination {} becomes {to}", at(asked.addr, asked.port));
    let hop = Hop::new(place(planned), Kind::Translated, what).by(nft(planned, met, false)).of(object);
    hop.costing(TRACKED).asking([Entry::Ports(Family::of(&asked.addr))])
}

/// In mode `userspace`: a ClusterIP's echo request, which is led to where the agent's sockets are, and answered there.
fn answered_apart(planned: &Planned, asked: &FrontendKey, way: Traveller) -> Path {
    let led = to_socket(planned, asked, None, way.is_own);
    let answered =
        Hop::new(place(planned), Kind::Delivered, format!("answered at {} by the agent's network", asked.addr));
    let way = Traveller { hops: way.hops.into_iter().chain(led).chain([answered]).collect(), ..way };
    way.ends(Verdict::Arrives, format!("node {}", planned.node.name))
}

/// A ClusterIP's echo request, which the node answers.
fn taken(planned: &Planned, way: &Traveller, outcome: &Outcome) -> Hop {
    let to = outcome.destination.addr;
    let met = outcome.steps.iter().find(|step| step.comment == "pings of ClusterIPs");
    let what = format!("destination {} becomes {to}: the node answers pings of ClusterIPs", way.target.addr);
    Hop::new(place(planned), Kind::Translated, what).by(met.map(|met| nft(planned, met, true)).unwrap_or_default())
}

fn in_iptables(serving: &Serving, asked: &FrontendKey, to: BackendAddress) -> String {
    let of = |service: &ServiceKey| {
        let chain = port_chain("KUBE-SVC-", service, &serving.port, asked.protocol);
        (chain, endpoint_chain(service, &serving.port, asked.protocol, to))
    };
    let (port, endpoint) = of(&serving.service);
    format!("iptables, table nat: {port} → {endpoint}")
}

fn judged(planned: &Planned, outcome: &Outcome, object: Option<Object>, what: &str) -> Hop {
    let met = outcome.steps.last();
    let of_services = met.is_some_and(|met| is_of_services(planned, met));
    let comment = met.map_or("", |met| met.comment);
    let hop = Hop::new(place(planned), Kind::Judged, format!("{what}: {comment}"));
    hop.by(met.map(|met| nft(planned, met, of_services)).unwrap_or_default()).of(object)
}

/// Whether the rule is of the table of Services, and not of the border's.
fn is_of_services(planned: &Planned, met: &walk::Hop) -> bool {
    planned.rules.v4[0].chains.contains_key(&met.chain) && !met.comment.starts_with("a pod sends")
}

fn dropped(planned: &Planned, outcome: &Outcome, way: &Traveller, whose: &str) -> String {
    let comment = outcome.steps.last().map_or("the rules go in a circle", |met| met.comment);
    let node = &planned.node.name;
    match comment {
        "who may not come" => format!("{} is in none of the loadBalancerSourceRanges of {whose}", way.source),
        "nobody serves it on this node" => {
            format!("a traffic policy Local of {whose} leaves no endpoint on node {node}, and others serve it")
        }
        comment => format!("{comment} (node {node})"),
    }
}

/// A rule of nf_tables as `nft list` names its place.
fn nft(planned: &Planned, met: &walk::Hop, of_services: bool) -> String {
    if planned.ports.as_ref().is_some_and(|ports| ports.v4.chains.contains_key(&met.chain)) {
        return format!("nftables, table {}, {met}", attachments::TABLE);
    }
    let table = if of_services { nftables::TABLE } else { crate::border::TABLE };
    match planned.facts.mode {
        Mode::Nftables | Mode::Ebpf => format!("nftables, table {table}, {met}"),
        // The rule has the same meaning there, and another name.
        mode if of_services => format!("{mode}: {}", met.comment),
        _ => format!("nftables, table {table}, {met}"),
    }
}
